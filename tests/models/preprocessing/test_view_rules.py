from typing import Any

import pytest

from camcli.errors import CamvizError, ConfigError, UnknownName
from camcli.models.preprocessing import change_preprocessing, compute_scale, fit_channels
from camcli.records import Fit, Preprocessing

CROP = Preprocessing(size=(224, 288), scale=(256, 329), interpolation="bicubic")


def test_the_scale_is_rounded_down_as_in_timm() -> None:
    assert compute_scale((224, 224), 0.9) == (248, 248)
    assert compute_scale((224, 160), 0.875) == (256, 182)
    assert compute_scale((80, 80), 1) == (80, 80)


def test_other_channels_get_the_same_again_or_the_average() -> None:
    assert fit_channels((0.1, 0.2, 0.3), 6) == (0.1, 0.2, 0.3, 0.1, 0.2, 0.3)
    assert fit_channels((0.1, 0.2, 0.3), 4) == pytest.approx((0.2,) * 4)
    assert fit_channels((0.1, 0.2, 0.3), 3) == (0.1, 0.2, 0.3)
    assert fit_channels((0.1, 0.2, 0.3), 1) == pytest.approx((0.2,))
    assert fit_channels((0.5,), 4) == (0.5,) * 4


@pytest.mark.parametrize(
    ("fit", "scale"), [("crop", (256, 329)), ("squash", (224, 288)), ("pad", (224, 288))]
)
def test_another_fit_keeps_the_whole_picture_in_view(fit: Fit, scale: tuple[int, int]) -> None:
    preprocessing = change_preprocessing(CROP, fit, {})
    assert (preprocessing.fit, preprocessing.size, preprocessing.scale) == (fit, CROP.size, scale)


def test_changes_are_applied() -> None:
    changes = {"mean": [0.1, 0.2, 0.3], "std": 0.5, "interpolation": "box", "crop_pct": 0.5}
    assert change_preprocessing(CROP, None, changes) == Preprocessing(
        CROP.size, (448, 576), (0.1, 0.2, 0.3), (0.5, 0.5, 0.5), "box", "crop"
    )


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"meen": 1}, UnknownName, "'mean'"),
        ({"mean": [1, 2]}, ConfigError, "1 or 3 numbers"),
        ({"mean": "a"}, ConfigError, "'a'"),
        ({"std": 0}, ConfigError, "positive"),
        ({"mean": float("nan")}, ConfigError, "nan"),
        ({"mean": [123.7, 116.3, 103.5]}, ConfigError, "divide mean and std by 255"),
        ({"interpolation": "cubic"}, UnknownName, "'bicubic'"),
        ({"crop_pct": 0}, ConfigError, "crop_pct"),
        ({"crop_pct": 1e-300}, ConfigError, "crop_pct takes a number from 0.001 to 1"),
        ({"std": 5e-324}, ConfigError, "from 1e-06 to 1e.06"),
        ({"std": 1e300}, ConfigError, "from 1e-06 to 1e.06"),
        ({"mean": -1e300}, ConfigError, "mean is of colours from 0 to 1"),
    ],
)
def test_wrong_changes(changes: dict[str, Any], kind: type[CamvizError], message: str) -> None:
    with pytest.raises(kind, match=message):
        change_preprocessing(CROP, None, changes)


def test_an_unknown_fit() -> None:
    with pytest.raises(UnknownName, match="'crop'"):
        change_preprocessing(CROP, "krop", {})  # type: ignore[arg-type]
