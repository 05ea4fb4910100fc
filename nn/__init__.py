"""Layers, losses, initialisers and networks over flat vectors. Every backward pass is derived beside its code."""

from . import init
from .core import Context, Layer, Network, Residual, Sequential
from .gradcheck import gradcheck_layer
from .layers import (
    GELU,
    AvgPool2d,
    BatchNorm,
    Conv2d,
    Dropout,
    Flatten,
    GlobalAvgPool,
    LayerNorm,
    LeakyReLU,
    Linear,
    MaxPool2d,
    PReLU,
    ReLU,
    Sigmoid,
    Tanh,
)
from .losses import BinaryCrossEntropy, SoftmaxCrossEntropy, SquaredError
from .networks import basic_block, lenet5, mlp, resnet18, vgg
from .profile import Profile

__all__ = [
    "GELU", "AvgPool2d", "BatchNorm", "BinaryCrossEntropy", "Context", "Conv2d", "Dropout", "Flatten", "GlobalAvgPool",
    "Layer", "LayerNorm", "LeakyReLU", "Linear", "MaxPool2d", "Network", "PReLU", "Profile", "ReLU", "Residual",
    "Sequential", "Sigmoid", "SoftmaxCrossEntropy", "SquaredError", "Tanh", "basic_block", "gradcheck_layer", "init",
    "lenet5", "mlp", "resnet18", "vgg",
]
