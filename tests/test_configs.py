"""Every config under configs/ is run for two updates, on a corpus of some files instead of its own data.

Those of the hub run too, with that corpus and a tokenizer trained on it. The configs of accelerate are parsed in
test_launch.py, those of SLURM in test_slurm.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from small_runs import folder_of_runs, run_two_updates

from hfwarmup.planning.recipe_files import facts_of, find_recipe
from hfwarmup.run_folder.files import read_learning_rates

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted(path for path in ROOT.glob("configs/*/*.yaml") if path.parent.name != "accelerate")
SMALL_GPT2 = {"config_overrides": '{"n_embd": 32, "n_layer": 1, "n_head": 2}'}

pytestmark = pytest.mark.usefixtures("own_process_state")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where the runs go: the configs name it relative to the folder in which they are run."""
    with folder_of_runs(tmp_path_factory.mktemp("configs")) as folder:
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
    is_gpt2 = settings.get("model_type") == "gpt2" and "config_overrides" not in settings
    run_two_updates(find_recipe(recipe), config, **(SMALL_GPT2 if is_gpt2 else {}))
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
    in_tokens = json.loads((run / "run.json").read_text())["plan"]["warmup_tokens"] is not None
    assert in_tokens == (facts_of(find_recipe(config.parent.name)).tokens_per_sample is not None)
