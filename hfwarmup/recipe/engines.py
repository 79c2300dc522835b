"""Engines that run to failure: NASA's C-MAPSS files, or a simulated fleet in their layout, which needs no network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hfwarmup.errors import UserError

NUM_SETTINGS, NUM_SENSORS = 3, 21
NUM_FEATURES = NUM_SETTINGS + NUM_SENSORS  # after the columns unit and cycle


@dataclass(frozen=True, kw_only=True)
class Engine:
    """The series of one engine."""

    features: np.ndarray
    """(cycles, NUM_FEATURES): settings and sensors"""
    rul: np.ndarray
    """(cycles,): remaining useful life, the cycles left after each one"""


def find_cmapss(folder: str, subset: str) -> list[Path]:
    """The files of a subset of C-MAPSS, such as FD001: training engines, test engines, RUL at the end of the latter.

    Raises UserError when one is not there.
    """
    paths = [Path(folder).expanduser() / f"{kind}_{subset}.txt" for kind in ("train", "test", "RUL")]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise UserError(f"data_folder={folder}: no {missing[0]}; unpack C-MAPSS there, or omit data_folder.")
    return paths


def read_cmapss(folder: str, subset: str) -> tuple[list[Engine], list[Engine]]:
    """The training and the test engines of a subset of C-MAPSS. Raises UserError as `find_cmapss` does."""
    train, test, final_rul = (np.loadtxt(path, ndmin=1) for path in find_cmapss(folder, subset))
    return read_engines(train), read_engines(test, final_rul)


def read_engines(rows: np.ndarray, final_rul: np.ndarray | None = None) -> list[Engine]:
    """Engines from a table in the C-MAPSS layout: unit, cycle, 3 settings, 21 sensors.

    `final_rul` holds the RUL of each unit at its last row, in the order of the units; None: each series ends with the
    failure.

    >>> [engine.rul.tolist() for engine in read_engines(np.array([[1, 1] + [0] * 24, [1, 2] + [0] * 24]))]
    [[1.0, 0.0]]
    """
    engines = []
    for index, unit in enumerate(np.unique(rows[:, 0])):
        own = rows[rows[:, 0] == unit]
        own = own[np.argsort(own[:, 1], kind="stable")]
        last_rul = 0.0 if final_rul is None else final_rul[index]
        engines.append(Engine(features=own[:, 2:], rul=last_rul + own[-1, 1] - own[:, 1]))
    return engines


def simulate_fleet(num_units: int, *, seed: int, truncate: bool = False) -> list[Engine]:
    """The series of `num_units` engines that run to failure, as in FD001: one operating condition, one way to fail.

    An engine lives L ~ U(128, 362) cycles. It starts with a wear w ~ U(0, 0.05) that nobody has measured, and its
    damage grows exponentially to 1 at failure, as in Saxena et al. 2008 (Damage Propagation Modeling, PHM08):
    d(t) = w + (1 - w) (e^(k t/L) - 1) / (e^k - 1) with k ~ U(4, 5). Fourteen sensors follow the damage, five only make
    noise, two never change: sensor_j(t) = offset_j + scale_j (gain_j d(t) + b_j s(t) + noise), with |gain_j| in
    [0.5, 1], two operating settings s(t), standard normal in each cycle, b_j ~ N(0, 0.1^2) and noise ~ N(0, 0.3^2).

    The constants of the sensors are the same for every seed. With `truncate` each series ends before its failure, at
    its 30th cycle or later, as in the test files.

    >>> [len(engine.rul) for engine in simulate_fleet(3, seed=1)]
    [239, 248, 252]
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


class Windows(torch.utils.data.Dataset):
    """Windows of the series of some engines, each with the RUL after its last cycle: `windows`, `labels`.

    A series that is shorter than a window begins with copies of its first cycle.

    Args:
        engines: the series.
        mean: of each feature, over the training engines; features are z-normalised with `mean` and `std`.
        std: of each feature, over the training engines.
        window_cycles: cycles of a window.
        window_stride: cycles from one window to the next, counted back from the end of a series.
        max_rul: cycles at which the RUL is clipped (Heimes 2008).
        last_only: only the window at the end of each series, as in the tests of C-MAPSS.
    """

    def __init__(
        self,
        engines: list[Engine],
        *,
        mean: np.ndarray,
        std: np.ndarray,
        window_cycles: int,
        window_stride: int,
        max_rul: int,
        last_only: bool = False,
    ) -> None:
        windows, labels = [], []
        for engine in engines:
            features = (engine.features - mean) / std
            missing = max(0, window_cycles - len(features))
            features = np.concatenate([np.repeat(features[:1], missing, axis=0), features])
            cut = np.lib.stride_tricks.sliding_window_view(features, window_cycles, axis=0).swapaxes(1, 2)
            first = len(cut) - 1 if last_only else (len(cut) - 1) % window_stride
            ends = slice(first, None, window_stride)
            windows.append(cut[ends])
            labels.append(engine.rul[-len(cut) :][ends])
        self.windows = torch.from_numpy(np.concatenate(windows).astype(np.float32))
        self.labels = torch.from_numpy(np.concatenate(labels).astype(np.float32)).clamp(max=max_rul)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"windows": self.windows[index], "labels": self.labels[index]}
