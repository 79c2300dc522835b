"""Predict the remaining useful life (RUL) of engines from their sensors: a plain torch model through the same Trainer.

    ./launch.sh train_timeseries --config configs/train_timeseries/cmapss_like.yaml [--key value …]

The data are NASA's C-MAPSS files, or by default a simulated fleet in their layout: engines that run to failure, one row
a cycle. A script to copy and change. Its steps: arguments, data, model, plan, training, results.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor, nn
from transformers import EvalPrediction, Trainer, default_data_collator

from hfwarmup.recipe import (
    NUM_FEATURES,
    Engine,
    Range,
    RecipeArguments,
    Run,
    WarmupArguments,
    Windows,
    find_cmapss,
    parse_arguments,
    read_cmapss,
    run_recipe,
    simulate_fleet,
)

logger = logging.getLogger("hfwarmup.recipe")

LATE_CYCLES, EARLY_CYCLES = 10.0, 13.0  # PHM08: to predict too long a life costs more


@dataclass(kw_only=True)
class TimeSeriesArguments:
    """Which engines, how windows are cut from their series, and how wide the model is."""

    data_folder: str = field(
        default="",
        metadata={"help": "a folder with C-MAPSS files, train_FD001.txt and so on; empty: a simulated fleet"},
    )
    subset: str = field(default="FD001", metadata={"help": "which of the files: FD001, FD002, FD003 or FD004"})
    num_units: int = field(default=200, metadata={"help": "engines of the simulated fleet, 2 or more"})
    num_test_units: int = field(default=100, metadata={"help": "further engines, which stop before their failure"})
    validation_fraction: float = field(default=0.2, metadata={"help": "share of the training engines, in (0, 1)"})
    window_cycles: int = field(default=30, metadata={"help": "cycles that the model sees"})
    window_stride: int = field(default=1, metadata={"help": "cycles from one window to the next"})
    max_rul: int = field(default=125, metadata={"help": "cycles at which RUL is clipped (Heimes 2008)"})
    hidden_size: int = field(default=16, metadata={"help": "channels of the CNN and of each direction of the LSTM"})
    dropout: float = field(default=0.3, metadata={"help": "share of the channels dropped around the LSTM, in [0, 1)"})

    def __post_init__(self) -> None:
        Range(0, 1, above=True, below=True).check("validation_fraction", self.validation_fraction)
        Range(0, 1, below=True).check("dropout", self.dropout)
        Range(2, whole=True).check("num_units", self.num_units)  # one to train on and one to validate on
        for name in ("num_test_units", "window_cycles", "window_stride", "max_rul", "hidden_size"):
            Range(1, whole=True).check(name, getattr(self, name))
        if self.data_folder:
            find_cmapss(self.data_folder, self.subset)


def load_engines(data: TimeSeriesArguments, seed: int) -> tuple[list[Engine], list[Engine], list[Engine]]:
    """The engines to train, validate and test on; no engine is in two of them.

    No config of this recipe was tuned on the simulated test engines.
    """
    if data.data_folder:
        engines, tested = read_cmapss(data.data_folder, data.subset)
    else:
        engines = simulate_fleet(data.num_units, seed=seed + 1)
        tested = simulate_fleet(data.num_test_units, seed=seed + 1000, truncate=True)
    order = np.random.default_rng(seed).permutation(len(engines))
    held_out = min(max(1, round(data.validation_fraction * len(engines))), len(engines) - 1)
    return [engines[i] for i in order[held_out:]], [engines[i] for i in order[:held_out]], tested


class RulModel(nn.Module):
    """CNN, BiLSTM, and attention over the cycles of a window. It returns a dict with `loss`, all that a Trainer needs.

    The loss is the mean squared error in units of `max_rul`; `predictions` are in cycles.
    """

    def __init__(self, hidden_size: int, max_rul: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.max_rul = max_rul
        self.cnn = nn.Sequential(
            nn.Conv1d(NUM_FEATURES, hidden_size, kernel_size=5, padding=2),
            nn.ReLU(),
            nn.Conv1d(hidden_size, hidden_size, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Dropout(dropout),
        )
        self.lstm = nn.LSTM(hidden_size, hidden_size, batch_first=True, bidirectional=True)
        self.score = nn.Sequential(nn.Linear(2 * hidden_size, hidden_size), nn.Tanh(), nn.Linear(hidden_size, 1))
        self.head = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(2 * hidden_size, hidden_size), nn.ReLU(), nn.Linear(hidden_size, 1)
        )

    def forward(self, windows: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        states, _ = self.lstm(self.cnn(windows.transpose(1, 2)).transpose(1, 2))
        attention = self.score(states).softmax(dim=1)
        rul = self.head((attention * states).sum(dim=1)).squeeze(-1).float()
        outputs = {"predictions": rul * self.max_rul}
        if labels is not None:
            outputs["loss"] = nn.functional.mse_loss(rul, labels / self.max_rul)
        return outputs


def rul_metrics(prediction: EvalPrediction | tuple[np.ndarray, np.ndarray]) -> dict[str, float]:
    """RMSE in cycles, and the score of the PHM08 challenge, summed over the windows (Saxena et al. 2008, section 5).

    With d = predicted - true: score = sum of e^(-d/13) - 1 where d < 0, and e^(d/10) - 1 where d >= 0.

    >>> scores = rul_metrics((np.array([10.0, 0.0]), np.array([0.0, 13.0])))  # each costs e - 1
    >>> {name: round(value, 2) for name, value in scores.items()}
    {'rmse': 11.6, 'phm08': 3.44}
    """
    predicted, true = prediction
    error = np.asarray(predicted, dtype=np.float64) - true
    cost = np.expm1(np.where(error < 0, -error / EARLY_CYCLES, error / LATE_CYCLES))
    return {"rmse": math.sqrt(np.mean(error**2)), "phm08": float(cost.sum())}


def baseline_metrics(train: Windows, test: Windows) -> dict[str, dict[str, float]]:
    """Two predictions without a network: least squares on the last cycle of a window, and the mean RUL in training."""

    def last_cycle(windows: Windows) -> np.ndarray:
        return np.column_stack([windows.windows[:, -1].numpy(), np.ones(len(windows))])

    labels = train.labels.numpy()
    weights, *_ = np.linalg.lstsq(last_cycle(train), labels, rcond=None)
    guesses = {"baseline": last_cycle(test) @ weights, "mean": np.full(len(test), labels.mean())}
    return {name: rul_metrics((guess, test.labels.numpy())) for name, guess in guesses.items()}


ARGUMENTS = (TimeSeriesArguments, WarmupArguments, RecipeArguments)
FACTS = {"tokens_per_sample": None, "trainer": True}


def main() -> None:
    # 1. Arguments: the YAML file of --config, then flags, which win.
    data_args, warmup_args, args = parse_arguments(*ARGUMENTS)
    run = Run(args, warmup_args)

    # 2. Data: split by engine, normalised by what the training engines show.
    engines = load_engines(data_args, args.data_seed or 0)
    seen = np.concatenate([engine.features for engine in engines[0]])
    mean, std = seen.mean(axis=0), seen.std(axis=0)
    std[std < 1e-8 * np.abs(mean) + 1e-12] = 1.0  # a sensor that never changes
    cut = {name: getattr(data_args, name) for name in ("window_cycles", "window_stride", "max_rul")}
    train, validation = (Windows(part, mean=mean, std=std, **cut) for part in engines[:2])
    test = Windows(engines[2], mean=mean, std=std, last_only=True, **cut)
    logger.info("%d engines to train on, %d to validate on, %d to test on", *map(len, engines))

    # 3. Model: any nn.Module that returns its loss.
    model = RulModel(data_args.hidden_size, data_args.max_rul, data_args.dropout)

    # 4. Plan: peak learning rate and warmup at the real global batch; then whether compiling pays.
    planned = run.plan(model, train)

    # 5. Training, without the monitor, which measures models of transformers.
    trainer = Trainer(
        model=model,
        args=planned,
        train_dataset=train,
        eval_dataset=validation,
        data_collator=default_data_collator,
        compute_metrics=rul_metrics,
    )
    run.train(trainer, monitor=False)

    # 6. Results: model, metrics beside those of the baselines, pictures.
    metrics = trainer.evaluate()
    metrics |= trainer.predict(test, metric_key_prefix="test").metrics
    for split, windows in {"eval": validation, "test": test}.items():
        baselines = baseline_metrics(train, windows)
        metrics |= {f"{split}_{name}_{key}": value for name, row in baselines.items() for key, value in row.items()}
    rows = {"model": {key: metrics[f"test_{key}"] for key in ("rmse", "phm08")}, **baselines}
    scores = ", ".join(f"{name} {row['rmse']:.1f} and {row['phm08']:.0f}" for name, row in rows.items())
    note = "the baseline is a linear regression on the last cycle, mean the mean RUL of the training engines"
    run.finish(trainer, metrics, summary=f"test RMSE in cycles and PHM08 score: {scores}; {note}")


if __name__ == "__main__":
    run_recipe(main)
