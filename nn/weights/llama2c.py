"""Checkpoints of llama2.c, version 0. Karpathy, llama2.c, 2023, export.py.

Seven int32: features, hidden, layers, heads, kv_heads, words (negative: head.W is of its own), length. Then float32
arrays, each for all layers: embed, norms of attention, q, k, v, o, norms of the feed-forward parts, gate, down, up; the
last norm, two tables of rotary angles that nobody needs, and head.W if it is of its own. Pairs are adjacent.
"""

import pathlib

from npopt.errors import UserError

import numpy as np

from ..language import llama
from .assembled import assembled


def llama2c(path):
    """(network, x) of a .bin; float32."""
    path = pathlib.Path(path)
    try:
        data = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.empty(0, np.uint8)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); give the path of a llama2.c .bin") from None
    header = data[:28].view("<i4").tolist() if len(data) >= 28 else []
    features, hidden, layers, heads, kv_heads, words, length = header or [0] * 7
    tied, words = words > 0, abs(words)
    sound = min(features, hidden, layers, heads, kv_heads, words, length) > 0
    if not sound or features % heads or heads % kv_heads or features // heads % 2:
        raise UserError(f"{path}: the header {header} is not one of a llama2.c checkpoint of version 0")
    shapes, of_layers = layout(features, hidden, layers, heads, kv_heads, words, length, tied)
    wanted = 28 + 4 * sum(int(np.prod(shape)) for shape in shapes.values())
    if len(data) != wanted:
        raise UserError(f"{path}: {len(data)} bytes, but the header {header} asks for {wanted}; the file is cut short, "
                        "or of another version")  # fmt: skip
    tensors, at = {}, 28
    for name, shape in shapes.items():
        size = 4 * int(np.prod(shape))
        array = data[at : at + size].view("<f4").reshape(shape)
        at += size
        if name in of_layers:
            tensors |= {f"layer{i}.{name}": part for i, part in enumerate(array, 1)}
        elif not name.startswith("angles"):
            tensors[name] = array
    network = llama(words, length, features, layers, heads, hidden, kv_heads=kv_heads, pairing="adjacent", tied=tied)
    return network, assembled(network, tensors, path)


def layout(features, hidden, layers, heads, kv_heads, words, length, tied):
    """({array: shape} in the order of the file, the names of those that hold all layers)."""
    inner, angles = features // heads * kv_heads, (length, features // heads // 2)
    of_layers = {
        "attention_norm.a": (features,),
        "attention.query.W": (features, features),
        "attention.key.W": (inner, features),
        "attention.value.W": (inner, features),
        "attention.out.W": (features, features),
        "feed_norm.a": (features,),
        "feed.gated.gate.W": (hidden, features),
        "feed.down.W": (features, hidden),
        "feed.gated.up.W": (hidden, features),
    }
    shapes = {"embed.W": (words, features), **{name: (layers, *shape) for name, shape in of_layers.items()}}
    shapes |= {"norm.a": (features,), "angles.cos": angles, "angles.sin": angles}
    return shapes | ({} if tied else {"head.W": (words, features)}), set(of_layers)
