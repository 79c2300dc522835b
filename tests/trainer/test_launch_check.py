"""accelerate launch does not fall back in silence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from accelerate import DistributedType

from hfwarmup.trainer.launch_check import launch_arguments, launch_findings

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs" / "accelerate"
NO, CPU, GPU, FSDP = (
    DistributedType.NO,
    DistributedType.MULTI_CPU,
    DistributedType.MULTI_GPU,
    DistributedType.FSDP,
)
TWO_RANKS = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}
ON_CPU = {"ACCELERATE_USE_CPU": "true"}
USE_FSDP, USE_DEEPSPEED = {"ACCELERATE_USE_FSDP": "true"}, {"ACCELERATE_USE_DEEPSPEED": "true"}

FEWER = (
    "accelerate launch was asked for 2 processes but started 1, as it does on the CPU; use launch.sh, or --multi_gpu "
    "with ACCELERATE_USE_CPU=true."
)
ALONE = (
    "2 processes were started, but each trains alone because torch sees no GPU; install a torch that fits the driver, "
    "or set ACCELERATE_USE_CPU=true to train together on the CPU."
)
NOT_MEANT = "2 processes train on the CPU because torch sees no GPU; if you want that, set ACCELERATE_USE_CPU=true."


def not_sharded(name):
    return (
        f"{name} was requested but is inactive on the CPU, where every process trains the whole model; use GPUs, or a "
        "CPU config."
    )


def config(name, processes=""):
    return f"--config_file {CONFIGS / name}.yaml {processes} train.py --num_processes 7"


@pytest.mark.parametrize(
    ("environment", "distributed_type", "num_processes", "launch", "findings"),
    [
        # what accelerate launch sets, what runs, how many, how it was called -> what is said
        ({}, NO, 1, None, []),
        (TWO_RANKS, GPU, 2, None, []),
        (ON_CPU, NO, 1, config("cpu", "--num_processes 1"), []),
        ({**ON_CPU, **TWO_RANKS}, CPU, 2, config("cpu_2proc"), []),
        (TWO_RANKS, GPU, 2, config("multi_gpu", "--num_processes 2"), []),
        ({**TWO_RANKS, **USE_FSDP}, FSDP, 2, config("fsdp2", "--num_processes 2"), []),
        ({**TWO_RANKS, **USE_FSDP}, GPU, 2, config("fsdp2", "--num_processes 2"), []),  # before Accelerator is made
        # one process where two are asked for, by flag and by config
        (ON_CPU, NO, 1, "--cpu --num_processes 2 train.py", [FEWER]),
        (ON_CPU, NO, 1, "--cpu --num-processes=2 train.py", [FEWER]),
        (ON_CPU, NO, 1, "--config_file MULTI_CPU train.py", [FEWER]),
        # a torch without CUDA under --multi_gpu: strangers, or a CPU run that nobody asked for
        (TWO_RANKS, NO, 1, config("multi_gpu", "--num_processes 2"), [ALONE]),
        (TWO_RANKS, CPU, 2, config("multi_gpu", "--num_processes 2"), [NOT_MEANT]),
        # sharding that does not happen
        ({**ON_CPU, **TWO_RANKS, **USE_FSDP}, CPU, 2, config("fsdp2", "--num_processes 2"), [not_sharded("FSDP")]),
        ({**TWO_RANKS, **USE_FSDP}, CPU, 2, config("fsdp2", "--num_processes 2"), [not_sharded("FSDP"), NOT_MEANT]),
        ({**ON_CPU, **TWO_RANKS, **USE_DEEPSPEED}, CPU, 2, None, [not_sharded("DeepSpeed")]),
        ({**ON_CPU, **USE_FSDP}, NO, 1, None, [not_sharded("FSDP")]),
        ({"ACCELERATE_USE_FSDP": "false"}, NO, 1, None, []),
    ],
)
def test_what_runs_beside_what_was_asked_for(environment, distributed_type, num_processes, launch, findings, tmp_path):
    if launch is not None and "MULTI_CPU" in launch:
        (tmp_path / "two.yaml").write_text("distributed_type: MULTI_CPU\nuse_cpu: true\nnum_processes: 2\n")
        launch = launch.replace("MULTI_CPU", str(tmp_path / "two.yaml"))
    assert findings == launch_findings(
        environment,
        distributed_type=distributed_type,
        num_processes=num_processes,
        launch=None if launch is None else launch.split(),
        default_config=tmp_path / "none.yaml",
    )


@pytest.mark.parametrize(
    ("launch", "said"),
    [
        ("train.py", True),
        ("--num_processes 1 train.py --config_file its-own.yaml", True),
        (f"--config_file {CONFIGS / 'cpu.yaml'} train.py", False),
        ("--cpu train.py", False),  # accelerate does not read the file then
    ],
)
def test_a_default_config_that_decides_is_said(launch, said, tmp_path):
    default = tmp_path / "default_config.yaml"
    default.write_text((CONFIGS / "cpu.yaml").read_text())
    message = f"accelerate launch got no --config_file and read {default}; pass --config_file."
    assert launch_findings(
        ON_CPU, distributed_type=NO, num_processes=1, launch=launch.split(), default_config=default
    ) == ([message] if said else [])


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (["/usr/bin/python", "-m", "accelerate.commands.launch", "--cpu", "train.py"], ["--cpu", "train.py"]),
        (["/usr/bin/python", "/bin/accelerate", "launch", "train.py"], ["train.py"]),
        (["/usr/bin/python", "/bin/accelerate-launch", "train.py"], ["train.py"]),
        (["/usr/bin/python", "/bin/accelerate", "env"], None),
        (["torchrun", "train.py", "accelerate"], None),
        ([], None),
    ],
)
def test_accelerate_launch_is_recognized(command, arguments):
    assert launch_arguments(command) == arguments


SCRIPT = """
import logging
from accelerate import PartialState
from hfwarmup.trainer.launch_check import check_launch
logging.basicConfig(format="said: %(message)s")
state = PartialState(cpu=True)
check_launch()
check_launch()
state.wait_for_everyone()  # a rank that leaves while another still connects takes that one down
state.destroy_process_group()
"""


@pytest.mark.parametrize(
    ("flags", "environment", "said"),
    [
        (["--cpu", "--num_processes", "2"], {}, [FEWER]),
        (["--config_file", CONFIGS / "fsdp2.yaml", "--num_processes", "2"], ON_CPU, [not_sharded("FSDP")]),
        pytest.param(["--config_file", CONFIGS / "cpu_2proc.yaml"], ON_CPU, [], marks=pytest.mark.slow),
        pytest.param(
            ["--config_file", CONFIGS / "multi_gpu.yaml", "--num_processes", "2"],
            {},
            [NOT_MEANT],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_real_launch_says_it_once(flags, environment, said, tmp_path):
    (tmp_path / "train.py").write_text(SCRIPT)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ACCELERATE_")}
    result = subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", *flags, "--main_process_port", "0", tmp_path / "train.py"],
        env={**clean, **environment, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    assert [line.removeprefix("said: ") for line in result.stderr.splitlines() if line.startswith("said: ")] == said
