"""Damaged and swelling files: whatever was damaged is found, and nothing is unpacked that was not announced."""

import bz2
import gzip
import io
import tarfile
import tracemalloc
import zipfile

from npopt import checkpoint
from problems import formats, libsvm

import numpy as np
import pytest

NAMES = [f"data_{i}.bin" for i in range(4)]


def put(path, data):
    path.write_bytes(data)
    return path


def tar_bytes(rng, names=NAMES, folder="batches/"):
    """(the archive, its members' bytes)"""
    file, parts = io.BytesIO(), [rng.integers(0, 256, 700, np.uint8).tobytes() for _ in names]
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in zip(names, parts, strict=True):
            member = tarfile.TarInfo(folder + name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return file.getvalue(), parts


def outcome(read):
    """What was read, or None where one short sentence refuses it."""
    try:
        return read()
    except ValueError as error:
        text = str(error).split(": ", 1)[1]  # behind the path
        assert "\n" not in text and 0 < len(text) < 300
        return None


def damaged(rng, data):
    """A byte changed, some bytes gone, some bytes twice, or the end missing."""
    at, kind = int(rng.integers(0, len(data))), rng.integers(0, 4)
    length = int(rng.integers(1, 40))
    if kind == 0:
        return data[:at] + bytes([data[at] ^ int(rng.integers(1, 256))]) + data[at + 1 :]
    return (data[:at] + data[at + length :], data[: at + length] + data[at:], data[:at])[kind - 1]


@pytest.mark.parametrize("pack, name", [(gzip.compress, "a.tar.gz"), (bz2.compress, "a.tar.bz2")])
def test_no_damage_to_a_packed_archive_gives_other_data(pack, name, rng, tmp_path):
    plain, parts = tar_bytes(rng)
    whole, refused = pack(plain), 0
    assert outcome(lambda: formats.read_tar(put(tmp_path / name, whole), NAMES)) == parts
    for _ in range(300):
        path = put(tmp_path / name, damaged(rng, whole))
        found = outcome(lambda p=path: formats.read_tar(p, NAMES))
        assert found is None or [bytes(part) for part in found] == parts
        refused += found is None
    assert refused > 280  # some bytes of a gzip header mean nothing: its time


def test_a_plain_archive_is_held_to_its_headers(rng, tmp_path):
    plain, parts = tar_bytes(rng)
    path = tmp_path / "a.tar"
    for at in (0, 1536, 1536 + 130, 4608, 4608 + 512 * 3):  # headers, and the empty blocks at the end
        broken = bytearray(plain)
        broken[at] ^= 1
        put(path, bytes(broken))
        with pytest.raises(ValueError, match="a.tar: the archive is damaged or cut short: "):
            formats.read_tar(path, NAMES[:1])  # though that member is whole
    for cut in (len(plain[:5000]), 6144):
        assert outcome(lambda c=cut: formats.read_tar(put(path, plain[:c]), NAMES)) is None
    twice, _ = tar_bytes(rng, [*NAMES, NAMES[1]])
    with pytest.raises(ValueError, match="data_1.bin occurs twice"):
        formats.read_tar(put(path, twice), NAMES)
    with pytest.raises(ValueError, match="does not hold data_9.bin"):
        formats.read_tar(put(path, plain), [*NAMES, "data_9.bin"])


@pytest.mark.parametrize("name, dims", [("a.gz", 1), ("a.gz", 3)])
def test_no_damage_to_a_packed_idx_file_gives_other_data(name, dims, rng, tmp_path):
    array = rng.integers(0, 256, (7, 5, 6)[:dims], np.uint8)
    whole = gzip.compress(bytes([0, 0, 8, dims]) + np.array(array.shape, ">i4").tobytes() + array.tobytes())
    np.testing.assert_array_equal(formats.read_idx(put(tmp_path / name, whole), dims), array)
    for _ in range(300):
        path = put(tmp_path / name, damaged(rng, whole))
        found = outcome(lambda p=path: formats.read_idx(p, dims))
        assert found is None or np.array_equal(found, array)


def test_no_damage_to_an_archive_of_pictures_gives_other_pictures(rng, tmp_path):
    """An entry that lost its name, or its place in the list, is missed: two of a thousand otherwise."""
    from PIL import Image

    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(6):
            picture = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(picture, "PNG")
            archive.writestr(f"{'cat' if i < 3 else 'dog'}/{i}.png", picture.getvalue())

    def read(path):
        entries, labels, classes = formats.image_names(path)
        return entries, labels.tolist(), classes, formats.read_images(path, entries).tolist()

    whole, refused = read(put(tmp_path / "a.zip", file.getvalue())), 0
    for _ in range(600):
        path = put(tmp_path / "a.zip", damaged(rng, file.getvalue()))
        found = outcome(lambda p=path: read(p))
        assert found is None or found == whole
        refused += found is None
    assert refused > 550


@pytest.mark.parametrize("at, says", [(-12, "it announces 7 entries and lists 6"), (-60, "differ")])
def test_a_list_of_entries_is_held_to_its_end_and_to_the_entries(at, says, tmp_path):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for i in range(6):
            archive.writestr(f"cat/{i}.png", b"")
    data = bytearray(file.getvalue())
    if at == -12:
        data[at] += 1
    else:
        data[data.rindex(b"5.png") + 2] ^= 1  # in the list: cat/5.qng
    with pytest.raises(ValueError, match=f"a.zip: the archive is damaged or cut short: .*{says}"):
        formats.image_names(put(tmp_path / "a.zip", bytes(data)))


def peak(read):
    """(what was read or None, MiB allocated on the way)"""
    tracemalloc.start()
    found = outcome(read)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found, most / 2**20


SIZE = 48  # MiB


@pytest.mark.parametrize("pack, end", [(gzip.compress, "gz"), (bz2.compress, "bz2")])
def test_what_swells_is_stopped_early(pack, end, tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "FLOOR", 2**20)
    path = put(tmp_path / f"a.{end}", pack(b"1 1:1\n" + b"\n" * (SIZE * 2**20)))
    assert path.stat().st_size < 2**17
    for read in (libsvm.read, lambda p: formats.read_tar(p, NAMES)):
        with pytest.raises(ValueError, match=f"a.{end}: unpacks to more than .* bytes, 250 times its size"):
            read(path)
        found, most = peak(lambda r=read: r(path))
        assert found is None and most < SIZE
    head = bytes([0, 0, 8, 1]) + np.array([5], ">i4").tobytes()
    path = put(tmp_path / f"b.{end}", pack(head + bytes(SIZE * 2**20)))
    with pytest.raises(ValueError, match=r"the header says \(5,\), that is 5 bytes, but more follow"):
        formats.read_idx(path, 1)
    assert peak(lambda: formats.read_idx(path, 1))[1] < 2


def test_an_idx_header_that_promises_too_much_is_not_believed(tmp_path):
    head = bytes([0, 0, 8, 3]) + np.array([60000, 30000, 30000], ">i4").tobytes()
    with pytest.raises(ValueError, match="54,000,000,000,000 bytes: not one of 1.."):
        formats.read_idx(put(tmp_path / "a", head + bytes(9)), 3)


def test_a_checkpoint_with_packed_members_is_refused_unread(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, **{"array:x": np.zeros(SIZE * 2**17)}, tree=np.frombuffer(b"{}", np.uint8))
    with pytest.raises(checkpoint.Damaged, match="is packed, as no checkpoint is"):
        checkpoint.load(path)
    tracemalloc.start()
    with pytest.raises(checkpoint.Damaged):
        checkpoint.load(path)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
    checkpoint.save(path, {"x": np.arange(3.0)})
    np.testing.assert_array_equal(checkpoint.load(path)["x"], np.arange(3.0))
    whole = path.read_bytes()
    for cut in range(0, len(whole), 50):
        with pytest.raises(checkpoint.Damaged) as error:
            checkpoint.load(put(path, whole[:cut]))
        assert "\n" not in str(error.value) and len(str(error.value)) < 300 + len(str(path))


def test_pictures_are_measured_before_they_are_unpacked(tmp_path):
    from PIL import Image

    def archive(data):
        with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("cat/0.png", data)
        return tmp_path / "a.zip"

    path = archive(bytes(SIZE * 2**20))
    found, most = peak(lambda: formats.read_images(path, ["cat/0.png"]))
    assert found is None and most < 2
    with pytest.raises(ValueError, match="cat/0.png has more than 16,777,216 bytes"):
        formats.read_images(path, ["cat/0.png"])
    wide = io.BytesIO()
    Image.new("1", (9000, 9000)).save(wide, "PNG")
    path = archive(wide.getvalue())
    with pytest.raises(ValueError, match=r"cat/0.png is not a readable image: \(9000, 9000\) pixels"):
        formats.read_images(path, ["cat/0.png"])


def test_a_missing_file_is_one_sentence(tmp_path):
    for read in (lambda p: formats.read_idx(p, 1), lambda p: formats.read_tar(p, NAMES)):
        with pytest.raises(ValueError, match="nowhere.gz: cannot be read: No such file"):
            read(tmp_path / "nowhere.gz")
