"""Lists the pictures behind what the user named, without opening any."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import BinaryIO

from camcli.errors import SourceError, find_closest, first_line
from camcli.media.pictures import heif
from camcli.media.sources import path_lists, remote
from camcli.media.sources.byte_stream import URL, check_protocol
from camcli.media.sources.walk import EVERYTHING, MAGIC, Pattern, walk
from camcli.records import Source
from camcli.utils.paths import fold_name

AVIF = frozenset({".avif", ".avifs"})
JPEG_2000 = frozenset({".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"})
# what Pillow reads, and pillow-heif, but for what is no picture (PDF) or not read rightly (FITS)
IMAGE_SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif"),
        *(".bmp", ".dib", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
        *(".tga", ".pcx", ".psd", ".sgi", ".ras", ".qoi", ".dds"),
        *(".ico", ".icns", ".xbm", ".xpm"),
        *AVIF,
        *JPEG_2000,
        *heif.SUFFIXES,
    }
)

VIDEO_SUFFIXES = frozenset(
    {
        *(".mp4", ".m4v", ".mov", ".3gp", ".3g2", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".vob"),
        *(".ts", ".mts", ".m2ts", ".dv", ".ogv", ".flv", ".wmv", ".asf", ".mxf"),
    }
)
KNOWN_SUFFIXES = IMAGE_SUFFIXES | VIDEO_SUFFIXES

# what people have beside their pictures and videos
UNREADABLE_SUFFIXES = frozenset(
    {
        *(".cr2", ".cr3", ".nef", ".nrw", ".arw", ".dng", ".orf", ".rw2", ".raf", ".pef", ".srw"),
        *(".dcm", ".dicom", ".nii", ".nrrd", ".mha", ".mhd", ".fits", ".fit", ".mrc"),
        *(".svs", ".ndpi", ".mrxs", ".scn", ".czi", ".nd2", ".lif", ".oib", ".oif", ".vsi"),
        *(".exr", ".hdr", ".jxl", ".jxr", ".svg", ".svgz", ".xcf", ".eps", ".ai", ".wmf", ".emf"),
    }
)

STDIN, LIST = "-", "@"


@dataclass(frozen=True)
class Requirement:
    """What is needed to read files of some suffixes."""

    suffixes: frozenset[str]
    is_met: Callable[[], bool]
    way_on: str


def _has_pillow(feature: str) -> bool:
    from PIL import features

    return bool(features.check(feature))


REQUIREMENTS = (
    Requirement(heif.SUFFIXES, heif.is_readable, "pip install 'camviz[heif]'"),
    Requirement(AVIF, partial(_has_pillow, "avif"), "pip install -U pillow"),
    Requirement(JPEG_2000, partial(_has_pillow, "jpg_2000"), "pip install -U pillow"),
    # pictures and videos that people have beside the others, and that nobody here reads
    Requirement(UNREADABLE_SUFFIXES - KNOWN_SUFFIXES, bool, "not read: convert them"),
)

SPECIAL: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def find_sources(
    paths: Sequence[str | Path],
    *,
    leave_out: Path | None = None,
    made_in: Callable[[Path], Iterable[Path]] = lambda _: (),
    recursive: bool = True,
    stdin: BinaryIO | None = None,
    tell: Callable[[str], object] = lambda _: None,
) -> tuple[Source, ...]:
    """Lists what files, folders, globs, URLs, `@lists` and `-` (stdin) name, each once, in order.

    What is typed has to be there; what a list or stdin names becomes a source unseen.  A folder to
    `leave_out` is passed over where it lies in another one, but not where it is named; so is what
    was made by an earlier run, as `made_in` tells of its output folder.  Whoever is to `tell` hears
    how many pictures in folders cannot be read here.  Raises SourceError.
    """
    selection = _Selection(leave_out, made_in, EVERYTHING if recursive else EVERYTHING[-1:], stdin)
    sources: dict[tuple[str, str], Source] = {}
    for path in paths:
        for source in _list_sources(path, selection):
            sources.setdefault((str(source), source.category), source)
    if selection.unread:
        tell(_count_unread(selection.unread))
    return mark_namesakes(sources.values())


def mark_namesakes(sources: Iterable[Source]) -> tuple[Source, ...]:
    """Marks the sources that have another one's name but for the suffix, at the same place."""
    listed = tuple(sources)
    first: dict[tuple[Path, str], str] = {}
    shared = set()
    for source in listed:
        key = source.folder, fold_name(source.path.stem)
        if first.setdefault(key, source.path.name) != source.path.name:
            shared.add(key)
    if not shared:
        return listed
    keys = ((source.folder, fold_name(source.path.stem)) for source in listed)
    return tuple(
        replace(source, has_namesake=True) if key in shared else source
        for source, key in zip(listed, keys, strict=True)
    )


def camera_source(index: int) -> Source:
    """Returns the source of a camera's pictures."""
    return Source(Path(f"camera{index}"))


def is_video(source: Source) -> bool:
    """Tells by its name whether a source is a video."""
    return source.path.suffix.lower() in VIDEO_SUFFIXES


@dataclass(frozen=True)
class _Selection:
    """What is left out, which files of a folder are meant, where `-` reads, and what is not read.

    `unread` are pictures that were met in folders, and for which something is missing here.
    """

    leave_out: Path | None
    made_in: Callable[[Path], Iterable[Path]]
    pattern: Pattern
    stdin: BinaryIO | None
    unread: dict[Path | str, Requirement] = field(default_factory=dict)

    def takes(self, path: Path | str) -> bool:
        """Tells whether a file is a picture or a video that is read, and notes one that is not."""
        suffix = Path(path).suffix.lower()
        missing = _find_requirement(suffix)
        if missing:
            self.unread[path] = missing
        return missing is None and suffix in KNOWN_SUFFIXES


@cache
def _find_requirement(suffix: str) -> Requirement | None:
    """Returns what is missing to read files of a suffix, if it is one of pictures."""
    needed = next((r for r in REQUIREMENTS if suffix in r.suffixes), None)
    return None if needed is None or needed.is_met() else needed


def _count_unread(unread: Mapping[Path | str, Requirement]) -> str:
    """Says in a line how many files of which suffix are not read, and what to do."""
    parts = []
    for requirement in REQUIREMENTS:
        of_it = (path for path, missing in unread.items() if missing is requirement)
        counts = Counter(Path(path).suffix.lower() for path in of_it)
        if counts:
            named = ", ".join(f"{count} {suffix}" for suffix, count in sorted(counts.items()))
            parts.append(f"{named} ({requirement.way_on})")
    return f"Left out: {'; '.join(parts)}."


def _list_sources(given: str | Path, selection: _Selection) -> Iterable[Source]:
    typed, path = str(given), Path(given)
    if given == "":
        # Path("") would be the current folder, and all that lies in it
        raise SourceError("'' names no picture: is a variable of the shell not set?")
    if typed == STDIN:
        return _read_stdin(selection.stdin)
    if URL.match(typed):
        return _list_url(typed, selection)
    # whatever signs its name holds, what is there is meant
    if _exists(path):
        return _list_path(path, selection)
    if typed.startswith(LIST):
        return _read_path_list(Path(typed.removeprefix(LIST)))
    root, pattern = _split_glob(path)
    if pattern:
        return _check_not_empty(
            _walk_folder(root, pattern, selection), f"Glob {str(path)!r} matches", selection
        )
    raise SourceError(f"{typed!r} does not exist.{_suggest_closest(path)}")


def _list_path(path: Path, selection: _Selection) -> Iterable[Source]:
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        return _check_not_empty(
            _walk_folder(path, selection.pattern, selection),
            f"Folder {str(path)!r} holds",
            selection,
        )
    for is_one, what in SPECIAL:
        if is_one(mode):
            raise SourceError(f"{str(path)!r} is {what}, and no file: save the picture in one.")
    return (Source(path),)


def _split_glob(glob: Path) -> tuple[Path, Pattern]:
    """Parts a path at the first name with `*`, `?` or `[` that is not there as it stands."""
    fixed = Path()
    for place, part in enumerate(glob.parts):
        if MAGIC.search(part) and not _exists(fixed / part):
            return fixed, glob.parts[place:]
        fixed /= part
    return fixed, ()


def _walk_folder(root: Path, pattern: Pattern, selection: _Selection) -> Iterator[Source]:
    passed_over = () if selection.leave_out is None else (selection.leave_out,)
    made: set[Path] = set()
    for folder, names in walk(root, pattern, passed_over):
        place = root / folder
        if folder != Path():
            made.update(selection.made_in(place))
        paths = (path for name in names if (path := place / name) not in made)
        yield from (Source(path, folder) for path in paths if selection.takes(path))


def _list_url(url: str, selection: _Selection) -> Iterable[Source]:
    try:
        return _list_remote_sources(url, selection)
    except SourceError:
        raise
    except Exception as error:  # every file system of fsspec has errors of its own
        raise SourceError(f"{url!r} cannot be looked at: {first_line(error)}.") from error


def _list_remote_sources(url: str, selection: _Selection) -> Iterable[Source]:
    kind = remote.find_kind(url)
    if kind == "file":
        return (Source(remote.url_path(url), url=url),)
    if kind == "folder":
        return _check_not_empty(
            _walk_url(url, selection.pattern, selection), f"Folder {url!r} holds", selection
        )
    root, pattern = remote.split_url(url)
    if not pattern:
        raise SourceError(f"{url!r} does not exist, or cannot be reached.")
    return _check_not_empty(_walk_url(root, pattern, selection), f"Glob {url!r} matches", selection)


def _walk_url(root: str, pattern: Pattern, selection: _Selection) -> Iterator[Source]:
    for folders, url in remote.walk_url(root, pattern):
        path = remote.url_path(url)
        if selection.takes(path):
            yield Source(path, _choose_output_folder(folders), url)


def _read_stdin(stdin: BinaryIO | None) -> Iterable[Source]:
    if stdin is None:
        raise SourceError("'-' stands for paths from standard input, and there is none.")
    what = "Standard input"
    try:
        content = path_lists.read_list(stdin, what)
    except OSError as error:
        raise SourceError(f"{what} cannot be read: {error.strerror}.") from error
    return _list_entries(path_lists.read_paths(content, what), what, Path())


def _read_path_list(path: Path) -> Iterable[Source]:
    what = f"List {str(path)!r}"
    try:
        with path.open("rb") as file:
            content = path_lists.read_list(file, what)
    except FileNotFoundError as error:
        raise SourceError(f"{what} does not exist.{_suggest_closest(path)}") from error
    except (OSError, ValueError) as error:  # a null in its name
        why = error.strerror if isinstance(error, OSError) else error
        raise SourceError(f"{what} cannot be read: {why}.") from error
    read = path_lists.READERS.get(path.suffix.lower(), path_lists.read_text_list)
    return _list_entries(read(content, what), what, path.parent)


def _list_entries(entries: Iterable[path_lists.Entry], what: str, folder: Path) -> Iterable[Source]:
    """Takes every entry for a file, unchecked."""
    sources = [_make_entry_source(name, category, folder) for name, category in entries]
    if not sources:
        raise SourceError(f"{what} names no pictures.")
    for url in {source.url.partition("://")[0]: source.url for source in sources}.values():
        if url:
            check_protocol(url)
    return sources


def _make_entry_source(name: str, category: str, folder: Path) -> Source:
    if URL.match(name):
        path = remote.url_path(name)
        return Source(path, _choose_output_folder(path.parent.parts), name, category)
    path = Path(name)
    outputs = _choose_output_folder(path.parent.parts)
    if folder != Path() and not _exists(path) and _exists(folder / path):
        path = folder / path
    return Source(path, outputs, category=category)


def _choose_output_folder(folders: Iterable[str]) -> Path:
    """Chooses the folder of outputs: below the save path, whatever the folders are called."""
    return Path(*(name for name in folders if name != ".." and not {"/", os.sep} & set(name)))


def _check_not_empty(
    sources: Iterator[Source], what: str, selection: _Selection
) -> Iterable[Source]:
    listed = list(sources)
    if not listed:
        unread = f" {_count_unread(selection.unread)}" if selection.unread else ""
        raise SourceError(
            f"{what} no images or videos (.bmp .gif .jpg .png .tif .webp, ...).{unread} Name a "
            "file to have it read anyway."
        )
    return listed


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (
        OSError,
        ValueError,
    ):  # a name too long for the file system, or a folder that may not be entered
        return False


def _suggest_closest(path: Path) -> str:
    folder = path.parent
    try:
        if path.is_symlink():
            return f" It is a link to {str(path.readlink())!r}."
        near = find_closest(path.name, (entry.name for entry in folder.iterdir()))
    except (OSError, ValueError):
        return f" Nor does its folder {str(folder)!r}."
    if not near:
        return f" Nothing in {str(folder)!r} has a name like it."
    quotes = " A name with spaces stands in quotes." if near[0].startswith(f"{path.name} ") else ""
    return f" Closest in {str(folder)!r}: {', '.join(map(repr, near))}.{quotes}"
