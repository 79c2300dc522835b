"""The command on record starts the same run again, and tells nobody's secrets."""

from __future__ import annotations

from pathlib import Path

import pytest

from hfwarmup.trainer.provenance import reproducing_command

TREE = Path("/home/user/tree")
PYTHON = "/home/user/tree/.venv/bin/python"

CASES = [
    # what is special, the environment, the interpreter's words, those of accelerate launch, processes, the command
    (
        "launch.sh decides, and its paths become relative",
        {"HFWARMUP_COMMAND": "/home/user/tree/launch.sh pretrain_clm --config /home/user/tree/configs/a.yaml"},
        [PYTHON, "recipes/pretrain_clm.py"],
        ["--num_processes", "1", "recipes/pretrain_clm.py"],
        1,
        "launch.sh pretrain_clm --config configs/a.yaml",
    ),
    (
        "launch.sh's variables",
        {"HFWARMUP_COMMAND": "./launch.sh sft", "MIXED_PRECISION": "bf16", "ACCELERATE_CONFIG": "my fsdp.yaml"},
        [],
        None,
        4,
        "NUM_PROCESSES=4 'ACCELERATE_CONFIG=my fsdp.yaml' MIXED_PRECISION=bf16 ./launch.sh sft",
    ),
    (
        "a map in a flag, as bash quotes it",
        {"HFWARMUP_COMMAND": r"./launch.sh clm --lr_scheduler_kwargs \{\"final_ratio\":\ 0.1\}"},
        [],
        None,
        1,
        """./launch.sh clm --lr_scheduler_kwargs '{"final_ratio": 0.1}'""",
    ),
    (
        "accelerate launch, without the address",
        {"ACCELERATE_USE_CPU": "True"},  # as accelerate passes it on
        [PYTHON, "-u", "train.py"],
        ["--multi_gpu", "--main_process_ip", "node17.example", "train.py", "--learning_rate", "2e-5"],
        2,
        "ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --main_process_ip $MAIN_PROCESS_IP train.py "
        "--learning_rate 2e-5",
    ),
    (
        "torchrun",
        {"TORCHELASTIC_RUN_ID": "none", "LOCAL_WORLD_SIZE": "2"},
        [PYTHON, "-u", "train.py", "--config", "a.yaml"],
        None,
        4,
        "torchrun --nnodes=2 --nproc_per_node=2 train.py --config a.yaml",
    ),
    ("a module", {}, [PYTHON, "-m", "mine.train", "--x=1"], None, 1, "python -m mine.train --x=1"),
    (
        "secrets",
        {},
        [PYTHON, "train.py", "--hub_token=hf_a", "--wandb_api_key", "b", "--eos_token", "<eos>"],
        None,
        1,
        "python train.py --hub_token=*** --wandb_api_key *** --eos_token '<eos>'",
    ),
]


@pytest.mark.parametrize(
    ("environment", "argv", "launch", "world_size", "command"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_the_command_that_starts_a_run_again(environment, argv, launch, world_size, command):
    given = {"argv": argv, "launch": launch, "folder": TREE, "world_size": world_size}
    assert reproducing_command(environment, **given) == command
