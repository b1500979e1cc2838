"""Pictures and maps -> files that are whole or not there; and what they are called."""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import secrets
import time
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from camcli.errors import ImageError, OutputError, UnknownName
from camcli.media.colour import pixels_in_srgb
from camcli.records import FileStamp, Source
from camcli.stages import stage

try:
    import fcntl
except ImportError:  # Windows, where nobody can take away what is open
    fcntl = None  # type: ignore[assignment]

PICTURE_SUFFIXES: Mapping[str, str] = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".png": "PNG",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}

SAVING: Mapping[str, Mapping[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},  # thinned-out colour would blur the heatmap
    "WEBP": {"quality": 95},
    "TIFF": {"compression": "tiff_deflate"},
}

# formats that hold a colour profile; pixels of others are converted to sRGB
WITH_PROFILE = frozenset({"JPEG", "PNG", "WEBP", "TIFF"})

LONGEST_EDGE: Mapping[str, int] = {"JPEG": 65500, "WEBP": 16383}  # pixels

DEFAULT_SUFFIX = ".jpg"
# in bytes of UTF-8: file systems allow 255, and what stands beside a picture adds .npy or
# .pixels.png to its name
LONGEST_NAME, LONGEST_PART = 244, 64
FRAME_DIGITS = 6  # at least, so that frames are listed in their order

# what a file system says of a single name: too long, not its letters, or a folder stands there
REFUSED_NAMES = frozenset(
    {
        errno.ENAMETOOLONG,
        errno.EILSEQ,
        errno.EINVAL,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EEXIST,
        errno.ELOOP,
    }
)

# where Linux lists what is open, so that what has no name can be given one
OPENED = Path("/proc/self/fd")

# what is not complete yet, and by its mark of which machine: locks may count on one alone
PART = ".camviz-"
HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:6]
ABANDONED = 86_400.0  # seconds, after which a part of another machine is nobody's any more

UNSAFE_CHARACTERS = frozenset('<>:"/\\|?*')
UNSAFE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp", "Zs"})


def output_name(
    source: Source,
    method: str,
    category: int | None,
    label: str,
    *,
    format: str | None = None,  # noqa: A002
    layer: str | None = None,
    target: str = "",
    frame: int | None = None,
    value: float | None = None,
) -> Path:
    """Names an output: `<stem>[_<frame>]_<method>[_<layer>][_<target>][_<index>-<label>]<suffix>`.

    That of a value ends in `[_<index>]-<label>-<value>`, such as `_value-37.2`.

    It stands below the save path, whatever the source and the label are.  Where the output cannot
    have the input's own suffix, the input's whole name stands for its stem, but for a video's
    frames.  Raises UnknownName for a format that cannot be written.
    """
    own = source.path.suffix
    wanted = _suffix(format) if format else None
    keeps_own = own.lower() in PICTURE_SUFFIXES and wanted in (None, *_same_format(own))
    head, suffix = (
        (source.path.stem, own) if keeps_own else (source.path.name, wanted or DEFAULT_SUFFIX)
    )
    if frame is not None:
        head, suffix = source.path.stem, wanted or DEFAULT_SUFFIX
        method = f"{frame:0{FRAME_DIGITS}}_{method}"
    parts = name_parts(method, category, label, layer, target)
    if value is not None:
        shown = _part(f"{label}-{value:.4g}")
        parts[-1:] = [parts[-1], shown] if category is None else [f"{parts[-1]}-{value:.4g}"]
    return named(source, head, parts, suffix)


def name_parts(
    method: str, category: int | None, label: str, layer: str | None, target: str
) -> list[str]:
    """Lists what a name says behind the input's own, in letters that every file system takes."""
    parts = [method, *(_part(part) for part in (layer, target) if part)]
    return parts + ([] if category is None else [_category(category, label)])


def named(source: Source, head: str, parts: Sequence[str], suffix: str) -> Path:
    """Joins a name, which stands below the save path and is not too long."""
    tail = "".join(f"_{part}" for part in parts) + suffix
    name = _short(head, LONGEST_NAME - len(_encoded(tail))) + tail
    return _inside(source.folder) / name


def picture_format(path: Path) -> str:
    """Returns the name of the format that a path's suffix asks for; raises OutputError."""
    kind = PICTURE_SUFFIXES.get(path.suffix.lower())
    if kind is None:
        known = " ".join(PICTURE_SUFFIXES)
        raise OutputError(f"Cannot write {str(path)!r}: a picture's suffix is one of {known}.")
    return kind


@stage("write")
def write_picture(pixels: NDArray[np.uint8], path: Path, profile: bytes | None = None) -> FileStamp:
    """Writes pixels [h w 3] in the format of the path's suffix, with the ICC profile of theirs.

    Raises OutputError, or ImageError for a picture that the format cannot hold, or for a name that
    the file system refuses.
    """
    kind = picture_format(path)
    edge, longest = max(pixels.shape[:2]), LONGEST_EDGE.get(kind)
    if longest and edge > longest:
        raise ImageError(
            f"Cannot write {str(path)!r}: {kind} holds at most {longest} pixels an edge, and the "
            f"picture has {edge}. Choose --format png, or a --save-path that ends in .png."
        )
    if kind not in WITH_PROFILE:
        pixels, profile = pixels_in_srgb(pixels, profile), None
    embedded = {"icc_profile": profile} if profile else {}
    # into memory: Pillow takes a short write into a file for a whole one, as on a full disk
    content = BytesIO()
    try:
        Image.fromarray(pixels).save(content, kind, **SAVING.get(kind, {}), **embedded)
    except (OSError, ValueError) as error:
        raise ImageError(f"Cannot write {str(path)!r} as {kind}: {error}.") from error
    return write_file(content.getbuffer(), path)


@stage("write")
def write_map(values: NDArray[np.float32], path: Path) -> FileStamp:
    """Writes a map [h w] as .npy; raises OutputError, or ImageError for a name that is refused."""
    content = BytesIO()
    np.save(content, values, allow_pickle=False)
    return write_file(content.getbuffer(), path)


def write_file(content: bytes | memoryview, path: Path) -> FileStamp:
    """Writes a file that takes the path's place when all of it is there.

    Raises OutputError, or ImageError for a name that the file system refuses.
    """
    with replacing(path) as file:
        _write_all(content, file.fileno())
    return FileStamp.of(content)


def _write_all(content: bytes | memoryview, file: int) -> None:
    """Writes all bytes, of which a system call may take a part alone; raises OSError."""
    left = memoryview(content)
    while left and (taken := os.write(file, left)):
        left = left[taken:]
    if os.fstat(file).st_size != len(content):
        raise OSError(errno.EIO, "not all of it could be written")


def check_writable(folder: Path) -> None:
    """Raises OutputError where a folder cannot be written to or made; leaves nothing behind."""
    try:
        whole = folder.resolve()  # refuses what is no name at all
        nearest = next(place for place in (folder, *whole.parents) if place.exists())
        if not nearest.is_dir():
            raise NotADirectoryError(None, f"{str(nearest)!r} is a file")
        trial = nearest / temporary_name()
        trial.touch(exist_ok=False)
        trial.unlink(missing_ok=True)  # another run may have taken it for an orphan
    except (OSError, ValueError) as error:
        raise OutputError(str(unwritable(folder, error))) from error


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Opens a file that takes the path's place when it is complete, and leaves no trace before.

    It can be read as well.  Raises OutputError, or ImageError for a name that the file system
    refuses.
    """
    temporary = path.with_name(temporary_name())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _coming(path, temporary) as file:
            yield file
    except (OSError, ValueError) as error:  # a name with a null in it is Python's ValueError
        raise unwritable(path, error) from error
    finally:
        with suppress(OSError, ValueError):
            temporary.unlink()


@contextmanager
def _coming(path: Path, temporary: Path) -> Iterator[BinaryIO]:
    """Opens a new file that has no name until it is complete, and goes with a process until then.

    Where the system knows no such files, and where one has to be replaced, it has a temporary name.
    """
    number = _nameless(path.parent)
    if number is None:
        remove_orphans(path.parent.absolute())
        with _locked(temporary) as file:
            yield file
            file.flush()
            # some file systems say only then, or when it is closed, that they found no room
            os.fsync(file.fileno())
            if fcntl:  # while it is locked; on Windows it has to be closed first
                temporary.replace(path)
                return
    else:
        with os.fdopen(number, "w+b") as file:
            yield file
            file.flush()
            try:
                _link(number, path)
                return
            except FileExistsError:
                _link(number, temporary)
    temporary.replace(path)


@contextmanager
def _locked(temporary: Path) -> Iterator[BinaryIO]:
    """Opens a new file with a lock, by which others see that its process lives."""
    while True:
        with temporary.open("x+b") as file:
            _lock(file)
            # between its name and its lock, it may have been taken for an orphan
            if fcntl is None or temporary.exists():
                yield file
                return


def _lock(file: BinaryIO) -> bool:
    """Takes a file's lock, which ends with the process; False where it is taken or there is none.

    There is none on some file systems.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (OSError, AttributeError):
        return False
    return True


@cache
def remove_orphans(folder: Path) -> None:
    """Removes what processes left in a folder that were killed while they wrote; looks once."""
    for part in folder.glob(f"{PART}*.part"):
        with suppress(OSError):
            if _is_orphan(part):
                part.unlink()


def _is_orphan(part: Path) -> bool:
    if not part.name.startswith(f"{PART}{HOST}-"):
        return time.time() - part.stat().st_mtime > ABANDONED
    if fcntl is None:
        return True  # and if it is open, it cannot be removed
    with part.open("r+b") as file:
        return _lock(file)


def _link(number: int, path: Path) -> None:
    # a number, for which an absolute path has no use, has Python follow the link
    os.link(OPENED / str(number), path, src_dir_fd=number)


def _nameless(folder: Path) -> int | None:
    try:
        OPENED.stat()
        return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o666)
    except (AttributeError, OSError):
        return None


def temporary_name() -> str:
    """Makes up a name for what is not complete yet; folders that are read pass over it."""
    return f"{PART}{HOST}-{secrets.token_hex(8)}.part"


def unwritable(path: Path, error: Exception) -> OutputError | ImageError:
    """Says why a file cannot be written: an ImageError where others of another name can be."""
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    message = f"Cannot write {str(path)!r}: {reason}. Choose another place (--save-path)."
    is_its_own = not isinstance(error, OSError) or error.errno in REFUSED_NAMES
    return (ImageError if is_its_own else OutputError)(message)


def _suffix(format: str) -> str:  # noqa: A002
    suffix = "." + format.lower().removeprefix(".")
    if suffix not in PICTURE_SUFFIXES:
        raise UnknownName("format", format, (known[1:] for known in PICTURE_SUFFIXES))
    return suffix


def _same_format(suffix: str) -> tuple[str, ...]:
    kind = PICTURE_SUFFIXES[suffix.lower()]
    return tuple(other for other, its_kind in PICTURE_SUFFIXES.items() if its_kind == kind)


def _inside(folder: Path) -> Path:
    """Leaves out what would lead out of the save path."""
    return Path(*(part for part in folder.parts if part not in (folder.anchor, "..")))


def _part(text: str) -> str:
    """Makes a part of a name of a text; where that changes it, a hash keeps it different."""
    safe = _safe(text)
    return _short(safe if safe == text else safe + _mark(text), LONGEST_PART)


def _category(category: int, label: str) -> str:
    first_synonym = label.split(",")[0]
    words = _short(_safe("_".join(first_synonym.split())), LONGEST_PART)
    return f"{category}-{words}" if words else str(category)


def _safe(text: str) -> str:
    """Replaces what some file system refuses, or a terminal obeys, by `_`."""
    return "".join(
        "_" if c in UNSAFE_CHARACTERS or unicodedata.category(c) in UNSAFE_CATEGORIES else c
        for c in unicodedata.normalize("NFC", text)
    )


def _short(text: str, limit: int) -> str:
    """Cuts a text to a number of bytes; a hash of all of it keeps different ones different."""
    encoded = _encoded(text)
    if len(encoded) <= limit:
        return text
    mark = _mark(text)
    return encoded[: limit - len(mark)].decode("utf-8", "ignore") + mark


def _mark(text: str) -> str:
    return "~" + hashlib.sha256(_encoded(text)).hexdigest()[:10]


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")  # names that are no UTF-8 come with surrogates
