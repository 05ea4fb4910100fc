"""A small example of every layer and network: `npopt gradcheck` checks it, `npopt methods` reads its parameters."""

import nn

EXAMPLES = {  # name: (how it is made, shape of one row of inputs)
    "Linear": (lambda: nn.Linear(5, 4), (3, 5)),
    "Conv2d": (lambda: nn.Conv2d(3, 4, 3, 2, 1), (7, 6, 3)),
    "BatchNorm": (lambda: nn.BatchNorm(3, eps=0.1), (4, 5, 3)),
    "BatchNormReLU": (lambda: nn.Sequential(nn.BatchNorm(3), nn.ReLU()), (4, 5, 3)),
    "BatchNormSkip": (lambda: nn.Residual(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm(4)), activation=nn.ReLU()), (4,)),
    "LayerNorm": (lambda: nn.LayerNorm(6, eps=0.1), (2, 6)),
    "RMSNorm": (lambda: nn.RMSNorm(6, eps=0.1), (2, 6)),
    "ReLU": (nn.ReLU, (7,)),
    "LeakyReLU": (lambda: nn.LeakyReLU(0.2), (7,)),
    "PReLU": (lambda: nn.PReLU(4), (3, 4)),
    "Tanh": (nn.Tanh, (7,)),
    "Sigmoid": (nn.Sigmoid, (7,)),
    "GELU": (nn.GELU, (7,)),
    "SiLU": (nn.SiLU, (7,)),
    "Gated": (lambda: nn.Gated(3, 4, bias=True), (2, 3)),
    "SwiGLU": (lambda: nn.SwiGLU(3, 4), (2, 3)),
    "GEGLU": (lambda: nn.GEGLU(3, 4), (2, 3)),
    "ReGLU": (lambda: nn.ReGLU(3, 4), (2, 3)),
    "Softmax": (nn.Softmax, (3, 5)),
    "LogSoftmax": (nn.LogSoftmax, (5,)),
    "MaxPool2d": (lambda: nn.MaxPool2d(3, 2, 1), (7, 6, 3)),
    "AvgPool2d": (lambda: nn.AvgPool2d(3, 2, 1), (7, 6, 3)),
    "AdaptiveAvgPool2d": (lambda: nn.AdaptiveAvgPool2d((3, 4)), (7, 6, 2)),
    "GlobalAvgPool": (nn.GlobalAvgPool, (4, 3, 5)),
    "Flatten": (nn.Flatten, (4, 3, 2)),
    "Dropout": (lambda: nn.Dropout(0.3), (4, 3)),
    "VariationalDropout": (lambda: nn.VariationalDropout(0.3), (4, 3)),
    "LSTM": (lambda: nn.LSTM(3, 4, 0.3), (5, 3)),
    "GRU": (lambda: nn.GRU(3, 4), (5, 3)),
    "LearnedPositions": (lambda: nn.LearnedPositions(6, 4), (5, 4)),
    "SinusoidalPositions": (lambda: nn.SinusoidalPositions(4, scale=2.0), (5, 4)),
    "MultiHeadAttention": (lambda: nn.MultiHeadAttention(8, 4, 2, causal=True, positions=nn.Rotary()), (5, 8)),
    "EncoderLayer": (lambda: nn.EncoderLayer(4, 2, 6, norm="rms", activation="swiglu", dropout=0.2), (5, 4)),
    "DecoderLayer": (lambda: nn.DecoderLayer(4, 2, 6, memory_features=3, place="post"), ((3, 4), (5, 3))),
    "Embedding": (lambda: nn.Embedding(5, 3), (6,)),
    "StableEmbedding": (lambda: nn.StableEmbedding(5, 3), (6,)),
    "LoRA": (lambda: nn.LoRA(5, 4, 2, 3.0, 0.3), (3, 5)),
    "FLoRA": (lambda: nn.FLoRA(5, 4, 2, 3.0, 0.3), (3, 5)),
    "FLoRA2d": (lambda: nn.FLoRA2d(3, 4, (3, 2), 2, 3.0, padding=1), (4, 5, 3)),
    "LowRank": (lambda: nn.LowRank(5, 4, 2), (3, 5)),
    "SLTrain": (lambda: nn.SLTrain(5, 4, 2, 3.0, 0.3), (3, 5)),
    "Sequential": (lambda: nn.Sequential(nn.Linear(4, 5), nn.LeakyReLU(0.1), nn.Linear(5, 2)), (4,)),
    "Residual": (lambda: nn.Residual(nn.Linear(4, 4), nn.BatchNorm(4), nn.Tanh()), (4,)),
    "mlp": (lambda: nn.mlp((6, 5, 4, 3), norm="batch"), (6,)),
    "lenet5": (lambda: nn.lenet5(input_shape=(8, 8, 1)), (8, 8, 1)),
    "small_cnn": (lambda: nn.small_cnn(input_shape=(8, 8, 1)), (8, 8, 1)),
    "strided": (lambda: nn.strided(input_shape=(8, 8, 1)), (8, 8, 1)),
    "basic_block": (lambda: nn.basic_block(3, 4, 2), (5, 5, 3)),
    "resnet18": (lambda: nn.resnet18(width=2, image=8), (8, 8, 3)),
    "resnet20": (lambda: nn.resnet20(width=2, image=8), (8, 8, 3)),
    "language_model": (lambda: nn.language_model(7, 5, 4, 2, dropout=0.2, inner=0.3, tied=True), (5,)),
    "vgg": (lambda: nn.vgg(width=1), (32, 32, 3)),
}


def parameters(name):
    """The parameters and statistics of a layer's example, or how many numbers a network's has."""
    make, shape = EXAMPLES[name]
    network = as_network(make(), shape)
    if len(network.segments) > 6:
        return f"{network.dim} numbers in {len(network.segments)} segments, here of {name}'s smallest form"
    parts = [f"{segment.name} {segment.shape}".replace(",)", ")") for segment in network.segments]
    statistics = sorted({key for state in network.state().values() for key in state})
    return ", ".join(parts) + (f"; statistics {', '.join(statistics)}" if statistics else "")


def as_network(layer, shape):
    """A Network of a layer, or the Network that was given."""
    return layer if isinstance(layer, nn.Network) else nn.Network(layer, shape, name=type(layer).__name__)
