import io
import os
import socket
import threading
import warnings
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageFile

from camcli.errors import ImageError, UsageError
from camcli.media.pictures import read
from camcli.media.pictures.read import PILLOW, make_picture, read_picture
from camcli.records import MAX_PIXELS, Picture, Source
from tests.media.pictures.scenes import pixels_of, save, scene

FORMATS = ("jpeg", "png", "webp", "bmp", "tiff", "gif")
LOSSLESS = {"png": {}, "bmp": {}, "tiff": {}, "webp": {"lossless": True}}


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_is_read(tmp_path: Path, suffix: str) -> None:
    path = save(Image.fromarray(scene()), tmp_path / f"a.{suffix}", **LOSSLESS.get(suffix, {}))
    pixels = pixels_of(path)
    assert pixels.dtype == np.uint8 and pixels.shape == (40, 64, 3)
    # away from the borders, where JPEG rings
    for y, x in ((8, 8), (8, 56), (32, 8), (32, 56)):
        assert np.abs(pixels[y, x].astype(int) - scene()[y, x]).max() <= (
            0 if suffix in LOSSLESS else 8
        )


def test_source_and_size_are_kept(tmp_path: Path) -> None:
    source = Source(save(Image.fromarray(scene()), tmp_path / "a.png"), Path("sub"))
    picture = read_picture(source)
    assert picture.source == source and picture.size == (40, 64)


def test_first_frame_of_a_gif(tmp_path: Path) -> None:
    first = Image.fromarray(scene())
    path = tmp_path / "a.gif"
    first.save(path, save_all=True, append_images=[first.rotate(180)])
    assert pixels_of(path)[5, 5, 0] > 240


def test_unreadable_files_say_why(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("not an image")
    (tmp_path / "program.jpg").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    cases = {
        "none.jpg": "there is no such file",
        "empty.jpg": "it is empty",
        "text.jpg": "it is no image",
        "program.jpg": "EPS is a program",
        ".": "it is a folder",
    }
    for name, reason in cases.items():
        with pytest.raises(ImageError, match=reason) as caught:
            read_picture(Source(tmp_path / name))
        assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_truncated_file_is_an_error_never_grey_pixels(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (48, 48, 3), np.uint8)
    whole = save(Image.fromarray(noise), tmp_path / f"whole.{suffix}").read_bytes()
    cut = tmp_path / f"cut.{suffix}"
    expected = pixels_of(tmp_path / f"whole.{suffix}")
    for share in (0.02, 0.1, 0.3, 0.5, 0.8, 0.95):
        cut.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(ImageError, match=f"Cannot read '.*cut.{suffix}'"):
            read_picture(Source(cut))
    for missing in range(1, 12):
        cut.write_bytes(whole[:-missing])
        try:
            assert np.array_equal(pixels_of(cut), expected)
        except ImageError as error:
            assert str(cut) in str(error)


def test_damaged_bytes_never_raise_anything_else(tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    for suffix in FORMATS:
        whole = np.frombuffer(
            save(Image.fromarray(scene()), tmp_path / f"a.{suffix}").read_bytes(), np.uint8
        )
        for _ in range(40):
            damaged = whole.copy()
            damaged[draw.integers(0, min(len(whole), 400), 4)] = draw.integers(0, 255, 4)
            path = tmp_path / f"damaged.{suffix}"
            path.write_bytes(damaged.tobytes())
            try:
                assert pixels_of(path).ndim == 3
            except ImageError as error:
                assert str(path) in str(error)


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(Image.fromarray(scene()), tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    assert pixels_of(path).shape == (40, 64, 3)  # Pillow only warns up to twice the limit
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ImageError, match="too many pixels"):
        read_picture(Source(path))


def test_warning_filters_survive_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(Image.fromarray(scene()), tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)  # so that each reading warns
    before = list(warnings.filters)
    failed: list[Exception] = []

    def read_many() -> None:
        try:
            for _ in range(50):
                pixels_of(path)
        except ImageError as error:
            failed.append(error)

    threads = [threading.Thread(target=read_many) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed and warnings.filters == before


def test_pictures_from_python_all_look_alike(tmp_path: Path) -> None:
    pixels = scene()
    path = save(Image.fromarray(pixels), tmp_path / "a.png")
    floats = pixels.astype(np.float32) / 255
    opaque = np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
    alike = [
        path,
        str(path),
        Source(path),
        Image.fromarray(pixels),
        pixels,
        pixels[:, ::-1][:, ::-1],
        floats,
        floats.astype(np.float64),
        opaque,
        torch.from_numpy(pixels).permute(2, 0, 1),
        torch.from_numpy(floats).permute(2, 0, 1).requires_grad_(),
        Picture(pixels),
    ]
    for value in alike:
        assert np.array_equal(make_picture(value).pixels, pixels)


def test_grey_and_half_precision_and_transparent_values() -> None:
    grey = np.array([[0, 51, 255]], np.uint8)
    for value in (grey, grey[..., None], torch.from_numpy(grey), torch.from_numpy(grey)[None]):
        assert make_picture(value).pixels.tolist() == [[[0] * 3, [51] * 3, [255] * 3]]
    half = torch.full((3, 2, 2), 0.5, dtype=torch.bfloat16)
    assert (make_picture(half).pixels == 128).all()
    clear = np.zeros((1, 1, 4))
    assert make_picture(clear).pixels.tolist() == [[[255, 255, 255]]]


def test_a_picture_does_not_change_with_the_callers_array() -> None:
    frame = scene()
    picture = make_picture(frame)
    frame[:] = 0
    assert picture.pixels.max() == 250


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.zeros((3, 8, 8), np.uint8), r"shape \(3, 8, 8\)"),
        (np.zeros((0, 8, 3), np.uint8), "shape"),
        (np.zeros((2, 8, 8, 3), np.uint8), "shape"),
        (np.zeros((8, 8, 3), np.int64), "not int64"),
        (np.full((8, 8, 3), -2.1), "not -2.1 to -2.1"),
        (np.full((8, 8, 3), np.nan), "0 to 1"),
        (torch.zeros(8, 8, 3), "shape"),
        (3, "not int"),
    ],
)
def test_values_that_are_no_picture(value: object, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        make_picture(value)  # type: ignore[arg-type]


def test_a_lazily_opened_damaged_picture_is_an_image_error() -> None:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(
        file, "png"
    )
    with Image.open(io.BytesIO(file.getvalue()[:3000])) as image, pytest.raises(ImageError):
        make_picture(image)


def test_colour_profiles_change_no_values(tmp_path: Path) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = Image.fromarray(scene())
    plain, tagged = tmp_path / "a.png", tmp_path / "b.png"
    for profile in (srgb, b"no profile at all"):
        save(image, plain)
        save(image, tagged, icc_profile=profile)
        assert np.array_equal(pixels_of(plain), pixels_of(tagged))


def test_the_first_frame_of_a_tiff(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "green")]
    path = save(frames[0], tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    assert pixels_of(path)[4, 4].tolist() == [255, 0, 0]


@pytest.mark.parametrize(("width", "height"), [(1, 1), (30_000, 20), (20, 30_000)])
@pytest.mark.parametrize("suffix", ["jpg", "png", "tiff", "bmp"])
def test_odd_sizes(tmp_path: Path, width: int, height: int, suffix: str) -> None:
    path = save(Image.new("RGB", (width, height), (9, 9, 9)), tmp_path / f"a.{suffix}")
    pixels = pixels_of(path)
    assert pixels.shape == (height, width, 3) and (pixels == 9).all()


def test_a_picture_without_pixels_is_none() -> None:
    for size in ((0, 4), (4, 0), (0, 0)):
        with pytest.raises(ImageError, match="it has no pixels"):
            make_picture(Image.new("RGB", size))


NAMES = (
    "two words.png",
    "line\nend.png",
    "\x1b[31mred.png",
    "\udce9\udcff.png",
    "\N{CAT FACE}.png",
    "-rf.png",
    "..png",
    " .png",
    "猫" * 83 + "x.png",
    "picture.jpg",
    "picture",
)


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_odd_names_and_wrong_extensions(tmp_path: Path, name: str) -> None:
    assert len(os.fsencode(name)) <= 254
    path = tmp_path / name
    try:
        save(Image.fromarray(scene()), path, format="png")
    except (OSError, UnicodeEncodeError):
        pytest.skip("this file system has no such names")
    assert np.array_equal(pixels_of(path), scene())
    path.write_bytes(b"no picture")
    with pytest.raises(ImageError) as caught:
        read_picture(Source(path))
    assert repr(str(path)) in str(caught.value)


def png_of(width: int, height: int) -> bytes:
    """A whole header, and nothing behind it."""
    file = io.BytesIO()
    Image.new("L", (1, 1)).save(file, "png")
    content = bytearray(file.getvalue())
    content[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


def test_too_many_pixels_are_refused_by_the_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(Image.fromarray(scene()), tmp_path / "a.png")
    assert read_picture(Source(path), 64 * 40).size == (40, 64)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("it was decoded"))
    with pytest.raises(
        ImageError, match=rf"{path.name}.*64 x 40 pixels are too many for --max-pixels 2559\."
    ):
        read_picture(Source(path), 64 * 40 - 1)


def test_by_default_pillows_own_limit_holds(tmp_path: Path) -> None:
    assert Image.MAX_IMAGE_PIXELS is not None and MAX_PIXELS == 2 * Image.MAX_IMAGE_PIXELS
    path = tmp_path / "a.png"
    path.write_bytes(png_of(50_000, 50_000))
    with pytest.raises(ImageError, match="too many pixels"):
        read_picture(Source(path))


def test_more_pixels_may_be_asked_for_while_others_keep_their_limit(tmp_path: Path) -> None:
    limit, path = Image.MAX_IMAGE_PIXELS, tmp_path / "a.png"
    path.write_bytes(png_of(50_000, 50_000))
    first, second = threading.Event(), threading.Event()
    said: list[str] = []

    def read_large() -> None:
        with PILLOW.allow_pixels(3_000_000_000):
            first.set()
            assert second.wait(30)

    thread = threading.Thread(target=read_large)
    thread.start()
    assert first.wait(30)
    try:
        read_picture(Source(path))
    except ImageError as error:
        said.append(str(error))
    second.set()
    thread.join()
    assert "50000 x 50000 pixels are too many for --max-pixels 178956970" in said[0]
    assert limit == Image.MAX_IMAGE_PIXELS
    with pytest.raises(ImageError, match="Cannot read"):
        read_picture(Source(path), 2_499_999_999)
    assert limit == Image.MAX_IMAGE_PIXELS


def test_a_limit_that_the_program_lowered_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(Image.fromarray(scene()), tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ImageError, match="too many pixels"):
        read_picture(Source(path))
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_a_file_of_too_many_bytes_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.touch()
    os.truncate(path, 2**40)  # of holes, which take no place
    with pytest.raises(ImageError, match=r"1,099,511,627,776 bytes are too many for --max-pixels"):
        read_picture(Source(path))


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    pipe, listening, loop = tmp_path / "pipe.jpg", tmp_path / "socket.jpg", tmp_path / "loop.jpg"
    os.mkfifo(pipe)
    loop.symlink_to(loop)
    with socket.socket(socket.AF_UNIX) as server, pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)  # the names of sockets are short
        server.bind(listening.name)
        for path in (pipe, listening, Path("/dev/null"), Path("/dev/zero")):
            with pytest.raises(ImageError, match="it is no ordinary file"):
                read_picture(Source(path))
    with pytest.raises(ImageError, match="symbolic links"):
        read_picture(Source(loop))


@pytest.mark.parametrize("change", ["cut", "grown", "rewritten"])
def test_a_file_that_changes_meanwhile_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    path = save(Image.fromarray(scene()), tmp_path / "a.bmp")
    whole = path.read_bytes()
    changed = {"cut": whole[:-9], "grown": whole + b"x", "rewritten": whole[::-1]}[change]
    actual = path.stat()

    class Slow(io.FileIO):
        def read(self, size: int = -1) -> bytes:
            path.write_bytes(changed)
            os.utime(path, ns=(actual.st_atime_ns, actual.st_mtime_ns + 1))
            return super().read(size)

    monkeypatch.setattr(read, "open_source", lambda source: Slow(source.path))
    with pytest.raises(ImageError, match="it changed while it was read"):
        read_picture(Source(path))


def test_a_file_that_is_replaced_meanwhile_is_read_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(Image.fromarray(scene()), tmp_path / "a.png")
    decode = Image.open

    def replace_file(*arguments: Any, **options: Any) -> Image.Image:
        save(Image.new("L", (5, 5)), tmp_path / "b.png").replace(path)
        return decode(*arguments, **options)

    monkeypatch.setattr(Image, "open", replace_file)
    assert np.array_equal(pixels_of(path), scene())


def test_a_url_is_read_and_its_faults_are_reported() -> None:
    file = io.BytesIO()
    Image.fromarray(scene()).save(file, "png")
    present = Source(Path("a.png"), url="memory://hostile/a.png")
    with fsspec.open(present.url, "wb") as target:
        target.write(file.getvalue())
    assert np.array_equal(read_picture(present).pixels, scene())
    with pytest.raises(ImageError, match=r"'memory://hostile/none\.png': there is no such file"):
        read_picture(Source(Path("none.png"), url="memory://hostile/none.png"))
    with pytest.raises(ImageError, match=r"'odd://a\.png': it cannot be read \(.*protocol"):
        read_picture(Source(Path("a.png"), url="odd://a.png"))


def open_files() -> int:
    known = Path("/proc/self/fd")
    return len(list(known.iterdir())) if known.is_dir() else 0


def test_no_file_stays_open_and_nothing_is_said(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    image, path = Image.fromarray(scene()), tmp_path / "a.tif"
    before = open_files()
    for compression in ("tiff_lzw", "tiff_deflate", "jpeg", "raw"):
        whole = save(image, path, compression=compression).read_bytes()
        for at in range(8, len(whole), max(1, len(whole) // 40)):
            path.write_bytes(whole[:at] + b"\xff" + whole[at + 1 :])
            with suppress(ImageError):
                read_picture(Source(path))
    # libtiff and Python's logging both write to standard error where nobody stops them
    assert capfd.readouterr() == ("", "")
    assert open_files() == before


SEVERAL = "it has 3 {}, and the first one is shown: --frames : takes them all"


@pytest.mark.parametrize("suffix", [".tif", ".gif", ".webp", ".png", ".avif"])
def test_of_several_pages_or_frames_it_is_said_which_is_shown(tmp_path: Path, suffix: str) -> None:
    colours = ("red", "green", "blue")
    first, *others = (Image.new("RGB", (16, 16), colour) for colour in colours)
    path = save(first, tmp_path / f"a{suffix}", save_all=True, append_images=others)
    picture = read_picture(Source(path))
    assert picture.notes == (SEVERAL.format("pages" if suffix == ".tif" else "frames"),)
    assert picture.pixels[8, 8].argmax() == 0
    assert read_picture(Source(save(first, tmp_path / f"one{suffix}"))).notes == ()


def test_pages_that_tifffile_reads_are_counted_and_smaller_copies_are_not(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    page = np.zeros((3, 16, 16), np.uint16) + 60_000
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for _ in range(3):
            file.write(page, photometric="rgb", planarconfig="separate")
        file.write(page[0], photometric="minisblack", subfiletype=1)
    (note,) = read_picture(Source(tmp_path / "a.tif")).notes
    # Pillow, which goes from page to page, misreads them
    assert (
        note == "it has 3 pages, and the first one is shown: save the others as files of their own"
    )
