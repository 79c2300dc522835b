"""The cost of one scheduler step: ours beside the schedulers that people use instead.

Each scheduler walks through a run of 1000 updates, with a warmup of 100 and a cosine after it. The optimizer's update
only calls its hooks, so the hooks of a scheduler count too; the time of the updates without a scheduler is subtracted.
All schedulers take turns in each round, and the fastest round counts. A ratio is a peer's time over ours: above 1, ours
costs less.

    pip install -e .[bench]        # pytorch-warmup and warmup-scheduler
    pip install --no-deps timm     # its schedulers are imported alone, without the torchvision that timm asks for
    python benchmarks/step_cost.py

A peer that is not installed is left out, and a line says so.
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
"""What a training loop calls after the update with this index."""


class HooksOnly(torch.optim.Optimizer):
    """An optimizer whose update only calls the hooks that were registered with it."""

    def __init__(self, lrs: list[float]) -> None:
        groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr, "betas": (0.9, 0.999)} for lr in lrs]
        super().__init__(groups, {})

    def step(self) -> None:  # type: ignore[override]
        for hook in self._optimizer_step_post_hooks.values():
            hook(self, (), {})

    step.hooked = True  # type: ignore[attr-defined]  # or torch wraps its profiler around it, which costs more


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
    """timm/scheduler alone, since timm itself needs torchvision."""
    spec = find_spec("timm")
    if spec is None or spec.submodule_search_locations is None:
        return None
    stub = types.ModuleType("timm")
    stub.__path__ = list(spec.submodule_search_locations)
    sys.modules["timm"] = stub
    return import_module("timm.scheduler")


def contenders() -> dict[str, Callable[[torch.optim.Optimizer], Step]]:
    """Name -> function that attaches that scheduler to an optimizer; ours is first, only installed ones are there."""
    found: dict[str, Callable[[torch.optim.Optimizer], Step]] = {
        OURS: ours,
        "transformers cosine": transformers_cosine,
        "torch SequentialLR": torch_sequential,
    }
    for name, package, attach in (
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
            found[name] = partial(attach, module)
    return found


def seconds_per_update(attach: Callable[[torch.optim.Optimizer], Step] | None, lrs: list[float]) -> float:
    """Mean over one run, in CPU time of this thread; without a scheduler, that of the updates alone."""
    optimizer = HooksOnly(lrs)
    step = attach(optimizer) if attach else lambda _: None
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
    """Name -> microseconds that it adds to an update, one number for each column."""
    schedulers = contenders()
    added: dict[str, list[float]] = {name: [] for name in schedulers}
    for lrs in COLUMNS.values():
        best: dict[str, float] = {}
        for _ in range(ROUNDS):
            for name, attach in {"": None, **schedulers}.items():
                best[name] = min(best.get(name, float("inf")), seconds_per_update(attach, lrs))
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
