"""Folders and patterns: without links, what Python's own glob finds is found."""

from __future__ import annotations

import glob
import inspect
import sys
from pathlib import Path

import pytest

from camcli.errors import SourceError
from camcli.media.sources.walk import EVERYTHING, matches, walk


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    names = ("a.jpg", "b.png", "x/a.jpg", "x/y/a.jpg", "x/y/z/b.jpg", "w/y/c.jpg", "w/[1].jpg")
    for name in (*names, ".h.jpg", ".hidden/a.jpg", "x/.hidden/b.jpg", "x.jpg/in.jpg"):
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "tree"


def list_matches(root: Path, *pattern: str, passed_over: tuple[Path, ...] = ()) -> list[str]:
    return [
        str(folder / name) for folder, names in walk(root, pattern, passed_over) for name in names
    ]


PATTERNS = (
    "*", "*.jpg", "**/*", "**/*.jpg", "*/*.jpg", "*/y/*", "**/y/*.jpg", "**/y/**/*.jpg",
    "**/**/a.jpg", "x/**/b.jpg", "?.jp[a-h]", "[!a].*", ".*", ".hidden/*", "**/.hidden/*.jpg",
    "x/y/a.jpg", "*/[[]1].jpg", "[x", "**",
)  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_mean_what_they_mean_to_pythons_glob(tree: Path, pattern: str) -> None:
    steps = pattern.split("/")
    every = [path.relative_to(tree) for path in tree.rglob("*") if path.is_file()]
    # Path.glob finds hidden ones, too
    expected = glob.glob(pattern, root_dir=tree, recursive=True)  # noqa: PTH207
    files = {name for name in expected if (tree / name).is_file()}
    assert set(list_matches(tree, *steps)) == files
    assert {str(path) for path in every if matches(tuple(steps), path.parts)} == files


def test_files_come_before_folders_by_name(tree: Path) -> None:
    expected = ["a.jpg", "b.png", "w/[1].jpg", "w/y/c.jpg", "x/a.jpg", "x/y/a.jpg", "x/y/z/b.jpg"]
    assert list_matches(tree, *EVERYTHING) == [*expected, "x.jpg/in.jpg"]


def test_folders_that_cannot_match_are_not_looked_into(tree: Path) -> None:
    (tree / "w" / "y").chmod(0)
    looked = [str(folder) for folder, _ in walk(tree, ("x", "*", "*.jpg"))]
    assert looked == [".", "x", "x/y"]


def test_links_to_folders_are_followed_once_and_behind_all_others(tree: Path) -> None:
    (tree / "aa").symlink_to("x")
    (tree.parent / "far").mkdir()
    (tree.parent / "far" / "f.jpg").touch()
    (tree / "b").symlink_to(tree.parent / "far")
    (tree / "c").symlink_to(tree.parent / "far")
    names = list_matches(tree, *EVERYTHING)
    assert names[-1] == "b/f.jpg"
    assert len(names) == 9 and not any(name.startswith(("aa/", "c/")) for name in names)


def test_a_folder_behind_a_link_is_found_where_only_the_link_matches(tree: Path) -> None:
    (tree / "k").symlink_to("x/y")
    assert list_matches(tree, "k", "*") == ["k/a.jpg"]
    assert list_matches(tree, "[j-k]", "*") == ["k/a.jpg"]
    (tree / "l").symlink_to("x")
    # x itself was looked at for another step of the pattern
    assert list_matches(tree, "**", "l", "*.jpg") == ["l/a.jpg"]


def test_loops_end(tree: Path) -> None:
    (tree / "x" / "self").symlink_to(".")
    (tree / "x" / "y" / "up").symlink_to(tree)
    (tree / "w" / "out").symlink_to(tree.parent)
    (tree / "root").symlink_to("/")
    (tree / "one").symlink_to("two")
    (tree / "two").symlink_to("one")
    (tree / "gone.jpg").symlink_to("nowhere")
    assert len(list_matches(tree, *EVERYTHING)) == 8
    assert len(list_matches(tree, "**", "*", "**", "*.jpg")) == 6


def test_what_is_passed_over_is_so_by_any_name_unless_it_is_the_root(tree: Path) -> None:
    (tree / "link").symlink_to("x/y")
    over = (tree / "w" / ".." / "x" / "y", tree / "nowhere")
    assert "x/a.jpg" in list_matches(tree, *EVERYTHING, passed_over=over)
    assert not [
        name for name in list_matches(tree, *EVERYTHING, passed_over=over) if "a.jpg" in name[3:]
    ]
    assert list_matches(tree / "x" / "y", *EVERYTHING, passed_over=over) == ["a.jpg", "z/b.jpg"]


def test_folders_may_lie_deeper_than_python_calls(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["d"] * 300)
    deep.mkdir(parents=True)
    (deep / "a.jpg").touch()
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 150)
    try:
        (name,) = list_matches(tmp_path, *EVERYTHING)
    finally:
        sys.setrecursionlimit(limit)
    assert name.count("d/") == 300


def test_a_folder_that_cannot_be_listed_is_no_empty_one(tree: Path) -> None:
    with pytest.raises(SourceError, match=r"nowhere' cannot be listed: No such file"):
        list_matches(tree / "nowhere", "*")
    with pytest.raises(SourceError, match=r"a\.jpg' cannot be listed: Not a directory"):
        list_matches(tree / "a.jpg", "*")
