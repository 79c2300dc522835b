"""launch.sh: what it starts, on which machine, and what it says when it cannot."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ACCELERATE_CONFIGS = ROOT / "configs" / "accelerate"
OWN_VARIABLES = (
    "NUM_",
    "MACHINE_RANK",
    "MAIN_PROCESS_",
    "ACCELERATE_",
    "MIXED_PRECISION",
    "OMP_",
    "MALLOC_",
    "SLURM_",
    "CUDA_",
)

RANKS = """
import torch
from accelerate import PartialState
state = PartialState(cpu=True)
print(f"rank {state.process_index} of {state.num_processes}\\n", end="", flush=True)
state.wait_for_everyone()  # a rank that leaves while another still connects takes that one down
state.destroy_process_group()
"""
FAKE_PYTHON = """#!/bin/bash
# stands for python3 and for the .venv's python: logs what it is asked, and "venv" makes a folder with itself in it
echo "$*" >> "$FAKE_LOG"
case "$*" in
  "-m venv "*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; cp "$0" "$3/bin/pip" ;;
  "-m pip "*) exit "${FAKE_PIP_STATUS:-0}" ;;
esac
"""


def script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def tree(tmp_path):
    """A checkout with the real launcher and accelerate configs, and toy recipes."""
    root = tmp_path / "tree"
    shutil.copytree(ACCELERATE_CONFIGS, root / "configs" / "accelerate")
    for name in ("launch.sh", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, root)
    script(root / "recipes" / "ranks.py", RANKS)
    script(root / "recipes" / "fails.py", "import os, sys\nsys.exit(int(os.environ['RANK']))")
    script(root / "recipes" / "pretrain_clm.py", "")
    return root


@pytest.fixture
def launch(tree, tmp_path):
    """Run launch.sh on a machine of 8 cores without GPUs; `fakes` are commands put first on PATH."""
    fakes_dir = tmp_path / "fakes"

    def run(*args, fakes=None, **env):
        for name, text in {"nproc": "#!/bin/sh\necho 8", "nvidia-smi": "#!/bin/sh\nexit 9", **(fakes or {})}.items():
            script(fakes_dir / name, text)
        clean = {k: v for k, v in os.environ.items() if not k.startswith(OWN_VARIABLES)}
        env = {**clean, "PATH": f"{fakes_dir}:{os.environ['PATH']}", "HFWARMUP_PYTHON": sys.executable, **env}
        return subprocess.run([tree / "launch.sh", *args], capture_output=True, text=True, env=env, timeout=120)

    return run


def command(result):
    """The command that was printed: its environment, its flags, and what the recipe gets."""
    assert result.returncode == 0, result.stderr
    words = shlex.split(result.stdout.splitlines()[-1])
    assert words.pop(0) == "env"
    split = words.index(sys.executable)
    environment = dict(word.split("=", 1) for word in words[:split])
    assert words[split + 1 : split + 3] == ["-m", "accelerate.commands.launch"]
    recipe = next(i for i, word in enumerate(words) if word.endswith(".py"))
    pairs = [word for word in words[split + 3 : recipe] if word != "--quiet"]
    flags = dict(zip(pairs[::2], pairs[1::2], strict=True))
    flags["--config_file"] = Path(flags["--config_file"]).name
    return environment, flags, words[recipe:]


def gpus(count):
    return {"nvidia-smi": "#!/bin/sh\n" + "".join(f"echo 'GPU {i}: H100 (UUID: GPU-{i})'\n" for i in range(count))}


SLURM_JOB = {"SLURM_JOB_ID": "123456", "SLURM_NNODES": "3", "SLURM_JOB_NODELIST": "n[07-09]"}
SLURM = {**SLURM_JOB, "SLURM_NODEID": "2", "SLURM_LOCALID": "0"}
SCONTROL = {"scontrol": '#!/bin/sh\n[ "$*" = "show hostnames n[07-09]" ] && printf "n07\\nn08\\nn09\\n"'}
ONE, FIVE = {"NUM_PROCESSES": "1"}, {"NUM_PROCESSES": "5"}
ON_CPU = {"ACCELERATE_USE_CPU": "true"}
TWO_MACHINES = {"NUM_MACHINES": "2", "MACHINE_RANK": "1", "MAIN_PROCESS_IP": "10.0.0.1"}


@pytest.mark.parametrize(
    ("gpu_count", "env", "config", "num_processes", "environment"),
    [
        # GPUs, what is asked -> config, total processes, environment
        (0, {}, "cpu.yaml", "1", {**ON_CPU, "OMP_NUM_THREADS": "8"}),
        (0, {"NUM_PROCESSES": "2"}, "cpu_2proc.yaml", "2", {**ON_CPU, "OMP_NUM_THREADS": "4"}),
        (0, {"NUM_PROCESSES": "3", "OMP_NUM_THREADS": "1"}, "cpu_2proc.yaml", "3", {**ON_CPU, "OMP_NUM_THREADS": "1"}),
        (0, {"NUM_PROCESSES": "20"}, "cpu_2proc.yaml", "20", {**ON_CPU, "OMP_NUM_THREADS": "1"}),
        (0, {"ACCELERATE_CONFIG": "cpu_2proc.yaml"}, "cpu_2proc.yaml", "2", {**ON_CPU, "OMP_NUM_THREADS": "4"}),
        (0, {"ACCELERATE_CONFIG": "fsdp2.yaml", "NUM_PROCESSES": "2"}, "fsdp2.yaml", "2", ON_CPU),
        (0, TWO_MACHINES, "multi_node.yaml", "2", {**ON_CPU, "OMP_NUM_THREADS": "8"}),
        (1, {}, "single_gpu.yaml", "1", {"OMP_NUM_THREADS": "8"}),
        (4, {}, "multi_gpu.yaml", "4", {"OMP_NUM_THREADS": "2"}),
        (4, {"NUM_PROCESSES": "2"}, "multi_gpu.yaml", "2", {"OMP_NUM_THREADS": "4"}),
        (4, ONE, "single_gpu.yaml", "1", {"CUDA_VISIBLE_DEVICES": "0"}),
        (4, {**ONE, "CUDA_VISIBLE_DEVICES": "2,3"}, "single_gpu.yaml", "1", {"CUDA_VISIBLE_DEVICES": "2"}),
        (4, {"CUDA_VISIBLE_DEVICES": "1,3"}, "multi_gpu.yaml", "2", {"OMP_NUM_THREADS": "4"}),
        (1, {"CUDA_VISIBLE_DEVICES": "0,1"}, "single_gpu.yaml", "1", {}),
        (4, {"CUDA_VISIBLE_DEVICES": ""}, "cpu.yaml", "1", ON_CPU),
        (4, {"ACCELERATE_CONFIG": "cpu.yaml"}, "cpu.yaml", "1", {**ON_CPU, "CUDA_VISIBLE_DEVICES": ""}),
        (4, {"ACCELERATE_CONFIG": "fsdp2.yaml"}, "fsdp2.yaml", "4", {"OMP_NUM_THREADS": "2"}),
        (4, TWO_MACHINES, "multi_node.yaml", "8", {"OMP_NUM_THREADS": "2"}),
    ],
)
def test_the_machine_decides_the_command(launch, tree, gpu_count, env, config, num_processes, environment):
    if "ACCELERATE_CONFIG" in env:
        env = {**env, "ACCELERATE_CONFIG": str(tree / "configs" / "accelerate" / env["ACCELERATE_CONFIG"])}
    shown, flags, _ = command(launch("--dry-run", fakes=gpus(gpu_count), **env))
    assert flags["--config_file"] == config
    assert flags["--num_processes"] == num_processes
    assert environment.items() <= shown.items()
    assert ("ACCELERATE_USE_CPU" in shown) == ("ACCELERATE_USE_CPU" in environment)


def test_one_machine_takes_a_free_port_and_several_a_fixed_one(launch):
    flags = command(launch("--dry-run"))[1]
    assert (flags["--num_machines"], flags["--machine_rank"], flags["--main_process_port"]) == ("1", "0", "0")
    flags = command(launch("--dry-run", **TWO_MACHINES))[1]
    assert (flags["--num_machines"], flags["--machine_rank"], flags["--main_process_port"]) == ("2", "1", "29500")
    assert flags["--main_process_ip"] == "10.0.0.1"
    assert command(launch("--dry-run", MAIN_PROCESS_PORT="31000"))[1]["--main_process_port"] == "31000"


def test_mixed_precision_is_passed_only_when_set(launch):
    assert "--mixed_precision" not in command(launch("--dry-run"))[1]
    assert command(launch("--dry-run", MIXED_PRECISION="bf16"))[1]["--mixed_precision"] == "bf16"


def test_slurm_gives_machines_rank_address_and_port(launch):
    _, flags, _ = command(launch("--dry-run", fakes={**gpus(8), **SCONTROL}, **SLURM))
    assert (flags["--num_processes"], flags["--num_machines"], flags["--machine_rank"]) == ("24", "3", "2")
    assert (flags["--main_process_ip"], flags["--main_process_port"]) == ("n07", "23456")
    assert flags["--config_file"] == "multi_node.yaml"


def test_slurm_on_one_node_is_one_machine(launch):
    flags = command(launch("--dry-run", fakes=gpus(8), **{**SLURM, "SLURM_NNODES": "1"}))[1]
    assert (flags["--num_machines"], flags["--config_file"]) == ("1", "multi_gpu.yaml")


def test_without_arguments_the_default_recipe_is_trained(launch, tree):
    arguments = command(launch("--dry-run"))[2]
    assert arguments == [f"{tree}/recipes/pretrain_clm.py", "--config", f"{tree}/configs/pretrain_clm/stdlib.yaml"]


def test_everything_after_the_recipe_reaches_it_untouched(launch, tree):
    given = ["--config", "my run.yaml", "--note", "a 'b' $c *", "--flag"]
    assert command(launch("--dry-run", "ranks", *given))[2] == [f"{tree}/recipes/ranks.py", *given]


TOO_FEW_GPUS = (
    "NUM_PROCESSES=8 needs 8 GPUs on each machine and 4 are visible; "
    "lower it, or train on the CPU with CUDA_VISIBLE_DEVICES= ."
)
ONE_TASK = "SLURM starts several tasks a node; launch.sh is one: srun --ntasks-per-node=1."


@pytest.mark.parametrize(
    ("args", "env", "message"),
    [
        (["gpt5"], {}, "no recipe 'gpt5'; there are: fails pretrain_clm ranks."),
        ([], {"NUM_PROCESSES": "two"}, "NUM_PROCESSES=two is not a number of processes; give 1 or more."),
        ([], {"NUM_PROCESSES": "0"}, "NUM_PROCESSES=0 is not a number of processes; give 1 or more."),
        ([], {"NUM_PROCESSES": "8"}, TOO_FEW_GPUS),
        ([], {**TWO_MACHINES, **FIVE}, "NUM_PROCESSES=5 is the total and does not divide over NUM_MACHINES=2."),
        ([], {"NUM_MACHINES": "2"}, "NUM_MACHINES=2 needs MACHINE_RANK (0 to 1) and MAIN_PROCESS_IP."),
        ([], {**SLURM, "SLURM_LOCALID": "1"}, ONE_TASK),
    ],
)
def test_a_mistake_is_one_line(launch, args, env, message):
    result = launch("--dry-run", *args, fakes=gpus(4), **env)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"launch.sh: {message}\n"


@pytest.mark.parametrize("name", ["cpu", "single_gpu"])
def test_a_config_that_would_start_one_process_in_silence_is_refused(launch, tree, name):
    config = tree / "configs" / "accelerate" / f"{name}.yaml"
    result = launch("--dry-run", NUM_PROCESSES="2", ACCELERATE_CONFIG=str(config))
    assert result.returncode == 1
    assert f"{config} starts one process, and NUM_PROCESSES=2" in result.stderr


def test_a_gpu_config_on_a_cpu_is_said_loudly(launch, tree):
    result = launch("--dry-run", ACCELERATE_CONFIG=str(tree / "configs/accelerate/fsdp2.yaml"))
    assert "no GPU: 1 process(es) on the CPU; fsdp2.yaml needs GPUs and becomes plain data parallel." in result.stderr


def test_a_torch_without_cuda_on_a_gpu_machine_is_refused(launch):
    result = launch("ranks", fakes=gpus(2), CUDA_VISIBLE_DEVICES="97,98")
    assert result.returncode == 1
    assert "nvidia-smi lists 2 GPUs and torch sees 0" in result.stderr


def test_two_processes_asked_for_are_two_processes_running(launch):
    result = launch("ranks", NUM_PROCESSES="2")
    assert result.returncode == 0, result.stderr
    assert sorted(line for line in result.stdout.splitlines() if line.startswith("rank")) == [
        "rank 0 of 2",
        "rank 1 of 2",
    ]


def test_a_failed_rank_fails_the_launch(launch):
    assert launch("fails", NUM_PROCESSES="2").returncode != 0


def test_install_happens_once_and_again_when_the_requirements_change(launch, tree, tmp_path):
    log = tmp_path / "log"
    env = {"HFWARMUP_PYTHON": "", "FAKE_LOG": str(log), "fakes": {"python3": FAKE_PYTHON}}

    def installs(*args, **more):
        log.write_text("")
        result = launch(*args, **env, **more)
        return result.returncode, [line for line in log.read_text().splitlines() if " venv " in line or " pip " in line]

    def pip(extra):
        return f"-m pip install -q -c {tree}/constraints.txt -e {tree}{extra}"

    assert installs("--dry-run") == (0, [])
    assert not (tree / ".venv").exists()
    assert installs(FAKE_PIP_STATUS="1") == (1, [f"-m venv {tree}/.venv", pip("")])  # interrupted: no stamp
    assert installs() == (0, [pip("")])
    assert installs() == (0, [])
    assert installs("test") == (0, [pip("[dev]")])
    assert installs() == (0, [])  # dev is everything and more
    (tree / "constraints.txt").write_text("torch==2.14.0\n")
    assert installs() == (0, [pip("")])
    assert installs("lint") == (0, [pip("[dev]")])


def test_an_old_python_is_refused_before_anything_is_made(launch, tree):
    old = '#!/bin/sh\nif [ "$1" = -V ]; then echo Python 3.9.2; else exit 1; fi'
    result = launch(HFWARMUP_PYTHON="", fakes={"python3": old})
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        "launch.sh: python3 is Python 3.9.2; Python 3.11 or newer is needed: put it first on PATH."
    )
    assert not (tree / ".venv").exists()


@pytest.mark.parametrize(
    ("args", "marker"), [(["test", "-k", "x"], "not slow and not gpu"), (["test", "--slow", "-k", "x"], "not gpu")]
)
def test_the_test_command(launch, args, marker):
    words = shlex.split(launch("--dry-run", *args).stdout)
    two_files_at_a_time = ["-n", "2", "--dist", "loadfile"]
    assert words == [sys.executable, "-m", "pytest", *two_files_at_a_time, "-m", marker, "-k", "x"]


EXPECTED_TYPES = {
    "cpu": "NO",
    "cpu_2proc": "MULTI_GPU",  # with ACCELERATE_USE_CPU=true: torchrun starts the processes, over gloo
    "single_gpu": "NO",
    "multi_gpu": "MULTI_GPU",
    "fsdp2": "FSDP",
    "deepspeed_zero2": "DEEPSPEED",
    "multi_node": "MULTI_GPU",
}


def test_every_accelerate_config_has_an_expectation():
    assert {path.stem for path in ACCELERATE_CONFIGS.iterdir()} == set(EXPECTED_TYPES)


@pytest.mark.parametrize("name", EXPECTED_TYPES)
def test_accelerate_itself_reads_every_config(name):
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import launch_command_parser

    config = load_config_from_file(str(ACCELERATE_CONFIGS / f"{name}.yaml"))
    assert config.distributed_type.value == EXPECTED_TYPES[name]
    assert config.mixed_precision is None  # the recipe decides
    known = vars(launch_command_parser().parse_args(["script.py"]))  # accelerate drops unknown nested keys in silence
    assert set(config.fsdp_config) | set(config.deepspeed_config) <= set(known)
