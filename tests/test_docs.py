"""What the documents say can be done can be done: every code block of every page is run, parsed or rehearsed."""

from __future__ import annotations

import itertools
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import hfwarmup
from hfwarmup.cli import app
from hfwarmup.measuring.critical_lr import critical_lr
from hfwarmup.planning.recipe_files import import_script
from hfwarmup.recipe.parsing import read_arguments
from hfwarmup.schedules.named import SCHEDULES
from hfwarmup.trainer.find_lr import FoundLr

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))


FENCE = r"^```{}\n((?:(?!```).*\n)*)```$"
PYTHON = FENCE.format("python") + r"(?:\n\n" + FENCE.format("text") + ")?"


def found(pattern: str) -> list:
    """The groups of every match on every page, named by page and number."""
    return [
        pytest.param(*match.groups(), id=f"{page.relative_to(ROOT)}-{number}")
        for page in PAGES
        for number, match in enumerate(re.finditer(pattern, page.read_text(encoding="utf-8"), re.MULTILINE))
    ]


def commands() -> list[list[str]]:
    """The words of every command of the bash blocks; those before the program set variables."""
    texts = [block.values[0].replace("\\\n", " ") for block in found(FENCE.format("bash"))]
    lines = [shlex.split(line, comments=True) for text in texts for line in text.splitlines()]
    return [words for words in lines if words]


def program_at(words: list[str]) -> int:
    return next(at for at, word in enumerate(words) if "=" not in word)


def calls(program: str) -> list[list[str]]:
    return [words for words in commands() if Path(words[program_at(words)]).name == program]


def test_each_block_is_of_a_kind_that_is_tested():
    """`text` is what the python block before it prints, `console` a command of ours with what it prints."""
    kinds = [block.values[0] for block in found(r"^```(\w*)\n(?:(?!```).*\n)*```$")]
    assert set(kinds) <= {"python", "text", "bash", "console", "yaml"}
    assert kinds.count("text") == sum(block.values[1] is not None for block in found(PYTHON))
    programs = ("launch.sh", "hfwarmup", "accelerate", "sbatch", "pip")
    assert sum(len(calls(program)) for program in programs) == len(commands())


@pytest.mark.filterwarnings("ignore:'pin_memory'")  # a Trainer's default, on a machine without an accelerator
@pytest.mark.parametrize(("code", "shown"), found(PYTHON))
def test_python_runs_and_prints_what_is_shown(code, shown, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "block", "exec"), {"__name__": "__main__"})
    assert shown is None or capsys.readouterr().out == shown


@pytest.mark.parametrize("words", calls("launch.sh"), ids=" ".join)
def test_a_command_is_what_launch_sh_understands(words):
    named = [word for word in words[program_at(words) + 1 :] if word != "--dry-run"][:1]
    runs = {(): "recipes/pretrain_clm.py", ("test",): "pytest", ("lint",): "ruff", ("docs",): "mkdocs"}
    assert runs.get(tuple(named), f"recipes/{''.join(named)}.py") in rehearse(words)


@pytest.mark.parametrize("words", calls("sbatch"), ids=" ".join)
def test_a_batch_job_is_a_script_and_a_launch(words):
    _, script, recipe, *settings = words
    subprocess.run(["bash", "-n", script], cwd=ROOT, check=True)
    assert f"recipes/{recipe}.py" in rehearse(["./launch.sh", recipe, *settings])


def rehearse(words: list[str]) -> str:
    """What `launch.sh --dry-run` says to a command, whose configs are there."""
    at = program_at(words)
    variables = dict(word.split("=", 1) for word in words[:at])
    if int(variables.get("NUM_PROCESSES", 1)) > 2:  # needs as many GPUs, which launch.sh checks
        variables["CUDA_VISIBLE_DEVICES"] = ""
    environment = {**os.environ, **variables, "HFWARMUP_PYTHON": sys.executable}
    command = ["./launch.sh", "--dry-run", *(word for word in words[at + 1 :] if word != "--dry-run")]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert all((ROOT / value).is_file() for flag, value in itertools.pairwise(words) if flag == "--config")
    return run.stdout


@pytest.mark.parametrize("words", calls("accelerate"), ids=" ".join)
def test_accelerate_is_asked_for_our_module(words):
    from accelerate.commands.launch import launch_command_parser

    arguments = launch_command_parser().parse_args(words[2:])
    assert arguments.module
    assert arguments.training_script == "hfwarmup.run"
    assert arguments.training_script_args


@pytest.mark.parametrize("words", calls("pip"), ids=" ".join)
def test_what_is_installed_is_an_extra_of_this_package(words):
    extras = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    asked = re.findall(r"\[(\w+)\]", words[-1])
    assert set(asked) <= set(extras)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A folder with configs/ that may be written into."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path


def hfwarmup_says(words: list[str]) -> str:
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def found_lr(script: Path, words: list[str], *, range_updates: int) -> FoundLr:
    """What find-lr measures, without building the recipe's data; its settings are read as the recipe does."""
    hfwarmup.register()
    read_arguments(import_script(script).ARGUMENTS, words)
    critical = critical_lr(lambda lr: (1 - 7 * lr) ** 2, start=1.0, upper=10.0)
    return FoundLr(critical=critical, range_test=None, peak_lr=1e-3, warmup_steps=10, optimizer="AdamW")


@pytest.mark.parametrize("line", sorted({shlex.join(words[1:]) for words in calls("hfwarmup")}))
def test_a_command_of_hfwarmup_works(line, here, monkeypatch):
    words = shlex.split(line)
    monkeypatch.setattr("hfwarmup.trainer.find_lr.find_lr", found_lr)
    write_run = runpy.run_path(str(ROOT / "tests/run_folders.py"))["write_run"]
    for word in words:
        if word.startswith("runs/"):
            write_run(here / word, measured=True, warmup_steps=6, peak_lr=2e-3)
    assert hfwarmup_says(words) or list(here.glob("*.*"))


@pytest.mark.parametrize("block", found(FENCE.format("console")))
def test_a_command_prints_what_is_shown(block, here):
    for line, shown in re.findall(r"^\$ hfwarmup (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE):
        printed = hfwarmup_says(shlex.split(line))
        assert [text.rstrip() for text in printed.splitlines()] == shown.splitlines()


@pytest.mark.parametrize("text", found(FENCE.format("yaml")))
def test_a_config_has_no_mistakes(text, tmp_path):
    """A block says in its first line whose it is; without it, it is for pretrain_clm."""
    (tmp_path / "run.yaml").write_text(text if text.startswith("# recipe: ") else f"# recipe: pretrain_clm\n{text}")
    hfwarmup_says(["validate", str(tmp_path / "run.yaml"), "--num_samples", "10000"])


OWN_SUBMODULE = re.compile(r"^\s*(?:from|import) (hfwarmup\.[\w.]+)", re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_on_a_page_imports_public_names_only(page):
    """Whoever follows the documents imports from hfwarmup and hfwarmup.recipe."""
    blocks = re.findall(FENCE.format("python"), page.read_text(encoding="utf-8"), re.MULTILINE)
    assert {name for block in blocks for name in OWN_SUBMODULE.findall(block)} <= {"hfwarmup.recipe"}


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 130


def test_the_map_has_a_row_for_each_room():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = [row.split("`, `") for row in re.findall(r"^\| `(.*?)` \|", text, re.MULTILINE)]
    rooms = {f"{path.parent.name}/" for path in (ROOT / "hfwarmup").glob("*/__init__.py")}
    modules = {path.name for path in (ROOT / "hfwarmup").glob("*.py")}
    assert {name for row in rows for name in row if name.startswith("hfwarmup/")} == {
        f"hfwarmup/{name}" for name in rooms | modules - {"__init__.py"}
    }


def test_each_page_is_in_the_navigation():
    listed = re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md"))


def test_each_schedule_is_on_its_page():
    page = (ROOT / "docs/guides/schedules.md").read_text(encoding="utf-8")
    rows = "\n".join(re.findall(r"^\| .*", page, re.MULTILINE))
    assert [name for name in SCHEDULES if f"`{name}`" not in rows] == []


def test_each_command_is_on_its_page():
    page = (ROOT / "docs/reference/commands.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## hfwarmup (.*)$", page, re.MULTILINE)
    assert sections == [command.name for command in app.registered_commands]


def sections(page: Path) -> list[str]:
    """What of the package a page of the reference shows."""
    return re.findall(r"^::: hfwarmup\.(\w+)$", page.read_text(encoding="utf-8"), re.MULTILINE)


def test_each_public_name_has_a_section():
    assert sections(ROOT / "docs/reference/index.md") == hfwarmup.__all__


def test_each_room_has_a_page_of_the_reference():
    pages = [page for page in (ROOT / "docs/reference").glob("*.md") if page.stem not in ("index", "commands")]
    rooms = {path.parent.name for path in (ROOT / "hfwarmup").glob("*/__init__.py")} - {"commands"}
    assert {page.stem: sections(page) for page in pages} == {room: [room] for room in {*rooms, "errors"}}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if "://" not in target and not (page.parent / target).exists()] == []
