"""Writes files that are whole or not there, whatever stops the writing."""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO

from camcli.errors import ImageError, OutputError
from camcli.records import FileStamp

try:
    import fcntl
except ImportError:  # Windows, where an open file cannot be removed
    fcntl = None  # type: ignore[assignment]

# errors about a single name: too long, letters that are not allowed, or a folder of that name
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
ABANDONED = 86_400.0  # seconds after which a part of another machine is an orphan


def write_file(content: bytes | memoryview, path: Path) -> FileStamp:
    """Writes a file that takes the path's place when all of it is there.

    Raises OutputError, or ImageError for a name that the file system refuses.
    """
    with write_atomically(path) as file:
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
        trial = nearest / make_temporary_name()
        trial.touch(exist_ok=False)
        trial.unlink(missing_ok=True)  # another run may have taken it for an orphan
    except (OSError, ValueError) as error:
        raise OutputError(str(unwritable_error(folder, error))) from error


@contextmanager
def write_atomically(path: Path) -> Iterator[BinaryIO]:
    """Opens a file, for writing and reading, that takes the path's place when it is complete.

    Raises OutputError, or ImageError for a name that the file system
    refuses.
    """
    temporary = path.with_name(make_temporary_name())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _create_unnamed(path, temporary) as file:
            yield file
    except (OSError, ValueError) as error:  # a name with a null in it is Python's ValueError
        raise unwritable_error(path, error) from error
    finally:
        with suppress(OSError, ValueError):
            temporary.unlink()


@contextmanager
def _create_unnamed(path: Path, temporary: Path) -> Iterator[BinaryIO]:
    """Opens a new file without a name, which vanishes with the process until it is complete.

    Where the system has no such files, or a file is replaced, it has a temporary name.
    """
    number = _open_unnamed(path.parent)
    if number is None:
        remove_orphans(path.parent.absolute())
        with _create_locked(temporary) as file:
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
def _create_locked(temporary: Path) -> Iterator[BinaryIO]:
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
    """Removes unfinished files of killed processes from a folder; looks once."""
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


def _open_unnamed(folder: Path) -> int | None:
    try:
        OPENED.stat()
        return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o666)
    except (AttributeError, OSError):
        return None


def make_temporary_name() -> str:
    """Makes a name for an unfinished file; listings of folders skip such names."""
    return f"{PART}{HOST}-{secrets.token_hex(8)}.part"


def unwritable_error(path: Path, error: Exception) -> OutputError | ImageError:
    """Says why a file cannot be written: an ImageError where others of another name can be."""
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    message = f"Cannot write {str(path)!r}: {reason}. Choose another place (--save-path)."
    is_its_own = not isinstance(error, OSError) or error.errno in REFUSED_NAMES
    return (ImageError if is_its_own else OutputError)(message)
