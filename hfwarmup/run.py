"""Runs any Trainer script, unchanged, after registering the names of the schedules:

    accelerate launch -m hfwarmup.run SCRIPT.py ARGS…
    accelerate launch -m hfwarmup.run -m MODULE ARGS…
    accelerate launch -m hfwarmup.run COMMAND ARGS…        an installed Python command, such as `trl sft`

The script runs as under plain python: as `__main__`, with its own arguments, and with its own folder first on the path.
In a notebook, a cell with `import hfwarmup; hfwarmup.register()` does the same.
"""

from __future__ import annotations

import importlib.util
import os
import runpy
import shutil
import sys
from pathlib import Path

LAUNCHERS = ("accelerate", "torchrun", "deepspeed")
"""Commands that start new processes, in which no name would be registered."""


def main() -> None:
    """Register, then run what the command line names; exit with one line if it cannot run."""
    words = sys.argv[1:]
    if words[:1] == ["trl"] and words[1:]:  # trl itself would start new processes
        words = ["-m", f"trl.scripts.{words[1]}", *words[2:]]
    as_module = words[:1] == ["-m"]
    target = words[1:] if as_module else words
    if not target:
        sys.exit(f"error: nothing to run.\n{__doc__}")
    script = None if as_module else _find_script(target[0])
    from hfwarmup.trainer.registration import register

    register()
    sys.argv = target
    if script is None:
        _put_first(os.getcwd())
        _check_module(target[0])
        runpy.run_module(target[0], run_name="__main__", alter_sys=True)
    else:
        _put_first(str(script.resolve().parent))
        runpy.run_path(os.path.abspath(script), run_name="__main__")


def _put_first(folder: str) -> None:
    """Put the folder of what runs first on the path, as Python does itself, unless it was started with -P."""
    if not sys.flags.safe_path:
        sys.path[0] = folder


def _find_script(name: str) -> Path:
    """The file of that name, or the command of this Python's environment."""
    if Path(name).is_file():
        return Path(name)
    if name in LAUNCHERS:
        sys.exit(f"error: {name} starts new processes, so it must come first: {name} … -m hfwarmup.run SCRIPT ARGS…")
    command = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if command is None:
        sys.exit(f"error: {name!r} is neither a file nor a command; give a script's path, or -m MODULE.")
    first_line = Path(command).read_bytes().partition(b"\n")[0]
    if not first_line.startswith(b"#!") or b"python" not in first_line:
        sys.exit(f"error: {command} is not a Python script; give the script that it runs, or -m MODULE.")
    return Path(command)


def _check_module(name: str) -> None:
    try:
        found = importlib.util.find_spec(name)
    except ModuleNotFoundError:  # its package does not exist
        found = None
    if found is None:
        sys.exit(f"error: there is no module {name!r}; give a script's path, or -m MODULE.")


if __name__ == "__main__":
    main()
