"""The most important numbers of a run, as text for the report and the model card."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from hfwarmup.run_folder.data import RunData


class Fact(NamedTuple):
    """A number with its unit, and a detail that helps to read it."""

    value: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.value}, {self.detail}" if self.detail else self.value


def facts_of(run: RunData) -> dict[str, Fact]:
    """Name -> fact, for everything that is known of the run."""
    manifest, plan, spec = run.manifest, run.manifest.get("plan"), run.spec
    facts = {"updates": _progress(run), **_losses(run)}
    if spec is not None:
        peaks = sorted(set(spec.peak_lrs), reverse=True)
        facts["schedule"] = Fact(spec.name)
        facts["peak learning rate"] = Fact(f"{peaks[0]:.4g}", "the highest of its groups" if len(peaks) > 1 else "")
        share = f"{run.warmup_steps / run.total_steps:.1%} of the run" if run.total_steps else ""
        facts["warmup T_w"] = Fact(f"{run.warmup_steps:,} updates", share)
    if plan:
        scaled = f"k = {plan['scale']:g} times the reference" if plan["scale"] != 1 else ""
        facts["global batch"] = Fact(f"{plan['global_batch_size']:,} samples", scaled)
    if manifest:
        total, trained = manifest["parameters"]["total"], manifest["parameters"]["trained"]
        facts["parameters"] = Fact(_millions(total), "" if trained == total else f"{_millions(trained)} trained")
        processes = "1 process" if manifest["world_size"] == 1 else f"{manifest['world_size']:,} processes"
        facts["device"] = Fact(manifest["device"], f"{processes}, {manifest['precision']}")
    return facts


def table_of(runs: Sequence[RunData]) -> list[tuple[str, list[str]]]:
    """The facts of several runs side by side: (name, one cell for each run)."""
    columns = [facts_of(run) for run in runs]
    names = dict.fromkeys(name for column in columns for name in column)
    return [(name, [str(column.get(name, "-")) for column in columns]) for name in names]


def results_of(run: RunData) -> list[tuple[str, str]]:
    """The metrics of a finished run: (name, value)."""
    return [(name, number(value)) for name, value in sorted(run.results.items())]


def environment_of(run: RunData) -> list[tuple[str, str]]:
    """Where the run was made: device, versions, and the environment variables that its numbers depend on."""
    manifest = run.manifest
    if not manifest:
        return []
    begun = datetime.fromisoformat(manifest["begun"]).strftime("%Y-%m-%d %H:%M UTC")
    rows = [("begun", begun), ("device", manifest["device"]), ("precision", manifest["precision"])]
    rows += [("processes", str(manifest["world_size"])), ("threads per process", str(manifest["threads_per_process"]))]
    return [*rows, *manifest["versions"].items(), *manifest["environment"].items()]


def number(value: object) -> str:
    """A number with five digits; any other value as text.

    >>> number(0.000123456), number(1234567), number("text")
    ('0.00012346', '1,234,567', 'text')
    """
    if isinstance(value, float):
        return f"{value:,.5g}" if 1e-5 <= abs(value) < 1e5 or not math.isfinite(value) else f"{value:.4e}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _progress(run: RunData) -> Fact:
    return Fact(f"{run.updates:,}" + ("" if run.updates >= run.total_steps else f" of {run.total_steps:,}"))


def _losses(run: RunData) -> dict[str, Fact]:
    """The last losses, and the lowest validation loss when it was not the last."""
    train, validation = run.series("loss"), [value for _, value in run.series("eval_loss")]
    final = run.results.get("eval_loss", validation[-1] if validation else None)
    facts = {}
    if final is not None:
        lowest = min([*validation, final])
        facts["validation loss"] = Fact(number(float(final)), f"lowest {number(lowest)}" if lowest < final else "")
    if train:
        facts["training loss"] = Fact(number(train[-1][1]))
    return facts


def _millions(count: int) -> str:
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return str(count)
