"""The README's commands and the demo photos are what they are said to be."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.checkout import ROOT

COMMANDS = [
    "python -m venv .venv && . .venv/bin/activate && pip install . "
    "&& camviz demo_images/cat_and_coffee.jpg --method gradcam++ --fit squash",
    "python -m venv .venv && . .venv/bin/activate && pip install '.[test]' && pytest",
]
DEMO_IMAGES = ROOT / "demo_images"
PHOTOS = sorted(p.name for p in DEMO_IMAGES.iterdir() if p.suffix != ".md")
CELL = r"([^|]+)\|"
ROW = re.compile(rf"^\| `([^`]+)` \|{CELL * 5}$", re.MULTILINE)


def run_script(name: str, file: Path) -> subprocess.CompletedProcess[str]:
    script = ROOT / ".ci" / name
    if not script.exists():
        pytest.skip("needs the repository's .ci folder")
    command = [sys.executable, str(script), str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_ci_takes_the_two_commands_out_of_the_readme() -> None:
    assert run_script("commands.py", ROOT / "README.md").stdout.splitlines() == COMMANDS


def test_the_readme_begins_with_them() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    fences = re.findall(r"^```.*?\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert fences[:2] == [f"{command}\n" for command in COMMANDS]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_ci_refuses_another_number_of_commands(tmp_path: Path, count: int) -> None:
    readme = tmp_path / "README.md"
    # outside a fence a command is prose
    readme.write_text(f"{COMMANDS[0]}\n" + f"```bash\n{COMMANDS[0]}\n```\n" * count)
    ran = run_script("commands.py", readme)
    assert ran.returncode == 1
    assert f"has {count} commands" in ran.stderr


def test_ci_adds_up_the_runs(tmp_path: Path) -> None:
    summaries = tmp_path / "summaries"
    summaries.write_text(
        "12 passed, 1 skipped, 3 deselected in 4.50s\n"
        "3 passed, 13 deselected in 125.30s (0:02:05)\n"
    )
    assert run_script("total.py", summaries).stdout == "15 passed, 1 skipped in 129.80s\n"


@pytest.mark.parametrize("lost", ["", "Killed\n", "no tests ran in 0.01s\n"])
def test_ci_does_not_take_a_lost_run_for_a_passed_one(tmp_path: Path, lost: str) -> None:
    summaries = tmp_path / "summaries"
    summaries.write_text(f"12 passed in 4.50s\n{lost or chr(10)}")
    assert run_script("total.py", summaries).returncode == 1


def test_every_demo_image_has_its_licence_and_every_licence_its_image() -> None:
    table = ROW.findall((DEMO_IMAGES / "README.md").read_text(encoding="utf-8"))
    assert sorted(row[0] for row in table) == PHOTOS
    assert all(re.search(r"CC0 1\.0|CC BY 2\.0", row[4]) for row in table)


@pytest.mark.parametrize("name", PHOTOS)
def test_a_demo_image_is_readable_and_small(name: str) -> None:
    path = DEMO_IMAGES / name
    with Image.open(path) as picture:
        picture.load()
        assert min(picture.size) >= 300
        assert picture.mode == "RGB"
    assert path.stat().st_size < 500_000


def test_the_cat_and_the_coffee_fill_a_half_each() -> None:
    with Image.open(DEMO_IMAGES / "cat_and_coffee.jpg") as picture:
        assert picture.size == (600, 400)


def test_what_the_readme_links_to_is_there() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert len(links) >= 6
    for link in links:
        assert (ROOT / link).exists(), link
