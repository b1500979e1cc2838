from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import combinations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ImageColor

from camcli.errors import UsageError
from camcli.records import Box, Concept, Picture
from camcli.render.concepts import PALETTE, make_palette, overlay_concepts
from camcli.render.overlay import OUTSIDE

SIZE = (300, 400)
WHOLE = Box(0, 0, 400, 300)
# what is red, green and blue to the colour-blind (Machado et al. 2009, in linear light)
EYES = {
    "trichromat": np.eye(3),
    "protanope": [[0.15, 1.05, -0.20], [0.11, 0.79, 0.10], [0.00, -0.05, 1.05]],
    "deuteranope": [[0.37, 0.86, -0.23], [0.28, 0.67, 0.05], [-0.01, 0.04, 0.97]],
    "tritanope": [[1.26, -0.08, -0.18], [-0.08, 0.93, 0.15], [0.00, 0.69, 0.30]],
}


def photo(height: int = SIZE[0], width: int = SIZE[1]) -> Picture:
    return Picture(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def halves() -> NDArray[np.float32]:
    """The first concept on the left, the second, half as strong, on the right."""
    strengths = np.zeros((2, 6, 8), np.float32)
    strengths[0, :, :4], strengths[1, :, 4:] = 2, 1
    return strengths


def concepts(*labels: str, probability: float = 0.6) -> list[Concept]:
    return [
        Concept(colour, (i,), (labels[i],), (probability,))
        for i, colour in enumerate(make_palette(len(labels)))
    ]


def grey(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., None].astype(float)


def rgb(colour: str) -> NDArray[np.float64]:
    return np.array(ImageColor.getrgb(colour), float)


def has(pixels: NDArray[np.uint8], colour: str) -> NDArray[np.bool_]:
    return (pixels == rgb(colour)).all(-1)


@pytest.mark.parametrize("alpha", [0, 0.4, 1])
def test_the_strongest_concept_colours_a_grey_picture(alpha: float) -> None:
    picture, both = photo(), concepts("a", "b")
    drawn = overlay_concepts(picture, halves(), both, alpha, box=WHOLE)[: SIZE[0]]
    below, share = grey(picture.pixels), alpha**0.5
    # up to the centres of the cells beside the border each is at its own highest strength
    for part, concept in ((np.s_[:, :175], both[0]), (np.s_[:, 225:], both[1])):
        expected = (1 - share) * below[part] + share * rgb(concept.colour)
        assert np.abs(drawn[part] - expected).max() <= 1


def test_a_weak_place_is_paler_by_the_root() -> None:
    strengths = np.full((1, 6, 8), 0.25, np.float32)
    strengths[0, 0, 0] = 1
    picture = photo()
    drawn = overlay_concepts(picture, strengths, concepts("a"), 1, box=WHOLE)[: SIZE[0]]
    part = np.s_[100:, 100:]
    expected = (grey(picture.pixels)[part] + rgb(PALETTE[0])) / 2
    assert np.abs(drawn[part] - expected).max() <= 1


def test_what_the_network_did_not_see_is_dimmed() -> None:
    picture, box = photo(), Box(100, 50, 300, 250)
    drawn = overlay_concepts(picture, halves(), concepts("a", "b"), 1, box=box)[: SIZE[0]]
    outside = np.ones(SIZE, bool)
    outside[50:250, 100:300] = False
    assert np.abs(drawn[outside] - OUTSIDE * picture.pixels[outside].astype(float)).max() <= 0.51
    assert np.abs(drawn[150, 120] - rgb(PALETTE[0])).max() <= 1
    assert np.abs(drawn[150, 280] - rgb(PALETTE[1])).max() <= 1


@pytest.mark.parametrize("value", [0, np.nan])
def test_without_any_strength_the_picture_stays_as_it_is(value: float) -> None:
    picture = photo()
    nothing = np.full((2, 3, 3), value, np.float32)
    drawn = overlay_concepts(picture, nothing, concepts("a", "b"), box=WHOLE)
    assert np.array_equal(drawn, picture.pixels)
    drawn[:] = 0
    assert picture.pixels.max() == 255


def test_a_concept_without_strength_is_nowhere_and_in_the_legend() -> None:
    strengths = np.concatenate([halves(), np.zeros((1, 6, 8), np.float32)])
    drawn = overlay_concepts(photo(), strengths, concepts("a", "b", "c"), 1, box=WHOLE)
    assert not has(drawn[: SIZE[0]], PALETTE[2]).any()
    assert has(drawn[SIZE[0] :], PALETTE[2]).sum() > 100


def test_alpha_is_a_share() -> None:
    with pytest.raises(UsageError, match=r"not 1\.5"):
        overlay_concepts(photo(), halves(), concepts("a", "b"), 1.5, box=WHOLE)


# the legend


@pytest.mark.parametrize("size", [SIZE, (43, 64), (900, 90), (60, 3000), (750, 1000)])
@pytest.mark.parametrize("count", [1, 2, 5, 13])
def test_the_legend_has_a_line_for_each_colour_below_the_picture(
    size: tuple[int, int], count: int
) -> None:
    strengths = np.random.default_rng(0).random((count, 4, 4), np.float32)
    box = Box(0, 0, size[1], size[0])
    drawn = overlay_concepts(
        photo(*size), strengths, concepts(*"abcdefghijklm"[:count]), 0, box=box
    )
    height, width = size
    left = (drawn.shape[1] - width) // 2
    assert np.abs(drawn[:height, left : left + width] - grey(photo(*size).pixels)).max() <= 1
    assert (drawn[:height, :left] == 255).all() and (drawn[:height, left + width :] == 255).all()
    legend = drawn[height:]
    corners = [tuple(np.argwhere(has(legend, colour))[0]) for colour in make_palette(count)]
    # downward first, in columns of one length, of which the last may be shorter
    lengths = list(Counter(x for _, x in corners).values())
    assert corners == sorted(corners, key=lambda corner: (corner[1], corner[0]))
    assert set(lengths[:-1]) <= {max(lengths)}
    for (y, x), colour in zip(corners, make_palette(count), strict=True):
        side = int(has(legend[y], colour)[x:].sum())
        assert side >= 12
        words = legend[y : y + side, x + side + 3 : x + 3 * side]
        assert words.min() < 128, "no ink"
    assert (legend[:, -2:] == 255).all() and (legend[-2:] == 255).all()


def test_text_grows_with_the_picture() -> None:
    def height(*size: int) -> int:
        box = Box(0, 0, size[1], size[0])
        drawn = overlay_concepts(photo(*size), halves(), concepts("a", "b"), box=box)
        return len(drawn) - size[0]

    assert height(43, 64) == height(40, 50) > 40
    assert 3 < height(1600, 2400) / height(400, 600) < 3.5
    # a strip is not looked at from as far as its length
    assert height(60, 3000) == height(300, 600)


# machines differ in their fonts
@pytest.mark.filterwarnings("ignore:No font of this machine")
@pytest.mark.parametrize(
    "label",
    [
        "very long " * 30,
        "two\nlines\tand \x1b[31mred",
        "咖啡 ☕ مقهى",
        "\udc80",
        "100 % <b>&amp;</b>",
    ],
)
def test_no_name_leaves_its_column(label: str) -> None:
    drawn = overlay_concepts(photo(), halves(), concepts(label, label), box=WHOLE)
    legend = drawn[SIZE[0] :]
    assert (legend[:, -4:] == 255).all()
    usual = overlay_concepts(photo(), halves(), concepts("a", "b"), box=WHOLE)
    assert drawn.shape == usual.shape
    # a row of paper stands between the lines
    assert (legend == 255).all((1, 2)).sum() >= 6


def legend_of(concept: Concept) -> NDArray[np.uint8]:
    drawn = overlay_concepts(photo(), halves()[:1], [concept], box=WHOLE)
    return drawn[SIZE[0] :]


def test_the_classes_that_are_likely_are_named_by_their_first_synonym() -> None:
    two = Concept(PALETTE[0], (1, 2), ("tabby, tabby cat", "lemon"), (0.6, 0.2))
    one = replace(two, categories=(1,), labels=("tabby",), probabilities=(0.6,))
    unlikely = replace(two, probabilities=(0.6, 0.04))
    assert np.array_equal(legend_of(unlikely), legend_of(one))
    assert (legend_of(two) < 128).sum() > 1.5 * (legend_of(one) < 128).sum()
    # the best is named however unlikely it is
    assert not np.array_equal(
        legend_of(replace(one, probabilities=(0.01,))), legend_of(Concept(PALETTE[0]))
    )


def test_concepts_of_no_class_are_numbered() -> None:
    numbered = legend_of(Concept(PALETTE[0]))
    assert numbered.shape == legend_of(concepts("a")[0]).shape
    assert (numbered < 128).any()


# the colours


def perceive(colour: str, eyes: str) -> NDArray[np.float64]:
    """Lightness, red-green and yellow-blue of CIELAB, as some eyes see it."""
    value = rgb(colour) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.asarray(EYES[eyes]) @ linear, 0, 1)
    encoded = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
    pixel = encoded.astype(np.float32).reshape(1, 1, 3)
    return np.asarray(cv2.cvtColor(pixel, cv2.COLOR_RGB2LAB)[0, 0], float)


@pytest.mark.parametrize(("count", "apart"), [(5, 25), (12, 15)])
@pytest.mark.parametrize("eyes", EYES)
def test_colours_can_be_told_apart(eyes: str, count: int, apart: float) -> None:
    seen = [perceive(colour, eyes) for colour in make_palette(count)]
    assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) > apart


@pytest.mark.parametrize("count", [1, 5, 12, 13, 40])
def test_there_are_as_many_colours_as_concepts(count: int) -> None:
    actual = make_palette(count)
    assert len(set(actual)) == len(actual) == count
    assert actual[:12] == PALETTE[:count]
    assert all(len(colour) == 7 and ImageColor.getrgb(colour) for colour in actual)
