"""camviz away from its checkout: what the wheel holds, and that it runs where it is installed."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from tests.checkout import ROOT, export
from tests.outputs import outputs

LARGEST_WHEEL = 2_000_000  # bytes
MODEL_FILES = {
    "camcli/models/embedded/labels.txt",
    "camcli/models/parameters.csv",
}


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Runs a command that has to succeed; returns its standard output."""
    ran = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, f"{command}\n{ran.stdout[-2000:]}\n{ran.stderr[-4000:]}"
    return ran.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(tmp_path_factory.mktemp("export"))


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("build")
    folder = tmp_path_factory.mktemp("wheel")
    build: list[str | Path] = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        folder,
    ]
    run(*build, checkout, cwd=folder)
    (built,) = folder.iterdir()
    return built


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder far from the checkout that holds one photo."""
    folder = tmp_path / "outside"
    folder.mkdir()
    shutil.copy(ROOT / "demo_images" / "cat_and_coffee.jpg", folder / "demo.jpg")
    return folder


def check_overlay(folder: Path, said: str) -> None:
    """Checks that one overlay was written below the folder, and that its path was printed."""
    (overlay,) = outputs(folder / "camviz-out")
    assert overlay.name in said
    assert overlay.name.startswith("demo_gradcam")
    with Image.open(overlay) as picture:
        picture.load()
        assert picture.size == (600, 400)


def test_the_wheel_is_small(wheel: Path) -> None:
    assert wheel.stat().st_size < LARGEST_WHEEL


def test_the_wheel_holds_what_camviz_needs_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (entry_points,) = (n for n in names if n.endswith(".dist-info/entry_points.txt"))
        assert "camviz = camcli.cli.app:main" in archive.read(entry_points).decode()
    presets = {f"camcli/configs/{p.name}" for p in (ROOT / "configs").glob("*.toml")}
    handbook = {f"camcli/docs/{p.name}" for p in (ROOT / "camcli" / "docs").glob("*.md")}
    assert presets
    assert handbook
    package = ROOT / "camcli"
    data = [
        *(package / "docs" / "tables").glob("*.md"),
        *(package / "cli" / "completion" / "scripts").iterdir(),
        package / "models" / "torchvision_names.txt",
        package / "models" / "embedded" / "layers.txt",
    ]
    assert presets | handbook | MODEL_FILES <= names
    assert len(data) > 5 and {path.relative_to(ROOT).as_posix() for path in data} <= names
    assert {n for n in names if not n.startswith("camcli/") and ".dist-info/" not in n} == set()
    assert any(n.endswith(".dist-info/licenses/LICENSE") for n in names)


def test_an_installed_wheel_runs_outside_the_checkout(
    wheel: Path, outside: Path, tmp_path: Path
) -> None:
    pytest.importorskip("pip")
    site = tmp_path / "site"
    python = sys.executable
    install = [python, "-m", "pip", "install", "--no-deps", "--no-index", "--no-compile"]
    run(*install, "--target", site, wheel, cwd=tmp_path)
    path = {"PYTHONPATH": str(site)}
    asked = "print(c.__file__, *sorted(c.list_presets()), sep=chr(10))"
    question = f"from camcli import config as c; {asked}"
    where, *presets = run(python, "-c", question, cwd=outside, **path).splitlines()
    assert Path(where).is_relative_to(site)
    assert presets == sorted(p.stem for p in (ROOT / "configs").glob("*.toml"))
    check_overlay(outside, run(python, "-m", "camcli", "demo.jpg", cwd=outside, **path))


@pytest.mark.slow
def test_an_editable_install_runs(checkout: Path, outside: Path, tmp_path: Path) -> None:
    pytest.importorskip("pip")
    pytest.importorskip("editables")
    environment = tmp_path / "environment"
    venv.create(environment, symlinks=os.name != "nt")
    inside = {"base": str(environment), "platbase": str(environment)}
    scripts = Path(sysconfig.get_path("scripts", "venv", inside))
    site = Path(sysconfig.get_path("purelib", "venv", inside))
    # torch and the others are borrowed from the environment that runs the tests
    borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site / "zz-borrowed.pth").write_text("\n".join(sorted(borrowed)) + "\n")
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--python", scripts / "python", "install"]
    alone = ["--no-deps", "--no-index", "--no-build-isolation", "--ignore-installed"]
    run(*pip, *alone, "--editable", checkout, cwd=tmp_path)
    question = "import camcli; print(camcli.__file__)"
    assert checkout in Path(run(scripts / "python", "-c", question, cwd=outside).strip()).parents
    said = run(scripts / "camviz", "demo.jpg", "--config", "embedded", cwd=outside)
    check_overlay(outside, said)
