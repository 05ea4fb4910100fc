"""Finding, checking and downloading data files. formats.py reads them.

A file is looked for in $NPOPT_DATA, then ./data, then the user's cache, always under the same folder and name. A file
that is in none of them is downloaded into the cache. A download has a temporary name until it is complete. So an
interrupted one leaves nothing that looks whole.
"""

import hashlib
import os
import pathlib
import re
import urllib.parse

from npopt import checkpoint
from npopt.errors import UserError
from problems.formats import first_line, readable, unpacked

import pooch
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


def digest(path, kind="sha256"):
    """The hexadecimal checksum of a file."""
    with readable(path), open(path, "rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


def combined(hashes):
    """One sha256 of several (name, sha256)."""
    return hashlib.sha256("".join(f"{name} {value}\n" for name, value in sorted(hashes)).encode()).hexdigest()


def of_files(paths):
    """One sha256 of several files and their names."""
    return combined((path.name, digest(path)) for path in paths)


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


def given(what, folder, name, known, check=True, form=""):
    """The path of a file that has no public address, found and checked; form: what it has to hold, for the error."""
    path = find(folder, name)
    if path is None:
        places = ", ".join(str(root / folder) for root in folders())
        raise UserError(
            f"{what}: {name} is in none of {places}, and it has no public address; put {form or 'it'} at "
            f"{folders()[0] / folder / name}"
        )
    if check:
        verify(path, known)
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
    from requests import exceptions as errors

    host = urllib.parse.urlsplit(url).netloc
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
