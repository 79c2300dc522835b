"""What one scheduler step adds to an optimizer's update: ours beside those that people use instead.

Each scheduler walks a whole run of 1000 updates with 100 of warmup and a cosine after it, on an optimizer whose update
does nothing but call its hooks, so that what a scheduler hangs on the optimizer is counted too. The time of the bare
updates is taken off. All of them take turns in each round and the fastest round counts; a ratio is the peer's time over
ours, above 1 where ours costs less.

    pip install -e .[bench]        # pytorch-warmup and warmup-scheduler
    pip install --no-deps timm     # its schedulers are imported alone, without the torchvision that timm asks for
    python benchmarks/step_cost.py

A peer that is not installed is left out, with a line that says so.
"""

from __future__ import annotations

import gc
import platform
import sys
import time
import types
import warnings
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec

import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR
from transformers import get_cosine_schedule_with_warmup

from hfwarmup import WarmupScheduler

TOTAL_STEPS = 1000
WARMUP_STEPS = 100
ROUNDS = 10
COLUMNS = {
    "2 groups": [1e-3, 1e-3],
    "100 groups, 1 peak": [1e-3] * 100,
    "100 groups, 100 peaks": [1e-3 * (1 + n / 100) for n in range(100)],
}
OURS = "hfwarmup warmup_cosine"

Step = Callable[[int], object]
"""What a training loop calls after the update with the index that it is given."""


class HooksOnly(torch.optim.Optimizer):
    """An optimizer whose update is nothing but the hooks that were registered with it."""

    def __init__(self, lrs: list[float]) -> None:
        groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr, "betas": (0.9, 0.999)} for lr in lrs]
        super().__init__(groups, {})

    def step(self) -> None:  # type: ignore[override]
        for hook in self._optimizer_step_post_hooks.values():
            hook(self, (), {})

    step.hooked = True  # type: ignore[attr-defined]  # else torch wraps its profiler around, which costs more than all


def ours(optimizer: torch.optim.Optimizer) -> Step:
    scheduler = WarmupScheduler(
        optimizer, "warmup_cosine", num_warmup_steps=WARMUP_STEPS, num_training_steps=TOTAL_STEPS
    )
    return lambda _: scheduler.step()


def transformers_cosine(optimizer: torch.optim.Optimizer) -> Step:
    scheduler = get_cosine_schedule_with_warmup(optimizer, WARMUP_STEPS, TOTAL_STEPS)
    return lambda _: scheduler.step()


def torch_sequential(optimizer: torch.optim.Optimizer) -> Step:
    ramp = LinearLR(optimizer, start_factor=1e-4, total_iters=WARMUP_STEPS)
    decay = CosineAnnealingLR(optimizer, TOTAL_STEPS - WARMUP_STEPS)
    scheduler = SequentialLR(optimizer, [ramp, decay], milestones=[WARMUP_STEPS])
    return lambda _: scheduler.step()


def pytorch_warmup_linear(module: types.ModuleType, optimizer: torch.optim.Optimizer) -> Step:
    scheduler = CosineAnnealingLR(optimizer, TOTAL_STEPS)
    ramp = module.LinearWarmup(optimizer, warmup_period=WARMUP_STEPS)

    def step(_: int) -> None:
        with ramp.dampening():
            scheduler.step()

    return step


def gradual_warmup_scheduler(module: types.ModuleType, optimizer: torch.optim.Optimizer) -> Step:
    decay = CosineAnnealingLR(optimizer, TOTAL_STEPS - WARMUP_STEPS)
    scheduler = module.GradualWarmupScheduler(optimizer, 1.0, WARMUP_STEPS, decay)
    return lambda _: scheduler.step()


def timm_cosine(module: types.ModuleType, optimizer: torch.optim.Optimizer) -> Step:
    scheduler = module.CosineLRScheduler(
        optimizer, t_initial=TOTAL_STEPS, warmup_t=WARMUP_STEPS, warmup_lr_init=1e-7, t_in_epochs=False
    )
    return lambda update: scheduler.step_update(update + 1)


def timm_schedulers() -> types.ModuleType | None:
    """timm/scheduler alone: importing the package itself would need torchvision."""
    spec = find_spec("timm")
    if spec is None or spec.submodule_search_locations is None:
        return None
    stub = types.ModuleType("timm")
    stub.__path__ = list(spec.submodule_search_locations)
    sys.modules["timm"] = stub
    return import_module("timm.scheduler")


def contenders() -> dict[str, Callable[[torch.optim.Optimizer], Step]]:
    """Name -> what lays that scheduler on an optimizer; ours first, and what is not installed left out."""
    found: dict[str, Callable[[torch.optim.Optimizer], Step]] = {
        OURS: ours,
        "transformers cosine": transformers_cosine,
        "torch SequentialLR": torch_sequential,
    }
    for name, package, lay in (
        ("pytorch_warmup LinearWarmup", "pytorch_warmup", pytorch_warmup_linear),
        ("GradualWarmupScheduler", "warmup_scheduler", gradual_warmup_scheduler),
        ("timm CosineLRScheduler", "timm", timm_cosine),
    ):
        if package == "timm":
            module = timm_schedulers()
        else:
            module = import_module(package) if find_spec(package) else None
        if module is None:
            print(f"{name}: {package} is not installed, left out")
        else:
            found[name] = partial(lay, module)
    return found


def seconds_per_update(lay: Callable[[torch.optim.Optimizer], Step] | None, lrs: list[float]) -> float:
    """Mean over one run, in time of this thread (others may use the machine); without a scheduler, the bare updates."""
    optimizer = HooksOnly(lrs)
    step = lay(optimizer) if lay else lambda _: None
    gc.collect()
    gc.disable()
    start = time.thread_time()
    for update in range(TOTAL_STEPS):
        optimizer.step()
        step(update)
    seconds = time.thread_time() - start
    gc.enable()
    return seconds / TOTAL_STEPS


def measure() -> dict[str, list[float]]:
    """Name -> microseconds that it adds to an update, a number a column."""
    schedulers = contenders()
    added: dict[str, list[float]] = {name: [] for name in schedulers}
    for lrs in COLUMNS.values():
        best: dict[str, float] = {}
        for _ in range(ROUNDS):
            for name, lay in {"": None, **schedulers}.items():
                best[name] = min(best.get(name, float("inf")), seconds_per_update(lay, lrs))
        for name in schedulers:
            added[name].append(1e6 * (best[name] - best[""]))
    return added


def main() -> None:
    warnings.simplefilter("ignore")  # GradualWarmupScheduler asks its next scheduler for a rate outside of a step
    added = measure()
    print(f"microseconds a step (times ours), Python {platform.python_version()}, torch {torch.__version__}\n")
    print(f"{'':28}" + "".join(f"{column:>24}" for column in COLUMNS))
    for name, microseconds in added.items():
        cells = (f"{own:.2f} ({own / base:.1f}x)" for own, base in zip(microseconds, added[OURS], strict=True))
        print(f"{name:28}" + "".join(f"{cell:>24}" for cell in cells))


if __name__ == "__main__":
    main()
