"""Where a run's numbers come from: the command that repeats it, the versions, the device."""

from __future__ import annotations

import os
import platform
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from hfwarmup.trainer.launch_check import find_launch

LAUNCH_COMMAND = "HFWARMUP_COMMAND"
"""The variable in which launch.sh leaves its own command, quoted for a shell."""
LAUNCHER_VARIABLES = ("NUM_PROCESSES", "NUM_MACHINES", "ACCELERATE_CONFIG", "MIXED_PRECISION")
"""The variables that decide what launch.sh starts."""
RECORDED_VARIABLES = (
    *LAUNCHER_VARIABLES,
    "ACCELERATE_USE_CPU",
    "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
    "MALLOC_MMAP_MAX_",
    "MALLOC_TRIM_THRESHOLD_",
    "MALLOC_TOP_PAD_",
)
"""The variables that a run's numbers or its speed depend on."""
VERSIONS = ("torch", "transformers", "accelerate", "hfwarmup")

_SECRET = re.compile(r"--\w*(hub_token|api_key|password|secret)")
_HOST = re.compile(r"--(main_process_ip|main-process-ip)")


def command_of_this_process(world_size: int) -> str:
    """The command that starts this run again, for a shell in the same folder."""
    return reproducing_command(
        os.environ, argv=sys.orig_argv, launch=find_launch(), folder=Path.cwd(), world_size=world_size
    )


def reproducing_command(
    environment: Mapping[str, str], *, argv: Sequence[str], launch: Sequence[str] | None, folder: Path, world_size: int
) -> str:
    """The command that starts a run again, for a shell in `folder`, without secrets and addresses.

    Args:
        environment: that of the process; launch.sh leaves its own command there.
        argv: the interpreter and everything after it.
        launch: the arguments of `accelerate launch`; None if something else started the process.
        folder: the working folder; paths below it become relative.
        world_size: processes that train together.

    >>> reproducing_command({"HFWARMUP_COMMAND": "./launch.sh pretrain_clm --warmup 5%"}, argv=[], launch=[],
    ...                     folder=Path("/tree"), world_size=2)
    'NUM_PROCESSES=2 ./launch.sh pretrain_clm --warmup 5%'
    >>> reproducing_command({}, argv=["/usr/bin/python3", "train.py", "--hub_token", "hf_x"], launch=None,
    ...                     folder=Path("/tree"), world_size=1)
    'python train.py --hub_token ***'
    """
    variables: dict[str, str] = {}
    if LAUNCH_COMMAND in environment:
        counts = {"NUM_PROCESSES": str(world_size)} if world_size > 1 else {}
        variables = {**counts, **{name: environment[name] for name in LAUNCHER_VARIABLES if environment.get(name)}}
        words = shlex.split(environment[LAUNCH_COMMAND])
    elif launch is not None:
        on_cpu = environment.get("ACCELERATE_USE_CPU", "").lower() == "true"
        variables = {"ACCELERATE_USE_CPU": "true"} if on_cpu else {}
        words = ["accelerate", "launch", *launch]
    elif "TORCHELASTIC_RUN_ID" in environment:
        per_machine = environment["LOCAL_WORLD_SIZE"]
        words = ["torchrun", f"--nnodes={world_size // int(per_machine)}", f"--nproc_per_node={per_machine}"]
        words += [word for word in argv[1:] if word != "-u"]
    else:
        words = ["python", *argv[1:]]
    assignments = [f"{name}={value}" for name, value in variables.items()]
    return " ".join(_shell_word(word, folder) for word in [*assignments, *_masked(words)])


def describe_environment(args: TrainingArguments, model: torch.nn.Module) -> dict[str, Any]:
    """Versions, device, precision, processes and parameters of a run, as plain data."""
    device = args.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} ({platform.machine()})"
    chosen = [precision for precision in ("bf16", "fp16") if getattr(args, precision)]
    return {
        "versions": {
            "python": platform.python_version(),
            **{package: installed_version(package) for package in VERSIONS},
        },
        "device": name,
        "precision": chosen[0] if chosen else "fp32",
        "world_size": args.world_size,
        "threads_per_process": torch.get_num_threads(),
        "environment": {name: os.environ[name] for name in RECORDED_VARIABLES if name in os.environ},
        "parameters": {
            "total": sum(parameter.numel() for parameter in model.parameters()),
            "trained": sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        },
    }


def _masked(words: Sequence[str]) -> list[str]:
    """The words with secrets and addresses of machines masked, in `--flag value` and in `--flag=value`."""
    masked = []
    for before, word in zip(["", *words], words, strict=False):
        flag, equals, _ = word.partition("=")
        mask_of_flag = _mask(flag) if equals else None
        masked.append(_mask(before) or (f"{flag}={mask_of_flag}" if mask_of_flag else word))
    return masked


def _mask(flag: str) -> str | None:
    """What replaces the value of `flag`; None if the value may be shown."""
    if _SECRET.fullmatch(flag):
        return "***"
    return "$MAIN_PROCESS_IP" if _HOST.fullmatch(flag) else None


def _shell_word(word: str, folder: Path) -> str:
    word = word.replace(f"{folder}/", "")
    if word.endswith(("***", "$MAIN_PROCESS_IP")) or re.fullmatch(r"[\w@%+=:,./~^-]+", word):
        return word
    return shlex.quote(word)


def installed_version(package: str) -> str:
    """The version of a package, or `not installed`."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
