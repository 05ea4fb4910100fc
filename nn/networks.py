"""Networks: multi-layer perceptrons, LeNet-5, two small ones, ResNet-18 and -20, VGG-11 and VGG-16, a recurrent
language model, with readable parameter names.

`init` is the initialiser of all weight matrices and convolutions (None: PyTorch's default for weights and biases; with
an initialiser given, biases start at 0). `activation` makes a layer: a class such as ReLU, or a function without
arguments.
"""

from npopt.errors import UserError
from npopt.values import whole

from . import init as initialisers
from .activations import ReLU
from .composites import Residual, Sequential
from .convolution import Conv2d
from .dropout import Dropout, Flatten, VariationalDropout
from .embedding import Embedding
from .layer_norm import LayerNorm
from .linear import Linear
from .network import Network
from .norms import BatchNorm
from .pooling import AvgPool2d, GlobalAvgPool, MaxPool2d
from .recurrent import LSTM, Recurrent

KAIMING = initialisers.KaimingNormal()


def _starts(init):
    """Keyword arguments of Linear and Conv2d for this initialiser."""
    return {} if init is None else {"init": init, "bias_init": initialisers.Zeros()}


def _check(owner, activation, input_shape=None):
    """Refuse an activation that makes no layer, and an input_shape that is not an image's."""
    if not callable(activation):
        shape = isinstance(activation, (tuple, list))
        raise UserError(
            f"{owner}: activation must be a layer's class, such as nn.ReLU, got {activation!r}"
            + (f"; the shape of an image is input_shape={activation!r}" if shape else "")
        )
    if input_shape is not None and (not isinstance(input_shape, (tuple, list)) or len(input_shape) != 3):
        raise UserError(f"{owner}: input_shape must be (height, width, channels), got {input_shape!r}")


def mlp(sizes=(784, 128, 56, 10), activation=ReLU, norm=None, dropout=0.0, init=None, name=None, norm_at="before"):
    """Linear layers fc1, fc2, ... of these sizes with an activation between them. The last one has no activation.

    norm: None, "batch" or "layer". norm_at: "before" or "after" the activation. input_shape is (sizes[0],). The problem
    flattens rows of another shape with sizes[0] numbers, so images can be given.
    """
    if not isinstance(sizes, (tuple, list)) or len(sizes) < 2:
        raise UserError(f"mlp: sizes must name at least inputs and outputs, as (784, 10) does, got {sizes!r}")
    _check("mlp", activation)
    if norm not in (None, "batch", "layer"):
        raise UserError(f"mlp: norm must be None, 'batch' or 'layer', got {norm!r}")
    if norm_at not in ("before", "after"):
        raise UserError(f"mlp: norm_at must be 'before' or 'after' the activation, got {norm_at!r}")
    layers = {}
    for i, (a, b) in enumerate(zip(sizes[:-1], sizes[1:], strict=True), 1):
        layers[f"fc{i}"] = Linear(a, b, **_starts(init))
        if i < len(sizes) - 1:
            between = {f"act{i}": activation()}
            if norm:
                between[f"norm{i}"] = BatchNorm(b) if norm == "batch" else LayerNorm(b)
            layers |= dict(reversed(between.items())) if norm_at == "before" else between
            if dropout:
                layers[f"drop{i}"] = Dropout(dropout)
    return Network(Sequential(**layers), (sizes[0],), name or "mlp-" + "-".join(str(s) for s in sizes))


POOLS = {"max": MaxPool2d, "avg": AvgPool2d}


def lenet5(activation=ReLU, pool="max", classes=10, input_shape=(28, 28, 1), init=None):
    """LeNet-5 for 28x28 images: 61,706 parameters with one channel and 10 classes.   LeCun et al., Proc. IEEE 1998.

        conv 5x5, 6, padding 2 - pool 2 - conv 5x5, 16 - pool 2 - fc 120 - fc 84 - fc classes

    Differences from the paper, as usual today: full connections in the second convolution, plain pooling, linear
    outputs.
    For images smaller than 12x12, such as the 8x8 digits, the second convolution has padding 2. Then 8x8 images leave
    2x2x16 numbers.
    """
    if pool not in POOLS:
        raise UserError(f"lenet5: pool must be 'max' or 'avg', got {pool!r}")
    _check("lenet5", activation, input_shape)
    height, width, channels = input_shape
    inner = 0 if min(height, width) >= 12 else 2
    starts = _starts(init)
    body = dict(
        conv1=Conv2d(channels, 6, 5, padding=2, **starts),
        act1=activation(),
        pool1=POOLS[pool](2),
        conv2=Conv2d(6, 16, 5, padding=inner, **starts),
        act2=activation(),
        pool2=POOLS[pool](2),
        flatten=Flatten(),
    )
    (features,) = Sequential(**body).output_shape(input_shape)
    head = dict(
        fc1=Linear(features, 120, **starts),
        act3=activation(),
        fc2=Linear(120, 84, **starts),
        act4=activation(),
        fc3=Linear(84, classes, **starts),
    )
    return Network(Sequential(**body, **head), input_shape, "lenet5")


def small_cnn(classes=10, input_shape=(28, 28, 1), init=None):
    """conv 5x5, 10 - ReLU - pool 2 - conv 5x5, 10 - ReLU - pool 2 - fc 50 - ReLU - fc classes: 11,330 parameters with
    one channel and 10 classes.   Zhu, Wu, Yu, Wu & Ma, ICML 2019.

    So few that gradients of many batches fit into memory. For images smaller than 16x16, such as the 8x8 digits, both
    convolutions have padding 2.
    """
    _check("small_cnn", ReLU, input_shape)
    starts, around = _starts(init), 0 if min(input_shape[:2]) >= 16 else 2
    body = dict(
        conv1=Conv2d(input_shape[2], 10, 5, padding=around, **starts), act1=ReLU(), pool1=MaxPool2d(2),
        conv2=Conv2d(10, 10, 5, padding=around, **starts), act2=ReLU(), pool2=MaxPool2d(2), flatten=Flatten(),
    )  # fmt: skip
    (features,) = Sequential(**body).output_shape(input_shape)
    head = dict(fc1=Linear(features, 50, **starts), act3=ReLU(), fc2=Linear(50, classes, **starts))
    return Network(Sequential(**body, **head), input_shape, "small_cnn")


def strided(classes=10, input_shape=(28, 28, 1), init=None):
    """conv 4x4, 16, stride 2, padding 1 - ReLU - conv 4x4, 32, stride 2, padding 1 - ReLU - fc 100 - ReLU - fc classes:
    the network for MNIST of Wong, Rice & Kolter, ICLR 2020. 166,406 parameters for 28x28 images and 10 classes."""
    _check("strided", ReLU, input_shape)
    starts = _starts(init)
    body = dict(
        conv1=Conv2d(input_shape[2], 16, 4, 2, 1, **starts),
        act1=ReLU(),
        conv2=Conv2d(16, 32, 4, 2, 1, **starts),
        act2=ReLU(),
        flatten=Flatten(),
    )
    (features,) = Sequential(**body).output_shape(input_shape)
    head = dict(fc1=Linear(features, 100, **starts), act3=ReLU(), fc2=Linear(100, classes, **starts))
    return Network(Sequential(**body, **head), input_shape, "strided")


def basic_block(inputs, outputs, stride=1, activation=ReLU, init=None, skip=True):
    """y = act(BN(conv3x3(act(BN(conv3x3(x))))) + shortcut(x)).   He et al., CVPR 2016, figure 2.

    The shortcut is x, or a 1x1 convolution with batch norm where the shape changes (option B). skip=False: none.
    """
    _check("basic_block", activation)
    starts = _starts(init)
    block = Sequential(
        conv1=Conv2d(inputs, outputs, 3, stride, 1, bias=False, **starts),
        bn1=BatchNorm(outputs),
        act1=activation(),
        conv2=Conv2d(outputs, outputs, 3, 1, 1, bias=False, **starts),
        bn2=BatchNorm(outputs),
    )
    if not skip:
        return Sequential(block=block, act2=activation())
    shortcut = None
    if stride != 1 or inputs != outputs:
        shortcut = Sequential(conv=Conv2d(inputs, outputs, 1, stride, bias=False, **starts), bn=BatchNorm(outputs))
    return Residual(block, shortcut, activation())


def resnet18(width=64, in_channels=3, classes=10, image=32, activation=ReLU, init=KAIMING):
    """ResNet-18 for small images: 11,173,962 parameters at width 64, 3 channels and 10 classes.   He et al., CVPR 2016.

        conv 3x3, stride 1 - BN - stages of widths 1, 2, 4, 8 x width, two blocks each, stride 2 from the second on -
        global average - fc

    The 3x3 stem without pooling is the usual form for 32x32 images. Weights start as KaimingNormal.
    """
    _check("resnet18", activation)
    starts = _starts(init)
    layers = dict(
        conv1=Conv2d(in_channels, width, 3, 1, 1, bias=False, **starts), bn1=BatchNorm(width), act1=activation()
    )
    inputs = width
    for stage in range(4):
        outputs, stride = width << stage, 1 if stage == 0 else 2
        layers[f"layer{stage + 1}"] = Sequential(
            basic_block(inputs, outputs, stride, activation, init), basic_block(outputs, outputs, 1, activation, init)
        )
        inputs = outputs
    layers.update(pool=GlobalAvgPool(), fc=Linear(inputs, classes, **starts))
    size = (image, image, in_channels)
    return Network(Sequential(**layers), size, "resnet18" if width == 64 else f"resnet18-w{width}")


def resnet20(width=16, in_channels=3, classes=10, image=32, activation=ReLU, init=KAIMING, blocks=3, skip=True):
    """ResNet-20 for small images: 272,474 parameters at width 16, 3 channels and 10 classes.   He et al., CVPR 2016,
    section 4.2.

        conv 3x3 - BN - three stages of widths 1, 2, 4 x width, three blocks each, stride 2 from the second on -
        global average - fc

    Where the shape changes the shortcut is a 1x1 convolution with batch norm, as in resnet18; the paper's own, which
    pads with zeros, has 269,722 parameters.

    blocks   of a stage; the depth is 6 blocks + 2: 9 make ResNet-56
    skip     False: the same layers without shortcuts, as in Li et al., NeurIPS 2018, figure 5
    """
    _check("resnet20", activation)
    blocks = whole("resnet20", "blocks", blocks)
    starts = _starts(init)
    layers = dict(
        conv1=Conv2d(in_channels, width, 3, 1, 1, bias=False, **starts), bn1=BatchNorm(width), act1=activation()
    )
    inputs = width
    for stage in range(3):
        outputs, stride = width << stage, 1 if stage == 0 else 2
        made = [basic_block(inputs, outputs, stride, activation, init, skip)]
        made += [basic_block(outputs, outputs, 1, activation, init, skip) for _ in range(blocks - 1)]
        layers[f"layer{stage + 1}"], inputs = Sequential(*made), outputs
    layers.update(pool=GlobalAvgPool(), fc=Linear(inputs, classes, **starts))
    size = (image, image, in_channels)
    name = f"resnet{6 * blocks + 2}" + ("" if width == 16 else f"-w{width}") + ("" if skip else "-noskip")
    return Network(Sequential(**layers), size, name)


VGG = {
    11: (1, "M", 2, "M", 4, 4, "M", 8, 8, "M", 8, 8, "M"),
    16: (1, 1, "M", 2, 2, "M", 4, 4, 4, "M", 8, 8, 8, "M", 8, 8, 8, "M"),
}


def vgg(
    depth=11, width=64, in_channels=3, classes=10, image=32, batch_norm=True, dropout=0.0, activation=ReLU, init=KAIMING
):
    """VGG-11 or VGG-16 for 32x32 images: 3x3 convolutions in five groups with a 2x2 maximum after each, then one linear
    layer (the three large ones of the paper are for 224x224 images).   Simonyan & Zisserman, ICLR 2015, table 1, A, D.

    With width 64, 3 channels and 10 classes: 9,231,114 (VGG-11) and 14,728,266 (VGG-16) parameters with batch norm.
    """
    if depth not in VGG:
        raise UserError(f"vgg: depth must be one of {', '.join(map(str, VGG))}, got {depth!r}")
    _check("vgg", activation)
    starts, layers, inputs, i = _starts(init), {}, in_channels, 0
    for group, item in enumerate(VGG[depth]):
        if item == "M":
            layers[f"pool{group}"] = MaxPool2d(2)
            continue
        i, outputs = i + 1, item * width
        layers[f"conv{i}"] = Conv2d(inputs, outputs, 3, 1, 1, **starts)
        if batch_norm:
            layers[f"bn{i}"] = BatchNorm(outputs)
        layers[f"act{i}"] = activation()
        inputs = outputs
    layers["flatten"] = Flatten()
    if dropout:
        layers["drop"] = Dropout(dropout)
    size = (image, image, in_channels)
    (features,) = Sequential(**layers).output_shape(size)
    layers["fc"] = Linear(features, classes, **starts)
    name = f"vgg{depth}" + ("-bn" if batch_norm else "") + ("" if width == 64 else f"-w{width}")
    return Network(Sequential(**layers), size, name)


def language_model(
    words,
    length=35,
    units=200,
    layers=2,
    *,
    features=None,
    kind=LSTM,
    dropout=0.0,
    inner=0.0,
    variational=False,
    tied=False,
    streams=0,
    init=None,
):
    """A recurrent language model: (B, length) words -> (B, length, words) logits of the next word.

        embed - drop0 - rnn1 - drop1 - rnn2 - drop2 - ... - head        Zaremba, Sutskever & Vinyals, arXiv:1409.2329

    With 10,000 words, 2 layers of 650 units and separate outputs it has 19,775,200 parameters: their medium model.

    features     numbers of the embedding; None: units
    kind         LSTM or GRU
    dropout      between layers, before the first and behind the last one; inner: of h_(t-1) within the layers, with one
                 mask for all times; variational: one mask for all times between layers, too (Gal & Ghahramani 2016)
    tied         head.W is embed.W: Press & Wolf, EACL 2017; features must be units
    streams      rows of a training batch whose state goes on into the next: samplers.Sequential(streams); 0: none
    init         of all weights, biases then start at 0; None: U(-0.1, 0.1) for embedding and outputs, whose biases are
                 0, and the recurrent layers' own
    """
    features = units if features is None else features
    if not (isinstance(kind, type) and issubclass(kind, Recurrent)):
        raise UserError(f"language_model: kind must be LSTM or GRU, got {kind!r}")
    layers = whole("language_model", "layers", layers)
    if tied and features != units:
        raise UserError(f"language_model: tied outputs need as many features as units, got {features} and {units}")
    outer = init or initialisers.Uniform(0.1)
    drop = VariationalDropout if variational else Dropout
    body = {"embed": Embedding(words, features, outer)}
    if dropout:
        body["drop0"] = drop(dropout)
    for i in range(1, layers + 1):
        inputs = features if i == 1 else units
        body[f"rnn{i}"] = kind(inputs, units, dropout=inner, streams=streams, init=init)
        if dropout:
            body[f"drop{i}"] = drop(dropout)
    body["head"] = Linear(units, words, init=outer, bias_init=initialisers.Zeros())
    name = f"{kind.__name__.lower()}-{layers}x{units}" + "-tied" * bool(tied)
    return Network(Sequential(**body), (length,), name, share={"head.W": "embed.W"} if tied else None)
