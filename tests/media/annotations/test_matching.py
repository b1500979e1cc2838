"""Which annotations are of which picture."""

from __future__ import annotations

from pathlib import Path

import pytest

from camcli.errors import AnnotationError
from camcli.media.annotations import Annotations, Matches, PictureAnnotations, match_pictures


def match(pictures: list[str], names: list[str]) -> Matches:
    items = tuple(PictureAnnotations(name, ()) for name in names)
    return match_pictures([Path(picture) for picture in pictures], Annotations(items))


def names_of(matches: Matches) -> dict[str, str]:
    return {path.as_posix(): item.name for path, item in matches.by_picture.items()}


@pytest.mark.parametrize(
    ("picture", "name"),
    [
        ("photos/a/1.jpg", "a/1.jpg"),
        ("photos/a/1.jpg", "a/1"),
        ("photos/a/1.jpg", "a\\1.png"),
        ("photos/a/1.jpg", "1.jpg"),
        ("photos/a/1.jpg", "1"),
        ("photos/a/1.jpg", "/elsewhere/val/1.jpg"),
        ("photos/v1.2.jpg", "v1.2"),
        ("1.jpg", "./1.jpg"),
    ],
)
def test_names_that_are_a_pictures(picture: str, name: str) -> None:
    matches = match([picture], [name])
    assert names_of(matches) == {picture: name}
    assert matches.notes == ()


def test_folders_tell_pictures_of_one_name_apart() -> None:
    matches = match(["p/a/1.jpg", "p/b/1.jpg"], ["b/1.jpg", "a/1.jpg"])
    assert names_of(matches) == {"p/a/1.jpg": "a/1.jpg", "p/b/1.jpg": "b/1.jpg"}


def test_the_suffix_tells_pictures_of_one_stem_apart() -> None:
    matches = match(["1.jpg", "1.png"], ["1.png", "1.jpg"])
    assert names_of(matches) == {"1.jpg": "1.jpg", "1.png": "1.png"}


def test_a_name_that_is_left_over_is_the_picture_that_is() -> None:
    matches = match(["p/1.jpg", "p/a/1.jpg"], ["1.jpg", "a/1.jpg"])
    assert names_of(matches) == {"p/1.jpg": "1.jpg", "p/a/1.jpg": "a/1.jpg"}


def test_what_could_be_several_is_left_out_and_said() -> None:
    matches = match(["a/1.jpg", "b/1.jpg", "2.jpg"], ["1", "2"])
    assert names_of(matches) == {"2.jpg": "2"}
    assert matches.notes == (
        "'1' could be 'a/1.jpg', 'b/1.jpg': it is left out; give relative paths",
        "2 pictures without annotations: '1.jpg', '1.jpg'",
    )


def test_two_annotations_of_a_picture_are_left_out_and_said() -> None:
    matches = match(["a/1.jpg", "2.jpg"], ["1.jpg", "a/1.jpg", "2.jpg"])
    assert names_of(matches) == {"2.jpg": "2.jpg"}
    assert matches.notes[0] == "a/1.jpg is annotated by '1.jpg', 'a/1.jpg': they are left out"


def test_what_has_no_partner_is_counted() -> None:
    matches = match(["1.jpg", "2.jpg"], ["1.jpg", *(f"{n}.jpg" for n in range(3, 8))])
    assert matches.notes == (
        "1 picture without annotations: '2.jpg'",
        "5 annotated pictures not given: '3.jpg', '4.jpg', '5.jpg' and 2 more",
    )


def test_annotations_of_other_pictures() -> None:
    with pytest.raises(AnnotationError, match=r"None of the 1 .*'a.jpg', .*'b'"):
        match(["x/a.jpg"], ["b"])
