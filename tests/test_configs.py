"""Every config under configs/ is run for two updates, on a corpus of some files instead of its own data.

Those of the hub run too, with that corpus and a tokenizer trained on it. The configs of accelerate are parsed in
test_launch.py, those of SLURM in test_slurm.py.
"""

from __future__ import annotations

import json
import runpy
import sys
import sysconfig
import warnings
from pathlib import Path
from typing import Any

import datasets
import pytest
from accelerate.state import AcceleratorState
from ruamel.yaml import YAML

from hfwarmup.run_folder.files import read_learning_rates

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted(path for path in ROOT.glob("configs/*/*.yaml") if path.parent.name != "accelerate")
PACKAGE = Path(sysconfig.get_path("stdlib"), "asyncio")  # about thirty files with docstrings
TEXT = {"dataset": PACKAGE, "dataset_config": "", "tokenizer": "", "vocab_size": 600, "block_size": 64}
TEXT |= {"tokenize_workers": 0}
TABLE = {"dataset": "table.csv", "block_size": 16, "vocab_size": 300}
FLEET = {"num_units": 4, "num_test_units": 2}
SMALL = {"finetune_classification": TABLE, "train_timeseries": FLEET}
SMALL_GPT2 = {"config_overrides": '{"n_embd": 32, "n_layer": 1, "n_head": 2}'}

pytestmark = pytest.mark.usefixtures("own_process_state")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where the runs go: the configs name it relative to the folder in which they are run."""
    folder = tmp_path_factory.mktemp("configs")
    rows = [f"it was {('good', 'bad')[i % 2]} number {i},{('yes', 'no')[i % 2]}" for i in range(60)]
    (folder / "table.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
        yield folder


def run_of(config: Path, folder: Path) -> Path:
    """The run of a config, made where it is not there yet; the run whose checkpoint it starts from is made first."""
    settings: dict[str, Any] = YAML(typ="safe").load(config)
    run = folder / settings["output_dir"]
    if (run / "all_results.json").exists():
        return run
    recipe = config.parent.name
    match Path(settings.get("model", "")).parts:
        case ("runs", earlier, name):
            run_of(ROOT / "configs" / earlier / f"{name}.yaml", folder)
    flags = {"config": config, "max_steps": 2, "use_cpu": "true", "disable_tqdm": "true", **SMALL.get(recipe, TEXT)}
    flags |= {"per_device_train_batch_size": 4, "per_device_eval_batch_size": 32}
    if settings.get("model_type") == "gpt2" and "config_overrides" not in settings:
        flags |= SMALL_GPT2
    AcceleratorState._reset_state(reset_partial_state=True)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setattr(sys, "argv", [recipe, *(f"--{name}={value}" for name, value in flags.items())])
        runpy.run_path(str(ROOT / "recipes" / f"{recipe}.py"), run_name="__main__")
    return run


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_config_runs_for_two_updates(config, folder):
    run = run_of(config, folder)
    assert run == folder / "runs" / config.parent.name / config.stem
    assert len(read_learning_rates(run / "learning_rates.csv")) == 2
    results = json.loads((run / "all_results.json").read_text())
    baselines = [name for name in results if "_baseline_" in name]
    assert baselines
    assert all(name.replace("baseline_", "") in results for name in baselines)
