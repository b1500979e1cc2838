"""What the server answers: the page, what can be chosen, pictures, and several visitors at once."""

from __future__ import annotations

import base64
import io
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import camcli
from camcli.cli.app import main
from camcli.errors import UsageError
from camcli.method_info import METHOD_INFO
from camcli.serve import answers
from camcli.serve.offered_models import OfferedModel
from camcli.serve.server import ASSETS, Server, Show
from tests.serve.visitors import LABELS, Visitor, encode, make_pixels, offer_small, serving

NET = """
from tests.networks import Staged

def net():
    return Staged()
"""


def read_overlay(said: dict[str, Any]) -> np.ndarray[Any, Any]:
    content = base64.b64decode(said["overlay"])
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def explain(offered: OfferedModel, pixels: Any, **options: Any) -> Any:
    return next(iter(camcli.explain(offered.classifier, pixels, **options)))


def test_the_page_and_all_that_it_loads_are_there(visitor: Visitor) -> None:
    for path in (*ASSETS, "/look.css", "/choices"):
        answer = visitor.get(path)
        assert answer.status == 200 and answer.content, path
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Server"] == "camviz"
    page = visitor.get("/").content.decode()
    # nothing of another machine, and no script or style in the page itself
    assert "://" not in page and "<style" not in page and " style=" not in page
    assert " on" + "click" not in page and page.count("<script") == 1
    assert visitor.ask("HEAD", "/").content == b""


def test_what_can_be_chosen_is_told(visitor: Visitor) -> None:
    choices = visitor.get("/choices").json
    (model,) = choices["models"]
    assert model["labels"] == list(LABELS) and model["categories"] == len(LABELS)
    assert {"stem", "middle", "last"} <= set(model["layers"])
    methods = {one["name"]: one for one in model["methods"]}
    assert set(methods) == {"best", *METHOD_INFO}
    assert methods["gradcam"]["missing"] == "" and "attention" in methods["rollout"]["missing"]
    assert not methods["eigencam"]["asks_class"]
    assert choices["methods"] == ["gradcam"] and choices["alpha"] == 0.5


@pytest.mark.parametrize(
    ("query", "options"),
    [
        ({}, {}),
        ({"method": "layercam", "category": "dog"}, {"method": "layercam", "target_category": 1}),
        (
            {"method": "grad_cam_pp", "layer": "MIDDLE"},
            {"method": "gradcam++", "target_layers": "middle"},
        ),
        ({"category": "4", "alpha": "0.25"}, {"target_category": 4}),
    ],
)  # fmt: skip
def test_a_picture_is_explained_as_in_python(
    visitor: Visitor, offered: OfferedModel, query: dict[str, str], options: dict[str, Any]
) -> None:
    pixels = make_pixels()
    said = visitor.post(encode(pixels), name="a.png", **query).json
    expected = explain(offered, pixels, **options)
    alpha = float(query.get("alpha", 0.5))
    assert said["type"] == "image/png" and said["size"] == [40, 48]
    np.testing.assert_array_equal(read_overlay(said), expected.overlay(alpha))
    assert (said["category"], said["label"]) == (expected.category, expected.label)
    assert said["probability"] == pytest.approx(expected.probability)
    assert [one["category"] for one in said["likeliest"]] == list(expected.record.top_categories)
    assert said["layers"] == list(expected.map.layers)


def test_the_file_is_the_one_that_the_command_writes(
    visitor: Visitor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NET)
    Path("classes.txt").write_text("".join(f"{label}\n" for label in LABELS))
    for name, kind in (("cat.jpg", "JPEG"), ("cat.png", "PNG")):
        content = encode(make_pixels(3), kind)
        Path(name).write_bytes(content)
        said = visitor.post(content, name=f"/somewhere/{name}", category="dog").json
        words = [name, "-m", "net.py:net", "--img-size", "32", "--device", "cpu", "--mean", "0.5"]
        words += ["--std", "0.5", "--target-category", "dog", "--class-map", "classes.txt"]
        assert main(words) == 0
        written = Path("camviz-out", said["file"])
        assert written.read_bytes() == base64.b64decode(said["overlay"])


@pytest.mark.parametrize(
    ("size", "method"), [((40, 48), "gradcam"), ((900, 2400), "gradcam"), ((900, 2000), "dff")]
)
def test_the_slider_blends_what_the_command_would_draw(
    visitor: Visitor, offered: OfferedModel, size: tuple[int, int], method: str
) -> None:
    pixels = make_pixels(0, size)
    said = visitor.post(encode(pixels), name="a.png", method=method).json
    ends = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(said[name]))), np.float32)
        for name in ("picture", "heat")
    ]
    # of a large picture, as much as a screen shows
    expected = Image.fromarray(explain(offered, pixels, method=method).overlay(0.8))
    expected.thumbnail((answers.SCREEN, answers.SCREEN))
    assert ends[0].shape == ends[1].shape == np.asarray(expected).shape
    blended = 0.2 * ends[0] + 0.8 * ends[1]
    # both layers are JPEG
    assert np.abs(blended - np.asarray(expected, np.float32)).mean() < 3


def test_what_browsers_do_not_show_comes_as_png(visitor: Visitor, offered: OfferedModel) -> None:
    pixels = make_pixels()
    for kind in ("TIFF", "BMP"):
        said = visitor.post(encode(pixels, kind), name=f"scan.{kind.lower()}").json
        assert said["type"] == "image/png" and said["file"].endswith(".png")
        np.testing.assert_array_equal(read_overlay(said), explain(offered, pixels).overlay())


def test_pictures_of_visitors_who_ask_at_once_are_not_mixed(
    visitor: Visitor, offered: OfferedModel
) -> None:
    seeds = range(8)
    pictures = [make_pixels(seed, (40 + seed, 48)) for seed in seeds]
    start = threading.Barrier(len(pictures))

    def ask(seed: int) -> list[Any]:
        start.wait()
        queries = [{"category": str(n % len(LABELS))} for n in (seed, seed + 1)]
        return [visitor.post(encode(pictures[seed]), name=f"{seed}.png", **q).json for q in queries]

    with ThreadPoolExecutor(len(pictures)) as pool:
        answers_of_all = list(pool.map(ask, seeds))
    for seed, said_of_one in zip(seeds, answers_of_all, strict=True):
        for step, said in enumerate(said_of_one):
            category = (seed + step) % len(LABELS)
            expected = explain(offered, pictures[seed], target_category=category)
            assert said["size"] == [40 + seed, 48] and said["category"] == category
            np.testing.assert_array_equal(read_overlay(said), expected.overlay())


def test_models_that_were_named_can_be_chosen_and_no_other() -> None:
    first, second = offer_small(0), offer_small(1)
    second = type(second)(**{**vars(second), "classifier": _rename(second.classifier, "other")})
    with serving(first, second) as visitor:
        pixels = make_pixels()
        for offered in (first, second):
            said = visitor.post(encode(pixels), name="a.png", model=offered.name).json
            np.testing.assert_array_equal(read_overlay(said), explain(offered, pixels).overlay())
        for name in ("resnet18", "hf:google/vit-base-patch16-224", "/etc/passwd", "net.py:net"):
            answer = visitor.post(encode(pixels), model=name)
            assert answer.status == 400 and "Unknown model" in answer.error


def _rename(classifier: Any, name: str) -> Any:
    from dataclasses import replace

    return replace(classifier, name=name)


def test_a_failure_of_ours_is_told_to_the_owner_and_not_to_the_visitor(
    offered: OfferedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise LookupError("secret of /srv/models/mine.py")

    with serving(offered) as visitor:
        monkeypatch.setattr(answers, "prepare", fail)
        answer = visitor.post(encode(make_pixels()))
        assert answer.status == 500 and "secret" not in answer.error and "/srv" not in answer.error
        assert visitor.told == ["a picture failed: LookupError: secret of /srv/models/mine.py"]
        monkeypatch.undo()
        assert visitor.post(encode(make_pixels())).status == 200


def test_a_port_that_is_in_use_says_what_to_do(visitor: Visitor, offered: OfferedModel) -> None:
    with pytest.raises(UsageError, match=rf"Port {visitor.port} of 127.0.0.1 is in use: choose"):
        Server(Show([offered], port=visitor.port), print)
    with pytest.raises(UsageError, match=r"'192\.0\.2\.1' is no address of this machine"):
        Server(Show([offered], host="192.0.2.1"), print)


def test_the_address_is_one_that_this_machine_can_open(offered: OfferedModel) -> None:
    for host, at in (("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::1", "[::1]")):
        try:
            server = Server(Show([offered], host=host), print)
        except UsageError:
            assert host == "::1"  # a machine without IPv6
            continue
        assert server.url == f"http://{at}:{server.server_address[1]}/"
        server.server_close()
