"""The registry refuses what is not declared, when a module is imported."""

from pathlib import Path

import pytest

import camcli.engine.api
from camcli.errors import UnknownName, UsageError
from camcli.method_info import METHOD_INFO
from camcli.registry import (
    EVIDENCE,
    EVIDENCE_FUNCTIONS,
    METHODS,
    Option,
    assign_options,
    check_options,
    collect_evidence,
    depends_on_category,
    evidence,
    find_method_name,
    list_changed_options,
    list_options,
    method,
)


def test_all_declared_evidence_exists() -> None:
    assert set(EVIDENCE) == set(EVIDENCE_FUNCTIONS)


def test_a_method_that_asks_for_unknown_evidence_fails_at_once() -> None:
    with pytest.raises(TypeError, match=r"'activation', which is not declared"):

        @method("wrong", gives="map")
        def wrong(activation: object) -> object:
            return activation

    assert "wrong" not in METHODS


def test_evidence_cannot_ask_for_what_exists_more_often() -> None:
    with pytest.raises(TypeError, match="exists more often"):

        @evidence
        def logits(gradients: object) -> object:
            return gradients


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("GradCAM++", "gradcam++"),
        ("grad-cam-plusplus", "gradcam++"),
        ("gradcam_plus_plus", "gradcam++"),
        ("gradcampp", "gradcam++"),
        ("Grad-CAM", "gradcam"),
        ("EIGEN_GRAD_CAM", "eigengradcam"),
        ("HiResCAM", "hirescam"),
    ],
)
def test_spellings_of_methods(typed: str, name: str) -> None:
    assert find_method_name(typed) == name


@pytest.mark.parametrize("name", METHOD_INFO)
def test_every_method_is_found_by_its_own_name(name: str) -> None:
    assert find_method_name(name) == name


def test_an_unknown_method_offers_the_closest() -> None:
    with pytest.raises(UnknownName, match=r"'gradcan'\. Closest: 'gradcam'"):
        find_method_name("gradcan")


def test_what_a_method_needs_is_followed_to_the_end() -> None:
    assert collect_evidence([METHODS["eigencam"]]) == {"activations", "recording"}
    assert collect_evidence([METHODS["gradcam"]]) > {"gradients", "scores", "categories", "logits"}


def test_which_methods_depend_on_the_category() -> None:
    independent = {name for name in METHODS if not depends_on_category(name)}
    assert independent == {"dff", "eigencam", "fem", "kpcacam", "randomcam", "rollout"}


def test_options_are_checked_against_the_signature() -> None:
    assert check_options("randomcam", {"seed": 3}) == {"seed": 3}
    with pytest.raises(UnknownName, match="sed"):
        check_options("randomcam", {"sed": 3})
    with pytest.raises(UsageError, match="takes a whole number"):
        check_options("randomcam", {"seed": "three"})


# options by name and type


@pytest.mark.parametrize(
    ("kind", "given", "read"),
    [
        (int, 8, 8),
        (int, " 8", 8),
        (float, 8, 8.0),
        (float, "1e-1", 0.1),
        (bool, True, True),
        (bool, "False", False),
        (str, "8", "8"),
    ],
)
def test_an_option_is_read_by_its_type(kind: type, given: object, read: object) -> None:
    actual = Option("x", kind, kind()).read(given)
    assert (actual, type(actual)) == (read, kind)


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (int, 8.0),
        (int, "8.5"),
        (int, True),
        (float, "many"),
        (float, "nan"),
        (float, True),
        (float, None),
        (bool, 1),
        (bool, "yes"),
        (str, 8),
    ],
)
def test_an_option_of_another_type_is_refused(kind: type, given: object) -> None:
    with pytest.raises(ValueError, match=r"not |could not|invalid"):
        Option("x", kind, kind()).read(given)


def test_each_method_gets_the_options_that_it_has() -> None:
    both = ["smoothgradcam++", "scorecam", "gradcam"]
    actual = assign_options(both, {"samples": "3", "max_channels": 4})
    assert actual == {"smoothgradcam++": {"seed": 0, "samples": 3}, "scorecam": {"max_channels": 4}}
    assert assign_options(["gradcam"], {}) == {}
    # none takes a value back, and a method's own outweighs what is said to all
    several = {"iscam.samples": 2, "samples": 3, "sscam": {"samples": 4}, "max_channels": None}
    actual = assign_options(["iscam", "sscam", "smoothgradcam++"], several, seed=5)
    assert [options["samples"] for options in actual.values()] == [4, 3, 2]
    assert {options.get("seed") for options in actual.values()} == {5, None}
    assert assign_options(["randomcam"], {"seed": 7}, seed=5) == {"randomcam": {"seed": 7}}
    assert list_changed_options("sscam", {"seed": 0, "samples": 4}) == {"samples": 4}


@pytest.mark.parametrize(
    ("methods", "given", "message"),
    [
        (
            ["smoothgradcam++", "gradcam"],
            {"sampels": 3},
            r"Unknown option of smoothgradcam\+\+, gradcam 'sampels'\. Closest: 'samples'\. "
            r"smoothgradcam\+\+ has samples=8 \(a whole number\), .*; gradcam has no options\.",
        ),
        (["gradcam"], {"max_channels": 3}, "It is an option of ablationcam, scorecam"),
        (["smoothgradcam++"], {"samples": "x"}, r"'samples' of .* takes a whole number, not 'x'"),
        (["gradcam", "cam"], {"Score-CAM.max_channels": 3}, "for scorecam, and gradcam, cam is"),
        (["scorecam"], {"scorecan.max_channels": 3}, "Unknown method 'scorecan'"),
        (["scorecam"], {"scorecam": {"samples": 3}}, "Unknown option of scorecam 'samples'"),
    ],
)
def test_wrong_options_are_reported(
    methods: list[str], given: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        assign_options(methods, given)


def test_the_handbook_names_every_method_and_option() -> None:
    page = (Path(camcli.__file__).parent / "docs" / "methods.md").read_text(encoding="utf-8")
    for name, known in METHODS.items():
        assert f"`{name}`" in page
        for option in known.options:
            assert f"`{option.name}`" in page or option.name == "seed"


@pytest.mark.parametrize("name", METHOD_INFO)
def test_what_is_said_of_options_without_torch_is_what_signatures_say(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_the_signature = METHODS[name].options
    monkeypatch.delitem(METHODS, name)
    assert list_options(name) == of_the_signature
