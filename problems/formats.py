"""Reading the formats of data files: idx, CIFAR's records, tar, zip archives of pictures, texts, packed or not. Nothing
here unpickles anything, and nothing unpacks to more memory than real files do."""

import bz2
import contextlib
import gzip
import io
import math
import tarfile
import zipfile
import zlib

from npopt.errors import UserError

import numpy as np
from tqdm import tqdm


@contextlib.contextmanager
def readable(path):
    """Turn what the system refuses while `path` is read into one sentence."""
    try:
        yield
    except OSError as error:
        hint = "give its right path" if isinstance(error, FileNotFoundError) else "see to its permissions"
        raise UserError(f"{path} cannot be read ({error.strerror}); {hint}") from None


def text_of(path):
    """A UTF-8 file as a text, lines ended by a newline alone."""
    with readable(path):
        data = path.read_bytes()
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: not UTF-8 ({error.reason}); convert the file, as with iconv") from None


def lines_of(path):
    """The lines of a UTF-8 file. A newline ends a line, and nothing else does: texts may hold U+2028 and its like."""
    lines = text_of(path).split("\n")
    return lines[:-1] if lines[-1] == "" else lines


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
