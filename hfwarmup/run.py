"""Any Trainer script, unchanged, with the schedules' names registered before it begins:

    accelerate launch -m hfwarmup.run SCRIPT.py ARGS…
    accelerate launch -m hfwarmup.run -m MODULE ARGS…
    accelerate launch -m hfwarmup.run COMMAND ARGS…        an installed Python command, such as `trl`

The script runs as `__main__`, with its own arguments and its own folder first on the path, as under plain python.
"""

from __future__ import annotations

import runpy
import shutil
import sys
from pathlib import Path


def main() -> None:
    """Register, then run what the command line names; exits with one line when there is no such script."""
    words = sys.argv[1:]
    as_module = words[:1] == ["-m"]
    target = words[1:] if as_module else words
    if not target:
        sys.exit(f"error: nothing to run.\n{__doc__}")
    script = None if as_module else _find_script(target[0])
    from hfwarmup.training.registration import register

    register()
    sys.argv = target
    if script is None:
        sys.path[0] = ""
        runpy.run_module(target[0], run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = str(script.resolve().parent)
        runpy.run_path(str(script), run_name="__main__")


def _find_script(name: str) -> Path:
    """A file, or a command of the environment that this Python runs in."""
    if Path(name).is_file():
        return Path(name)
    command = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if command is None:
        sys.exit(f"error: {name!r} is neither a file nor a command; give a script's path, or -m MODULE.")
    if not Path(command).read_bytes().startswith(b"#!") or b"python" not in Path(command).read_bytes().splitlines()[0]:
        sys.exit(f"error: {command} is no Python script; give the script that it runs, or -m MODULE.")
    return Path(command)


if __name__ == "__main__":
    main()
