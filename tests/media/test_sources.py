from pathlib import Path

import pytest

from camcli.errors import SourceError
from camcli.media.sources import find_sources
from camcli.records import Source


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    names = ("b.JPG", "a.png", "notes.txt", ".hidden.jpg", "pets/cat.webp", "pets/old/dog.tif")
    for name in (*names, ".cache/thumbnail.jpg", "folder.jpg/inside.gif"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path / "photos"


def test_folder_gives_its_images_sorted_and_mirrored(photos: Path) -> None:
    found = find_sources([photos])
    assert found == (
        Source(photos / "a.png"),
        Source(photos / "b.JPG"),
        Source(photos / "folder.jpg" / "inside.gif", Path("folder.jpg")),
        Source(photos / "pets" / "cat.webp", Path("pets")),
        Source(photos / "pets" / "old" / "dog.tif", Path("pets/old")),
    )


def test_named_files_are_taken_whatever_their_suffix_and_order_is_kept(photos: Path) -> None:
    named = [photos / "notes.txt", photos / "pets", str(photos / ".hidden.jpg")]
    assert [s.path.name for s in find_sources(named)] == [
        "notes.txt",
        "cat.webp",
        "dog.tif",
        ".hidden.jpg",
    ]
    assert find_sources([photos / "pets" / "cat.webp"])[0].folder == Path()


def test_a_hidden_folder_that_is_named_is_listed(photos: Path) -> None:
    assert [s.path.name for s in find_sources([photos / ".cache"])] == ["thumbnail.jpg"]


def test_missing_input_offers_close_names(photos: Path) -> None:
    with pytest.raises(SourceError, match=r"cta\.webp' does not exist.*'cat\.webp'"):
        find_sources([photos / "pets" / "cta.webp"])


def test_missing_folder_and_hopeless_names_are_said(photos: Path) -> None:
    with pytest.raises(SourceError, match="Nor does its folder"):
        find_sources([photos / "nowhere" / "cat.webp"])
    with pytest.raises(SourceError, match="does not exist"):
        find_sources([photos / ("x" * 5000)])
    with pytest.raises(SourceError, match="does not exist"):
        find_sources(["a\0b"])


def test_folder_without_images_is_an_error(photos: Path) -> None:
    (photos / "empty").mkdir()
    (photos / "empty" / "notes.txt").touch()
    with pytest.raises(SourceError, match=r"empty' holds no images \(.*\.jpg"):
        find_sources([photos / "pets", photos / "empty"])


def test_a_picture_that_is_named_twice_is_listed_once(photos: Path) -> None:
    cat = photos / "pets" / "cat.webp"
    assert find_sources([cat, photos / "pets", cat]) == find_sources([photos / "pets"])


def test_an_empty_name_is_not_the_current_folder() -> None:
    with pytest.raises(SourceError, match="names no picture"):
        find_sources([""])


def test_a_link_to_nothing_says_so(photos: Path) -> None:
    (photos / "link.jpg").symlink_to("gone.jpg")
    with pytest.raises(SourceError, match=r"does not exist\. It is a link to 'gone\.jpg'"):
        find_sources([photos / "link.jpg"])
    assert len(find_sources([photos])) == 5


def test_the_folder_of_the_outputs_is_left_out_unless_it_is_named(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos)
    found = find_sources(["."], leave_out=Path("pets"))
    assert [s.path.name for s in found] == ["a.png", "b.JPG", "inside.gif"]
    assert len(find_sources([photos], leave_out=photos / "pets" / "old")) == 4
    assert len(find_sources(["pets"], leave_out=Path("pets"))) == 2
    Path("pets/cat.webp").unlink()
    with pytest.raises(SourceError, match="'pets' holds no images"):
        find_sources(["pets"], leave_out=Path("pets/../pets/old"))


def test_links_to_folders_do_not_loop(photos: Path) -> None:
    (photos / "again").symlink_to(photos)
    assert len(find_sources([photos])) == 5
