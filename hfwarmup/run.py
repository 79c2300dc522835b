"""Any Trainer script, unchanged, with the schedules' names registered before it begins:

    accelerate launch -m hfwarmup.run SCRIPT.py ARGS…
    accelerate launch -m hfwarmup.run -m MODULE ARGS…
    accelerate launch -m hfwarmup.run COMMAND ARGS…        an installed Python command, such as `trl sft`

The script runs as `__main__`, with its own arguments and its own folder first on the path, as under plain python. In a
notebook a cell with `import hfwarmup; hfwarmup.register()` does the same.
"""

from __future__ import annotations

import importlib.util
import os
import runpy
import shutil
import sys
from pathlib import Path

LAUNCHERS = ("accelerate", "torchrun", "deepspeed")
"""Commands that start processes of their own, in which nothing would be registered."""


def main() -> None:
    """Register, then run what the command line names; exits with one line when there is no such script."""
    words = sys.argv[1:]
    if words[:1] == ["trl"] and words[1:]:  # which would launch this script in processes of its own
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
    """Python's own rule for the folder of what it runs; under `python -P` it has none."""
    if not sys.flags.safe_path:
        sys.path[0] = folder


def _find_script(name: str) -> Path:
    """A file, or a command of the environment that this Python runs in."""
    if Path(name).is_file():
        return Path(name)
    if name in LAUNCHERS:
        sys.exit(f"error: {name} starts processes of its own; put it first: {name} … -m hfwarmup.run SCRIPT ARGS…")
    command = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if command is None:
        sys.exit(f"error: {name!r} is neither a file nor a command; give a script's path, or -m MODULE.")
    if not Path(command).read_bytes().startswith(b"#!") or b"python" not in Path(command).read_bytes().splitlines()[0]:
        sys.exit(f"error: {command} is no Python script; give the script that it runs, or -m MODULE.")
    return Path(command)


def _check_module(name: str) -> None:
    try:
        found = importlib.util.find_spec(name)
    except ModuleNotFoundError:  # its package
        found = None
    if found is None:
        sys.exit(f"error: there is no module {name!r}; give a script's path, or -m MODULE.")


if __name__ == "__main__":
    main()
