import os
import socket
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry
from PIL import Image

from camcli.errors import SourceError
from camcli.media.pictures import heif
from camcli.media.sources import listing
from camcli.media.sources.listing import IMAGE_SUFFIXES, VIDEO_SUFFIXES, find_sources, is_video
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
    actual = find_sources([photos])
    assert actual == (
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
    with pytest.raises(SourceError, match=r"empty' holds no images or videos \(.*\.jpg"):
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
    actual = find_sources(["."], leave_out=Path("pets"))
    assert [s.path.name for s in actual] == ["a.png", "b.JPG", "inside.gif"]
    assert len(find_sources([photos], leave_out=photos / "pets" / "old")) == 4
    assert len(find_sources(["pets"], leave_out=Path("pets"))) == 2
    Path("pets/cat.webp").unlink()
    with pytest.raises(SourceError, match="'pets' holds no images"):
        find_sources(["pets"], leave_out=Path("pets/../pets/old"))


def test_what_an_earlier_run_made_is_passed_over_below_the_folder_that_is_named(
    photos: Path,
) -> None:
    made = {photos / "pets": [photos / "pets" / "old" / "dog.tif"], photos: [photos / "a.png"]}
    actual = find_sources([photos], made_in=lambda folder: made.get(folder, []))
    assert [s.path.name for s in actual] == ["a.png", "b.JPG", "inside.gif", "cat.webp"]
    # whoever names the folder, or the picture, means it
    for named in (photos / "pets", photos / "pets" / "old" / "dog.tif"):
        assert find_sources([named], made_in=lambda folder: made.get(folder, [])) == find_sources(
            [named]
        )


def test_links_to_folders_do_not_loop(photos: Path) -> None:
    (photos / "again").symlink_to(photos)
    assert len(find_sources([photos])) == 5


@pytest.mark.parametrize("again", [".", "..", "/"])
def test_links_do_not_lead_out_of_a_folder_nor_back(photos: Path, again: str) -> None:
    (photos / "pets" / "again").symlink_to(again)
    assert len(find_sources([photos])) == 5


def test_only_the_folder_itself_where_no_others_are_wanted(photos: Path) -> None:
    actual = find_sources([photos, photos / "pets"], recursive=False)
    assert [s.path.name for s in actual] == ["a.png", "b.JPG", "cat.webp"]
    with pytest.raises(SourceError, match="holds no images"):
        find_sources([photos.parent], recursive=False)


def test_what_is_no_file_is_passed_over_in_a_folder_and_refused_by_name(photos: Path) -> None:
    os.mkfifo(photos / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(photos / "socket.jpg"))
    assert len(find_sources([photos])) == 5
    for name, what in {
        photos / "pipe.jpg": "a pipe",
        photos / "socket.jpg": "a socket",
        os.devnull: "a device",
    }.items():
        with pytest.raises(SourceError, match=f"{name}' is {what}, and no file"):
            find_sources([name])


def test_videos_are_listed_and_recognised_by_their_names(photos: Path) -> None:
    for name in ("clip.MP4", "pets/walk.webm"):
        (photos / name).touch()
    videos = [source for source in find_sources([photos]) if is_video(source)]
    assert [source.path.name for source in videos] == ["clip.MP4", "walk.webm"]
    assert IMAGE_SUFFIXES.isdisjoint(VIDEO_SUFFIXES)


def test_a_picture_is_listed_once_by_the_first_that_names_it(photos: Path) -> None:
    actual = find_sources([photos, photos / "pets", photos / "pets" / "cat.webp"])
    assert actual == find_sources([photos])


def test_globs_give_pictures_from_their_fixed_part_on(photos: Path) -> None:
    assert find_sources([f"{photos}/**/*.*"]) == find_sources([photos])
    assert find_sources([photos / "p*" / "**"]) == (
        Source(photos / "pets" / "cat.webp", Path("pets")),
        Source(photos / "pets" / "old" / "dog.tif", Path("pets/old")),
    )
    assert find_sources([photos / "pets" / "[a-c]at.*"]) == (Source(photos / "pets" / "cat.webp"),)
    assert find_sources([photos / "**" / "*.tif"], recursive=False)[0].folder == Path("pets/old")


def test_globs_from_here(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos)
    assert find_sources(["*.png"]) == (Source(Path("a.png")),)
    assert find_sources(["./**/*.tif"]) == (Source(Path("pets/old/dog.tif"), Path("pets/old")),)
    assert len(find_sources(["**"], leave_out=Path("pets/old"))) == 4


def test_a_glob_that_matches_no_picture(photos: Path) -> None:
    with pytest.raises(SourceError, match=r"Glob '.*\*\.txt' matches no images"):
        find_sources([photos / "*.txt"])
    with pytest.raises(SourceError, match=r"nowhere' cannot be listed"):
        find_sources([photos / "nowhere" / "*.jpg"])


def test_a_name_that_looks_like_a_glob_or_a_list_is_itself_where_it_is_there(photos: Path) -> None:
    names = ("*.png", "a[1].png", "@2x.png", "what?.png")
    for name in names:
        (photos / name).touch()
        assert find_sources([photos / name]) == (Source(photos / name),)
    (photos / "b[1]").mkdir()
    (photos / "b[1]" / "c.png").touch()
    assert find_sources([photos / "b[1]" / "*.png"])[0].path == photos / "b[1]" / "c.png"
    with pytest.raises(SourceError, match=r"does not exist\. Closest"):
        find_sources([photos / "b[1]" / "cc.png"])


def test_stdin_names_paths_unseen(photos: Path) -> None:
    content = b"gone/a.jpg\n\n/far/b.jpg\n../c/./d\xff.png\ngone/a.jpg\n*.jpg\n"
    actual = find_sources(["-"], stdin=BytesIO(content))
    assert actual == (
        Source(Path("gone/a.jpg"), Path("gone")),
        Source(Path("/far/b.jpg"), Path("far")),
        Source(Path("../c/d\udcff.png"), Path("c")),
        Source(Path("*.jpg")),
    )
    actual = find_sources([photos / "a.png", "-"], stdin=BytesIO(b"x\ny.jpg\0z.jpg\0"))
    assert [str(s) for s in actual] == [str(photos / "a.png"), "x\ny.jpg", "z.jpg"]


def test_stdin_that_says_nothing() -> None:
    with pytest.raises(SourceError, match="Standard input names no pictures"):
        find_sources(["-"], stdin=BytesIO(b"\n"))
    with pytest.raises(SourceError, match="there is none"):
        find_sources(["-"])


def test_a_list_is_relative_to_here_and_else_to_itself(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos / "pets")
    (photos / "list.txt").write_bytes(b"# mine\na.png\n\ncat.webp\r\npets/old/dog.tif\nno.jpg\n")
    assert find_sources(["@../list.txt"]) == (
        Source(Path("../a.png")),
        Source(Path("cat.webp")),
        Source(Path("../pets/old/dog.tif"), Path("pets/old")),
        Source(Path("no.jpg")),
    )


def test_a_table_names_categories(photos: Path) -> None:
    table = photos / "list.CSV"
    table.write_text("path,category\na.png,tabby\na.png,espresso\na.png,tabby\nb.JPG,\n")
    actual = find_sources([f"@{table}"])
    assert [(s.path.name, s.category) for s in actual] == [
        ("a.png", "tabby"),
        ("a.png", "espresso"),
        ("b.JPG", ""),
    ]
    assert {s.path.parent for s in actual} == {photos}
    assert find_sources([table]) == (Source(table),)


def test_lists_that_cannot_be_read(photos: Path) -> None:
    (photos / "empty.txt").write_text("# nothing\n")
    with pytest.raises(
        SourceError, match=r"List '.*lost.txt' does not exist.*Closest.*'notes.txt'"
    ):
        (photos / "notes.txt").rename(photos / "lists.txt")
        (photos / "notes.txt").touch()
        find_sources([f"@{photos / 'lost.txt'}", "notes.txt"])
    with pytest.raises(SourceError, match=r"empty.txt' names no pictures"):
        find_sources([f"@{photos / 'empty.txt'}"])
    with pytest.raises(SourceError, match=r"pets' cannot be read: Is a directory"):
        find_sources([f"@{photos / 'pets'}"])


@pytest.fixture
def bucket() -> Iterator[str]:
    files = fsspec.filesystem("memory")
    for name in ("b.jpg", "a.PNG", "notes.txt", ".h.jpg", "in/c.jpg", "in/.x/d.jpg", "in/e/f.gif"):
        files.pipe(f"/bucket/{name}", b"x")
    files.pipe("/bucket/../.up/evil.jpg", b"x")
    yield "memory://bucket"
    files.store.clear()
    files.pseudo_dirs[:] = [""]


def behind(url: str, folder: str = "") -> Source:
    return Source(Path(url.partition("://")[2]), Path(folder), url)


def test_a_url_is_a_file_a_folder_or_a_glob(bucket: str) -> None:
    inside = (
        behind(f"{bucket}/a.PNG"),
        behind(f"{bucket}/b.jpg"),
        behind(f"{bucket}/in/c.jpg", "in"),
        behind(f"{bucket}/in/e/f.gif", "in/e"),
    )
    assert find_sources([f"{bucket}/in/c.jpg"]) == (behind(f"{bucket}/in/c.jpg"),)
    assert find_sources([f"{bucket}/notes.txt"]) == (behind(f"{bucket}/notes.txt"),)
    for same in (bucket, f"{bucket}/", f"{bucket}/**", "memory://bucket/**/*.*"):
        assert find_sources([same]) == inside
    assert find_sources([bucket], recursive=False) == inside[:2]
    assert find_sources([f"{bucket}/*/*.jpg"]) == (behind(f"{bucket}/in/c.jpg", "in"),)
    # a name cannot lead outputs out of the save path
    assert find_sources([f"{bucket}/.*/.*/*"]) == (behind(f"{bucket}/../.up/evil.jpg", ".up"),)
    assert find_sources([f"{bucket}/in/**/*.gif"]) == (behind(f"{bucket}/in/e/f.gif", "e"),)


def test_a_url_that_leads_nowhere(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for url, message in {
        f"{bucket}/no.jpg": "does not exist, or cannot be reached",
        f"{bucket}/*.tif": "Glob .* matches no images",
        f"{bucket}/in/.x/no/": "Folder .* holds no images",
        "nope://a/b.jpg": "a protocol that nobody knows",
    }.items():
        with pytest.raises(SourceError, match=message):
            find_sources([url])

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("no credentials")

    monkeypatch.setattr(MemoryFileSystem, "info", refuse)
    with pytest.raises(SourceError, match=r"a.jpg' cannot be looked at: no credentials\."):
        find_sources([f"{bucket}/a.jpg"])


def test_urls_in_a_list_are_not_looked_at(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = f"{bucket}/in/c.jpg\n{bucket}/no.jpg\nhttp://me:pw@host/p/x.jpg?key=a/b#c\n"
    monkeypatch.setitem(_registry, "http", MemoryFileSystem)
    actual = find_sources(["-"], stdin=BytesIO(content.encode()))
    assert [(str(s.path), str(s.folder)) for s in actual] == [
        ("bucket/in/c.jpg", "bucket/in"),
        ("bucket/no.jpg", "bucket"),
        ("host/p/x.jpg", "host/p"),
    ]
    assert str(actual[0]) == f"{bucket}/in/c.jpg"
    with pytest.raises(SourceError, match="protocol that nobody knows"):
        find_sources(["-"], stdin=BytesIO(b"a.jpg\nnope://a.jpg\n"))


def test_a_large_folder_is_not_looked_at_file_by_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(50):
        (tmp_path / f"{number}.jpg").touch()
    looked: list[object] = []
    stat = Path.stat
    monkeypatch.setattr(Path, "stat", lambda *a, **k: looked.append(a) or stat(*a, **k))
    monkeypatch.setattr(Path, "open", lambda *_, **__: pytest.fail("a picture was opened"))
    assert len(find_sources([tmp_path])) == 50
    assert len(looked) < 20


@pytest.fixture
def mixed_folder(tmp_path: Path) -> Path:
    """Pictures of many suffixes, some of which nobody reads."""
    names = (
        *("a.avif", "b.JP2", "c.heic", "d.HEIC", "e.jfif", "f.tif", "g.ppm"),
        *("raw/h.CR2", "raw/i.nef", "raw/j.nef", "k.dcm", "l.txt", "m.npy", "n", ".o.heic"),
    )
    for name in names:
        path = tmp_path / "mixed" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "mixed"


@pytest.fixture
def without_heif(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    listing._find_requirement.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(heif, "find_spec", lambda _: None)
        yield
    listing._find_requirement.cache_clear()


def test_a_folder_gives_what_pillow_reads_and_counts_what_nobody_does(mixed_folder: Path) -> None:
    said: list[str] = []
    actual = find_sources([mixed_folder, f"{mixed_folder}/*"], tell=said.append)
    assert [s.path.name for s in actual] == [
        *("a.avif", "b.JP2", "c.heic", "d.HEIC", "e.jfif", "f.tif", "g.ppm"),
    ]
    # each once, though the glob meets it again
    assert said == ["Left out: 1 .cr2, 1 .dcm, 2 .nef (not read: convert them)."]


@pytest.mark.usefixtures("without_heif")
def test_what_an_extra_would_read_is_counted_with_its_name(mixed_folder: Path) -> None:
    said: list[str] = []
    actual = find_sources([mixed_folder], recursive=False, tell=said.append)
    assert [s.path.name for s in actual] == ["a.avif", "b.JP2", "e.jfif", "f.tif", "g.ppm"]
    assert said == [
        "Left out: 2 .heic (pip install 'camviz[heif]'); 1 .dcm (not read: convert them)."
    ]


@pytest.mark.usefixtures("without_heif")
def test_a_folder_of_nothing_that_is_read_says_what_it_holds(mixed_folder: Path) -> None:
    with pytest.raises(SourceError, match=r"holds no images.*Left out: 1 \.cr2, 2 \.nef"):
        find_sources([mixed_folder / "raw"])
    with pytest.raises(SourceError, match=r"matches no images.*1 \.heic \(pip install"):
        find_sources([f"{mixed_folder}/c*"])


def test_nothing_is_said_where_all_is_read(photos: Path) -> None:
    said: list[str] = []
    find_sources([photos], tell=said.append)
    assert said == []


def test_every_listed_suffix_is_one_that_pillow_or_pillow_heif_opens() -> None:
    Image.init()
    assert IMAGE_SUFFIXES - set(Image.registered_extensions()) == heif.SUFFIXES
