"""From named arrays to a network's flat x."""

from npopt import backend
from npopt.errors import UserError

import numpy as np


def assembled(network, tensors, where, dtype="float32"):
    """x, (dim,), on the device in use, from {segment name: array}; every segment is wanted, and no other name.

    where   the file or folder, for errors
    """
    segments = {segment.name: segment for segment in network.segments}
    missing, unused = sorted(segments.keys() - tensors), sorted(tensors.keys() - segments)
    if missing or unused:
        text = f"no tensor for {named(missing)}" if missing else f"no place in the network for {named(unused)}"
        raise UserError(f"{where}: {text}; these are weights of another network than {network.name}")
    x = np.empty(network.dim, dtype)
    for name, segment in segments.items():
        array = np.asarray(tensors[name])
        if array.shape != tuple(segment.shape):
            raise UserError(f"{where}: {name} has shape {array.shape}, the network wants {tuple(segment.shape)}")
        if not np.isfinite(array).all():
            raise UserError(f"{where}: {name} holds numbers that are not finite; the file is damaged")
        x[segment.slice] = array.reshape(-1)
    return backend.asarray(x)


def named(names, most=3):
    """Some of the names, and how many more."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
