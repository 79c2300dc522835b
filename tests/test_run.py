"""`python -m hfwarmup.run` runs a script as plain python would, but for the names that it finds registered."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FLAGS = ("--output_dir", "out", "--lr_scheduler_type", "warmup_cosine", "--use_cpu", "true")
CONFIG_OF_TWO_PROCESSES = Path(__file__).resolve().parents[1] / "configs" / "accelerate" / "cpu_2proc.yaml"

LIKE_RUN_CLM = '''\
"""What transformers' run_clm.py does, on random tokens: HfArgumentParser(TrainingArguments), Trainer, train."""
import json, sys
from dataclasses import dataclass, field
import torch
from transformers import HfArgumentParser, LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

@dataclass
class ModelArguments:
    hidden_size: int = field(default=8)

class Rates(TrainerCallback):
    rates = []
    def on_optimizer_step(self, args, state, control, **kwargs):
        self.rates.append(kwargs["optimizer"].param_groups[0]["lr"])

def main():
    model_args, args = HfArgumentParser((ModelArguments, TrainingArguments)).parse_args_into_dataclasses()
    size = model_args.hidden_size
    config = LlamaConfig(vocab_size=16, hidden_size=size, intermediate_size=size, num_hidden_layers=1,
                         num_attention_heads=1, num_key_value_heads=1)
    data = [{"input_ids": torch.arange(4) % 16, "labels": torch.arange(4) % 16} for _ in range(64)]
    Trainer(LlamaForCausalLM(config), args, train_dataset=data, callbacks=[Rates()]).train()
    with open(f"rates-{args.process_index}-of-{args.world_size}.json", "w") as file:
        json.dump(Rates.rates, file)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()

if __name__ == "__main__":
    main()
'''

AS_PLAIN_PYTHON = """\
import json, multiprocessing, os, sys, tempfile
import helper

def double(number):
    return 2 * number

if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        doubled = pool.map(double, [4])
    try:
        from . import helper as relative
    except ImportError as error:
        relative = str(error)
    first = os.path.realpath(sys.path[0])
    print(json.dumps([__name__, __package__, os.path.basename(__file__), sys.argv[1:], first, doubled, relative]))
"""


def start(*words, cwd, module="hfwarmup.run", **own):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("ACCELERATE_", "SLURM_"))}
    command = [sys.executable, *(["-m", module] if module else []), *map(str, words)]
    environment = {**clean, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", **own}
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, env=environment)


@pytest.fixture
def scripts(tmp_path):
    folder = tmp_path / "scripts"
    package = folder / "package"
    package.mkdir(parents=True)
    (folder / "like_run_clm.py").write_text(LIKE_RUN_CLM)
    (folder / "plain.py").write_text(AS_PLAIN_PYTHON)
    for place in (folder, package):
        (place / "helper.py").write_text("")
    (package / "__init__.py").write_text("")
    (package / "inside.py").write_text(AS_PLAIN_PYTHON.replace("import helper\n", "from package import helper\n"))
    return folder


def test_a_script_is_as_under_plain_python(scripts, tmp_path):
    """`__main__` and its guard, its file and arguments, its folder first, no relative import."""
    with_names, plain = (
        start(scripts / "plain.py", "--a", "1", cwd=tmp_path, module=module) for module in ("hfwarmup.run", None)
    )
    assert with_names.returncode == 0, with_names.stderr
    *found, relative = json.loads(with_names.stdout)
    *expected, plain_relative = json.loads(plain.stdout)
    assert [value or None for value in found] == [value or None for value in expected]  # __package__: "" or None
    assert found[3:6] == [["--a", "1"], str(scripts.resolve()), [8]]
    assert relative == plain_relative == "attempted relative import with no known parent package"


def test_a_module_is_as_under_plain_python(scripts):
    with_names = start("-m", "package.inside", "--a", "1", cwd=scripts)
    plain = start("--a", "1", cwd=scripts, module="package.inside")
    assert with_names.returncode == 1  # json cannot show the relative import, which succeeds
    assert with_names.stderr.splitlines()[-1] == plain.stderr.splitlines()[-1]
    assert with_names.stderr.splitlines()[-1] == "TypeError: Object of type module is not JSON serializable"


def test_a_script_like_run_clm_trains_by_name(scripts, tmp_path):
    schedule = ("--max_steps", "4", "--warmup_steps", "2", "--learning_rate", "1e-3", "--report_to", "none")
    finished = start(scripts / "like_run_clm.py", *FLAGS, *schedule, "--save_strategy", "no", cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    rates = json.loads((tmp_path / "rates-0-of-1.json").read_text())
    # gradual from 1e-7 over 2 updates, then half a cosine from 1e-3 to 1e-4 over 2
    assert rates == pytest.approx([1e-7, 0.5 * (1e-7 + 1e-3), 1e-3, 5.5e-4])


def test_every_rank_has_the_names(scripts, tmp_path):
    launch = ("--config_file", CONFIG_OF_TWO_PROCESSES, "--main_process_port", "0")
    finished = start(
        *launch, "-m", "hfwarmup.run", scripts / "like_run_clm.py", *FLAGS, "--max_steps", "2", "--warmup_steps", "1",
        "--report_to", "none", "--save_strategy", "no",
        cwd=tmp_path, module="accelerate.commands.launch", ACCELERATE_USE_CPU="true",
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    found = [json.loads((tmp_path / f"rates-{rank}-of-2.json").read_text()) for rank in (0, 1)]
    assert found[0] == found[1] == pytest.approx([1e-7, 5e-5])


NOTEBOOK = """\
import hfwarmup
hfwarmup.register()
from accelerate import notebook_launcher
from transformers import TrainingArguments
def cell(name):
    args = TrainingArguments("out", lr_scheduler_type=name, use_cpu=True)
    print(args.process_index, args.world_size, args.lr_scheduler_type.value)
cell("warmup_wsd")
notebook_launcher(cell, ("warmup_cosine",), num_processes=1)
"""


def test_a_notebook_registers_in_a_cell(tmp_path):
    finished = subprocess.run(
        [sys.executable, "-"], input=NOTEBOOK, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    said = [line for line in finished.stdout.splitlines() if line.startswith("0 ")]
    assert said == ["0 1 warmup_wsd", "0 1 warmup_cosine"]


@pytest.mark.parametrize("words", [["trl", "sft"], ["-m", "trl.scripts.sft"]], ids=" ".join)
def test_trl_takes_the_names(words, tmp_path):
    finished = start(*words, *FLAGS, "--dataset_name", "none/none", "--packing", "maybe", cwd=tmp_path)
    assert finished.returncode == 2  # the words are read in their order: the schedule's name has been taken
    assert "invalid choice" not in finished.stderr
    assert "argument --packing" in finished.stderr


def test_its_exit_status_is_the_scripts(tmp_path):
    (tmp_path / "fails.py").write_text("raise SystemExit(3)\n")
    assert start("fails.py", cwd=tmp_path).returncode == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["none.py"], "error: 'none.py' is neither a file nor a command; give a script's path, or -m MODULE.\n"),
        (["-m", "none.at.all"], "error: there is no module 'none.at.all'; give a script's path, or -m MODULE.\n"),
        (
            ["accelerate", "launch", "x.py"],
            "error: accelerate starts new processes, so it must come first: accelerate … -m hfwarmup.run SCRIPT "
            "ARGS…\n",
        ),
    ],
)
def test_what_cannot_run_is_one_line(words, said, tmp_path):
    finished = start(*words, cwd=tmp_path)
    assert (finished.returncode, finished.stderr) == (1, said)


def test_nothing_to_run_shows_how(tmp_path):
    finished = start(cwd=tmp_path)
    assert finished.returncode == 1
    assert finished.stderr.startswith("error: nothing to run.\nRuns any Trainer script")
