"""Layers, losses, initialisers and networks over flat vectors. Every backward pass is derived beside its code."""

from . import decoding, init, weights
from .activations import GELU, LeakyReLU, LogSoftmax, PReLU, ReLU, Sigmoid, SiLU, Softmax, Tanh
from .adapters import FLoRA, LoRA, adapted, merged
from .attention import MultiHeadAttention
from .composites import Residual, Sequential
from .convolution import Conv2d
from .dropout import Dropout, Flatten, VariationalDropout
from .embedding import Embedding, StableEmbedding
from .gated import GEGLU, Gated, ReGLU, SwiGLU
from .gradcheck import gradcheck_layer
from .language import bert, gpt2, llama, transformer
from .layer import Layer, Run
from .layer_norm import LayerNorm, RMSNorm
from .linear import Linear
from .losses import BinaryCrossEntropy, KLDivergence, SoftmaxCrossEntropy, SquaredError
from .low_rank import LowRank, SLTrain
from .network import Network
from .networks import basic_block, language_model, lenet5, mlp, resnet18, resnet20, small_cnn, strided, vgg
from .norms import BatchNorm
from .pooling import AdaptiveAvgPool2d, AvgPool2d, GlobalAvgPool, MaxPool2d
from .positions import LearnedPositions, SinusoidalPositions
from .profile import Profile
from .recurrent import GRU, LSTM
from .rotary import Alibi, Relative, Rotary
from .transformer import DecoderLayer, EncoderLayer, feed_forward
from .tucker import FLoRA2d

__all__ = [
    "GEGLU",
    "GELU",
    "GRU",
    "LSTM",
    "AdaptiveAvgPool2d",
    "Alibi",
    "AvgPool2d",
    "BatchNorm",
    "BinaryCrossEntropy",
    "Conv2d",
    "DecoderLayer",
    "Dropout",
    "Embedding",
    "EncoderLayer",
    "FLoRA",
    "FLoRA2d",
    "Flatten",
    "Gated",
    "KLDivergence",
    "GlobalAvgPool",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "LearnedPositions",
    "Linear",
    "LoRA",
    "LogSoftmax",
    "LowRank",
    "MaxPool2d",
    "MultiHeadAttention",
    "Network",
    "PReLU",
    "Profile",
    "RMSNorm",
    "ReGLU",
    "ReLU",
    "Relative",
    "Residual",
    "Rotary",
    "Run",
    "Sequential",
    "SLTrain",
    "SiLU",
    "Sigmoid",
    "SinusoidalPositions",
    "Softmax",
    "SoftmaxCrossEntropy",
    "SquaredError",
    "StableEmbedding",
    "SwiGLU",
    "Tanh",
    "VariationalDropout",
    "adapted",
    "basic_block",
    "bert",
    "decoding",
    "feed_forward",
    "gpt2",
    "gradcheck_layer",
    "init",
    "language_model",
    "lenet5",
    "llama",
    "merged",
    "mlp",
    "resnet18",
    "resnet20",
    "small_cnn",
    "strided",
    "transformer",
    "vgg",
    "weights",
]
