"""Runs of a recipe that take seconds, in this process: two updates, on a corpus of some files."""

from __future__ import annotations

import runpy
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import pytest
from accelerate.state import AcceleratorState

PACKAGE = Path(sysconfig.get_path("stdlib"), "asyncio")  # about thirty files with docstrings
TEXT = {"dataset": PACKAGE, "dataset_config": "", "tokenizer": "", "vocab_size": 600, "block_size": 64}
TEXT |= {"tokenize_workers": 0}
TABLE = {"dataset": "table.csv", "block_size": 16, "vocab_size": 300}
FLEET = {"num_units": 4, "num_test_units": 2}
SMALL = {"finetune_classification": TABLE, "train_timeseries": FLEET}


@contextmanager
def folder_of_runs(folder: Path) -> Iterator[Path]:
    """Work in `folder`, with a cache of datasets of its own, and with the table that `TABLE` names."""
    rows = [f"it was {('good', 'bad')[i % 2]} number {i},{('yes', 'no')[i % 2]}" for i in range(60)]
    (folder / "table.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
        yield folder


def run_two_updates(script: Path, config: Path, **own: Any) -> None:
    """Run a recipe's script with a config, for two updates, on small data instead of the config's."""
    flags = {"config": config, "max_steps": 2, "use_cpu": "true", "disable_tqdm": "true"}
    flags |= {"per_device_train_batch_size": 4, "per_device_eval_batch_size": 32}
    flags |= SMALL.get(script.stem, TEXT) | own
    AcceleratorState._reset_state(reset_partial_state=True)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setattr(sys, "argv", [str(script), *(f"--{name}={value}" for name, value in flags.items())])
        runpy.run_path(str(script), run_name="__main__")
