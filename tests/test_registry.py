"""The registry refuses what is not declared, when a module is imported."""

import pytest

import camcli.engine.evidence  # noqa: F401
from camcli.errors import UnknownName, UsageError
from camcli.registry import (
    EVIDENCE,
    EVIDENCE_FUNCTIONS,
    METHOD_TITLES,
    METHODS,
    checked_options,
    depends_on_category,
    evidence,
    method,
    method_name,
    needed,
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
    assert method_name(typed) == name


@pytest.mark.parametrize("name", METHOD_TITLES)
def test_every_method_is_found_by_its_own_name(name: str) -> None:
    assert method_name(name) == name


def test_an_unknown_method_offers_the_closest() -> None:
    with pytest.raises(UnknownName, match=r"'gradcan'\. Closest: 'gradcam'"):
        method_name("gradcan")


def test_what_a_method_needs_is_followed_to_the_end() -> None:
    assert needed([METHODS["eigencam"]]) == {"activations", "recording"}
    assert needed([METHODS["gradcam"]]) > {"gradients", "scores", "categories", "logits"}


def test_which_methods_depend_on_the_category() -> None:
    independent = {name for name in METHODS if not depends_on_category(name)}
    assert independent == {"eigencam", "randomcam"}


def test_options_are_checked_against_the_signature() -> None:
    assert checked_options("randomcam", {"seed": 3}) == {"seed": 3}
    with pytest.raises(UnknownName, match="sed"):
        checked_options("randomcam", {"sed": 3})
    with pytest.raises(UsageError, match="takes int"):
        checked_options("randomcam", {"seed": "three"})
