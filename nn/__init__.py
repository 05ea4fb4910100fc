"""Layers, losses, initialisers and networks over flat vectors. Every backward pass is derived beside its code."""

from . import init
from .activations import GELU, LeakyReLU, LogSoftmax, PReLU, ReLU, Sigmoid, Softmax, Tanh
from .composites import Residual, Sequential
from .convolution import Conv2d
from .dropout import Dropout, Flatten, VariationalDropout
from .embedding import Embedding
from .gradcheck import gradcheck_layer
from .layer import Layer, Run
from .layer_norm import LayerNorm
from .linear import Linear
from .losses import BinaryCrossEntropy, KLDivergence, SoftmaxCrossEntropy, SquaredError
from .network import Network
from .networks import basic_block, language_model, lenet5, mlp, resnet18, resnet20, small_cnn, strided, vgg
from .norms import BatchNorm
from .pooling import AdaptiveAvgPool2d, AvgPool2d, GlobalAvgPool, MaxPool2d
from .profile import Profile
from .recurrent import GRU, LSTM

__all__ = [
    "GRU",
    "LSTM",
    "AdaptiveAvgPool2d",
    "AvgPool2d",
    "BatchNorm",
    "BinaryCrossEntropy",
    "Conv2d",
    "Dropout",
    "Embedding",
    "Flatten",
    "GELU",
    "KLDivergence",
    "GlobalAvgPool",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "LogSoftmax",
    "MaxPool2d",
    "Network",
    "PReLU",
    "Profile",
    "ReLU",
    "Residual",
    "Run",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "SoftmaxCrossEntropy",
    "SquaredError",
    "Tanh",
    "VariationalDropout",
    "basic_block",
    "gradcheck_layer",
    "init",
    "language_model",
    "lenet5",
    "mlp",
    "resnet18",
    "resnet20",
    "small_cnn",
    "strided",
    "vgg",
]
