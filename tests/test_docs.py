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

from hfwarmup.cli import app
from hfwarmup.planning.config import read_config
from hfwarmup.planning.settings import PlanSettings
from hfwarmup.recipe_files import find_recipe
from hfwarmup.schedules.named import SCHEDULES

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def fences(page: Path) -> list[tuple[str, str]]:
    """(language, text) of every fenced block of a page."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def blocks(language: str, then: str | None = None) -> list:
    """Every block of a language with the text of the block behind it if that is in `then`, named by page and number."""
    found = []
    for page in PAGES:
        of_page = [*fences(page), ("", "")]
        pairs = [(text, later if kind == then else None) for (_, text), (kind, later) in itertools.pairwise(of_page)]
        ours = [pair for pair, (kind, _) in zip(pairs, of_page, strict=False) if kind == language]
        name = page.relative_to(ROOT)
        found += [pytest.param(*pair[: 2 if then else 1], id=f"{name}-{at}") for at, pair in enumerate(ours)]
    return found


def commands(program: str) -> list[list[str]]:
    """The words of every command of the bash blocks whose program has that name, assignments before it included."""
    split = [shlex.split(line, comments=True) for line in bash_lines()]
    return [words for words in split if words and Path(words[_program(words)]).name == program]


def bash_lines() -> list[str]:
    texts = [block.values[0].replace("\\\n", " ") for block in blocks("bash")]
    return [line for text in texts for line in text.splitlines()]


def _program(words: list[str]) -> int:
    return next(at for at, word in enumerate(words) if "=" not in word)


def test_each_block_is_of_a_kind_that_is_tested():
    """`text` is what the python block before it prints, `console` a command of ours with what it prints."""
    kinds = {kind for page in PAGES for kind, _ in fences(page)}
    assert kinds <= {"python", "text", "bash", "console", "yaml"}
    tested = sum(map(len, map(commands, ("launch.sh", "hfwarmup", "accelerate", "sbatch", "pip"))))
    assert tested == len([line for line in bash_lines() if not line.startswith("#")])


@pytest.mark.filterwarnings("ignore:'pin_memory'")  # a Trainer's default, on a machine without an accelerator
@pytest.mark.parametrize(("code", "output"), blocks("python", then="text"))
def test_python_runs(code, output, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "block", "exec"), {"__name__": "__main__"})
    assert output is None or capsys.readouterr().out == output


@pytest.mark.parametrize("words", commands("launch.sh"), ids=" ".join)
def test_a_command_is_what_launch_sh_understands(words):
    assert launch(words).returncode == 0


def launch(words: list[str]) -> subprocess.CompletedProcess:
    at = _program(words)
    assignments = dict(word.split("=", 1) for word in words[:at])
    if int(assignments.get("NUM_PROCESSES", 1)) > 2:  # needs as many GPUs, which launch.sh checks
        assignments["CUDA_VISIBLE_DEVICES"] = ""
    environment = {**os.environ, **assignments, "HFWARMUP_PYTHON": sys.executable}
    arguments = [word for word in words[at + 1 :] if word != "--dry-run"]
    command = ["./launch.sh", "--dry-run", *arguments]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    named = arguments[0] if arguments else "pretrain_clm"
    tools = {"test": "pytest", "lint": "ruff", "docs": "mkdocs"}
    assert tools.get(named, f"recipes/{named}.py") in run.stdout
    for flag, value in itertools.pairwise(words):
        if flag == "--config":
            assert (ROOT / value).is_file()
    return run


@pytest.mark.parametrize("words", commands("sbatch"), ids=" ".join)
def test_a_batch_job_is_a_script_and_a_launch(words):
    script = next(word for word in words[1:] if not word.startswith("-"))
    subprocess.run(["bash", "-n", script], cwd=ROOT, check=True)
    launch(["./launch.sh", *words[words.index(script) + 1 :]])


@pytest.mark.parametrize("words", commands("accelerate"), ids=" ".join)
def test_accelerate_is_asked_for_our_module(words):
    from accelerate.commands.launch import launch_command_parser

    arguments = launch_command_parser().parse_args(words[2:])
    assert arguments.module
    assert arguments.training_script == "hfwarmup.run"
    assert arguments.training_script_args


@pytest.mark.parametrize("words", commands("pip"), ids=" ".join)
def test_what_is_installed_is_an_extra_of_this_package(words):
    extras = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    asked = re.search(r"\[([\w,]+)\]", " ".join(words))
    assert asked is None or set(asked[1].split(",")) <= set(extras)


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


@pytest.mark.parametrize("words", commands("hfwarmup"), ids=" ".join)
def test_a_command_of_hfwarmup_works(words, here):
    assert hfwarmup_says(words[1:]) or list(here.glob("*.*"))


@pytest.mark.parametrize("block", blocks("console"))
def test_a_command_prints_what_is_shown(block, here):
    for line, shown in re.findall(r"^\$ hfwarmup (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE):
        printed = hfwarmup_says(shlex.split(line))
        assert [text.rstrip() for text in printed.splitlines()] == shown.splitlines()


class _ParsedError(Exception):
    """Ends a recipe behind its first lines."""


@pytest.mark.parametrize("text", blocks("yaml"))
def test_a_config_is_one_of_a_recipe_and_has_a_plan(text, tmp_path):
    """A block says in its first line whose it is; without it, it is for pretrain_clm."""
    config = tmp_path / "run.yaml"
    config.write_text(text)
    recipe = re.match(r"# recipe: (\w+)", text)
    main = runpy.run_path(str(find_recipe(recipe[1] if recipe else "pretrain_clm")))["main"]
    parse = main.__globals__["parse_arguments"]

    def parse_and_stop(*types: type) -> None:
        parse(*types, argv=["--config", str(config)])
        raise _ParsedError

    main.__globals__["parse_arguments"] = parse_and_stop
    with pytest.raises(_ParsedError):
        main()
    settings = PlanSettings.pick({"max_steps": 1000, "lr_scheduler_type": "warmup_cosine", **read_config(config)})
    settings.spec(settings.plan(num_processes=1, num_samples=10_000))


def test_the_map_of_the_readme_names_every_module_and_nothing_else():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`hfwarmup/[^|]*) \|", readme, re.MULTILINE)
    named = set()
    for row in rows:
        first, *others = re.findall(r"`([^`]+)`", row)
        named |= {first, *(str(Path(first).with_name(other)) for other in others)}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "hfwarmup").rglob("*.py")}
    assert named == {module for module in modules if not module.endswith("__init__.py")}


def test_each_schedule_is_on_its_page():
    page = (ROOT / "docs/guides/schedules.md").read_text(encoding="utf-8")
    rows = "\n".join(re.findall(r"^\| .*", page, re.MULTILINE))
    assert [name for name in SCHEDULES if f"`{name}`" not in rows] == []


def test_each_command_is_on_its_page():
    page = (ROOT / "docs/reference/commands.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## hfwarmup (.*)$", page, re.MULTILINE)
    assert sections == [command.name for command in app.registered_commands]


def test_each_floor_has_a_page_of_the_reference():
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs/reference").glob("*.md"))
    floors = {path.parent.name for path in (ROOT / "hfwarmup").glob("*/__init__.py")} - {"commands"}
    assert set(re.findall(r"^::: hfwarmup\.?(\w*)$", pages, re.MULTILINE)) == {"", *floors}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if "://" not in target and not (page.parent / target).exists()] == []
