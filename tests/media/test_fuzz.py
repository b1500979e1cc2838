"""Mutated files: each is read or refused with an error for a person, and within seconds."""

from __future__ import annotations

import argparse
import faulthandler
import io
import random
import struct
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import PIL
import pytest
import torch
from PIL import Image
from safetensors.torch import save

from camcli.config import list_presets, resolve
from camcli.errors import CamvizError
from camcli.media.pictures.read import read_picture
from camcli.records import Source
from tests.models.tiny import Tiny, load_state, state

LONGEST = 10.0  # seconds for a case
HANGING = 120.0

Mutation = Callable[[random.Random, bytearray, Sequence[bytes]], bytes]


def cut(draw: random.Random, data: bytearray, _: Sequence[bytes]) -> bytes:
    return bytes(data[: draw.randrange(len(data))])


def flip(draw: random.Random, data: bytearray, _: Sequence[bytes]) -> bytes:
    for _i in range(draw.randrange(1, 8)):
        data[draw.randrange(len(data))] = draw.randrange(256)
    return bytes(data)


def flip_in_the_header(draw: random.Random, data: bytearray, _: Sequence[bytes]) -> bytes:
    for _i in range(draw.randrange(1, 5)):
        data[draw.randrange(min(len(data), 200))] = draw.choice((0, 1, 127, 128, 255))
    return bytes(data)


def change_a_length(draw: random.Random, data: bytearray, _: Sequence[bytes]) -> bytes:
    width, order = draw.choice((2, 4, 8)), draw.choice(("little", "big"))
    largest = 2 ** (8 * width) - 1
    number = draw.choice((0, 1, largest, largest // 2, largest // 2 + 1))
    at = draw.randrange(max(1, len(data) - width))
    data[at : at + width] = number.to_bytes(width, order)  # type: ignore[arg-type]
    return bytes(data)


def splice(draw: random.Random, data: bytearray, others: Sequence[bytes]) -> bytes:
    other = draw.choice(others)
    return bytes(data[: draw.randrange(len(data))]) + other[draw.randrange(len(other)) :]


def insert(draw: random.Random, data: bytearray, _: Sequence[bytes]) -> bytes:
    at = draw.randrange(len(data))
    data[at:at] = draw.randbytes(draw.randrange(1, 20))
    return bytes(data)


MUTATIONS: tuple[Mutation, ...] = (
    cut,
    flip,
    flip_in_the_header,
    change_a_length,
    splice,
    insert,
)


def mutants(seeds: Mapping[str, bytes], cases: range) -> Iterator[tuple[str, bytes]]:
    """Yields cases, each told by its number alone."""
    names, contents = list(seeds), list(seeds.values())
    for case in cases:
        draw = random.Random(case)
        name = names[case % len(names)]
        mutation = draw.choice(MUTATIONS)
        message = f"case {case}: {mutation.__name__} of {name}"
        yield message, mutation(draw, bytearray(seeds[name]), contents)


def count_survivors(
    read: Callable[[Path], object],
    seeds: Mapping[str, bytes],
    cases: range,
    file: Path,
    seconds: float,
) -> tuple[int, int]:
    """Reads mutants until the time is over; how many were read, and how many refused."""
    accepted = refused = 0
    end = time.monotonic() + seconds
    for message, content in mutants(seeds, cases):
        file.write_bytes(content)
        start = time.monotonic()
        faulthandler.dump_traceback_later(HANGING, exit=True)  # in a reader, nothing else would
        try:
            read(file)
            accepted += 1
        except CamvizError:
            refused += 1
        except Exception as error:
            error.add_note(message)
            raise
        finally:
            faulthandler.cancel_dump_traceback_later()
        assert time.monotonic() - start < LONGEST, message
        if time.monotonic() > end:
            break
    return accepted, refused


IS_NEW = int(PIL.__version__.partition(".")[0]) > 11
# what libtiff refuses to write corrupts the memory of Pillow 11.3, whose libtiff has no ZSTD either
MODES_OF_COMPRESSIONS = {"jpeg": ("RGB", "L", "CMYK", "YCbCr"), "group4": ("1",)}


@pytest.fixture(scope="module")
def pictures() -> dict[str, bytes]:
    """Small pictures in every format and mode that Pillow writes here."""
    y, x = np.mgrid[:24, :32]
    colours = Image.fromarray(np.dstack([x * 8, y * 10, (x * y) % 255]).astype(np.uint8))
    deep = Image.fromarray((x * 2000).astype(np.uint16))
    modes = ("RGB", "L", "P", "1", "LA", "RGBA", "CMYK", "YCbCr", "I", "F")
    images = [*map(colours.convert, modes), deep, Image.new("LAB", (32, 24), (99, 140, 120))]
    image_modes = tuple(image.mode for image in images)
    newer = ("zstd",) if IS_NEW else ()
    compressions = ("tiff_lzw", "tiff_deflate", "jpeg", "packbits", "group4", "lzma", *newer)
    hows: Mapping[str, Sequence[Mapping[str, object]]] = {
        "TIFF": ({}, *({"compression": c} for c in compressions)),
        "JPEG": ({}, {"progressive": True}),
        "GIF": ({}, {"save_all": True, "append_images": [colours.rotate(90)]}),
        "WEBP": ({}, {"lossless": True}),
    }
    Image.init()
    results = {}
    # the AVIF decoder of Pillow 11.3 writes to the screen by itself
    for kind in sorted(Image.SAVE.keys() - (set() if IS_NEW else {"AVIF"})):
        for how in hows.get(kind, ({},)):
            taken = MODES_OF_COMPRESSIONS.get(str(how.get("compression")), image_modes)
            for image in (i for i in images if i.mode in taken):
                file = io.BytesIO()
                # most formats hold few modes, and say so in their own ways
                with warnings.catch_warnings(), suppress(Exception):
                    warnings.simplefilter("ignore")
                    image.save(file, kind, **how)
                    results[f"{kind} {image.mode} {list(how.values())}"] = file.getvalue()
    return results


def read_small(path: Path) -> None:
    picture = read_picture(Source(path), 2**20)
    assert picture.pixels.dtype == np.uint8 and picture.pixels.shape[2:] == (3,)
    assert 0 < picture.pixels.shape[0] * picture.pixels.shape[1] <= 2**20


def test_mutated_pictures(
    pictures: dict[str, bytes], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    kinds = {name.split()[0] for name in pictures}
    assert kinds >= {"BMP", "GIF", "ICO", "JPEG", "PNG", "PPM", "TGA", "TIFF", "WEBP"}
    accepted, refused = count_survivors(read_small, pictures, range(2000), tmp_path / "a", 20)
    assert accepted > 50 and refused > 100
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_many_mutated_pictures(pictures: dict[str, bytes], tmp_path: Path) -> None:
    def read_any(path: Path) -> None:
        read_picture(Source(path))

    cases = range(10_000, 30_000)
    accepted, refused = count_survivors(read_any, pictures, cases, tmp_path / "a", 300)
    assert accepted > 1000 and refused > 1000


@pytest.fixture(scope="module")
def checkpoints() -> dict[str, bytes]:
    nested = {
        "state_dict": state(),
        "arch": "resnet18",
        "args": argparse.Namespace(lr=0.1, model="resnet18", crop_pct=0.9),
        "best": np.float64(0.5),
    }
    actual = {"safetensors": save(state())}
    for name, content in {"plain": state(), "nested": nested}.items():
        for zipped in (True, False):
            file = io.BytesIO()
            torch.save(content, file, _use_new_zipfile_serialization=zipped)
            actual[f"{name} {zipped=}"] = file.getvalue()
    return actual


def repack(archive: bytes, content: bytes) -> bytes:
    """Puts another pickle into an archive, with sums that are right."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            new.writestr(name, content if name.endswith("data.pkl") else old.read(name))
    return file.getvalue()


def fill(path: Path) -> None:
    load_state(path, Tiny(), strict=False)


def test_mutated_checkpoints(checkpoints: dict[str, bytes], tmp_path: Path) -> None:
    accepted, refused = count_survivors(fill, checkpoints, range(500), tmp_path / "a.pth", 10)
    assert accepted > 5 and refused > 20


def test_mutated_pickles_in_sound_archives(checkpoints: dict[str, bytes], tmp_path: Path) -> None:
    archive = checkpoints["nested zipped=True"]
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        (pickle,) = (opened.read(n) for n in opened.namelist() if n.endswith("data.pkl"))

    def fill_repacked(path: Path) -> None:
        path.write_bytes(repack(archive, path.read_bytes()))
        fill(path)

    accepted, refused = count_survivors(
        fill_repacked, {"pickle": pickle}, range(300), tmp_path / "a.pth", 10
    )
    assert accepted > 5 and refused > 20


def test_mutated_headers_of_safetensors(tmp_path: Path) -> None:
    content = save(state())
    length = int.from_bytes(content[:8], "little")

    def fill_with_header(path: Path) -> None:
        header = path.read_bytes()
        path.write_bytes(struct.pack("<Q", len(header)) + header + content[8 + length :])
        fill(path)

    header = {"header": content[8 : 8 + length]}
    _, refused = count_survivors(
        fill_with_header, header, range(200), tmp_path / "a.safetensors", 5
    )
    assert refused > 20


def test_mutated_presets(tmp_path: Path) -> None:
    seeds = {name: path.read_bytes() for name, path in list_presets().items()}
    seeds["many keys"] = b"""
model = "resnet50"
img_size = [224, 192]
target_category = ["tabby", 3]
alpha = 0.5
max_pixels = "50M"
[preprocessing]
mean = [0.5, 0.5, 0.5]
fit = "pad"
[model_kwargs]
drop_rate = 0.1
depths = [[1, 2], [3]]
"""

    def read(path: Path) -> None:
        resolve({}, config=str(path), cfg_options=(), environ={})

    accepted, refused = count_survivors(read, seeds, range(400), tmp_path / "a.toml", 10)
    assert accepted > 20 and refused > 20
