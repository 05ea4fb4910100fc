"""Folders as Hugging Face lays them out: config.json and one or several *.safetensors.
architectures.py knows what tensors and the values of a config are called.
"""

import json
import pathlib

from npopt.errors import UserError

import numpy as np

from .architectures import ARCHITECTURES, Config
from .assembled import assembled

TYPES = {"F32": "<f4", "F16": "<f2", "F64": "<f8", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "U8": "u1", "BOOL": "?"}


def hub(folder):
    """(network, x) of a folder; float32."""
    folder = pathlib.Path(folder)
    config, kind = read_config(folder)
    network, rename = ARCHITECTURES[kind](Config(folder / "config.json", config))
    found = {}
    for name, array in tensors(folder).items():
        for ours, part in rename(name, array):
            if ours in found:
                raise UserError(f"{folder}: {name} gives {ours} a second time; the folder holds two copies of a tensor")
            found[ours] = part
    for tied, to in (network.share or {}).items():  # written twice
        if tied in found and not np.array_equal(found.pop(tied), found.get(to)):
            raise UserError(f"{folder}: config.json ties {tied} to {to}, but the files hold two arrays")
    return network, assembled(network, found, folder)


def read_config(folder):
    """(config, its one architecture) of a folder."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); give the folder of a model") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error})") from None
    if not isinstance(config, dict):
        raise UserError(f"{path}: a table of names and values is wanted, found {type(config).__name__}")
    kinds = config.get("architectures") or [None]
    if len(kinds) != 1 or kinds[0] not in ARCHITECTURES:
        raise UserError(f"{path}: the architecture is {kinds[0]!r}; known are {', '.join(ARCHITECTURES)}")
    return config, kinds[0]


def tensors(folder):
    """{name: array} of all *.safetensors of a folder."""
    from safetensors import SafetensorError, deserialize

    paths, found = sorted(folder.glob("*.safetensors")), {}
    if not paths:
        other = next((path.name for path in folder.glob("*.bin")), None)
        hint = f"; {other} is a pickle, which may run any code: convert it to safetensors" if other else ""
        raise UserError(f"{folder}: there is no *.safetensors{hint}")
    for path in paths:
        try:
            entries = deserialize(path.read_bytes())
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path}: not a whole safetensors file ({error})") from None
        for name, entry in entries:
            if entry["dtype"] not in TYPES:
                raise UserError(f"{path}: {name} is of type {entry['dtype']}; known are {', '.join(TYPES)}")
            if name in found:
                raise UserError(f"{path}: {name} is in another file of the folder, too")
            array = np.frombuffer(bytes(entry["data"]), TYPES[entry["dtype"]]).reshape(entry["shape"])
            found[name] = (array.astype(np.uint32) << 16).view(np.float32) if entry["dtype"] == "BF16" else array
    return found
