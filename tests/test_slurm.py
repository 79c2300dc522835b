"""configs/slurm/train.sbatch: what each node of a job runs, read from the real scripts under a stand-in for srun."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SBATCH = ROOT / "configs" / "slurm" / "train.sbatch"
RUN = ["pretrain_clm", "--config", "configs/pretrain_clm/gpt2-wikitext103.yaml"]

FAKE_SRUN = """#!/bin/bash
# one task a node, as srun starts them: the flags go to the log, the rank into each task's environment
while [[ $1 == --* ]]; do echo "$1" >> "$FAKE_LOG"; shift; done
for ((node = 0; node < SLURM_NNODES; node++)); do SLURM_NODEID=$node SLURM_LOCALID=0 "$@" || exit; done
"""
FAKES = {
    "srun": FAKE_SRUN,
    "scontrol": '#!/bin/sh\n[ "$*" = "show hostnames n[07-08]" ] && printf "n07\\nn08\\n"',
    "nvidia-smi": '#!/bin/sh\nfor i in 0 1 2 3 4 5 6 7; do echo "GPU $i: H100 (UUID: GPU-$i)"; done',
    "nproc": "#!/bin/sh\necho 64",
}
BATCH_SHELL = {
    "SLURM_JOB_ID": "123456",
    "SLURM_NNODES": "2",
    "SLURM_JOB_NODELIST": "n[07-08]",
    "SLURM_NODEID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_CPUS_PER_TASK": "64",
    "SLURM_SUBMIT_DIR": str(ROOT),
}


@pytest.fixture
def submit(tmp_path):
    """Run the batch script as SLURM would on the job's first node: what it printed, and srun's flags."""
    for name, text in FAKES.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)

    def submit(*arguments, **environment):
        log = tmp_path / "log"
        log.write_text("")
        own = ("SLURM_", "NUM_", "MACHINE_", "MAIN_", "ACCELERATE_", "MIXED_", "OMP_", "CUDA_", "MALLOC_")
        clean = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        clean |= {"PATH": f"{tmp_path}:{os.environ['PATH']}", "FAKE_LOG": str(log), "HFWARMUP_PYTHON": sys.executable}
        result = subprocess.run(
            ["bash", SBATCH, *arguments],
            env={**clean, **BATCH_SHELL, **environment},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return result, log.read_text().split()

    return submit


def commands(result) -> list[str]:
    assert result.returncode == 0, result.stderr
    return [line.rstrip() for line in result.stdout.splitlines()]


def test_every_node_runs_its_own_command(submit):
    result, _ = submit("--dry-run", *RUN)
    expected = (
        "env OMP_NUM_THREADS=8 {python} -m accelerate.commands.launch "
        "--config_file {root}/configs/accelerate/multi_node.yaml --num_processes 16 --num_machines 2 "
        "--machine_rank {rank} --main_process_port 23456 --main_process_ip n07 "
        "{root}/recipes/pretrain_clm.py --config configs/pretrain_clm/gpt2-wikitext103.yaml"
    )
    assert commands(result) == [expected.format(python=sys.executable, root=ROOT, rank=rank) for rank in (0, 1)]


def test_srun_stops_all_nodes_when_one_fails(submit):
    _, flags = submit("--dry-run", *RUN)
    assert flags == ["--cpus-per-task=64", "--kill-on-bad-exit=1", "--wait=60"]


@pytest.mark.parametrize(
    ("restarts", "resumes"), [({}, False), ({"SLURM_RESTART_COUNT": "0"}, False), ({"SLURM_RESTART_COUNT": "2"}, True)]
)
def test_a_job_that_was_put_back_into_the_queue_resumes(submit, restarts, resumes):
    result, _ = submit("--dry-run", *RUN, **restarts)
    for command in commands(result):
        assert shlex.split(command)[-2:] == (["--resume", "auto"] if resumes else RUN[-2:])


def test_a_node_that_fails_fails_the_job(submit):
    result, _ = submit("--dry-run", "no_such_recipe")
    assert result.returncode == 1
    assert "launch.sh: no recipe 'no_such_recipe'" in result.stderr


def test_the_job_asks_for_one_task_a_node_and_for_its_place_in_the_queue():
    """launch.sh refuses several tasks a node, and a requeue would overwrite the log without append."""
    asked = set(re.findall(r"^#SBATCH (\S+)", SBATCH.read_text(), re.MULTILINE))
    assert {"--ntasks-per-node=1", "--requeue", "--open-mode=append"} <= asked


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
@pytest.mark.parametrize("script", [SBATCH, ROOT / "launch.sh"], ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script):
    result = subprocess.run(["shellcheck", script], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
