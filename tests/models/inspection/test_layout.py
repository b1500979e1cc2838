from __future__ import annotations

import pytest
import torch

from camcli.errors import LayerError
from camcli.models.inspection.layout import (
    Layout,
    convert_from_maps,
    convert_to_maps,
    force_layout,
    measure_layout,
)

SQUARE = (224, 224)

MEASURED = [
    ((1, 512, 7, 7), SQUARE, Layout("nchw", (7, 7))),
    ((1, 7, 7, 768), SQUARE, Layout("nhwc", (7, 7))),
    ((1, 7, 7, 7), SQUARE, Layout("nchw", (7, 7))),
    ((1, 512, 7, 5), (224, 160), Layout("nchw", (7, 5))),
    ((1, 5, 7, 512), (160, 224), Layout("nhwc", (5, 7))),
    ((1, 14, 10, 96), (224, 160), Layout("nhwc", (14, 10))),
    # inception: unpadded convolutions
    ((1, 192, 71, 71), (299, 299), Layout("nchw", (71, 71))),
    ((1, 2048, 8, 4), (299, 200), Layout("nchw", (8, 4))),
    ((1, 64, 55, 55), SQUARE, Layout("nchw", (55, 55))),
    ((1, 16, 225, 225), SQUARE, Layout("nchw", (225, 225))),
    ((2, 64, 2, 2), (64, 64), Layout("nchw", (2, 2))),
    ((1, 196, 384), SQUARE, Layout("tokens", (14, 14))),
    ((1, 197, 768), SQUARE, Layout("tokens", (14, 14), 1)),
    ((1, 197, 256), SQUARE, Layout("tokens", (14, 14), 1)),
    ((1, 198, 192), SQUARE, Layout("tokens", (14, 14), 2)),
    ((1, 201, 384), SQUARE, Layout("tokens", (14, 14), 5)),
    ((1, 50, 768), SQUARE, Layout("tokens", (7, 7), 1)),
    ((1, 785, 768), SQUARE, Layout("tokens", (28, 28), 1)),
    ((1, 3136, 64), SQUARE, Layout("tokens", (56, 56))),
    ((1, 261, 384), SQUARE, Layout("tokens", (16, 16), 5)),
    ((1, 141, 192), (224, 160), Layout("tokens", (14, 10), 1)),
    ((1, 145, 192), (160, 224), Layout("tokens", (10, 14), 5)),
    ((1, 1 + 24 * 48, 192), (384, 768), Layout("tokens", (24, 48), 1)),
    ((1, 384, 196), SQUARE, Layout("channel tokens", (14, 14))),
    ((1, 160, 196), SQUARE, Layout("channel tokens", (14, 14))),
    ((1, 192, 140), (224, 160), Layout("channel tokens", (14, 10))),
    # T2T unfolds patches: 24*24 and 12*12 + 3 are channels by their odd strides
    ((1, 147, 3136), SQUARE, Layout("channel tokens", (56, 56))),
    ((1, 576, 784), SQUARE, Layout("channel tokens", (28, 28))),
    ((1, 576, 196), SQUARE, Layout("channel tokens", (14, 14))),
    ((1, 196, 576), SQUARE, Layout("tokens", (14, 14))),
    # an odd stride by itself makes no channels of tokens
    ((1, 730, 256), SQUARE, Layout("tokens", (27, 27), 1)),
    ((1, 484, 256), SQUARE, Layout("tokens", (22, 22))),
]


@pytest.mark.parametrize(("shape", "input_size", "layout"), MEASURED)
def test_measure(shape: tuple[int, ...], input_size: tuple[int, int], layout: Layout) -> None:
    assert measure_layout(shape, input_size) == layout


NO_GRID = [
    ((1, 1000), SQUARE),
    ((1, 512, 1, 1), SQUARE),
    ((1, 1, 1, 768), SQUARE),
    ((1, 1, 768), SQUARE),
    ((1, 768, 1), SQUARE),
    # class and distillation tokens by themselves
    ((1, 1, 256), SQUARE),
    ((1, 2, 784), SQUARE),
    # attention
    ((1, 12, 197, 197), SQUARE),
    ((1, 12, 49, 49), SQUARE),
    ((1, 12, 50, 50), SQUARE),
    ((1, 3, 198, 198), SQUARE),
    ((1, 12, 577, 577), (384, 384)),
    ((1, 12, 141, 141), (224, 160)),
    # queries [b heads n c]
    ((1, 12, 197, 64), SQUARE),
    ((1, 6, 49, 32), SQUARE),
    ((1, 2, 7, 7, 96), SQUARE),
    ((), SQUARE),
]


@pytest.mark.parametrize(("shape", "input_size"), NO_GRID)
def test_no_grid(shape: tuple[int, ...], input_size: tuple[int, int]) -> None:
    assert measure_layout(shape, input_size) is None


def test_tokens_may_stand_in_front_of_the_batch() -> None:
    assert measure_layout((197, 1, 384), SQUARE, batch=1) == Layout("sequence first", (14, 14), 1)
    assert measure_layout((196, 5, 384), SQUARE, batch=5) == Layout("sequence first", (14, 14))
    # as many pictures as tokens: what was seen of the layer decides
    assert measure_layout((49, 49, 96), SQUARE, batch=49) == Layout("tokens", (7, 7))
    turned = force_layout((49, 49, 96), SQUARE, batch=49, sequence_first=True)
    assert turned == Layout("sequence first", (7, 7))
    # windows are not taken for it where nothing was seen
    with pytest.raises(LayerError, match="folded into the batch"):
        force_layout((256, 16, 72), SQUARE, batch=16)


ORDERED = [
    (Layout("nchw", (2, 2), order=(2, 0, 3, 1)), (1, 1, 2, 2), [0, 1, 2, 3]),
    (Layout("nhwc", (2, 2), order=(2, 0, 3, 1)), (1, 2, 2, 1), [0, 1, 2, 3]),
    (Layout("sequence first", (2, 2), 1, order=(2, 0, 3, 1)), (5, 1, 1), [9, 0, 1, 2, 3]),
    # an extra token among the others
    (Layout("channel tokens", (2, 2), 0, 1, order=(3, 0, 4, 1)), (1, 1, 5), [0, 1, 9, 2, 3]),
]


@pytest.mark.parametrize(("layout", "shape", "values"), ORDERED)
def test_places_out_of_order_are_put_right_in_every_layout(
    layout: Layout, shape: tuple[int, ...], values: list[float]
) -> None:
    output = torch.tensor(values, dtype=torch.float32).view(shape)
    maps = convert_to_maps(output, layout)
    assert maps.tolist() == [[[[2, 0], [3, 1]]]]
    assert torch.equal(convert_from_maps(maps, layout, output), output)


def test_another_batch_is_no_grid() -> None:
    assert measure_layout((64, 49, 96), SQUARE, batch=1) is None
    assert measure_layout((64, 49, 96), SQUARE, batch=64) == Layout("tokens", (7, 7))


@pytest.mark.parametrize("patch", [8, 14, 16, 32])
@pytest.mark.parametrize("extra", [0, 1, 2, 4, 5, 8])
def test_patch_grids_of_every_aspect_ratio_are_told_apart(patch: int, extra: int) -> None:
    for h in range(7, 25):
        for w in range(h // 2 + 1, min(2 * h, 25)):
            actual = measure_layout((1, h * w + extra, 3), (h * patch, w * patch))
            # on a square the smallest number of extra tokens is taken, by definition
            if h != w or (h + 1) ** 2 - h * h > 16:
                assert actual == Layout("tokens", (h, w), extra), (h, w)


LAYOUTS = [
    (Layout("nchw", (2, 3)), (2, 4, 2, 3)),
    (Layout("nhwc", (2, 3)), (2, 2, 3, 4)),
    (Layout("tokens", (2, 3)), (2, 6, 4)),
    (Layout("tokens", (2, 3), 2, 1), (2, 9, 4)),
    (Layout("channel tokens", (2, 3), 1, 2), (2, 4, 9)),
    (Layout("sequence first", (2, 3), 2, 1), (9, 2, 4)),
]


def _index_of(layout: Layout, b: int, c: int, y: int, x: int) -> tuple[int, ...]:
    place = layout.prefix + y * layout.grid[1] + x
    return {
        "nchw": (b, c, y, x),
        "nhwc": (b, y, x, c),
        "tokens": (b, place, c),
        "channel tokens": (b, c, place),
        "sequence first": (place, b, c),
    }[layout.kind]


@pytest.mark.parametrize(("layout", "shape"), LAYOUTS)
def test_maps_hold_every_cell_in_its_place(layout: Layout, shape: tuple[int, ...]) -> None:
    output = torch.randn(shape)
    maps = convert_to_maps(output, layout)
    assert maps.shape == (2, 4, 2, 3)
    for b, c, y, x in torch.cartesian_prod(*map(torch.arange, maps.shape)).tolist():
        assert maps[b, c, y, x] == output[_index_of(layout, b, c, y, x)]


@pytest.mark.parametrize(("layout", "shape"), LAYOUTS)
def test_maps_are_views_with_gradient(layout: Layout, shape: tuple[int, ...]) -> None:
    output = torch.randn(shape, requires_grad=True)
    maps = convert_to_maps(output, layout)
    assert maps.untyped_storage().data_ptr() == output.untyped_storage().data_ptr()
    weights = torch.randn(maps.shape)
    (gradient,) = torch.autograd.grad((maps * weights).sum(), output)
    assert torch.equal(convert_to_maps(gradient, layout), weights)
    assert gradient.ne(0).sum() == weights.numel()


@pytest.mark.parametrize(("layout", "shape"), LAYOUTS)
def test_from_maps_is_the_inverse(layout: Layout, shape: tuple[int, ...]) -> None:
    output = torch.randn(shape)
    assert torch.equal(convert_from_maps(convert_to_maps(output, layout), layout, output), output)


@pytest.mark.parametrize(("layout", "shape"), LAYOUTS)
def test_from_maps_expands_the_extra_tokens_of_one(layout: Layout, shape: tuple[int, ...]) -> None:
    axis = 1 if layout.kind == "sequence first" else 0
    like, maps = torch.randn(shape).narrow(axis, 0, 1), torch.randn(5, 4, 2, 3)
    output = convert_from_maps(maps, layout, like)
    assert output.shape == tuple(5 if i == axis else n for i, n in enumerate(shape))
    assert torch.equal(convert_to_maps(output, layout), maps)
    blank = convert_from_maps(torch.zeros_like(maps), layout, like)
    ours = convert_from_maps(torch.zeros(1, 4, 2, 3), layout, like)
    assert torch.equal(blank, ours.expand_as(blank))
    assert ours.ne(0).sum() == like.numel() - 24


FORCED = [
    # what is measured stands where nothing is said
    ((1, 512, 7, 7), SQUARE, {}, Layout("nchw", (7, 7))),
    ((1, 197, 768), SQUARE, {}, Layout("tokens", (14, 14), 1)),
    # 64 = 8x8 is measured; 15 extra tokens and 7x7 are meant
    ((1, 64, 768), SQUARE, {"num_extra_tokens": 15}, Layout("tokens", (7, 7), 15)),
    ((1, 64, 768), SQUARE, {"num_extra_tokens": 0}, Layout("tokens", (8, 8), 0)),
    ((1, 20 + 196, 96), SQUARE, {"num_extra_tokens": 20}, Layout("tokens", (14, 14), 20)),
    ((1, 384, 196), SQUARE, {"num_extra_tokens": 0}, Layout("channel tokens", (14, 14))),
    ((1, 141, 192), (224, 160), {"num_extra_tokens": 1}, Layout("tokens", (14, 10), 1)),
    ((1, 13 * 9, 192), (224, 160), {"num_extra_tokens": 0}, Layout("tokens", (13, 9), 0)),
    # channels of a transposed token layer are as many as a grid's cells
    ((1, 160, 196), SQUARE, {"vit_like": True}, Layout("tokens", (12, 12), 16)),
    ((1, 7, 7, 7), SQUARE, {"vit_like": True, "num_extra_tokens": 0}, Layout("nhwc", (7, 7))),
    ((1, 12, 197, 197), SQUARE, {"vit_like": False}, Layout("nchw", (197, 197))),
    ((1, 512, 7, 7), SQUARE, {"num_extra_tokens": 0}, Layout("nchw", (7, 7))),
]


@pytest.mark.parametrize(("shape", "input_size", "said", "layout"), FORCED)
def test_what_the_user_says_overrules(
    shape: tuple[int, ...],
    input_size: tuple[int, int],
    said: dict[str, bool | int],
    layout: Layout,
) -> None:
    assert force_layout(shape, input_size, **said) == layout  # type: ignore[arg-type]


def test_wrong_extra_tokens_do_the_arithmetic() -> None:
    with pytest.raises(LayerError) as raised:
        force_layout((1, 197, 768), SQUARE, num_extra_tokens=2, layer="blocks.11.norm1")
    assert str(raised.value) == (
        "'blocks.11.norm1' puts out 197 tokens; 197 - 2 extra = 195, which is no grid for a"
        " 224x224 input (nearest: 196 = 14x14 with 1 extra)."
    )


REFUSED = [
    ((1, 197, 768), {"num_extra_tokens": 300}, "197 - 300 extra = -103.*196 = 14x14 with 1 extra"),
    ((1, 197, 768), {"num_extra_tokens": -1}, "0 or more, not -1"),
    ((1, 197, 768), {"vit_like": False}, r"\[1 197 768\].*--no-vit-like asks for maps"),
    ((1, 512, 7, 7), {"num_extra_tokens": 1}, "have no extra tokens"),
    ((1, 512, 1, 1), {}, "no grid larger than 1x1 for a 224x224 input.*--preview-model"),
    ((1, 512, 1, 1), {"vit_like": False}, "no grid larger than 1x1"),
    ((1, 7, 7, 768), {"vit_like": False}, r"reads as \[b c h w\]: 7x768 is no grid for a 224x224"),
    ((1, 512, 7, 7), {"vit_like": True}, r"--vit-like reads as \[b h w c\]: 512x7 is no grid"),
    ((1, 1000), {}, r"puts out \[1 1000\], which is no grid"),
    ((64, 49, 96), {"batch": 1}, "for a batch of 1: windows"),
]


@pytest.mark.parametrize(("shape", "said", "message"), REFUSED)
def test_refusals(shape: tuple[int, ...], said: dict[str, bool | int], message: str) -> None:
    with pytest.raises(LayerError, match=message):
        force_layout(shape, SQUARE, layer="here", **said)  # type: ignore[arg-type]


def test_tokens_out_of_order_are_put_in_their_places() -> None:
    layout = Layout("tokens", (2, 2), 1, order=(2, 0, 3, 1))
    tokens = torch.tensor([9.0, 0, 1, 2, 3])[None, :, None]
    maps = convert_to_maps(tokens, layout)
    assert maps.tolist() == [[[[2, 0], [3, 1]]]]
    assert torch.equal(convert_from_maps(maps, layout, tokens), tokens)


def test_description() -> None:
    assert Layout("tokens", (14, 10), 1).description == "14x10 tokens behind 1 extra"
    assert Layout("nchw", (7, 7)).description == "7x7 nchw"


@pytest.mark.parametrize(("n", "side"), [(5, 32), (6, 28), (6, 32), (4, 28)])
def test_few_cells_of_small_pictures_are_no_attention(n: int, side: int) -> None:
    # capsules' 256 maps of 6x6 (arXiv:1710.09829), and LeNet's of 5x5
    layout = measure_layout((1, 256, n, n), (side, side), batch=1)
    assert layout is not None
    assert (layout.kind, layout.grid) == ("nchw", (n, n))
