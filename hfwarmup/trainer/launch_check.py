"""Warns where `accelerate launch` silently runs something other than what it was asked for."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil
from accelerate import DistributedType, PartialState

from hfwarmup.trainer.compat import default_launch_config, parse_launch_arguments, processes_in_launch_config

logger = logging.getLogger(__name__)

SHARDING = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
}
"""The variable that `accelerate launch` sets -> what the user asked for. It works on accelerators only."""


@functools.cache
def check_launch() -> None:
    """Warn, once and from rank 0, where this process runs differently from what `accelerate launch` was asked for.

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
        default_config=default_launch_config(),
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
    """One line for each difference between what was asked for and what runs.

    Args:
        environment: that of this process.
        distributed_type: what accelerate made of it.
        num_processes: processes that train together.
        launch: the arguments of `accelerate launch`; None if something else started the process.
        default_config: the file that `accelerate launch` reads when it is given none.

    >>> launch_findings({"ACCELERATE_USE_FSDP": "true", "LOCAL_RANK": "0", "ACCELERATE_USE_CPU": "true"}, launch=None,
    ...                 distributed_type=DistributedType.MULTI_CPU, num_processes=2, default_config=Path("none"))
    ['FSDP was requested but is inactive on the CPU, where every process trains the whole model; use GPUs, or a CPU \
config.']
    """
    requested, config_is_default = _requested(launch, default_config)
    findings = []
    if config_is_default:
        findings.append(f"accelerate launch got no --config_file and read {default_config}; pass --config_file.")
    findings += _process_findings(environment, requested, num_processes)
    if distributed_type in (DistributedType.NO, DistributedType.MULTI_CPU):
        findings += _sharding_findings(environment)
    cpu_is_meant = environment.get("ACCELERATE_USE_CPU", "").lower() in ("true", "1", "yes")
    if distributed_type == DistributedType.MULTI_CPU and not cpu_is_meant:
        findings.append(
            f"{num_processes} processes train on the CPU because torch sees no GPU; if you want that, set "
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
    """What follows `accelerate launch` in a command; None if the command is another one.

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


def _requested(launch: Sequence[str] | None, default_config: Path) -> tuple[int, bool]:
    """How many processes were asked for, by flag or config file, and whether that file is the default one."""
    if launch is None:
        return 1, False
    arguments = parse_launch_arguments(launch)
    config_is_default = arguments.config_file is None and default_config.is_file() and not arguments.cpu
    config_file = default_config if config_is_default else arguments.config_file
    if arguments.num_processes is None and config_file is not None:
        return processes_in_launch_config(config_file), config_is_default
    return arguments.num_processes or 1, config_is_default


def _process_findings(environment: Mapping[str, str], requested: int, num_processes: int) -> Iterator[str]:
    started = int(environment.get("WORLD_SIZE", "1"))
    if started > num_processes:
        yield (
            f"{started} processes were started, but each trains alone because torch sees no GPU; install a torch that "
            "fits the driver, or set ACCELERATE_USE_CPU=true to train together on the CPU."
        )
    elif requested > num_processes:
        yield (
            f"accelerate launch was asked for {requested} processes but started {num_processes}, as it does on the "
            "CPU; use launch.sh, or --multi_gpu with ACCELERATE_USE_CPU=true."
        )


def _sharding_findings(environment: Mapping[str, str]) -> Iterator[str]:
    for variable, name in SHARDING.items():
        if environment.get(variable, "").lower() == "true":
            yield (
                f"{name} was requested but is inactive on the CPU, where every process trains the whole model; use "
                "GPUs, or a CPU config."
            )
