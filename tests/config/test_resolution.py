"""Presets, environment, --cfg-options and flags: who wins, and what a mistake is told."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import numpy as np
import pytest

from camcli import config
from camcli.config import Options, PreprocessingOptions, find_config, parse_literal, resolve
from camcli.errors import ConfigError, UnknownName


def resolve_options(
    flags: Mapping[str, object] | None = None,
    *,
    preset: str | Path | None = None,
    cfg: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
) -> Options:
    chosen = str(preset) if preset else None
    return resolve(flags or {}, config=chosen, cfg_options=cfg, environ=environ or {})


def write_config(folder: Path, text: str, name: str = "mine.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_nothing_given_is_the_defaults() -> None:
    assert resolve_options() == Options()
    assert Options().model == "embedded"
    assert Options().save_path == Path("camviz-out")


def test_nearer_beats_further(tmp_path: Path) -> None:
    preset = write_config(tmp_path, "seed = 1\nalpha = 0.1\ntop_k = 1\nbatch_size = 1\n")
    options = resolve_options(
        {"seed": "4"},
        preset=preset,
        cfg=["seed=3", "alpha=0.3"],
        environ={"CAMVIZ_SEED": "2", "CAMVIZ_ALPHA": "0.2", "CAMVIZ_TOP_K": "2"},
    )
    assert (options.seed, options.alpha, options.top_k, options.batch_size) == (4, 0.3, 2, 1)


def test_a_later_cfg_option_beats_an_earlier_one() -> None:
    assert resolve_options(cfg=["seed=1", "seed=2"]).seed == 2


def test_tables_are_merged_key_by_key(tmp_path: Path) -> None:
    preset = write_config(
        tmp_path,
        "[preprocessing]\nfit = 'pad'\nmean = [0.1, 0.2, 0.3]\n"
        "[model_kwargs]\ndrop_rate = 0.5\nact = {name = 'relu', inplace = true}\n",
    )
    options = resolve_options(
        {"model_kwargs": ["drop_rate=0.1"]},
        preset=preset,
        cfg=["preprocessing.fit=squash", "model-kwargs.act.name=gelu"],
    )
    assert options.preprocessing.fit == "squash"
    assert options.preprocessing.mean == (0.1, 0.2, 0.3)
    assert options.model_kwargs == {"drop_rate": 0.1, "act": {"name": "gelu", "inplace": True}}


@pytest.mark.parametrize("spelled", ["preprocessing.fit=pad", "fit=pad", "PREPROCESSING.fit=pad"])
def test_fit_is_short_for_preprocessing_fit(spelled: str) -> None:
    if spelled[0].isupper():
        with pytest.raises(UnknownName, match="preprocessing"):
            resolve_options(cfg=[spelled])
    else:
        assert resolve_options(cfg=[spelled]).preprocessing.fit == "pad"
    assert resolve_options({"fit": "pad"}).preprocessing.fit == "pad"
    assert resolve_options(environ={"CAMVIZ_FIT": "pad"}).preprocessing.fit == "pad"
    assert resolve_options(environ={"CAMVIZ_PREPROCESSING__FIT": "Pad"}).preprocessing.fit == "pad"


def test_mean_and_std_are_short_for_those_of_preprocessing() -> None:
    given = {"mean": "0.5, 0.4,0.3", "std": "0.25"}
    for options in (
        resolve_options(given),
        resolve_options(cfg=[f"{k}={v}" for k, v in given.items()]),
    ):
        assert options.preprocessing.mean == (0.5, 0.4, 0.3)
        assert options.preprocessing.std == (0.25,)


@pytest.mark.parametrize(
    "given", ["a,b", "[a,b]", "(a, b)", '["a","b"]', ["a", "b"], ["a,b"], ("a", "b")]
)
def test_lists_by_commas_brackets_or_repeats(given: object) -> None:
    assert resolve_options({"target_layers": given}).target_layers == ("a", "b")


def test_lists_of_a_file_and_of_cfg_options(tmp_path: Path) -> None:
    preset = write_config(tmp_path, 'target_layers = "a"\nmethod = ["CAM", "Grad-CAM"]\n')
    assert resolve_options(preset=preset).target_layers == ("a",)
    assert resolve_options(preset=preset).method == ("cam", "gradcam")
    assert resolve_options(preset=preset, cfg=["target-layers=b,c"]).target_layers == ("b", "c")


@pytest.mark.parametrize("given", ["0.5,2", "[0.5, 2]", (0.5, 2), [0.5, 2.0]])
def test_a_scale_is_a_name_or_two_raw_values(given: object) -> None:
    assert resolve_options({"scale": given}).scale == (0.5, 2.0)
    assert resolve_options({"scale": " Run "}).scale == "run"


def test_class_names_keep_their_commas() -> None:
    given = ["tabby, tabby cat", "281"]
    assert resolve_options({"target_category": given}).target_category == (
        "tabby, tabby cat",
        "281",
    )
    assert resolve_options(cfg=["target_category=[tabby,281]"]).target_category == ("tabby", "281")
    assert resolve_options({"target_category": ["[tabby,281]"]}).target_category == ("tabby", "281")


def test_class_indices_in_a_file_are_numbers(tmp_path: Path) -> None:
    preset = write_config(tmp_path, "target_category = [281, 'tabby']\n")
    assert resolve_options(preset=preset).target_category == ("281", "tabby")


@pytest.mark.parametrize(
    ("given", "size"),
    [("224", (224, 224)), ("224x160", (224, 160)), ("[224, 160]", (224, 160)), (96, (96, 96))],
)
def test_sizes_are_height_and_width(given: object, size: tuple[int, int]) -> None:
    assert resolve_options({"img_size": given}).img_size == size
    assert resolve_options(cfg=[f"img_size={given}"]).img_size == size


@pytest.mark.parametrize("spelling", ["Grad-CAM++", "gradcam_plusplus", "gradcampp", "GRADCAM++"])
def test_methods_are_found_by_any_spelling(spelling: str) -> None:
    assert resolve_options({"method": [spelling, "gradcam++"]}).method == ("gradcam++",)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("0.1", 0.1),
        ("1e-3", 0.001),
        ("true", True),
        ("False", False),
        ("none", None),
        ("gelu", "gelu"),
        ('"3"', "3"),
        ("[1, 2]", [1, 2]),
        ("[a, 2]", ["a", 2]),
        ("(1,2)", [1, 2]),
        ("{a = 1}", {"a": 1}),
        ("2026-01-01", "2026-01-01"),
        ("1\nother = 2", "1\nother = 2"),
        ("", ""),
    ],
)
def test_values_of_model_kwargs_guess_their_type(text: str, value: object) -> None:
    assert parse_literal(text) == value
    assert resolve_options({"model_kwargs": [f"x={text}"]}).model_kwargs == {
        "x": parse_literal(text)
    }


def test_texts_of_a_file_stay_texts(tmp_path: Path) -> None:
    preset = write_config(tmp_path, "[model_kwargs]\nname = '3'\n")
    assert resolve_options(preset=preset).model_kwargs == {"name": "3"}


def test_none_takes_a_value_away_but_is_a_layer_fusion(tmp_path: Path) -> None:
    preset = write_config(
        tmp_path, "checkpoint = 'w.pt'\ntop_k = 3\n[preprocessing]\nfit = 'pad'\n"
    )
    options = resolve_options(
        {"layer_fusion": "none"}, preset=preset, cfg=["checkpoint=none", "fit=none", "top_k=null"]
    )
    assert (options.checkpoint, options.top_k, options.preprocessing.fit) == (None, None, None)
    assert options.layer_fusion == "none"


def test_paths_in_a_file_are_relative_to_it(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    preset = write_config(
        tmp_path / "sub", f"checkpoint = 'w.pt'\nclass_map = '{tmp_path / 'c.txt'}'\nmodel = 'm'\n"
    )
    options = resolve_options(preset=preset)
    assert options.checkpoint == tmp_path / "sub" / "w.pt"
    assert options.class_map == tmp_path / "c.txt"
    assert options.model == "m"
    assert resolve_options({"checkpoint": "w.pt"}).checkpoint == Path("w.pt")


def test_the_environment_names_a_preset_and_flags_name_another(tmp_path: Path) -> None:
    one, two = (
        write_config(tmp_path, "seed = 1", "1.toml"),
        write_config(tmp_path, "seed = 2", "2.toml"),
    )
    environ = {"CAMVIZ_CONFIG": str(one), "CAMVIZ_DEBUG": "1", "HOME": "x"}
    assert resolve_options(environ=environ).seed == 1
    assert resolve_options(preset=two, environ=environ).seed == 2


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        ("alpha", "1.5"),
        ("alpha", "nan"),
        ("alpha", "much"),
        ("top_k", "0"),
        ("top_k", "2.5"),
        ("num_extra_tokens", "-1"),
        ("seed", "-1"),
        ("batch_size", "many"),
        ("num_classes", "-1"),
        ("img_size", "1x2x3"),
        ("img_size", "0"),
        ("layer_fusion", "sum"),
        ("format", "gif"),
        ("save_map", "png"),
        ("map_size", "big"),
        ("boxes", "some"),
        ("box_threshold", "1"),
        ("box_threshold", "-0.1"),
        ("box_threshold", "nan"),
        ("contour", "much"),
        ("export", "csv"),
        ("scale", "video"),
        ("scale", "1"),
        ("scale", "2,1"),
        ("scale", "-1,1"),
        ("scale", "0,inf"),
        ("scale", "nan,1"),
        ("scale", "1,2,3"),
        ("every", "0"),
        ("frames", "7"),
        ("frames", "5:5"),
        ("frames", "-1:5"),
        ("camera", "-1"),
        ("camera", "100"),
        ("smooth_frames", "0"),
        ("target", "logits"),
        ("contrast", ""),
        ("contrast_strength", "-1"),
        ("contrast_strength", "inf"),
        ("noise_smooth", "0"),
        ("noise_smooth", "2.5"),
        ("noise_sigma", "-0.1"),
        ("noise_sigma", "inf"),
        ("output_key", ""),
        ("device", "gpu"),
        ("device", "cuda:"),
        ("pretrained", "maybe"),
        ("vit_like", "2"),
        ("model", ""),
        ("save_path", ""),
        ("checkpoint", ""),
        ("target_layers", ""),
        ("target_layers", ","),
        ("target_category", " , "),
    ],
)
def test_a_wrong_value_names_where_it_stands_and_what_is_allowed(
    key: str, wrong: str, tmp_path: Path
) -> None:
    allowed = Options.model_fields[key].description
    assert allowed
    preset = write_config(tmp_path, f"{key} = '{wrong}'")
    option, variable = f"--{key.replace('_', '-')}", f"CAMVIZ_{key.upper()}"
    for shown, given in (
        (f"{option} {wrong or repr(wrong)}: takes", resolve_with(flags={key: wrong})),
        (f"--cfg-options {key}={wrong}: {key} takes", resolve_with(cfg=[f"{key}={wrong}"])),
        (f"{variable}={wrong}: {key} takes", resolve_with(environ={variable: wrong})),
        (f"{preset}: {key} = '{wrong}': {key} takes", resolve_with(preset=preset)),
    ):
        assert isinstance(given, ConfigError)
        assert str(given) == f"{shown} {allowed}."


def resolve_with(**given: Any) -> Exception:
    with pytest.raises((ConfigError, UnknownName)) as caught:
        resolve_options(given.pop("flags", None), **given)
    return caught.value


def test_a_wrong_value_in_a_table() -> None:
    error = resolve_with(cfg=["preprocessing.std=[0.5,0]"])
    assert str(error) == (
        "--cfg-options preprocessing.std=[0.5,0]: preprocessing.std takes "
        "numbers above 0, one a channel."
    )


def test_unknown_keys_come_with_the_closest(tmp_path: Path) -> None:
    error = resolve_with(preset=write_config(tmp_path, "target_layer = 'x'"))
    assert isinstance(error, UnknownName)
    assert error.closest[0] == "target_layers"
    assert "mine.toml" in str(error)
    error = resolve_with(cfg=["preprocessing.fitt=pad"])
    assert isinstance(error, UnknownName)
    assert error.closest[0] == "preprocessing.fit"
    error = resolve_with(environ={"CAMVIZ_ALPA": "1"})
    assert isinstance(error, UnknownName)
    assert error.closest[0] == "CAMVIZ_ALPHA"
    assert isinstance(resolve_with(cfg=["alpha.deep=1"]), UnknownName)


def test_unknown_methods_come_with_the_closest(tmp_path: Path) -> None:
    error = resolve_with(flags={"method": "gradcm"})
    assert isinstance(error, UnknownName)
    assert error.closest[0] == "gradcam"
    error = resolve_with(preset=write_config(tmp_path, "method = ['cam', 'gradcm']"))
    assert isinstance(error, UnknownName)
    assert "mine.toml" in str(error) and "'gradcm'" in str(error)


def test_several_mistakes_are_reported_together(tmp_path: Path) -> None:
    preset = write_config(tmp_path, "wrong = 1\nalpha = 2\n")
    message = str(resolve_with(flags={"method": "gradcm", "top_k": "0"}, preset=preset))
    assert len(message.splitlines()) == 5
    for part in ("wrong", "alpha = 2", "gradcm", "--top-k 0"):
        assert part in message


def test_a_wrong_value_that_a_nearer_one_covers_does_no_harm(tmp_path: Path) -> None:
    assert (
        resolve_options({"alpha": "0.2"}, preset=write_config(tmp_path, "alpha = 2")).alpha == 0.2
    )


def test_files_that_are_no_config(tmp_path: Path) -> None:
    error = resolve_with(preset=write_config(tmp_path, "a = 1\nb = = 2\n"))
    assert "line 2" in str(error) and "mine.toml" in str(error)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    assert "UTF-8" in str(resolve_with(preset=tmp_path / "binary.toml"))


@pytest.mark.parametrize("text", ["alpha", "=1"])
def test_cfg_options_without_a_key_or_a_value(text: str) -> None:
    assert "key=value" in str(resolve_with(cfg=[text]))
    assert "key=value" in str(resolve_with(flags={"model_kwargs": [text]}))


def test_presets_are_found_by_name_and_files_by_path(tmp_path: Path) -> None:
    shipped = find_config("resnet50")
    assert resolve_options(preset="resnet50").target_layers == ("layer4",)
    assert find_config(str(shipped)) == shipped
    assert find_config("Vit-Base-Patch16-224").stem == "vit_base_patch16_224"
    with pytest.raises(UnknownName) as caught:
        find_config("resnet5")
    assert caught.value.closest[0] == "resnet50"
    with pytest.raises(UnknownName):
        find_config(str(tmp_path))


def test_python_keywords_are_checked_alike() -> None:
    options = config.from_keywords(method=["gradcam", "CAM"], seed=2, target_category=[3, "cat"])
    assert (options.method, options.seed) == (("gradcam", "cam"), 2)
    assert options.target_category == ("3", "cat")
    assert config.from_keywords(target_category=np.int64(3)).target_category == ("3",)
    assert config.from_keywords(target_layers=None, alpha=None) == Options()
    with pytest.raises(
        ConfigError, match=re.escape("alpha=2: alpha takes a number from 0 to 1, or auto.")
    ):
        config.from_keywords(alpha=2)
    with pytest.raises(UnknownName, match="'top_k'"):
        config.from_keywords(topk=2)


def test_options_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Options().alpha = 1


@pytest.mark.parametrize("model", [Options, PreprocessingOptions])
def test_every_key_says_what_it_takes_and_is_documented(model: type) -> None:
    page = (Path(config.__file__).parents[1] / "docs" / "presets.md").read_text(encoding="utf-8")
    prefix = "preprocessing." if model is PreprocessingOptions else ""
    for name, field in model.model_fields.items():
        assert field.description
        if name != "preprocessing":
            assert f"`{prefix}{name}`" in page
    for name in config.list_presets():
        assert f"`{name}`" in page


def test_every_literal_is_named_in_what_a_key_takes() -> None:
    for model in (Options, PreprocessingOptions):
        for field in model.model_fields.values():
            for value in literals(field.annotation):
                assert value in str(field.description)


def literals(annotation: Any) -> list[str]:
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [value for part in get_args(annotation) for value in literals(part)]


def test_literals_are_looked_for_where_they_stand() -> None:
    assert literals(Options.model_fields["format"].annotation) == ["jpg", "png"]


def test_a_preset_names_no_code_to_run(tmp_path: Path) -> None:
    for code in ("evil.py:f", "package.evil:f", "../evil.py:f"):
        preset = write_config(tmp_path, f'model = "{code}"\n')
        message = rf"mine\.toml: model = '{code}': a preset runs no code; .* --model {code}$"
        for environ in ({}, {"CAMVIZ_CONFIG": str(preset)}):
            with pytest.raises(ConfigError, match=message):
                resolve_options(preset=None if environ else preset, environ=environ)
        # whoever runs the command may name it
        assert resolve_options({"model": code}, preset=preset).model == code
        assert resolve_options(cfg=[f"model={code}"], preset=preset).model == code
        assert resolve_options(environ={"CAMVIZ_MODEL": code}, preset=preset).model == code
        assert config.from_keywords(model=code).model == code
        assert resolve_options({"model": "resnet50"}, preset=preset).model == "resnet50"


def test_options_of_methods_by_flag_file_environment_and_keyword(tmp_path: Path) -> None:
    preset = write_config(
        tmp_path,
        "method = ['smoothgradcam++', 'scorecam']\n"
        "[set]\nsamples = 3\nsigma = 0.5\nscorecam.max_channels = 9\n",
    )
    method = ("smoothgradcam++", "scorecam")
    assert resolve_options(preset=preset).set == {
        "samples": 3, "sigma": 0.5, "scorecam": {"max_channels": 9}
    }  # fmt: skip
    options = resolve_options(
        {"set": ["samples=4", "score-cam.max-channels=7"], "max_channels": "8"},
        preset=preset,
        cfg=["set.sigma=none"],
        environ={"CAMVIZ_SET__SAMPLES": "5"},
    )
    assert options.method == method
    assert options.set == {
        "samples": "4",
        "sigma": None,
        "scorecam": {"max_channels": 9},
        "score_cam": {"max_channels": "7"},
        "max_channels": "8",
    }
    environ = {"CAMVIZ_MAX_CHANNELS": "5", "CAMVIZ_METHOD": "scorecam"}
    assert resolve_options(environ=environ).set == {"max_channels": "5"}
    assert config.from_keywords(method="scorecam", set={"scorecam.max_channels": 2}).set == {
        "scorecam.max_channels": 2
    }


def test_a_wrong_option_of_a_method_names_where_it_stands(tmp_path: Path) -> None:
    sample = "'samples' of smoothgradcam++ takes a whole number, not 'x'."
    method = {"method": "smoothgradcam++"}
    preset = write_config(tmp_path, "method = 'smoothgradcam++'\n[set]\nsamples = 'x'\n")
    for shown, error in (
        ("--set samples=x", resolve_with(flags={**method, "set": ["samples=x"]})),
        ("--cfg-options set.samples=x", resolve_with(flags=method, cfg=["set.samples=x"])),
        (
            "CAMVIZ_SET__SAMPLES=x",
            resolve_with(flags=method, environ={"CAMVIZ_SET__SAMPLES": "x"}),
        ),
        (f"{preset}: set.samples = 'x'", resolve_with(preset=preset)),
    ):
        assert isinstance(error, ConfigError)
        assert str(error) == f"{shown}: Option {sample}"
    message = str(resolve_with(flags={"max_channels": "3"}))
    assert message.startswith("--max-channels 3: Unknown option of gradcam 'max_channels'.")
    assert "takes key=value" in str(resolve_with(flags={"set": ["samples"]}))
    assert "a table: name = value" in str(
        resolve_with(preset=write_config(tmp_path, "set = 3", "three.toml"))
    )
    several = resolve_with(flags={**method, "set": ["samples=x", "sigmo=1"], "alpha": "2"})
    assert "--alpha 2" in str(several)


def test_targets_by_any_spelling_and_classes_like_those_of_target_category() -> None:
    assert resolve_options({"target": "Log_Probability"}).target == "log-probability"
    options = resolve_options({"contrast": ["tabby, tabby cat", "3"]}, cfg=["target=contrast"])
    assert (options.target, options.contrast) == ("contrast", ("tabby, tabby cat", "3"))
    assert config.from_keywords(contrast=[3, "cat"]).contrast == ("3", "cat")
    assert config.from_keywords(target=len).target is len


def test_an_output_key_is_a_name_or_a_position(tmp_path: Path) -> None:
    preset = write_config(tmp_path, "output_key = 0\n")
    assert resolve_options(preset=preset).output_key == "0"
    assert resolve_options(preset=preset, cfg=["output_key=none"]).output_key is None
    assert resolve_options({"output_key": "logits"}).output_key == "logits"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a = " + "[" * 5000, "not valid TOML"),
        ("set.a = " + "{a=" * 2000 + "1" + "}" * 2000, "not valid TOML"),
        ("set" + ".a" * 2000 + " = 1", "nests values more than 16 deep"),
        ("set.a = " + "[" * 40 + "]" * 40, "nests values more than 16 deep"),
        ("seed = " + "9" * 5000, "not valid TOML: Exceeds the limit"),
        ("seed = 0x" + "f" * 5000, "a whole number of more than 64 bits"),
        ("img_size = 100000", "img_size takes a number of pixels"),
        ("img_size = [224, 99999999]", "img_size takes a number of pixels"),
        ("max_pixels = 0", "max_pixels takes a number of pixels"),
        ("max_pixels = 'many'", "max_pixels takes a number of pixels"),
        ("batch_size = 1e400", "batch_size takes a whole number"),
        ("alpha = nan", "alpha takes a number"),
        ("# " + "x" * 2**20, "File too large"),
        ("model = '\0'", "not valid TOML"),
        ("__class__ = 'x'", "__class__"),
        ("model = !!python/object/apply:os.system ['touch RAN']", "not valid TOML"),
    ],
    ids=lambda text: text[:30],
)
def test_absurd_presets_are_refused(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "a.toml"
    file.write_text(text)
    with pytest.raises((ConfigError, UnknownName), match=re.escape(words)):
        resolve({}, config=str(file), cfg_options=(), environ={})


@pytest.mark.parametrize("value", ["{x}", "$HOME", "${HOME}", "%(x)s", "{{ 1 + 1 }}", "!!python/x"])
def test_nothing_in_a_preset_is_a_template(tmp_path: Path, value: str) -> None:
    file = tmp_path / "a.toml"
    file.write_text(f"model = '{value}'\n[model_kwargs]\na = '{value}'\n")
    options = resolve({}, config=str(file), cfg_options=(), environ={})
    assert (options.model, options.model_kwargs) == (value, {"a": value})


@pytest.mark.parametrize(
    ("typed", "pixels"),
    [("5", 5), ("50M", 50_000_000), ("50m", 50_000_000), ("1.5k", 1500), ("2G", 2_000_000_000)],
)
def test_pixels_may_have_a_unit(typed: str, pixels: int) -> None:
    flags = {"max_pixels": typed}
    assert resolve(flags, config=None, cfg_options=(), environ={}).max_pixels == pixels


@pytest.mark.parametrize("typed", ["0", "0.1", "-5", "50 M", "M", "1e9", "inf", "5T", "9" * 5000])
def test_what_is_no_number_of_pixels(typed: str) -> None:
    with pytest.raises(ConfigError, match=r"--max-pixels .* takes a number of pixels from 1"):
        resolve({"max_pixels": typed}, config=None, cfg_options=(), environ={})


def test_absurd_values_that_are_typed_are_texts() -> None:
    for text in ("9" * 5000, "[" * 5000 + "]" * 5000):
        assert parse_literal(text) == text
