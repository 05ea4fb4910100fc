"""One network on several nodes: cut between its layers, for pipelines, or through them, for tensor parallelism.

The networks that come out have the layers' own names, so that their segments are found again in the whole network's.
They take the layers of the network that is cut; a node that shall share nothing cuts one of its own.
"""

import copy

from npopt.errors import UserError
from npopt.values import whole

from .attention import MultiHeadAttention
from .composites import Sequential
from .gated import Gated
from .linear import Linear
from .network import Network
from .rotary import Alibi, Relative
from .transformer import EncoderLayer


# ------------------------------------------------------------------------------------------------- between the layers
def weighty(network):
    """Whether a stage may begin at each child of the outermost Sequential: blocks, or else layers with parameters."""
    if not isinstance(network.layer, Sequential):
        raise UserError(f"{network.name}: only a network whose outermost layer is a Sequential can be cut into stages")
    layers = network.layer.layers
    blocks = [layer.is_block for layer in layers]
    return blocks if any(blocks) else [any(leaf.shapes for leaf in layer.leaves()) for layer in layers]


def cuts(network, count):
    """[(first child, the one behind the last, share of the work)] of `count` stages with as equal numbers of blocks as
    possible. What stands before the first block goes to the first stage, what stands behind a block to its stage."""
    heavy = [i for i, yes in enumerate(weighty(network)) if yes]
    if whole("cuts", "count", count) > len(heavy):
        raise UserError(f"{network.name}: {len(heavy)} blocks cannot be cut into {count} stages")
    numbers = [len(heavy) * k // count for k in range(count + 1)]
    starts = [0, *(heavy[n] for n in numbers[1:-1]), len(network.layer.layers)]
    shares = [(b - a) / len(heavy) for a, b in zip(numbers[:-1], numbers[1:], strict=True)]
    return list(zip(starts[:-1], starts[1:], shares, strict=True))


def stage(network, first, stop):
    """The network of children first, ..., stop - 1 of a network's outermost Sequential."""
    children, shape = network.layer.children(), network.input_shape
    for _, layer in children[:first]:
        shape = layer.output_shape(shape)
    if first and isinstance(shape[0], tuple):
        raise UserError(f"{network.name}: a stage hands on one array, {children[first][0]} takes {len(shape)}")
    found = Network(Sequential(**dict(children[first:stop])), shape, f"{network.name}[{first}:{stop}]",
                    share=shared(network, [name for name, _ in children[first:stop]]))  # fmt: skip
    return found


def shared(network, names):
    """What children of these names share; a UserError where they share with others."""
    inside = {user: user.split(".")[0] in names for pair in network.share.items() for user in pair}
    for user, owner in network.share.items():
        if inside[user] != inside[owner]:
            raise UserError(f"{network.name}: {user} is {owner}, which lies in another stage; make it with tied=False")
    return {user: owner for user, owner in network.share.items() if inside[user]}


# ------------------------------------------------------------------------------------------------ through the layers
def columns(linear, count):
    """A Linear with 1/count of the outputs."""
    outputs = equal(linear.outputs, count, f"outputs of {linear!r}")
    return Linear(linear.inputs, outputs, linear.bias)


def rows(linear, rank, count):
    """A Linear with 1/count of the inputs. Its outputs are summed up over ranks, so the bias is rank 0's alone."""
    inputs = equal(linear.inputs, count, f"inputs of {linear!r}")
    return Linear(inputs, linear.outputs, linear.bias and rank == 0)


def equal(number, count, what):
    if number % count:
        raise UserError(f"tensor parallel: the {number} {what} cannot be cut into {count} equal parts")
    return number // count


def shard(layer, rank, count):
    """Rank's part of attention, by heads, or of a feed-forward part, by hidden units. All ranks' outputs add up to the
    layer's."""
    part = copy.copy(layer)
    if isinstance(layer, MultiHeadAttention):
        if layer.dropout or layer.cross or isinstance(layer.positions, (Alibi, Relative)):
            raise UserError(
                f"tensor parallel: {layer!r} cannot be cut by heads: no dropout of probabilities, no cross attention, "
                "and no positions but rotary ones"
            )
        part.heads = equal(layer.heads, count, "heads")
        part.kv_heads = equal(layer.kv_heads, count, "heads of keys and values")
        for name in ("query", "key", "value"):
            setattr(part, name, columns(getattr(layer, name), count))
        part.out = rows(layer.out, rank, count)
        return part
    inner, *others = layer.layers
    *between, down = others
    if isinstance(inner, Gated):
        up = copy.copy(inner)
        up.outputs, up.gate, up.up = inner.outputs // count, columns(inner.gate, count), columns(inner.up, count)
    else:
        up = columns(inner, count)
    return Sequential(**dict(zip(layer.names, (up, *between, rows(down, rank, count)), strict=True)))


def cuttable(layer):
    """Whether a layer is a feed-forward part (nn.transformer.feed_forward), alone."""
    return isinstance(layer, Sequential) and layer.names in (["up", "act", "down"], ["gated", "down"])


def sharded(network, rank, count):
    """(the network that one rank of `count` has, its parts in forward order).

    Cut are attention and feed-forward parts of EncoderLayers with the norm in front (place "pre"), and children of the
    outermost Sequential that are feed-forward parts alone. All else is whole on every rank.
    """
    children, parts = {}, []
    if not isinstance(network.layer, Sequential):
        raise UserError(f"{network.name}: only a network whose outermost layer is a Sequential can be cut")
    for name, layer in network.layer.children():
        if isinstance(layer, EncoderLayer):
            layer = copy.copy(layer)
            layer.parts = [copy.copy(part) for part in layer.parts]
            for part in layer.parts:
                if part.place != "pre":
                    raise UserError(f"{network.name}: {name} has its norms behind the sums; they must be in front")
                part.f = shard(part.f, rank, count)
                parts.append(Split(part.f, part.norm, part.drop))
        elif cuttable(layer):
            layer = shard(layer, rank, count)
            parts.append(Split(layer))
        else:
            parts.append(Same(layer))
        children[name] = layer
    found = Network(Sequential(**children), network.input_shape, network.name, share=network.share)
    parts[0].lowest = True
    return found, parts


class Same:
    """A layer that every rank has whole: the same numbers everywhere, and no messages."""

    split = lowest = False

    def __init__(self, layer):
        self.layer = layer

    def forward(self, x, run):
        return self.layer.forward(x, run.asking(True, not self.lowest))

    def backward(self, dy, saved, run):
        return self.layer.backward(dy, saved[0], run.asking(True, not self.lowest))


class Split:
    """y = x + D(sum_i f_i(N(x))), f_i this rank's f; without a norm y = sum_i f_i(x).

    forward gives f_i(N(x)); join takes their sum. backward gives f_i' D' dy, and leave takes the sum of these:
    dx = dy + N' sum_i f_i' D' dy.
    """

    split, lowest = True, False

    def __init__(self, f, norm=None, drop=None):
        self.f, self.norm, self.drop = f, norm, drop

    def forward(self, x, run):
        run = run.asking(True, True)
        h, first = (x, None) if self.norm is None else self.norm.forward(x, run)
        y, inner = self.f.forward(h, run)
        return y, (first, inner)

    def join(self, x, total, run):
        """(y, mask of the dropout)"""
        if self.norm is None:
            return total, None
        total, mask = self.drop.forward(total, run.asking(True, True))
        return x + total, mask

    def backward(self, dy, saved, run):
        (_, inner), mask = saved
        run, d = run.asking(True, True), dy.copy()
        return self.f.backward(d if self.norm is None else self.drop.backward(d, mask, run), inner, run)

    def leave(self, dy, total, saved, run):
        if self.norm is None:
            return total
        return dy + self.norm.backward(total, saved[0][0], run.asking(True, True))
