"""Data sets: formats on tiny files, search order, checksums, downloads from a local server, real files if present."""

import bz2
import contextlib
import errno
import functools
import gzip
import hashlib
import http.server
import io
import os
import pathlib
import socket
import tarfile
import threading
import zipfile

from npopt.errors import UserError
from problems import LeastSquares, Logistic, files, formats, libsvm, load, sources
from problems.splits import split

import numpy as np
import pytest
import scipy.sparse as sp
from requests import exceptions as errors


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Empty folders: `named` is $NPOPT_DATA, `here` the working folder, `cache` the user's cache."""
    monkeypatch.setenv("NPOPT_DATA", str(tmp_path / "named"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(files, "cache", lambda: tmp_path / "cache")
    return tmp_path


def put(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def sha(data):
    return hashlib.sha256(data).hexdigest()


def idx_bytes(array):
    head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    return head + array.astype(np.uint8).tobytes()


@pytest.fixture
def tiny_mnist(home, monkeypatch):
    """Six training and three test images, with their own checksums in the table."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (9, 4, 5)), np.array([3, 1, 4, 1, 5, 9, 2, 6, 5])
    known = {}
    for name, array in zip(sources.IDX["mnist"][2], (images[:6], labels[:6], images[6:], labels[6:]), strict=True):
        data = gzip.compress(idx_bytes(array))
        put(home / "named/mnist" / name, data)
        known[name] = sha(data)
    monkeypatch.setitem(sources.IDX, "mnist", ("http://127.0.0.1:9/", tuple("0123456789"), known))
    return images, labels


# ------------------------------------------------------------------------------------------------------ idx files
def test_idx_files_become_images_labels_and_training_statistics(tiny_mnist):
    images, labels = tiny_mnist
    found = load("mnist")
    np.testing.assert_array_equal(found.x_train, images[:6, ..., None])
    np.testing.assert_array_equal(found.x_test, images[6:, ..., None])
    assert found.x_train.dtype == np.uint8 and found.y_train.dtype == np.int64
    assert list(found.y_train) == list(labels[:6]) and list(found.y_test) == list(labels[6:])
    assert found.mean == pytest.approx([images[:6].mean()]) and found.std == pytest.approx([images[:6].std()])
    assert (found.rows, found.scale, found.task, found.name) == (9, 255.0, "classification", "mnist")
    assert found.classes == tuple("0123456789") and len(found.sha256) == 64


def test_the_checksum_of_a_set_changes_with_any_file(tiny_mnist, home):
    before = load("mnist").sha256
    put(home / "named/mnist/t10k-labels-idx1-ubyte.gz", gzip.compress(idx_bytes(np.array([0, 0, 0]))))
    assert load("mnist", check=False).sha256 != before


def test_label_noise_draws_a_share_of_the_training_labels_anew_and_nothing_else():
    clean, noisy = load("digits", rows=1000), load("digits", rows=1000, noise=0.4)
    assert (clean.x_train == noisy.x_train).all() and (clean.y_test == noisy.y_test).all()
    changed = clean.y_train != noisy.y_train
    assert 0.4 * 0.9 * 1000 - 4 * 6 < changed.sum() <= 400  # a tenth of 400 keep theirs, 6 is the deviation
    counts = np.bincount(noisy.y_train[changed], minlength=10)
    assert counts.min() > 15 and set(noisy.y_train) == set(range(10))
    assert "400 of 1000 training labels drawn anew" in noisy.source
    assert (load("digits", rows=1000, noise=0.4).y_train == noisy.y_train).all()
    assert (load("digits", rows=1000, noise=0.4, seed=1).y_train != noisy.y_train).any()
    held = load("digits", rows=1000, noise=0.4, validation=0.2)  # held-out labels are as noisy
    assert sorted([*held.y_train, *held.y_validation]) == sorted(noisy.y_train)
    binary = load("breast_cancer", noise=1.0)
    assert set(binary.y_train) == {-1.0, 1.0} and 0.3 < (binary.y_train == load("breast_cancer").y_train).mean() < 0.7
    with pytest.raises(ValueError, match="diabetes: only sets with classes"):
        load("diabetes", noise=0.1)
    with pytest.raises(ValueError, match="share must"):
        load("digits", noise=1.5)


def test_a_validation_part_is_taken_out_of_the_training_rows(tiny_mnist):
    whole, found = load("mnist"), load("mnist", validation=1 / 3, seed=4)
    kept, held = split(6, 1 / 3, 4)
    np.testing.assert_array_equal(found.x_train, whole.x_train[kept])
    np.testing.assert_array_equal(found.x_validation, whole.x_train[held])
    np.testing.assert_array_equal(found.y_validation, whole.y_train[held])
    np.testing.assert_array_equal(found.x_test, whole.x_test)
    assert found.mean == pytest.approx([whole.x_train[kept].mean()]) and "seed 4" in found.source and found.rows == 9


def test_a_part_has_rows_of_the_set_and_keeps_its_statistics(tiny_mnist):
    whole, found = load("mnist"), load("mnist", rows=4)
    places = [next(i for i, row in enumerate(whole.x_train) if (row == x).all()) for x in found.x_train]
    assert len(set(places)) == 4 and list(found.y_train) == list(whole.y_train[places])
    np.testing.assert_array_equal(found.x_test, whole.x_test)
    assert list(found.mean) == list(whole.mean) and "4 of 6 training rows" in found.source
    assert whole.part(None) is whole and load("mnist", rows=4, validation=0.5).rows == 7
    every = whole.part(9)
    assert sorted(every.y_train) == sorted(whole.y_train) and list(every.y_train) != list(whole.y_train)
    with pytest.raises(ValueError, match="rows"):
        whole.part(0)


def test_a_wrong_checksum_names_file_expected_and_found(tiny_mnist, home):
    name = "train-labels-idx1-ubyte.gz"
    expected = sources.IDX["mnist"][2][name]
    data = gzip.compress(idx_bytes(np.array([3, 1, 4, 1, 5, 8])))
    path = put(home / "named/mnist" / name, data)
    with pytest.raises(ValueError, match="wrong checksum") as error:
        load("mnist")
    assert str(path) in str(error.value) and expected in str(error.value) and sha(data) in str(error.value)
    assert load("mnist", check=False).y_train[-1] == 8


@pytest.mark.parametrize(
    "name, data, says",
    [
        ("train-images-idx3-ubyte.gz", gzip.compress(idx_bytes(np.zeros((6, 4, 5))))[:-9], "does not unpack as .gz"),
        ("train-images-idx3-ubyte.gz", b"not gzip", "does not unpack as .gz"),
        ("train-images-idx3-ubyte.gz", gzip.compress(idx_bytes(np.zeros(6))), "with 00 00 08 01, not 00 00 08 03"),
        ("train-images-idx3-ubyte.gz", gzip.compress(b"\0\0"), "starts with 00 00"),
        (
            "train-images-idx3-ubyte.gz",
            gzip.compress(idx_bytes(np.zeros((6, 4, 5)))[:-1]),
            r"the header says \(6, 4, 5\), that is 120 bytes, but 119 follow",
        ),
        ("train-labels-idx1-ubyte.gz", gzip.compress(idx_bytes(np.zeros(5))), "holds 6 images, .* 5 labels"),
        ("train-labels-idx1-ubyte.gz", gzip.compress(idx_bytes(np.full(6, 10))), "label 10 is not one of 0..9"),
    ],
)
def test_a_broken_idx_file_is_one_sentence(name, data, says, tiny_mnist, home):
    path = put(home / "named/mnist" / name, data)
    with pytest.raises(ValueError, match=says) as error:
        load("mnist", check=False)
    assert str(path) in str(error.value)


# ------------------------------------------------------------------------------------------------- where files are
def test_folders_are_searched_in_order_and_packed_forms_count(home, monkeypatch):
    for where in ("cache", "here/data", "named"):
        path = put(home / where / "libsvm/x", b"1 1:1")
        assert files.find("libsvm", "x").resolve() == path
    assert files.find("libsvm", "x.bz2") == home / "named/libsvm/x"
    put(home / "named/libsvm/y.gz", b"")
    assert files.find("libsvm", "y") == files.find("libsvm", "y.bz2") == home / "named/libsvm/y.gz"
    assert files.find("libsvm", "z") is None
    monkeypatch.delenv("NPOPT_DATA")
    assert files.find("libsvm", "x") == pathlib.Path("data/libsvm/x")


@contextlib.contextmanager
def served(folder, answering=None):
    """The address of a server for the files of a folder, and the list of paths that were asked for."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            asked.append(self.path)

    handler = answering or functools.partial(Handler, directory=folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_missing_file_is_downloaded_once_checked_and_kept(tiny_mnist, home, monkeypatch):
    _, classes, known = sources.IDX["mnist"]
    os.rename(home / "named/mnist", home / "server")
    with served(home / "server") as (address, asked):
        monkeypatch.setitem(sources.IDX, "mnist", (address, classes, known))
        first = load("mnist")
        assert len(asked) == 4 and load("mnist").sha256 == first.sha256 and len(asked) == 4
        assert sorted(p.name for p in (home / "cache/mnist").iterdir()) == sorted(known)  # no temporary files
        for path in (home / "cache/mnist").iterdir():
            path.unlink()
        put(home / "server/t10k-labels-idx1-ubyte.gz", b"something else")
        with pytest.raises(UserError, match="t10k-labels-idx1-ubyte.gz: wrong checksum"):
            load("mnist")
        assert not (home / "cache/mnist/t10k-labels-idx1-ubyte.gz").exists()


ROWS = b"".join(b"%d 1:%d 6:1\n" % (i, i) for i in range(1, 11))


def refused(path, **_):
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


def test_a_libsvm_download_is_held_to_the_checksum_it_came_with(home, monkeypatch):
    put(home / "server/regression/bodyfat_scale", ROWS)  # a set without a known checksum
    with served(home / "server") as (address, asked):
        monkeypatch.setattr(sources, "LIBSVM", address)
        first = load("bodyfat")
        note = home / "cache/libsvm/bodyfat_scale.sha256"
        assert first.rows == 10 and note.is_file()
        assert load("bodyfat").sha256 == first.sha256 and len(asked) == 1
    put(home / "cache/libsvm/bodyfat_scale", b"1 1:1 6:1\n2 1:2\n")
    with pytest.raises(ValueError, match="bodyfat_scale: wrong checksum"):
        load("bodyfat")
    for damaged in (b"", b"\xff\n", b"12ab  bodyfat_scale\n"):
        put(note, damaged)
        with pytest.raises(UserError, match="bodyfat_scale.sha256: holds no checksum; delete it"):
            load("bodyfat")
    monkeypatch.setattr("pathlib.Path.read_text", refused)
    with pytest.raises(UserError, match="bodyfat_scale.sha256 cannot be read .Permission denied.; see to"):
        load("bodyfat")


@pytest.mark.parametrize("where", ["named", "here/data", "cache", "server"])
@pytest.mark.parametrize("pack", ["", ".gz", ".bz2"])
def test_a_known_checksum_holds_wherever_the_file_comes_from(where, pack, home, monkeypatch):
    """A forged abalone_scale with a forged note beside it, packed or not, in a folder or from a server."""
    squeeze = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress}[pack]
    with served(home / "server") as (address, _):
        monkeypatch.setattr(sources, "LIBSVM", address)
        if where == "server":
            path, pack = put(home / "server/regression/abalone_scale", ROWS), ""
        else:
            path = put(home / where / ("libsvm/abalone_scale" + pack), squeeze(ROWS))
            put(path.with_name(path.name + ".sha256"), f"{sha(path.read_bytes())}  abalone_scale\n".encode())
        wanted = sources.SHA256["abalone_scale"]
        with pytest.raises(UserError, match=f"abalone_scale{pack}: wrong checksum: expected sha256 {wanted}"):
            load("abalone")
    assert not list((home / "cache/libsvm").glob("*")) or where == "cache"  # nothing forged is kept from a server
    monkeypatch.setitem(sources.SHA256, "abalone_scale", sha(ROWS))
    if where != "server":
        assert load("abalone").rows == 10


def test_unpacked_pictures_are_held_to_a_checksum(tiny_mnist, home):
    path = home / "named/mnist/t10k-labels-idx1-ubyte"
    put(path, gzip.decompress(path.with_suffix(".gz").read_bytes()))
    path.with_suffix(".gz").unlink()
    with pytest.raises(UserError, match="t10k-labels-idx1-ubyte: wrong checksum"):
        load("mnist")
    for name in ("mnist", "fashion-mnist"):
        assert len(sources.UNPACKED[name]) == len(sources.NAMES) == len(sources.IDX[name][2])
        assert [name + ".gz" for name in sources.NAMES] == list(sources.IDX[name][2])


class Answering(http.server.BaseHTTPRequestHandler):
    """Breaks off before the end."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"half")  # and no more

    def log_message(self, *args):
        pass


@pytest.mark.parametrize(
    "error, says",
    [
        (errors.ConnectTimeout("HTTPSConnectionPool(host='x', port=1)"), "x.org does not answer within 30 seconds"),
        (errors.ReadTimeout("Read timed out."), "x.org does not answer within 30 seconds"),
        (errors.SSLError("[SSL: CERTIFICATE_VERIFY_FAILED]"), "the certificate of x.org is not accepted"),
        (errors.ProxyError("Cannot connect to proxy."), "the proxy does not answer"),
        (errors.ChunkedEncodingError("IncompleteRead"), "the connection to x.org broke off"),
        (errors.ConnectionError("Max retries exceeded with url: /a (Caused by"), "there is no connection to x.org"),
        (PermissionError(13, "Permission denied"), "the cache cannot be written, Permission denied"),
    ],
)
def test_what_kept_a_download_from_its_end_is_said_in_words(error, says, monkeypatch, home):
    monkeypatch.setattr(sources, "LIBSVM", "https://x.org/")

    def broken(*arguments, **named):
        raise error

    monkeypatch.setattr(files.pooch, "retrieve", broken)
    with pytest.raises(UserError) as caught:
        load("bodyfat")
    assert f"bodyfat_scale failed: {says}; put the file at " in str(caught.value)


def test_a_server_that_has_not_the_file_or_breaks_off(home, monkeypatch):
    (home / "server").mkdir()
    with served(home / "server") as (address, _):
        monkeypatch.setattr(sources, "LIBSVM", address)
        with pytest.raises(UserError, match=r"failed: 127.0.0.1:\d+ answers 404, File not found; put the file at"):
            load("bodyfat")
    with served(home / "server", Answering) as (address, _):
        monkeypatch.setattr(sources, "LIBSVM", address)
        with pytest.raises(UserError, match=r"failed: the connection to 127.0.0.1:\d+ broke off; put the file at"):
            load("bodyfat")
    assert not list((home / "cache/libsvm").iterdir())


@pytest.mark.parametrize(
    "name, file", [("mnist", "train-images-idx3-ubyte.gz"), ("a9a", "a9a"), ("cifar-10", "cifar-10-binary.tar.gz")]
)
def test_offline_the_error_says_which_file_to_put_where(name, file, home, monkeypatch):
    with socket.socket() as free:  # a port where nothing listens
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/"
    _, classes, known = sources.IDX["mnist"]
    monkeypatch.setitem(sources.IDX, "mnist", (address, classes, known))
    monkeypatch.setattr(sources, "LIBSVM", address)
    monkeypatch.setattr(sources, "CIFAR", address + "cifar-10-binary.tar.gz")
    folder = "libsvm" if name == "a9a" else name
    with pytest.raises(UserError, match="downloading") as error:
        load(name)
    text = str(error.value)
    assert text.startswith(f"{name}: {file} is in none of ") and "\n" not in text
    assert text.endswith(f"put the file at {home}/named/{folder}/{file}") and address in text
    assert f"failed: there is no connection to {address[7:-1]}; " in text


def test_an_unknown_name_brings_the_nearest_one():
    for wrong, near in (("minst", "mnist"), ("cifar10", "cifar-10"), ("abalone_scale", "abalone"), ("", "")):
        with pytest.raises(ValueError, match=f"no data set is named '{wrong}'; the nearest name is '{near}"):
            load(wrong)
    with pytest.raises(ValueError, match="dtype must be float32 or float64"):
        load("digits", dtype=np.float16)


def test_a_path_brings_what_reads_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "my.libsvm", b"1.5 1:2\n2.5 2:1\n")
    for path in ("./my.libsvm", "my.libsvm", str(tmp_path / "my.libsvm"), tmp_path / "my.libsvm"):
        with pytest.raises(UserError, match="is a path, not the name of a data set: problems.libsvm.read") as error:
            load(path)
        call = str(error.value).split("set: problems.")[1].split(" reads")[0]
        assert eval(call, {"libsvm": libsvm}).y.tolist() == [1.5, 2.5]  # what it says can be typed
    for path in ("./yours", "yours.libsvm", "yours.txt.gz"):
        with pytest.raises(UserError, match=f"no data set is named '{path}', and there is no such file"):
            load(path)
    put(tmp_path / "digits", b"")  # a name goes before a file
    assert load("digits").name == "digits"


# ----------------------------------------------------------------------------------------------------------- cifar
def cifar_bytes(rng, n):
    """(file, images, labels)"""
    images, labels = rng.integers(0, 256, (n, 32, 32, 3)).astype(np.uint8), rng.integers(0, 10, n)
    records = [bytes([y]) + x.transpose(2, 0, 1).tobytes() for x, y in zip(images, labels, strict=True)]
    return b"".join(records), images, labels


@pytest.mark.parametrize("layout", ["folder", "below", "archive"])
def test_cifar_records_come_from_a_folder_or_the_archive(layout, home):
    rng = np.random.default_rng(0)
    parts = {name: cifar_bytes(rng, 3) for name in sources.CIFAR_FILES}
    root = home / "named/cifar-10"
    if layout == "archive":
        root.mkdir(parents=True)
        with tarfile.open(root / "cifar-10-binary.tar.gz", "w:gz") as archive:
            for name, (data, *_) in reversed(parts.items()):
                member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        with pytest.raises(ValueError, match="expected md5 c32a1d4ab5d03f1284b67883e8d87530"):
            load("cifar-10")
    else:
        for name, (data, *_) in parts.items():
            put(root / ("cifar-10-batches-bin" if layout == "below" else "") / name, data)
    found = load("cifar-10", check=layout != "archive")
    *train, test = parts.values()
    np.testing.assert_array_equal(found.x_train, np.concatenate([x for _, x, _ in train]))
    np.testing.assert_array_equal(found.y_train, np.concatenate([y for _, _, y in train]))
    np.testing.assert_array_equal(found.x_test, test[1])
    assert found.classes[:3] == ("airplane", "automobile", "bird") and found.mean.shape == (3,)


def test_broken_cifar_files_are_one_sentence(home):
    data, *_ = cifar_bytes(np.random.default_rng(0), 2)
    root = home / "named/cifar-10"
    for name in sources.CIFAR_FILES:
        put(root / name, data)
    (root / "data_batch_4.bin").unlink()
    with pytest.raises(UserError, match="does not hold data_batch_4.bin"):
        load("cifar-10")
    put(root / "data_batch_4.bin", data[:-1])
    with pytest.raises(ValueError, match="data_batch_4.bin: cut short: 6145 bytes"):
        load("cifar-10")
    put(root / "data_batch_4.bin", b"\x0b" + data[1:])
    with pytest.raises(ValueError, match="data_batch_4.bin: record 0 has label 11"):
        load("cifar-10")
    for name in sources.CIFAR_FILES:
        (root / name).unlink()
    for data, says in (
        (gzip.compress(b"x" * 5000)[:-9], "the file is damaged or cut short: it does not unpack"),
        (gzip.compress(b"x" * 5000), "the archive is damaged or cut short"),
    ):
        put(root / "cifar-10-binary.tar.gz", data)
        with pytest.raises(ValueError, match=says):
            load("cifar-10", check=False)
    with tarfile.open(root / "cifar-10-binary.tar.gz", "w:gz"):
        pass
    with pytest.raises(ValueError, match="does not hold data_batch_1.bin, "):
        load("cifar-10", check=False)


def jpegs(path, classes, colour=lambda c, i: (20 * c, 10 * i, 0), count=2):
    """A zip of class/NNNN.jpg, written in another order than the alphabet's."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for c, name in reversed(list(enumerate(classes))):
            for i in reversed(range(count)):
                file = io.BytesIO()
                Image.new("RGB", (32, 32), colour(c, i)).save(file, "JPEG", quality=95)
                archive.writestr(f"{name}/{i:04}.jpg", file.getvalue())
    return path


def test_jpeg_archives_are_decoded_once_in_alphabetical_order(home, monkeypatch):
    root = home / "named/cifar-10-jpeg"
    jpegs(root / "train.zip", sources.CIFAR_CLASSES)
    jpegs(root / "test.zip", sources.CIFAR_CLASSES, count=1)
    with pytest.raises(ValueError, match="train.zip: wrong checksum"):
        load("cifar-10-jpeg")
    found = load("cifar-10-jpeg", check=False)
    assert found.x_train.shape == (20, 32, 32, 3) and list(found.y_train) == list(np.repeat(np.arange(10), 2))
    expected = np.array([(20 * c, 10 * i, 0) for c in range(10) for i in range(2)])
    np.testing.assert_allclose(found.x_train[:, 16, 16].astype(int), expected, atol=3)  # JPEG rounds colours
    assert "not CIFAR-10" in found.source and found.name == "cifar-10-jpeg"
    kept = sorted((home / "cache/cifar-10-jpeg").iterdir())
    assert len(kept) == 2 and all(path.suffix == ".npy" for path in kept)
    monkeypatch.setattr(formats, "read_images", lambda *a: pytest.fail("decoded again"))
    np.testing.assert_array_equal(load("cifar-10-jpeg", check=False).x_train, found.x_train)
    monkeypatch.undo()


def test_a_damaged_cache_or_another_archive_is_decoded_again(home):
    root = home / "named/cifar-10-jpeg"
    for name in ("train.zip", "test.zip"):
        jpegs(root / name, sources.CIFAR_CLASSES, count=1)
    found = load("cifar-10-jpeg", check=False)
    (kept,) = (home / "cache/cifar-10-jpeg").iterdir()  # both archives hold the same bytes
    kept.write_bytes(kept.read_bytes()[:500])
    np.testing.assert_array_equal(load("cifar-10-jpeg", check=False).x_train, found.x_train)
    jpegs(root / "train.zip", sources.CIFAR_CLASSES, colour=lambda c, i: (0, 0, 200), count=1)
    assert load("cifar-10-jpeg", check=False).x_train[0, 0, 0, 2] > 190


def test_broken_jpeg_archives_are_one_sentence(home):
    root = home / "named/cifar-10-jpeg"
    with pytest.raises(UserError, match=f"put the zip archive of class/NNNN.jpg at {root}/train.zip"):
        load("cifar-10-jpeg")
    whole = jpegs(root / "train.zip", sources.CIFAR_CLASSES).read_bytes()
    jpegs(root / "test.zip", sources.CIFAR_CLASSES)
    put(root / "train.zip", whole[:-40])
    with pytest.raises(ValueError, match="train.zip: the archive is damaged or cut short"):
        load("cifar-10-jpeg", check=False)
    with zipfile.ZipFile(root / "train.zip", "w") as archive:
        archive.writestr("cat/0000.jpg", b"no picture")
    with pytest.raises(ValueError, match="cat/0000.jpg is not a readable image"):
        load("cifar-10-jpeg", check=False)
    with zipfile.ZipFile(root / "train.zip", "w") as archive:
        archive.writestr("readme.txt", b"")
    with pytest.raises(ValueError, match="holds no images under class/name.jpg"):
        load("cifar-10-jpeg", check=False)
    jpegs(root / "train.zip", ["cat", "dog"])
    with pytest.raises(ValueError, match="its folders are cat, dog, not CIFAR-10's ten classes"):
        load("cifar-10-jpeg", check=False)


# ---------------------------------------------------------------------------------------------------------- libsvm
MPG = b"".join(b"%d 1:%d 7:%d\n" % (i, i, i * i) for i in range(1, 11))


def test_rows_without_a_test_file_are_split_with_the_recorded_seed(home):
    put(home / "named/libsvm/mpg_scale", MPG)
    with pytest.raises(ValueError, match="mpg_scale: wrong checksum"):
        load("mpg")
    found = load("mpg", check=False)
    kept, held = split(10, 0.2, 0)
    assert list(found.y_train) == list(kept + 1.0) and list(found.y_test) == list(held + 1.0)
    assert "split 80/20, seed 0" in found.source and found.classes is None and found.task == "regression"
    assert found.sha256 == hashlib.sha256(f"mpg_scale {sha(MPG)}\n".encode()).hexdigest()
    np.testing.assert_allclose(found.mean, found.x_train.mean(0))


def test_line_ends_do_not_make_another_file_of_libsvm_text(home, monkeypatch):
    monkeypatch.setitem(sources.SHA256, "mpg_scale", sha(MPG))
    put(home / "named/libsvm/mpg_scale", MPG.replace(b"\n", b"\r\n"))
    assert load("mpg").rows == 10
    put(home / "named/libsvm/mpg_scale", MPG.replace(b"1 1:1 ", b"1 1:2 "))
    with pytest.raises(ValueError, match="wrong checksum"):
        load("mpg")


def test_the_test_file_is_used_where_it_is(home):
    text = b"".join(b"%d %d:1\n" % (1 - 2 * (i % 2), i) for i in range(1, 120))
    put(home / "named/libsvm/a9a.bz2", bz2.compress(text))
    alone = load("a9a", check=False)
    assert alone.rows == 119 and "80/20" in alone.source
    put(home / "named/libsvm/a9a.t", b"-1 123:1\n")
    found = load("a9a", check=False)
    assert (len(found.y_train), len(found.y_test)) == (119, 1) and "80/20" not in found.source
    assert found.x_train.shape == (119, 123) == (119, found.x_test.shape[1])
    assert sp.issparse(found.x_train) and found.mean is None and found.sha256 != alone.sha256
    assert found.classes == ("-1", "1") and set(found.y_train) == {-1, 1}
    dense = load("a9a", check=False, dense=True, dtype=np.float32)
    assert dense.x_test.dtype == dense.y_train.dtype == np.float32 and isinstance(dense.x_train, np.ndarray)
    assert not sp.issparse(load("a9a", check=False, dense=True, standard=True).x_train)
    with pytest.raises(ValueError, match="sparse"):
        load("a9a", check=False, standard=True)


# --------------------------------------------------------------------------------------------------------- bundled
@pytest.mark.parametrize(
    "name, shape, task, problem",
    [
        ("digits", (1438, 8, 8, 1), "classification", Logistic),
        ("breast_cancer", (455, 30), "classification", Logistic),
        ("diabetes", (354, 10), "regression", LeastSquares),
    ],
)
def test_bundled_sets_need_no_file_and_make_problems(name, shape, task, problem, home):
    found = load(name)
    assert found.x_train.shape == shape and found.task == task and len(found.sha256) == 64
    assert load(name).sha256 == found.sha256 and found.rows == shape[0] + len(found.y_test)
    if name == "digits":
        assert found.x_train.dtype == np.uint8 and found.x_train.max() == 16 == found.scale
        with pytest.raises(ValueError, match="images keep their bytes"):
            found.standardised()
    else:
        np.testing.assert_allclose(found.x_train.mean(0), 0, atol=1e-12)
        np.testing.assert_allclose(found.x_train.std(0), 1, rtol=1e-12)
        raw = load(name, standard=False)
        np.testing.assert_allclose(raw.x_test, found.x_test * found.std + found.mean, rtol=1e-10, atol=1e-10)
    made = problem.of(found, l2=0.01)
    assert made.name == f"{problem.__name__}({name}, l2=0.01)"
    metrics = made.metrics(made.minimum()[0])
    assert abs(metrics["gap"]) < 1e-12 * max(1, metrics["objective"])
    if task == "classification":
        assert metrics["test_accuracy"] > 0.93


# ------------------------------------------------------------------------------------------------------ real files
REAL = {
    "mnist": ((60000, 28, 28, 1), (10000, 28, 28, 1), [33.318421]),  # 255 x the usual 0.1307
    "fashion-mnist": ((60000, 28, 28, 1), (10000, 28, 28, 1), [72.940352]),
    "a9a": ((32561, 123), (16281, 123), None),
    "abalone": ((3342, 8), (835, 8), None),
    "housing": ((405, 13), (101, 13), None),
    "ionosphere": ((281, 34), (70, 34), None),
}


@pytest.mark.parametrize("name", REAL)
def test_real_sets_have_their_published_sizes(name):
    folder = pathlib.Path(os.environ.get("NPOPT_DATA", "data"))
    probe = folder / name / "train-images-idx3-ubyte.gz"
    if "mnist" not in name:
        probe = folder / "libsvm" / sources.SETS[name][1]
    if not probe.is_file():
        pytest.skip(f"{probe} is not here")
    train, test, mean = REAL[name]
    found = load(name)
    assert found.x_train.shape == train and found.x_test.shape == test
    if mean:
        np.testing.assert_allclose(found.mean, mean, rtol=1e-6)
        assert np.bincount(found.y_test).sum() == 10000 and set(found.y_train) == set(range(10))
