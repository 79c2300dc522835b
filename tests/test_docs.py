"""What the documents say can be done can be done."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str) -> list:
    """Every fenced block of a language, named by its page and number."""
    found = []
    for page in PAGES:
        codes = re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
        found += [pytest.param(code, id=f"{page.name}-{number}") for number, code in enumerate(codes)]
    return found


def commands() -> list:
    lines = [line for code in blocks("bash") for line in code.values[0].splitlines()]
    return [line for line in lines if "./launch.sh" in line]


@pytest.mark.parametrize("code", blocks("python"))
def test_python_runs(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "block", "exec"), {})


def test_the_plan_prints_what_the_readme_shows(capsys):
    shown = re.search(r"^```\n(global batch.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    code = next(block.values[0] for block in blocks("python") if "print(plan)" in block.values[0])
    exec(compile(code, "block", "exec"), {})
    assert capsys.readouterr().out == shown[1]


@pytest.mark.parametrize("line", commands())
def test_a_command_is_what_launch_sh_understands(line):
    words = shlex.split(line, comments=True)
    at = words.index("./launch.sh")
    assignments = dict(word.split("=", 1) for word in words[:at])
    if int(assignments.get("NUM_PROCESSES", 1)) > 2:  # needs as many GPUs, which launch.sh checks
        assignments["CUDA_VISIBLE_DEVICES"] = ""
    environment = {**os.environ, **assignments, "HFWARMUP_PYTHON": sys.executable}
    command = ["./launch.sh", "--dry-run", *words[at + 1 :]]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    named = words[at + 1] if len(words) > at + 1 else "pretrain_clm"
    assert ("pytest" if named == "test" else f"recipes/{named}.py") in run.stdout
    for flag, value in itertools.pairwise(words):
        if flag == "--config":
            assert (ROOT / value).is_file()


def test_the_map_of_the_readme_names_every_module_and_nothing_else():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`hfwarmup/[^|]*) \|", readme, re.MULTILINE)
    named = set()
    for row in rows:
        first, *others = re.findall(r"`([^`]+)`", row)
        named |= {first, *(str(Path(first).with_name(other)) for other in others)}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "hfwarmup").rglob("*.py")}
    assert named == {module for module in modules if not module.endswith("__init__.py")}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if "://" not in target and not (page.parent / target).exists()] == []
