"""The wheel holds all that the package needs, nothing else, and works outside the repository."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, ROOT]
    built = subprocess.run(build, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def run(wheel, tmp_path_factory):
    """Runs a command of an environment with the wheel and this environment's other packages, in an empty folder."""
    environment, folder = tmp_path_factory.mktemp("environment"), tmp_path_factory.mktemp("outside")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin" / "python"
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    install = [sys.executable, "-m", "pip", "-q", "--python", python, "install", "--no-deps", "--no-index", wheel]
    subprocess.run(install, env=clean, check=True, capture_output=True)
    (own,) = environment.glob("lib/python*/site-packages")
    (own / "others.pth").write_text(sysconfig.get_path("purelib"))

    def run_command(command: str, *words: str) -> str:
        finished = subprocess.run(
            [environment / "bin" / command, *words], cwd=folder, env=clean, capture_output=True, text=True, check=False
        )
        assert finished.returncode == 0, finished.stderr
        return finished.stdout

    run_command.folder, run_command.environment = folder, environment
    return run_command


def files(folder: str, inside: str) -> set[str]:
    """What a folder of the repository becomes in the wheel."""
    paths = [path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return {f"{inside}/{path.relative_to(ROOT / folder).as_posix()}" for path in paths}


def test_the_wheel_holds_the_package_its_recipes_and_their_configs(wheel):
    packed = files("hfwarmup", "hfwarmup") | files("recipes", "hfwarmup/_recipes")
    packed |= files("configs", "hfwarmup/_configs") - files("configs/slurm", "hfwarmup/_configs/slurm")
    names = set(zipfile.ZipFile(wheel).namelist())
    metadata = {name for name in names if name.partition("/")[0].endswith(".dist-info")}
    assert names - metadata == packed
    assert {Path(name).name for name in metadata} == {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "LICENSE"}


def test_the_commands_work_outside_the_repository(run):
    assert run("python", "-c", "import hfwarmup; print(hfwarmup.__file__)").startswith(str(run.environment))
    listed = run("hfwarmup", "list")
    assert "  pretrain_clm " in listed
    assert "configs: smoke, stdlib" in listed
    assert "pretrain_clm.py" in run("hfwarmup", "init", "pretrain_clm")
    config = "configs/pretrain_clm/smoke.yaml"
    assert run("hfwarmup", "plan", config).startswith("global batch 8")
    run("hfwarmup", "plot", config, "-o", "curve.png")
    assert (run.folder / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert run("hfwarmup", "validate", config) == f"{config}: no mistakes, for pretrain_clm\n"


def test_every_module_is_in_the_wheel_and_can_be_imported(run):
    program = """if True:
        import importlib, pkgutil
        import hfwarmup
        for module in pkgutil.walk_packages(hfwarmup.__path__, "hfwarmup."):
            print(module.name, importlib.import_module(module.name).__file__)
    """
    imported = dict(line.split(maxsplit=1) for line in run("python", "-c", program).splitlines())
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in (ROOT / "hfwarmup").rglob("*.py")}
    assert set(imported) == {name.removesuffix(".__init__") for name in modules} - {"hfwarmup"}
    assert all(file.startswith(str(run.environment)) for file in imported.values())


def test_the_wheel_has_the_version_of_the_package(wheel, run):
    shown = run("python", "-c", "import hfwarmup; print(hfwarmup.__version__)").strip()
    assert wheel.name.split("-")[1] == shown


def test_any_script_finds_the_names_outside_the_repository(run):
    (run.folder / "script.py").write_text(
        "from transformers.trainer_utils import SchedulerType\nprint(SchedulerType('warmup_wsd').value)\n"
    )
    assert run("python", "-m", "hfwarmup.run", "script.py") == "warmup_wsd\n"
