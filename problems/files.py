"""Finding, checking and downloading data files, and reading their formats. Nothing here unpickles anything.

A file is looked for in $NPOPT_DATA, then ./data, then the user's cache, always under the same folder and name. A file
that is in none of them is downloaded into the cache. A download has a temporary name until it is complete. So an
interrupted one leaves nothing that looks whole.
"""

import bz2
import contextlib
import gzip
import hashlib
import io
import math
import os
import pathlib
import re
import tarfile
import urllib.parse
import zipfile
import zlib

from npopt import checkpoint
from npopt.errors import UserError

import numpy as np
import pooch
import requests
from tqdm import tqdm


def cache():
    """The user's cache folder."""
    return pathlib.Path(pooch.os_cache("npopt"))


def folders():
    """Where data is looked for, in order."""
    named = os.environ.get("NPOPT_DATA")
    return [*([pathlib.Path(named)] if named else []), pathlib.Path("data"), cache()]


def find(folder, name):
    """The first existing path of folder/name, or of the same file packed or unpacked (.bz2, .gz); or None."""
    plain = re.sub(r"\.(bz2|gz)$", "", name)
    for root in folders():
        for file in dict.fromkeys((name, plain, plain + ".bz2", plain + ".gz")):
            if (root / folder / file).is_file():
                return root / folder / file
    return None


@contextlib.contextmanager
def readable(path):
    """Turn what the system refuses while `path` is read into one sentence."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); see to its permissions") from None


def digest(path, kind="sha256"):
    """The hexadecimal checksum of a file."""
    with readable(path), open(path, "rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


def fetch(what, folder, name, url, known, check=True, text=False):
    """The path of a file, found or downloaded, and checked; known: {file name: sha256, or "md5:..."}.

    A file with a known checksum is held to it, wherever the file comes from. If only the checksum of the unpacked file
    is known, the unpacked bytes are held to that. text=True is for LIBSVM's files. Their lines may end in CRLF. A
    download without a known checksum gets a note, name.sha256, with the checksum that it came with; later it is held to
    that.
    """
    path = find(folder, name)
    found = path is not None
    if not found:
        path = download(what, folder, name, url)
    note = path.with_name(path.name + ".sha256")
    plain, packed = re.sub(r"\.(bz2|gz)$", "", path.name), path.suffix in (".bz2", ".gz")
    if check and path.name in known:
        verify(path, known[path.name], text, kept=found)
    elif check and packed and plain in known:
        verify(path, known[plain], text, unpacked(path), kept=found)
    elif found and check and note.is_file():
        verify(path, noted(note), text)
    elif not found and text:
        text_of_note = f"{digest(path)}  {path.name}\n".encode()
        checkpoint.replace(note, lambda file: file.write(text_of_note))
    return path


def noted(note):
    """The checksum in a note such as sha256sum writes."""
    with readable(note):
        words = note.read_text(errors="replace").split()
    if not words or not re.fullmatch("[0-9a-f]{64}", words[0]):
        raise UserError(f"{note}: holds no checksum; delete it, and the file beside it if you are not sure of that")
    return words[0]


def verify(path, expected, text=False, data=None, kept=True):
    """Hold a file, or its unpacked bytes `data`, to a checksum. If it differs, a file that is not `kept` is deleted."""
    kind, _, wanted = expected.rpartition(":")
    sha = hashlib.sha256(data).hexdigest() if data is not None else digest(path, kind or "sha256")
    if sha != wanted and text:
        data = path.read_bytes() if data is None else data
        if hashlib.sha256(data.replace(b"\r\n", b"\n")).hexdigest() == wanted:
            return
    if sha != wanted:
        if not kept:
            path.unlink(missing_ok=True)
        raise UserError(
            f"{path}: wrong checksum: expected {kind or 'sha256'} {wanted}, found {sha}; "
            "the file is damaged, or another version: replace it, or load with check=False"
        )


def download(what, folder, name, url):
    """The path of the file in the cache, after its download."""
    pooch.get_logger().setLevel("WARNING")
    target = cache() / folder
    bar = tqdm(total=1, disable=None, unit="B", unit_scale=True, desc=name, leave=False)  # the total is set by pooch
    try:
        loader = pooch.HTTPDownloader(progressbar=bar, timeout=PATIENCE)
        return pathlib.Path(pooch.retrieve(url, None, fname=url.rsplit("/", 1)[1], path=target, downloader=loader))
    except OSError as error:  # those of requests are, too
        places = ", ".join(str(root / folder) for root in folders())
        hint = "" if os.environ.get("NPOPT_DATA") else ", or set NPOPT_DATA to the folder that holds it"
        raise UserError(
            f"{what}: {name} is in none of {places}, and downloading {url} failed: {why(error, url)}; "
            f"put the file at {folders()[0] / folder / name}{hint}"
        ) from None
    finally:
        bar.close()


PATIENCE = 30  # seconds


def why(error, url):
    """Why a download failed, in words."""
    host, errors = urllib.parse.urlsplit(url).netloc, requests.exceptions
    if isinstance(error, errors.HTTPError):
        return f"{host} answers {error.response.status_code}, {error.response.reason}"
    if isinstance(error, errors.Timeout):
        return f"{host} does not answer within {PATIENCE} seconds"
    if isinstance(error, errors.SSLError):
        return f"the certificate of {host} is not accepted"
    if isinstance(error, errors.ProxyError):
        return "the proxy does not answer"
    if isinstance(error, errors.ChunkedEncodingError):
        return f"the connection to {host} broke off"
    if isinstance(error, errors.RequestException):
        return f"there is no connection to {host}"
    return f"the cache cannot be written, {error.strerror or first_line(error)}"


# --------------------------------------------------------------------------------------------------------- formats
RATIO = 250  # real files unpack to 2 to 70 times their size
FLOOR = 2**26  # bytes that any file may unpack to
LARGEST = 2**32  # bytes of an idx file's array


@contextlib.contextmanager
def unpacking(path):
    """The file, open for reading, unpacked by its ending (.gz, .bz2). The packing's checksum is compared at its end."""
    try:
        with {".gz": gzip.open, ".bz2": bz2.open}.get(path.suffix, open)(path, "rb") as file:
            yield file
    except (OSError, EOFError, zlib.error) as error:
        if getattr(error, "errno", None):
            raise UserError(f"{path}: cannot be read: {error.strerror}") from None
        raise UserError(f"{path}: the file is damaged or cut short: it does not unpack as {path.suffix}") from None


def unpacked(path):
    """The bytes of a file, unpacked by its ending. One that swells to more than RATIO times its size is refused."""
    with unpacking(path) as file:
        most = max(FLOOR, RATIO * path.stat().st_size)
        data = file.read(most + 1)
    if len(data) > most:
        raise UserError(f"{path}: unpacks to more than {most:,} bytes, {RATIO} times its size: not a file of data")
    return data


def read_idx(path, dims):
    """The uint8 array of an idx file (LeCun's format: 0 0 8 dims, then big-endian int32 sizes), packed or not."""
    with unpacking(path) as file:
        head = file.read(4 + 4 * dims)
        if len(head) < 4 + 4 * dims or head[:4] != bytes([0, 0, 8, dims]):
            raise UserError(
                f"{path}: not an idx file of {dims}-dimensional bytes: "
                f"it starts with {head[:4].hex(' ')}, not 00 00 08 0{dims}"
            )
        shape = tuple(int(v) for v in np.frombuffer(head, ">i4", dims, 4))
        size = math.prod(shape)
        if min(shape) < 1 or size > LARGEST:
            raise UserError(f"{path}: the header says {shape}, that is {size:,} bytes: not one of 1..{LARGEST:,}")
        data = file.read(size + 1)  # no more than was announced, and the checksum at the end
    if len(data) != size:
        follow = "more" if len(data) > size else len(data)
        raise UserError(f"{path}: the header says {shape}, that is {size} bytes, but {follow} follow")
    return np.frombuffer(data, np.uint8).reshape(shape).copy()


RECORD = 1 + 3 * 32 * 32


def cifar_records(data, where, classes=10):
    """(images (n, 32, 32, 3), labels (n,)) of CIFAR-10's records: a label, then a red, a green and a blue plane."""
    if not data or len(data) % RECORD:
        raise UserError(f"{where}: cut short: {len(data)} bytes are not a whole number of records of {RECORD}")
    records = np.frombuffer(data, np.uint8).reshape(-1, RECORD)
    labels = records[:, 0].astype(np.int64)
    if labels.max() >= classes:
        raise UserError(f"{where}: record {labels.argmax()} has label {labels.max()}, not one of 0..{classes - 1}")
    return np.ascontiguousarray(records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)), labels


def read_tar(path, names):
    """The bytes, memoryviews, of the members with these file names, whatever folder they are in.

    The whole archive is unpacked first, so its checksum is compared. Headers have checksums of their own. Behind the
    last header two empty blocks have to follow.
    """
    data, found = memoryview(unpacked(path)), {}
    with damage(path), tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        for member in archive:
            name, end = member.name.rsplit("/", 1)[-1], member.offset_data + member.size
            if name not in names or not member.isfile():
                continue
            if name in found or end > len(data):
                raise tarfile.TarError(f"{name} occurs twice" if name in found else f"{name} is cut short")
            found[name] = data[member.offset_data : end]
        last = archive.offset  # of the header that was not one
        if len(data) < last + 1024 or any(data[last : last + 1024]):
            raise tarfile.TarError(f"the header at byte {last} is damaged")
    missing = [name for name in names if name not in found]
    if missing:
        raise UserError(f"{path}: the archive does not hold {', '.join(missing)}")
    return [found[name] for name in names]


PICTURE = 2**24  # bytes, and pixels, of one picture


def image_names(path):
    """(entries, labels, classes) of a zip of class/name.jpg, entries and classes in alphabetical order."""
    entries = []
    with damage(path), zipfile.ZipFile(path) as archive:
        counted(path, archive)
        for name in sorted(archive.namelist()):
            if "/" in name and name.lower().endswith((".jpg", ".jpeg", ".png")):
                entries.append(name)
            elif not name.endswith("/"):
                archive.open(name).close()  # its name is the one that stands before its bytes
    if not entries:
        raise UserError(f"{path}: the archive holds no images under class/name.jpg")
    folders = [entry.split("/")[-2] for entry in entries]
    classes = sorted(set(folders))
    return entries, np.searchsorted(classes, folders), tuple(classes)


def counted(path, archive):
    """Check that a zip archive has the entries that its end announces. (65,535 means more than that record can say.)"""
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - 2**16 - 22))
        tail = file.read()
    at = tail.rfind(b"PK\5\6")
    announced = int.from_bytes(tail[at + 10 : at + 12], "little")
    if announced not in (len(archive.filelist), 65535):
        raise zipfile.BadZipFile(f"it announces {announced} entries and lists {len(archive.filelist)}")


def read_images(path, entries):
    """The uint8 array (n, H, W, 3) of these images of a zip archive, decoded with Pillow; all of one size."""
    from PIL import Image

    images = None
    with damage(path), zipfile.ZipFile(path) as archive:
        for i, entry in enumerate(tqdm(entries, disable=None, unit="image", desc=f"decoding {path.name}", leave=False)):
            if archive.getinfo(entry).file_size > PICTURE:
                raise UserError(f"{path}: {entry[:80]} has more than {PICTURE:,} bytes")
            data = archive.read(entry)
            try:
                picture = Image.open(io.BytesIO(data))  # reads its header alone
                if math.prod(picture.size) > PICTURE:
                    raise OSError(f"{picture.size} pixels")
                image = np.asarray(picture.convert("RGB"))
            except (OSError, SyntaxError) as error:  # what Pillow raises on a file that is no picture
                raise UserError(f"{path}: {entry[:80]} is not a readable image: {first_line(error)}") from None
            if images is None:
                images = np.empty((len(entries), *image.shape), np.uint8)
            if image.shape != images.shape[1:]:
                raise UserError(f"{path}: {entry} has shape {image.shape}, the images before it {images.shape[1:]}")
            images[i] = image
    return images


@contextlib.contextmanager
def damage(path):
    """Turn what a broken archive raises into one sentence."""
    try:
        yield
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        zlib.error,
        EOFError,
        OSError,
        RuntimeError,
        UnicodeDecodeError,
    ) as error:  # RuntimeError: "encrypted"; or a packing that is not known
        raise UserError(f"{path}: the archive is damaged or cut short: {first_line(error)}") from None


def first_line(error):
    """What an error says, on one line of at most 120 characters."""
    return str(error).split("\n")[0][:120]
