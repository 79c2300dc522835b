"""What `accelerate launch` was asked for beside what runs: it falls back in silence, and this says so."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
from accelerate import DistributedType, PartialState
from accelerate.commands.config.config_args import default_config_file, load_config_from_file
from accelerate.commands.launch import launch_command_parser

logger = logging.getLogger(__name__)

SHARDING = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
}
"""What `accelerate launch` sets -> what was asked for. It engages on accelerators only."""


@functools.cache
def check_launch() -> None:
    """Warn, once and from rank 0, where this process runs otherwise than `accelerate launch` was asked for.

    Call it when the process group exists: after the arguments are parsed, or when a Trainer begins.
    """
    if os.environ.get("RANK", "0") != "0":
        return
    state = PartialState()
    for finding in launch_findings(
        os.environ,
        distributed_type=state.distributed_type,
        num_processes=state.num_processes,
        launch=find_launch(),
        default_config=Path(default_config_file),
    ):
        logger.warning("%s", finding)


def launch_findings(
    environment: Mapping[str, str],
    *,
    distributed_type: DistributedType,
    num_processes: int,
    launch: Sequence[str] | None,
    default_config: Path,
) -> list[str]:
    """One line for each way in which a process runs otherwise than was asked for.

    Args:
        environment: this process's.
        distributed_type: what accelerate made of it.
        num_processes: those that train together.
        launch: the arguments of `accelerate launch`; None where something else started the process.
        default_config: the file that `accelerate launch` reads when it is given none.

    >>> launch_findings({"ACCELERATE_USE_FSDP": "true", "LOCAL_RANK": "0", "ACCELERATE_USE_CPU": "true"}, launch=None,
    ...                 distributed_type=DistributedType.MULTI_CPU, num_processes=2, default_config=Path("none"))
    ['FSDP was asked for and does not run: on the CPU every process trains the whole model; take GPUs or a cpu config.']
    """
    on_cpu = distributed_type in (DistributedType.NO, DistributedType.MULTI_CPU)
    started = int(environment.get("WORLD_SIZE", "1"))
    asked, config_is_default = _asked(launch, default_config)
    findings = []
    if config_is_default:
        findings.append(f"accelerate launch had no --config_file, and {default_config} decided; pass --config_file.")
    if started > num_processes:
        findings.append(
            f"{started} processes were started and each trains alone: torch sees no GPU; install a torch that fits the "
            "driver, or set ACCELERATE_USE_CPU=true to train together on the CPU."
        )
    elif asked > num_processes:
        findings.append(
            f"accelerate launch was asked for {asked} processes and started {num_processes}, as it does on the CPU; "
            "take launch.sh, or --multi_gpu and ACCELERATE_USE_CPU=true."
        )
    for variable, name in SHARDING.items():
        if on_cpu and environment.get(variable, "").lower() == "true":
            findings.append(
                f"{name} was asked for and does not run: on the CPU every process trains the whole model; take GPUs or "
                "a cpu config."
            )
    cpu_is_meant = environment.get("ACCELERATE_USE_CPU", "").lower() in ("true", "1", "yes")
    if distributed_type == DistributedType.MULTI_CPU and not cpu_is_meant:
        findings.append(
            f"{num_processes} processes train on the CPU, since torch sees no GPU; if that is meant set "
            "ACCELERATE_USE_CPU=true."
        )
    return findings


def find_launch() -> list[str] | None:
    """The arguments of the `accelerate launch` among this process's parents; None if there is none."""
    try:
        commands = [parent.cmdline() for parent in psutil.Process().parents()]
    except psutil.Error:
        return None
    return next((words for command in commands if (words := launch_arguments(command)) is not None), None)


def launch_arguments(command: Sequence[str]) -> list[str] | None:
    """What follows `accelerate launch` in a command; None if it is another one.

    >>> launch_arguments(["python", "/venv/bin/accelerate", "launch", "--num_processes", "2", "train.py"])
    ['--num_processes', '2', 'train.py']
    >>> launch_arguments(["python", "train.py"])
    """
    for index, word in enumerate(command):
        if word == "accelerate.commands.launch" or Path(word).name == "accelerate-launch":
            return list(command[index + 1 :])
        if Path(word).name == "accelerate" and list(command[index + 1 : index + 2]) == ["launch"]:
            return list(command[index + 2 :])
    return None


def _asked(launch: Sequence[str] | None, default_config: Path) -> tuple[int, bool]:
    """How many processes were asked for, by flag or config file, and whether the config file is the default one."""
    if launch is None:
        return 1, False
    arguments = launch_command_parser().parse_args(list(launch))
    config_is_default = arguments.config_file is None and default_config.is_file() and not arguments.cpu
    config_file = str(default_config) if config_is_default else arguments.config_file
    if arguments.num_processes is None and config_file is not None:
        return load_config_from_file(config_file).num_processes, config_is_default
    return arguments.num_processes or 1, config_is_default
