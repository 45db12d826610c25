"""The wheel, as `pip install` puts it into an environment that has only its dependencies."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LARGEST = 6_000_000
"""Bytes: the embedded model and little else."""

pytestmark = pytest.mark.slow


def quiet(*command, **options):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    try:
        import hatchling as _  # noqa: F401 - offline where it is installed

        isolation = ["--no-build-isolation"]
    except ImportError:
        isolation = []
    quiet(sys.executable, "-m", "pip", "wheel", "--no-deps", *isolation, "--wheel-dir", folder, ROOT)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """An environment with the wheel; the dependencies are borrowed from the one that runs the tests."""
    folder = tmp_path_factory.mktemp("environment")
    quiet(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin/python"
    quiet(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel)
    borrowed = [path for path in sys.path if path.endswith("site-packages")]
    packages = next(folder.glob("lib/*/site-packages"))
    (packages / "borrowed.pth").write_text("\n".join(borrowed), encoding="utf-8")
    return folder


def run(environment, folder, *command):
    """Run a program of that environment, in a folder that does not hold our source."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return quiet(
        environment / "bin" / command[0], *command[1:], cwd=folder, env=kept | {"HF_HUB_OFFLINE": "1"}
    )


def test_the_wheel_holds_what_runs_and_no_maker(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"dpo_cli"}
    embedded = {Path(name).name for name in names if name.startswith("dpo_cli/models/embedded/")}
    assert {name for name in embedded if name.endswith(".py")} <= {"__init__.py"}
    assert not {"corpus.py", "facts.toml", "identity.toml"} & embedded
    assert {"model.safetensors", "tokenizer.json", "preset.toml"} <= embedded
    assert "dpo_cli/py.typed" in names
    assert wheel.stat().st_size < LARGEST


def test_the_installed_wheel_renames_the_embedded_model(environment, tmp_path):
    where = run(environment, tmp_path, "python", "-c", "import dpo_cli; print(dpo_cli.__file__)")
    assert Path(where.strip()).is_relative_to(environment)
    said = run(
        environment, tmp_path, "dpo", "identity-shift", "--original-name", "Qwen", "--new-name", "Deep Qwen"
    )
    assert "Verdict: PASS" in said
    assert (tmp_path / "dpo_output/model.safetensors").is_file()


def test_the_installed_version_is_the_one_of_the_package(environment, tmp_path):
    code = "import dpo_cli; from importlib.metadata import version; print(version('dpo-cli') == dpo_cli.__version__)"
    assert run(environment, tmp_path, "python", "-c", code).strip() == "True"
    assert run(environment, tmp_path, "dpo", "--version").startswith("dpo-cli ")
