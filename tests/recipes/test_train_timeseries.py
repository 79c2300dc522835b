"""Remaining useful life: what the data are, what a score is, and the schedule of a plain torch model."""

from __future__ import annotations

import functools
import math
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import Trainer, TrainerCallback

import hfwarmup
from hfwarmup.planning.arguments import WarmupArguments
from hfwarmup.recipe.arguments import RecipeArguments
from hfwarmup.recipe.engines import Engine, Windows, simulate_fleet
from hfwarmup.recipe.parsing import parse_arguments
from hfwarmup.run_folder.files import read_learning_rates
from hfwarmup.trainer.planning import plan_training, planned_arguments

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs" / "train_timeseries"
RECIPE = runpy.run_path(str(ROOT / "recipes" / "train_timeseries.py"))
TimeSeriesArguments, RulModel, load_engines, rul_metrics = (
    RECIPE[name] for name in ("TimeSeriesArguments", "RulModel", "load_engines", "rul_metrics")
)
PEAK, START, FINAL = 1e-3, 1e-7, 1e-6


def plain_windows(engines, **own):
    cut = {"window_cycles": 30, "window_stride": 1, "max_rul": 125, **own}
    return Windows(engines, mean=np.zeros(24), std=np.ones(24), **cut)


def counting_engine(cycles: int, last_rul: int = 0):
    """Every feature of cycle c is c, from 1 on."""
    features = np.repeat(np.arange(1.0, cycles + 1)[:, None], 24, axis=1)
    return Engine(features=features, rul=last_rul + np.arange(cycles)[::-1])


# --- the engines


def test_a_simulated_engine_runs_to_failure_and_its_damage_shows():
    fleet = simulate_fleet(20, seed=1)
    for engine in fleet:
        assert 128 <= len(engine.rul) <= 362
        assert engine.features.shape == (len(engine.rul), 24)
        assert engine.rul.tolist() == list(range(len(engine.rul)))[::-1]
    sensors = np.stack([[e.features[:30, 3:].mean(axis=0), e.features[-5:, 3:].mean(axis=0)] for e in fleet])
    shift = (sensors[:, 1] - sensors[:, 0]) / (sensors[:, 0].std(axis=0) + 1e-9)
    assert (np.abs(shift[:, :14].mean(axis=0)) > 5).all()  # 14 sensors follow the damage, in the same direction
    assert (np.abs(shift[:, 14:].mean(axis=0)) < 2).all()
    assert np.ptp(np.concatenate([engine.features[:, -2:] for engine in fleet]), axis=0).tolist() == [0, 0]


def test_the_fleet_is_a_function_of_its_seed():
    same, other = simulate_fleet(3, seed=1), simulate_fleet(3, seed=2)
    assert all((a.features == b.features).all() for a, b in zip(same, simulate_fleet(3, seed=1), strict=True))
    assert [len(engine.rul) for engine in same] != [len(engine.rul) for engine in other]


def test_a_truncated_engine_is_the_beginning_of_a_life():
    for engine in simulate_fleet(20, seed=1, truncate=True):
        assert len(engine.rul) >= 30
        assert engine.rul[-1] > 0
        assert (np.diff(engine.rul) == -1).all()


def test_no_engine_is_in_two_splits():
    data = TimeSeriesArguments(num_units=20, num_test_units=5)
    splits = load_engines(data, seed=3)
    assert [len(split) for split in splits] == [16, 4, 5]
    first_rows = [engine.features[0].tobytes() for split in splits for engine in split]
    assert len(set(first_rows)) == 25


def write_cmapss(folder: Path, lives: list[int], cuts: list[int]) -> None:
    """Files as NASA's, with blanks at the end of a line; every feature is 1000 times the unit plus the cycle."""

    def rows(lengths: list[int]) -> str:
        lines = []
        for unit, length in enumerate(lengths, start=1):
            for cycle in range(1, length + 1):
                lines.append(" ".join([str(unit), str(cycle), *[f"{1000 * unit + cycle:.4f}"] * 24]) + "  ")
        return "\n".join(lines) + "\n"

    (folder / "train_FD001.txt").write_text(rows(lives))
    (folder / "test_FD001.txt").write_text(rows(cuts))
    (folder / "RUL_FD001.txt").write_text("".join(f"{70 + unit}  \n" for unit in range(len(cuts))))


def test_cmapss_files_are_read(tmp_path):
    write_cmapss(tmp_path, lives=[40, 50, 60], cuts=[31, 7])
    train, validation, test = load_engines(TimeSeriesArguments(data_folder=str(tmp_path)), seed=0)
    assert sorted(len(engine.rul) for engine in train + validation) == [40, 50, 60]
    assert all(engine.rul[-1] == 0 for engine in train + validation)
    assert [(len(engine.rul), engine.rul[0], engine.rul[-1]) for engine in test] == [(31, 100, 70), (7, 77, 71)]
    assert test[1].features[:, 0].tolist() == [2000.0 + cycle for cycle in range(1, 8)]


# --- the windows


def test_the_windows_of_an_engine():
    windows = plain_windows([counting_engine(6)], window_cycles=4, max_rul=1)
    assert windows.windows[:, :, 0].tolist() == [[1, 2, 3, 4], [2, 3, 4, 5], [3, 4, 5, 6]]
    assert windows.labels.tolist() == [1, 1, 0]  # 2 is clipped
    assert windows[2]["windows"].shape == (4, 24)
    assert windows[2]["labels"].item() == 0


def test_a_stride_counts_back_from_the_end():
    windows = plain_windows([counting_engine(9), counting_engine(8, last_rul=3)], window_cycles=4, window_stride=2)
    assert windows.windows[:, -1, 0].tolist() == [5, 7, 9, 4, 6, 8]
    assert windows.labels.tolist() == [4, 2, 0, 7, 5, 3]


def test_a_test_engine_gives_its_last_window_even_if_it_is_short():
    engines = [counting_engine(9, last_rul=20), counting_engine(2, last_rul=30)]
    windows = plain_windows(engines, window_cycles=4, window_stride=3, last_only=True)
    assert windows.windows[:, :, 0].tolist() == [[6, 7, 8, 9], [1, 1, 1, 2]]
    assert windows.labels.tolist() == [20, 30]


# --- the model and its scores


@pytest.mark.parametrize(
    ("error", "score"),
    [
        (0.0, 0.0),
        (-13.0, math.e - 1),  # early
        (10.0, math.e - 1),  # late costs more
        (-26.0, math.e**2 - 1),
    ],
)
def test_the_phm08_score_of_an_error(error, score):
    scores = rul_metrics((np.array([50.0 + error, 7.0]), np.array([50.0, 7.0])))
    assert scores["phm08"] == pytest.approx(score)
    assert scores["rmse"] == pytest.approx(abs(error) / math.sqrt(2))


def test_the_linear_baseline_solves_a_linear_fleet():
    """RUL = 100 - feature: least squares finds it, the mean does not."""
    train, test = (plain_windows([counting_engine(n, last_rul=100 - n)], window_cycles=4) for n in (60, 50))
    baselines = RECIPE["baseline_metrics"](train, test)
    assert baselines["baseline"]["rmse"] == pytest.approx(0, abs=1e-3)
    assert baselines["mean"]["rmse"] > 10


def test_the_loss_is_in_units_of_max_rul_and_predictions_are_in_cycles():
    model = RulModel(hidden_size=4, max_rul=125)
    outputs = model(torch.randn(3, 30, 24), torch.tensor([0.0, 60.0, 125.0]))
    errors = (outputs["predictions"] - torch.tensor([0.0, 60.0, 125.0])) / 125
    assert outputs["loss"].item() == pytest.approx(errors.square().mean().item(), rel=1e-5)
    assert set(model(torch.randn(1, 30, 24))) == {"predictions"}


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"validation_fraction": 1.0}, "validation_fraction=1.0: give a number between 0 and 1."),
        ({"dropout": 1.0}, "dropout=1.0: give a number from 0 to below 1."),
        ({"num_units": 1}, "num_units=1: give a whole number, 2 or more."),
        ({"window_stride": 0}, "window_stride=0: give a whole number, 1 or more."),
        ({"data_folder": "/none"}, "data_folder=/none: no train_FD001.txt; unpack C-MAPSS there, or omit data_folder."),
    ],
)
def test_impossible_arguments(own, message):
    with pytest.raises(ValueError, match=r"\S") as error:
        TimeSeriesArguments(**own)
    assert str(error.value) == message


# --- the schedule


def arguments(config: str, folder: Path, *flags: str):
    hfwarmup.register()
    argv = ["--config", str(CONFIGS / f"{config}.yaml"), "--output_dir", str(folder), "--use_cpu", "true", *flags]
    return parse_arguments(TimeSeriesArguments, WarmupArguments, RecipeArguments, argv=argv)


def planned_rate(update: int, warmup: int, total: int) -> float:
    if update < warmup:
        return START + (PEAK - START) * update / warmup
    progress = (update - warmup) / (total - warmup)
    return FINAL + (PEAK - FINAL) * (1 + math.cos(math.pi * progress)) / 2


@pytest.mark.parametrize("config", ["cmapss_like", "plateau"])
def test_five_of_a_hundred_epochs_are_warmup(config, tmp_path):
    data, warmup, args = arguments(config, tmp_path)
    train = plain_windows(load_engines(data, seed=0)[0], window_stride=data.window_stride)
    plan = plan_training(args, warmup, num_samples=len(train))
    assert plan.total_steps == 100 * math.ceil(len(train) / 128)
    assert plan.warmup_steps == round(5 * len(train) / 128)


def test_the_plateau_listens_only_after_the_warmup(tmp_path):
    """An evaluation that is never better: with patience 1, the rate is halved at every second one after the peak."""
    flags = {"num_train_epochs": 12, "warmup": 4, "per_device_train_batch_size": 1000}
    flags |= {"save_strategy": "no", "disable_tqdm": "true", "logging_strategy": "no", "reference_batch_size": 1000}
    options = '{"initial_lr": 1e-7, "metric": "rmse", "factor": 0.5, "patience": 1}'
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    _, warmup, args = arguments("plateau", tmp_path, *words, "--lr_scheduler_kwargs", options)
    windows = plain_windows(simulate_fleet(4, seed=0), window_stride=12)  # one update an epoch
    planned = planned_arguments(args, warmup, plan_training(args, warmup, num_samples=len(windows)))
    rates: list[float] = []

    class Probe(TrainerCallback):
        def on_optimizer_step(self, args, state, control, **kwargs):
            rates.append(kwargs["optimizer"].param_groups[0]["lr"])

    trainer = Trainer(
        model=RulModel(4, 125),
        args=planned,
        train_dataset=windows,
        eval_dataset=windows,
        compute_metrics=lambda _: {"rmse": 1.0},
        callbacks=[Probe()],
    )
    trainer.train()
    ramp = [START + (PEAK - START) * update / 4 for update in range(4)]
    # The evaluations after updates 4 to 12 are heard: 4 is the best, 6, 8, 10 each the second without progress.
    assert rates == pytest.approx([*ramp, PEAK, PEAK, *[PEAK / 2] * 2, *[PEAK / 4] * 2, *[PEAK / 8] * 2])


@functools.cache
def checkpoint_names() -> set[str]:
    return set(RulModel(8, 125).state_dict())


def test_the_launched_smoke_run_applies_the_plan_and_leaves_its_results(tmp_path):
    env = {**os.environ, "HFWARMUP_PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    flags = {"output_dir": tmp_path / "run", "num_train_epochs": 1, "warmup": 1, "num_units": 4, "window_stride": 20}
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    command = [ROOT / "launch.sh", "train_timeseries", "--config", CONFIGS / "smoke.yaml", *words]
    result = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "run"
    rows = read_learning_rates(folder / "learning_rates.csv")
    peak = 1e-2
    total = len(rows)
    after = [1e-6 + (peak - 1e-6) * (1 + math.cos(math.pi * (t - 1) / (total - 1))) / 2 for t in range(1, total)]
    assert [row[2] for row in rows] == pytest.approx([START, *after], rel=1e-12)
    assert {path.name for path in folder.iterdir()} >= {"all_results.json", "schedule.png", "loss.png"}
    assert set(load_file(folder / "model.safetensors")) == checkpoint_names()
    assert "test RMSE in cycles and PHM08 score: model" in result.stderr
