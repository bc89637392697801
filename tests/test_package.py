"""The installed package: a wheel, outside the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
IMPORT_ALL = """
import importlib, pkgutil, sys
for name in ("tf_lsq", "tflite_export"):
    package = importlib.import_module(name)
    assert "site-packages" in package.__file__, package.__file__
    for module in pkgutil.walk_packages(package.__path__, name + "."):
        importlib.import_module(module.name)
        print(module.name)
"""


def run(*command, **kwargs):
    """Runs a command that must succeed, without the checkout on its path."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        env=environment,
        **kwargs,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A new environment with the wheel; dependencies come from the current one."""
    folder = tmp_path_factory.mktemp("installed")
    source = folder / "source"
    for package in ("tf_lsq", "tflite_export"):
        shutil.copytree(ROOT / package, source / package)
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    wheel = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    run(*wheel, "--wheel-dir", folder, source)
    [path] = folder.glob("*.whl")
    environment = folder / "environment"
    venv.create(environment, with_pip=False, symlinks=True)
    packages = next(environment.glob("lib/python*/site-packages"))
    (packages / "needed.pth").write_text(sysconfig.get_paths()["purelib"])
    pip = [sys.executable, "-m", "pip", "--python", environment / "bin/python"]
    run(*pip, "install", "--no-deps", path)
    return environment / "bin"


def test_every_module_is_in_the_wheel(installed, tmp_path):
    found = run(installed / "python", "-c", IMPORT_ALL, cwd=tmp_path).stdout.split()
    files = [
        path.relative_to(ROOT).with_suffix("")
        for package in ("tf_lsq", "tflite_export")
        for path in (ROOT / package).rglob("*.py")
    ]
    names = {".".join(path.parts).removesuffix(".__init__") for path in files}
    assert set(found) | {"tf_lsq", "tflite_export"} == names


def test_the_command_is_installed_and_quiet(installed, tmp_path):
    done = run(installed / "tf-lsq", "--help", cwd=tmp_path)
    assert "inspect" in done.stdout and not done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["inspect", "FILE"]])
def test_light_commands_do_not_load_tensorflow(arguments, exported_file):
    program = (
        "import sys\n"
        "from tflite_export import cli\n"
        "try:\n"
        "    cli.app(sys.argv[1:])\n"
        "finally:\n"
        "    assert 'tensorflow' not in sys.modules\n"
    )
    chosen = [str(exported_file) if a == "FILE" else a for a in arguments]
    subprocess.run([sys.executable, "-c", program, *chosen], check=True, cwd=ROOT)


def test_training_does_not_load_plotting_code():
    # TensorFlow's own Keras 3 loads matplotlib if it is installed.
    program = "import sys, tf_lsq; assert 'tf_lsq.training.plots' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


def test_commands_print_nothing_on_standard_error(exported_file, tmp_path):
    command = [sys.executable, "-m", "tflite_export.cli"]
    model = ROOT / "tests/data/residual.keras"
    file, data = tmp_path / "model.tflite", tmp_path / "x.npy"
    np.save(data, np.random.default_rng(0).uniform(-1, 1, (8, 8, 8, 3)))
    for arguments in (
        ["check", model],
        ["export", model, file, "--data", data, "--benchmark"],
        ["verify", file, model, "--data", data],
        ["inspect", file],
    ):
        done = run(*command, *arguments, cwd=ROOT)
        assert done.stderr == "", arguments
    lost = subprocess.run(
        [*command, "inspect", str(tmp_path / "none")], capture_output=True, text=True,
        cwd=ROOT,
    )  # fmt: skip
    assert lost.returncode == 3 and "Error:" in lost.stderr


@pytest.fixture(scope="module")
def exported_file():
    return ROOT / "tests/data/residual.tflite"
