import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO
from zlib import crc32

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from camcli.errors import ImageError, OutputError, UnknownName
from camcli.media import atomic_files
from camcli.media.atomic_files import check_writable, remove_orphans, write_atomically
from camcli.media.map_files import write_map
from camcli.media.output_names import name_output
from camcli.media.pictures.output_formats import PICTURE_SUFFIXES
from camcli.media.pictures.write import encode_picture, write_picture
from camcli.media.sources.listing import mark_namesakes
from camcli.records import FileStamp, Source
from tests.checkout import ROOT

SUFFIXES = (*PICTURE_SUFFIXES, ".npy")
WRITE = os.write


def name(path: str, label: str = "cat", *, namesake: bool = False, **options: str | None) -> str:
    source = Source(Path(path), has_namesake=namesake)
    return str(name_output(source, "gradcam", 3, label, **options))


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def scene() -> NDArray[np.uint8]:
    y, x = np.mgrid[:40, :64].astype(np.uint8)
    return np.dstack([x * 4, y * 6, x + y])


@pytest.mark.parametrize(
    ("path", "format", "expected"),
    [
        ("in/a.jpg", None, "a_gradcam_3-cat.jpg"),
        ("in/a.JPEG", None, "a_gradcam_3-cat.JPEG"),
        ("a.b.tiff", None, "a.b_gradcam_3-cat.tiff"),
        ("a.gif", None, "a_gradcam_3-cat.jpg"),
        ("a.gif", "png", "a_gradcam_3-cat.png"),
        ("a.png", "jpg", "a_gradcam_3-cat.jpg"),
        ("a.jpg", "jpg", "a_gradcam_3-cat.jpg"),
        ("a.JPEG", "jpg", "a_gradcam_3-cat.JPEG"),
        ("a.jpg", ".JPEG", "a_gradcam_3-cat.jpg"),
        ("a.jpg", "PNG", "a_gradcam_3-cat.png"),
        ("photo", None, "photo_gradcam_3-cat.jpg"),
        (".jpg", None, ".jpg_gradcam_3-cat.jpg"),
    ],
)
def test_names(path: str, format: str | None, expected: str) -> None:  # noqa: A002
    assert name(path, format=format) == expected


def test_the_suffix_stays_where_it_tells_two_inputs_apart() -> None:
    listed = mark_namesakes(Source(Path(path)) for path in ("a.jpg", "A.png", "b.jpg", "x/b.jpg"))
    assert [source.has_namesake for source in listed] == [True, True, False, False]
    names = [str(name_output(source, "cam", None, "", format="png")) for source in listed]
    assert names == ["a.jpg_cam.png", "A_cam.png", "b_cam.png", "b_cam.png"]
    # what lies elsewhere below the save path is no namesake
    apart = mark_namesakes([Source(Path("a.jpg")), Source(Path("x/a.png"), Path("x"))])
    assert not any(source.has_namesake for source in apart)


def test_unknown_format_is_refused() -> None:
    with pytest.raises(UnknownName, match=r"'jpgg'.*'jpg'"):
        name("a.png", format="jpgg")


@pytest.mark.parametrize("format", [None, "jpg", "png"])
def test_siblings_never_share_a_name(format: str | None) -> None:  # noqa: A002
    suffixes = (*PICTURE_SUFFIXES, ".gif", ".JPG", ".ppm")
    names = {name("a" + suffix, namesake=True, format=format) for suffix in suffixes}
    assert len(names) == len(suffixes)


def test_layer_and_folder_are_part_of_the_name() -> None:
    source = Source(Path("photos/pets/a.jpg"), Path("pets"))
    path = name_output(source, "gradcam++", 3, "cat", layer="blocks.11.norm1")
    assert path == Path("pets/a_gradcam++_blocks.11.norm1_3-cat.jpg")


def test_the_target_is_part_of_the_name() -> None:
    assert name("a.jpg", target="contrast-4-5") == "a_gradcam_contrast-4-5_3-cat.jpg"
    both = name("a.jpg", layer="l", target="<lambda>")
    assert re.fullmatch(r"a_gradcam_l__lambda_~[0-9a-f]{10}_3-cat\.jpg", both)
    many = name("a.jpg", target="contrast" + "-100" * 99)
    assert len(many) < 120
    assert many != name("a.jpg", target="contrast" + "-100" * 98)


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("tabby, tabby cat", "a_gradcam_3-tabby.jpg"),
        ("espresso  maker\n", "a_gradcam_3-espresso_maker.jpg"),
        ('a/b\\c:d*e?f"g<h>i|j', "a_gradcam_3-a_b_c_d_e_f_g_h_i_j.jpg"),
        ("../../etc/passwd", "a_gradcam_3-.._.._etc_passwd.jpg"),
        ("red\x1b[31m\x00\u202e\u200b\ud800", "a_gradcam_3-red_[31m____.jpg"),
        ("cafe\u0301 \u732b \U0001f408", "a_gradcam_3-caf\u00e9_\u732b_\U0001f408.jpg"),
        ("", "a_gradcam_3.jpg"),
        (" , cat", "a_gradcam_3.jpg"),
        ("potter's wheel", "a_gradcam_3-potter's_wheel.jpg"),
    ],
)
def test_labels_are_made_safe(label: str, expected: str) -> None:
    assert name("a.jpg", label) == expected


def test_names_are_bounded_and_stay_different(tmp_path: Path) -> None:
    stems = ["猫" * 83, "猫" * 82 + "犬", "x" * 251, "x" * 250 + "y", "\udcff" * 200]
    for layer in (None, "features." * 40 + "conv1", "features." * 40 + "conv2"):
        names = [name(stem + ".jpg", "dog " * 100, layer=layer) for stem in stems]
        assert len(set(names)) == len(stems)
        assert all(len(os.fsencode(n + ".pixels.png")) <= 255 for n in names)
        write_picture(scene(), tmp_path / names[0])
    layers = {name("a.jpg", layer="features." * 40 + end) for end in ("conv1", "conv2")}
    assert len(layers) == 2


def test_names_are_composed_and_repeatable() -> None:
    decomposed = unicodedata.normalize("NFD", "Änderung")
    assert name("a.jpg", decomposed) == name("a.jpg", "Änderung")
    assert name("a.jpg", "x" * 300) == name("a.jpg", "x" * 300)


@pytest.mark.parametrize("suffix", PICTURE_SUFFIXES)
def test_pictures_come_back_as_written(tmp_path: Path, suffix: str) -> None:
    path, again = tmp_path / "new" / "folder" / f"a{suffix}", tmp_path / f"b{suffix}"
    write_picture(scene(), path)
    write_picture(scene(), again)
    assert path.read_bytes() == again.read_bytes()
    with Image.open(path) as image:
        assert image.format == PICTURE_SUFFIXES[suffix]
        difference = np.abs(np.asarray(image).astype(int) - scene())
    lossy = PICTURE_SUFFIXES[suffix] in ("JPEG", "WEBP")
    assert difference.mean() < (3 if lossy else 1e-9)
    assert names_in(path.parent) == [path.name]


def test_jpeg_keeps_the_colour_of_every_pixel(tmp_path: Path) -> None:
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, ::2], stripes[:, 1::2] = (255, 0, 0), (0, 0, 255)
    write_picture(stripes, tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as image:
        assert np.abs(np.asarray(image).astype(int) - stripes).mean() < 12


def test_maps_come_back_as_written(tmp_path: Path) -> None:
    values = np.array([[-1.5, np.nan], [2, 3]], np.float32)
    write_map(values, tmp_path / "sub" / "a.npy")
    read = np.load(tmp_path / "sub" / "a.npy")
    assert read.dtype == np.float32 and np.array_equal(read, values, equal_nan=True)


def test_files_get_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    write_picture(scene(), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_unwritable_places_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.jpg").mkdir()
    for path, kind, reason in (
        (tmp_path / "file" / "a.jpg", ImageError, "Not a directory|File exists"),
        (tmp_path / "folder.jpg", ImageError, "Is a directory"),
        (tmp_path / ("x" * 300 + ".jpg"), ImageError, "name too long"),
        (tmp_path / ("x/" * 3000 + "a.jpg"), ImageError, "name too long"),
        (tmp_path / "a.xyz", OutputError, "suffix is one of .jpg"),
        (tmp_path / "a\0b.jpg", ImageError, "null"),
    ):
        with pytest.raises(kind, match=reason) as caught:
            write_picture(scene(), path)
        assert repr(str(path)) in str(caught.value)
    assert names_in(tmp_path) == ["file", "folder.jpg"]


def test_what_a_format_cannot_hold_is_the_fault_of_the_picture(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="at most 65500 pixels an edge, and the picture has 70000"):
        write_picture(np.zeros((1, 70_000, 3), np.uint8), tmp_path / "a.jpg")
    assert names_in(tmp_path) == []


def write_scene(path: Path) -> FileStamp:
    """Writes the scene, or a map, by the suffix."""
    if path.suffix == ".npy":
        return write_map(scene()[..., 0].astype(np.float32), path)
    return write_picture(scene(), path)


def half_written(file: int, content: memoryview) -> int:
    return WRITE(file, content[: -(-len(content) // 2)])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_short_writes_are_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    at_once = write_scene(tmp_path / f"a{suffix}")
    monkeypatch.setattr(os, "write", half_written)
    assert write_scene(tmp_path / f"b{suffix}") == at_once
    content = (tmp_path / f"b{suffix}").read_bytes()
    assert content == (tmp_path / f"a{suffix}").read_bytes()
    assert at_once == FileStamp(len(content), f"{crc32(content):08x}")


@pytest.mark.parametrize("nameless", [True, False])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_full_disk_leaves_no_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, nameless: bool
) -> None:
    if not nameless:
        monkeypatch.setattr(atomic_files, "OPENED", tmp_path / "nowhere")
    room = [60]

    def write_while_there_is_room(file: int, content: memoryview) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = WRITE(file, content[: room[0]])
        room[0] -= written
        return written

    monkeypatch.setattr(os, "write", write_while_there_is_room)
    with pytest.raises(OutputError, match="No space left on device"):
        write_scene(tmp_path / f"a{suffix}")
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("taken", [lambda content: len(content), lambda _: 0])
def test_what_a_file_system_only_says_it_took_is_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: Callable[[memoryview], int]
) -> None:
    monkeypatch.setattr(os, "write", lambda _, content: taken(content))
    with pytest.raises(OutputError, match="not all of it could be written"):
        write_scene(tmp_path / "a.jpg")
    assert names_in(tmp_path) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(tmp_path)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("only root mounts file systems")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_disk_that_fills_up_holds_whole_files_alone(small_disk: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    path = small_disk / f"a{suffix}"
    message = 0
    for free in (4, 8, 16, 24, 64):  # KiB
        path.unlink(missing_ok=True)
        room = os.statvfs(small_disk)
        (small_disk / "filler").write_bytes(bytes(room.f_bavail * room.f_frsize - free * 1024))
        try:
            values = noise[..., 0].astype(np.float32)
            stamp = write_map(values, path) if suffix == ".npy" else write_picture(noise, path)
        except OutputError as error:
            message += "No space left on device" in str(error)
            assert names_in(small_disk) == ["filler"]
        else:
            assert stamp == FileStamp.of(path.read_bytes())
        (small_disk / "filler").unlink()
    assert message


def test_what_an_encoder_refuses_is_the_fault_of_the_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("encoder error -2 when writing image file")

    monkeypatch.setattr(Image.Image, "save", refuse)
    with pytest.raises(ImageError, match=r"a\.png' as PNG: encoder error -2"):
        write_scene(tmp_path / "a.png")
    assert names_in(tmp_path) == []


def test_what_opencv_does_not_encode_is_the_fault_of_the_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cv2, "imencode", lambda *_: (False, np.empty(0, np.uint8)))
    with pytest.raises(ImageError, match=r"a\.jpg' as JPEG: OpenCV does not encode it"):
        write_scene(tmp_path / "a.jpg")
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("size", [(1, 1), (7, 9), (40, 64), (33, 250)])
def test_jpegs_are_those_that_pillow_writes_of_full_colour(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    expected = BytesIO()
    Image.fromarray(pixels).save(expected, "JPEG", quality=95, subsampling=0)
    assert bytes(encode_picture(pixels, Path("a.jpg"))) == expected.getvalue()
    # rows that do not follow each other in memory, too
    wide = np.concatenate([pixels, pixels], axis=1)
    assert bytes(encode_picture(wide[:, : size[1]], Path("a.jpg"))) == expected.getvalue()


@pytest.mark.parametrize("nameless", [True, False])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
def test_a_cut_off_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, nameless: bool
) -> None:
    if not nameless:
        monkeypatch.setattr(atomic_files, "OPENED", tmp_path / "nowhere")
    path = tmp_path / "a.png"
    write_scene(path)
    before = path.read_bytes()

    def write_half(file: int, content: memoryview) -> int:
        half_written(file, content)
        raise error

    monkeypatch.setattr(os, "write", write_half)
    expected = OutputError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        write_scene(path)
    assert names_in(tmp_path) == ["a.png"] and path.read_bytes() == before


@pytest.mark.parametrize("opened", [atomic_files.OPENED, Path("nowhere")])
def test_what_is_there_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: Path
) -> None:
    monkeypatch.setattr(atomic_files, "OPENED", opened)
    path = tmp_path / "a.npy"
    for value in (1, 2):
        write_map(np.full((2, 3), value, np.float32), path)
        assert np.load(path).tolist() == [[value] * 3] * 2
    assert names_in(tmp_path) == ["a.npy"]


KILLED = """
import os, signal, sys
import numpy as np
from pathlib import Path
from camcli.media.pictures.write import write_picture

WRITE = os.write

def write_half(file, content):
    WRITE(file, content[: len(content) // 2])
    os.kill(os.getpid(), signal.SIGKILL)

os.write = write_half
write_picture(np.zeros((8, 8, 3), np.uint8), Path(sys.argv[1]))
"""


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="no files without a name")
def test_a_killed_process_leaves_no_half_written_file(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "a.png")], cwd=ROOT, check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert names_in(tmp_path) == []


def abandon(folder: Path, name: str) -> Path:
    """What a killed process leaves where files have to have names."""
    part = folder / name
    part.write_bytes(b"half a picture")
    return part


def test_what_a_killed_process_left_is_removed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nameless = "from pathlib import Path\nfrom camcli.media import atomic_files"
    code = f"{nameless}\natomic_files.OPENED = Path('nowhere')\n{KILLED}"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.png")], cwd=ROOT, check=False)
    (part,) = tmp_path.iterdir()
    assert part.name.startswith(f".camviz-{atomic_files.HOST}-") and part.suffix == ".part"
    monkeypatch.setattr(atomic_files, "OPENED", Path("nowhere"))
    write_map(np.zeros((2, 3), np.float32), tmp_path / "b.npy")
    assert names_in(tmp_path) == ["b.npy"]


def test_what_is_being_written_is_no_orphan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic_files, "OPENED", Path("nowhere"))
    with write_atomically(tmp_path / "a.npy") as file:
        file.write(b"a")
        remove_orphans.__wrapped__(tmp_path)
        assert len(names_in(tmp_path)) == 1
    assert (tmp_path / "a.npy").read_bytes() == b"a"


def test_a_part_of_another_machine_is_an_orphan_after_a_day(tmp_path: Path) -> None:
    part = abandon(tmp_path, ".camviz-nobody-0123.part")
    abandon(tmp_path, "mine.part")
    remove_orphans.__wrapped__(tmp_path)
    assert len(names_in(tmp_path)) == 2
    os.utime(part, (0, 0))
    remove_orphans.__wrapped__(tmp_path)
    assert names_in(tmp_path) == ["mine.part"]


def test_a_part_that_was_taken_for_an_orphan_is_begun_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic_files, "OPENED", Path("nowhere"))
    lock, taken = atomic_files._lock, []

    def take_away(file: BinaryIO) -> bool:
        if not taken:
            taken.append(file.name)
            Path(file.name).unlink()
        return lock(file)

    monkeypatch.setattr(atomic_files, "_lock", take_away)
    write_map(np.zeros((2, 3), np.float32), tmp_path / "a.npy")
    assert taken and names_in(tmp_path) == ["a.npy"]


def test_check_writable_leaves_nothing_behind(tmp_path: Path) -> None:
    check_writable(tmp_path)
    check_writable(tmp_path / "not" / "yet")
    assert names_in(tmp_path) == []
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError, match="file"):
            check_writable(folder)
    with pytest.raises(OutputError, match="name too long"):
        check_writable(tmp_path / ("x" * 300))


def test_check_writable_finds_places_that_take_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(OutputError, match="Read-only"):
        check_writable(tmp_path / "new")


def test_check_writable_takes_a_folder_relative_to_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    check_writable(Path("camviz-out"))
    check_writable(Path())
    assert names_in(tmp_path) == []


def test_a_value_stands_in_the_name() -> None:
    def name(category: int | None, label: str, value: float) -> str:
        named = name_output(Source(Path("a.jpg")), "gradcam", category, label, value=value)
        return str(named)

    assert name(None, "value", 37.2456) == "a_gradcam_value-37.25.jpg"
    assert name(None, "value", -0.5) == "a_gradcam_value--0.5.jpg"
    assert name(3, "left eye", 0.125) == "a_gradcam_3-left_eye-0.125.jpg"
