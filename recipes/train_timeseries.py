"""Predict the remaining useful life (RUL) of engines from their sensors: a plain torch model through the same Trainer.

    ./launch.sh train_timeseries --config configs/train_timeseries/cmapss_like.yaml [--key value …]

The data are NASA's C-MAPSS files, or by default a simulated fleet in their layout: engines that run to failure, one row
a cycle. A script to copy and change: arguments, data, model, plan, training, results, in this order.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import EvalPrediction, Trainer, default_data_collator, set_seed

import hfwarmup
from hfwarmup.errors import UserError
from hfwarmup.planning.arguments import WarmupArguments
from hfwarmup.recipe.arguments import RecipeArguments
from hfwarmup.recipe.console import run_recipe, speak_from_rank_zero
from hfwarmup.recipe.parsing import parse_arguments
from hfwarmup.recipe.precision import settle_compile
from hfwarmup.recipe.run import finish_run, train_to_end
from hfwarmup.recipe.run_config import KeepConfig
from hfwarmup.run_folder.checkpoints import find_checkpoint
from hfwarmup.trainer.non_finite import NonFiniteGuard
from hfwarmup.trainer.planning import plan_training, planned_arguments
from hfwarmup.trainer.recorder import RunRecorder
from hfwarmup.trainer.replan import Replan
from hfwarmup.trainer.tracking import track_plan

logger = logging.getLogger("hfwarmup.recipe")

NUM_SETTINGS, NUM_SENSORS = 3, 21
NUM_FEATURES = NUM_SETTINGS + NUM_SENSORS  # after the columns unit and cycle
LATE_CYCLES, EARLY_CYCLES = 10.0, 13.0  # PHM08: a prediction of too long a life costs more


@dataclass(kw_only=True)
class TimeSeriesArguments:
    """Which engines, how a window is cut from their series, and how wide the model is."""

    data_folder: str = field(
        default="",
        metadata={"help": "a folder with C-MAPSS files, train_FD001.txt and so on; empty: a simulated fleet"},
    )
    subset: str = field(default="FD001", metadata={"help": "which of the files: FD001, FD002, FD003 or FD004"})
    num_units: int = field(default=200, metadata={"help": "engines of the simulated fleet, 2 or more"})
    num_test_units: int = field(default=100, metadata={"help": "further ones, stopped before their failure"})
    validation_fraction: float = field(default=0.2, metadata={"help": "share of the training engines, in (0, 1)"})
    window_cycles: int = field(default=30, metadata={"help": "cycles that the model sees"})
    window_stride: int = field(default=1, metadata={"help": "cycles from one window to the next"})
    max_rul: int = field(default=125, metadata={"help": "cycles at which RUL is clipped (Heimes 2008)"})
    hidden_size: int = field(default=16, metadata={"help": "channels of the CNN and of each direction of the LSTM"})
    dropout: float = field(default=0.3, metadata={"help": "share of the channels dropped around the LSTM, in [0, 1)"})

    def __post_init__(self) -> None:
        if not 0 < self.validation_fraction < 1:
            raise UserError(f"validation_fraction={self.validation_fraction} is not in (0, 1); give for example 0.2.")
        if not 0 <= self.dropout < 1:
            raise UserError(f"dropout={self.dropout} is not in [0, 1); give for example 0.3.")
        if self.num_units < 2:
            raise UserError(f"num_units={self.num_units} < 2: none is left to validate on; raise num_units.")
        for name in ("num_test_units", "window_cycles", "window_stride", "max_rul", "hidden_size"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)} < 1; raise {name}.")
        missing = [path for path in self.files() if not path.is_file()]
        if missing:
            raise UserError(f"data_folder={self.data_folder}: no {missing[0].name}; unpack C-MAPSS there, or omit it.")

    def files(self) -> list[Path]:
        """The three files of the subset; none for a simulated fleet."""
        names = (f"{kind}_{self.subset}.txt" for kind in ("train", "test", "RUL"))
        return [Path(self.data_folder).expanduser() / name for name in names] if self.data_folder else []


@dataclass(frozen=True, kw_only=True)
class Engine:
    """One engine's series."""

    features: np.ndarray
    """(cycles, NUM_FEATURES): settings and sensors"""
    rul: np.ndarray
    """(cycles,): cycles left after each one"""


def read_engines(rows: np.ndarray, final_rul: np.ndarray | None = None) -> list[Engine]:
    """Engines from a table in the C-MAPSS layout: unit, cycle, 3 settings, 21 sensors.

    `final_rul` has each unit's RUL at its last row, in the order of the units; None: every series ends with failure.
    """
    engines = []
    for index, unit in enumerate(np.unique(rows[:, 0])):
        own = rows[rows[:, 0] == unit]
        own = own[np.argsort(own[:, 1], kind="stable")]
        last_rul = 0.0 if final_rul is None else final_rul[index]
        engines.append(Engine(features=own[:, 2:], rul=last_rul + own[-1, 1] - own[:, 1]))
    return engines


def simulate_fleet(num_units: int, *, seed: int, truncate: bool = False) -> list[Engine]:
    """Run-to-failure series of `num_units` engines, as in FD001: one operating condition, one way to fail.

    An engine of life L ~ U(128, 362) cycles starts with wear w ~ U(0, 0.05) that nobody has measured, and its damage
    grows exponentially to 1 at failure, as in Saxena et al. 2008 (Damage Propagation Modeling, PHM08):
    d(t) = w + (1 - w) (e^(k t/L) - 1) / (e^k - 1) with k ~ U(4, 5). Fourteen sensors follow it, five only make noise,
    two stand still: sensor_j(t) = offset_j + scale_j (gain_j d(t) + b_j s(t) + noise), with |gain_j| in [0.5, 1], two
    operating settings s(t), standard normal in each cycle, b_j ~ N(0, 0.1^2) and noise ~ N(0, 0.3^2).

    The sensors' constants are the same for every seed. `truncate` ends each series at a cycle before its failure, the
    30th or a later one, as in the test files.
    """
    sensors, engines = np.random.default_rng(0), np.random.default_rng(seed)
    gains = sensors.uniform(0.5, 1.0, NUM_SENSORS) * sensors.choice([-1.0, 1.0], NUM_SENSORS)
    gains[14:] = 0.0
    loads = sensors.normal(0.0, 0.1, (2, NUM_SENSORS))
    offsets, scales = sensors.uniform(1.0, 1000.0, NUM_SENSORS), sensors.uniform(0.1, 10.0, NUM_SENSORS)
    fleet = []
    for _ in range(num_units):
        life, growth, wear = engines.integers(128, 363), engines.uniform(4.0, 5.0), engines.uniform(0.0, 0.05)
        cycles = np.arange(1, life + 1)
        damage = wear + (1.0 - wear) * np.expm1(growth * cycles / life) / np.expm1(growth)
        settings = np.column_stack([engines.normal(size=(life, 2)), np.full(life, 100.0)])
        noise = engines.normal(0.0, 0.3, (life, NUM_SENSORS))
        readings = offsets + scales * (damage[:, None] * gains + settings[:, :2] @ loads + noise)
        readings[:, -2:] = offsets[-2:]
        seen = engines.integers(30, life) if truncate else life
        fleet.append(Engine(features=np.column_stack([settings, readings])[:seen], rul=(life - cycles)[:seen]))
    return fleet


def load_engines(data: TimeSeriesArguments, seed: int) -> tuple[list[Engine], list[Engine], list[Engine]]:
    """Engines to train, validate and test on, none in two of them; no config was tuned on the simulated test ones."""
    if data.data_folder:
        train, test, rul = (np.loadtxt(path, ndmin=1) for path in data.files())
        engines, tested = read_engines(train), read_engines(test, rul)
    else:
        engines = simulate_fleet(data.num_units, seed=seed + 1)
        tested = simulate_fleet(data.num_test_units, seed=seed + 1000, truncate=True)
    order = np.random.default_rng(seed).permutation(len(engines))
    held_out = min(max(1, round(data.validation_fraction * len(engines))), len(engines) - 1)
    return [engines[i] for i in order[held_out:]], [engines[i] for i in order[:held_out]], tested


class Windows(torch.utils.data.Dataset):
    """Windows of `window_cycles` cycles with the RUL after the last one, clipped at `max_rul`: `windows`, `labels`.

    One every `window_stride` cycles, counted back from a series' end, or with `last_only` only the one at the end, as
    the tests of C-MAPSS have it. A series shorter than a window is continued to the left with its first cycle. Features
    are z-normalised with `mean` and `std`, those of the training engines.
    """

    def __init__(
        self, engines: list[Engine], data: TimeSeriesArguments, *, mean: np.ndarray, std: np.ndarray, last_only=False
    ) -> None:
        windows, labels = [], []
        for engine in engines:
            features = (engine.features - mean) / std
            missing = max(0, data.window_cycles - len(features))
            features = np.concatenate([np.repeat(features[:1], missing, axis=0), features])
            cut = np.lib.stride_tricks.sliding_window_view(features, data.window_cycles, axis=0).swapaxes(1, 2)
            first = len(cut) - 1 if last_only else (len(cut) - 1) % data.window_stride
            ends = slice(first, None, data.window_stride)
            windows.append(cut[ends])
            labels.append(engine.rul[-len(cut) :][ends])
        self.windows = torch.from_numpy(np.concatenate(windows).astype(np.float32))
        self.labels = torch.from_numpy(np.concatenate(labels).astype(np.float32)).clamp(max=data.max_rul)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"windows": self.windows[index], "labels": self.labels[index]}


class RulModel(nn.Module):
    """CNN, BiLSTM and attention over the cycles of a window. It returns a dict with `loss`: all that Trainer asks for.

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
    """Two answers that need no network: least squares on a window's last cycle, and the training windows' mean RUL."""

    def last_cycle(windows: Windows) -> np.ndarray:
        return np.column_stack([windows.windows[:, -1].numpy(), np.ones(len(windows))])

    labels = train.labels.numpy()
    weights, *_ = np.linalg.lstsq(last_cycle(train), labels, rcond=None)
    guesses = {"baseline": last_cycle(test) @ weights, "mean": np.full(len(test), labels.mean())}
    return {name: rul_metrics((guess, test.labels.numpy())) for name, guess in guesses.items()}


ARGUMENTS = (TimeSeriesArguments, WarmupArguments, RecipeArguments)


def main() -> None:
    # 1. Arguments: the YAML file of --config, then flags.
    hfwarmup.register()
    data_args, warmup_args, args = parse_arguments(*ARGUMENTS)
    speak_from_rank_zero()
    checkpoint = find_checkpoint(args.output_dir, args.resume)
    set_seed(args.seed)

    # 2. Data: split by engine, normalised by what the training engines show.
    engines = load_engines(data_args, args.data_seed or 0)
    seen = np.concatenate([engine.features for engine in engines[0]])
    mean, std = seen.mean(axis=0), seen.std(axis=0)
    std[std < 1e-8 * np.abs(mean) + 1e-12] = 1.0  # a sensor that does not move
    train, validation = (Windows(part, data_args, mean=mean, std=std) for part in engines[:2])
    test = Windows(engines[2], data_args, mean=mean, std=std, last_only=True)

    # 3. Model: any nn.Module that returns its loss.
    model = RulModel(data_args.hidden_size, data_args.max_rul, data_args.dropout)
    size = sum(parameter.numel() for parameter in model.parameters())
    cut = f"{len(train)} windows of {len(engines[0])} engines, validation {len(validation)} of {len(engines[1])}"
    logger.info("CNN + BiLSTM + attention, %d parameters; %s, test %d engines", size, cut, len(test))
    logger.info("%s", args.precision_reason)

    # 4. Plan: peak learning rate and warmup at the real global batch; then whether compiling pays.
    plan = plan_training(args, warmup_args, num_samples=len(train), checkpoint=checkpoint)
    planned = planned_arguments(args, warmup_args, plan)
    logger.info("%s", plan)
    sample = default_data_collator([train[i] for i in range(min(args.train_batch_size, len(train)))])
    logger.info("%s", settle_compile(planned, model, sample, total_steps=plan.total_steps))

    # 5. Training.
    replan = Replan(args, warmup_args, num_samples=len(train))
    trainer = Trainer(
        model=model,
        args=planned,
        train_dataset=train,
        eval_dataset=validation,
        data_collator=default_data_collator,
        compute_metrics=rul_metrics,
        callbacks=[replan, NonFiniteGuard(), RunRecorder(), KeepConfig()],
    )
    track_plan(trainer)
    train_metrics = train_to_end(trainer, checkpoint, total_steps=plan.total_steps)

    # 6. Results: model, metrics beside the baselines', pictures.
    metrics = trainer.evaluate()
    metrics |= trainer.predict(test, metric_key_prefix="test").metrics
    for split, windows in {"eval": validation, "test": test}.items():
        baselines = baseline_metrics(train, windows)
        metrics |= {f"{split}_{name}_{key}": value for name, row in baselines.items() for key, value in row.items()}
    rows = {"model": {key: metrics[f"test_{key}"] for key in ("rmse", "phm08")}, **baselines}
    finish_run(
        trainer,
        train_metrics=train_metrics,
        eval_metrics=metrics,
        summary="test RMSE in cycles and PHM08 score: "
        + ", ".join(f"{name} {row['rmse']:.1f} and {row['phm08']:.0f}" for name, row in rows.items())
        + "; the baseline is a linear regression on the last cycle, mean the training engines' RUL",
    )


if __name__ == "__main__":
    run_recipe(main)
