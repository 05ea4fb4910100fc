"""Files that are whole or absent."""

import math

from npopt import backend, checkpoint
from npopt.errors import UserError

import numpy as np
import pytest


def test_a_tree_comes_back_as_it_went(tmp_path, device):
    tree = {
        "a": {"x": backend.asarray(np.arange(4, dtype="float32")), "t": 3, "none": None, "text": "é"},
        "list": [1.5, math.inf, True],
        "empty": {},
        "big": 2**63,
        "deep": [{"y": np.zeros((2, 0))}],
        "scalar": np.float64(0.1),
    }
    checkpoint.save(tmp_path / "deep" / "c.npz", tree)
    back = checkpoint.load(tmp_path / "deep" / "c.npz")
    np.testing.assert_array_equal(back["a"]["x"], [0, 1, 2, 3])
    assert back["a"]["x"].dtype == np.float32 and back["deep"][0]["y"].shape == (2, 0)
    assert back["a"]["t"] == 3 and back["a"]["none"] is None and back["a"]["text"] == "é" and back["empty"] == {}
    assert back["list"] == [1.5, math.inf, True] and back["big"] == 2**63 and back["scalar"] == 0.1


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "c.npz"
    checkpoint.save(path, {"v": 1})

    def broken(file):
        file.write(b"half")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        checkpoint.replace(path, broken)
    assert checkpoint.load(path) == {"v": 1} and [p.name for p in tmp_path.iterdir()] == ["c.npz"]


def test_no_flipped_byte_is_an_unnamed_error(tmp_path):
    path = tmp_path / "c.npz"
    checkpoint.save(path, {"x": np.arange(50.0), "t": 3})
    whole = path.read_bytes()
    for at in range(0, len(whole), 5):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
        try:
            checkpoint.load(path)
        except checkpoint.Damaged as error:
            assert "c.npz is not a whole checkpoint" in str(error)
    np.save(tmp_path / "other.npy", np.arange(3))
    with pytest.raises(checkpoint.Damaged):
        checkpoint.load(tmp_path / "other.npy")


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"text", lambda b: b[:-30]])
def test_a_damaged_file_is_named(tmp_path, damage):
    path = tmp_path / "c.npz"
    checkpoint.save(path, {"x": np.arange(1000.0)})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(checkpoint.Damaged, match="c.npz is not a whole checkpoint") as error:
        checkpoint.load(path)
    assert "pickle" not in str(error.value)


def test_a_file_that_cannot_be_read_is_not_called_damaged(tmp_path):
    (tmp_path / "c.npz").mkdir()
    with pytest.raises(UserError, match="c.npz cannot be read .Is a directory.") as error:
        checkpoint.load(tmp_path / "c.npz")
    assert not isinstance(error.value, checkpoint.Damaged)


def test_pickles_are_never_read(tmp_path):
    path = tmp_path / "c.npz"
    np.savez(path, tree=np.array([{"x": 1}], dtype=object))
    with pytest.raises(checkpoint.Damaged):
        checkpoint.load(path)
