"""What happened in a run's warmup, in plain words, from what was logged. Standard library only.

The rule was calibrated on the cells of docs/predictors.md, which also shows where it misses.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from hfwarmup.measuring.spikes import label_spikes

READ_AT = 0.10
"""Share of the run after which the warmup is judged: by then the damage of a too-short one shows."""
LOW_RANK = 0.5
"""Effective rank over its start below which the representation counts as collapsed."""
LONG_WARMUP = 0.25
"""Share of the run that the next warmup is raised to; one as long as this is not lengthened, the peak is lowered."""
RANK, RANK_RATIO = "warmup/effective_rank", "warmup/effective_rank_ratio"
MAX_UPDATE = "warmup/max_relative_update"
LARGE_UPDATE = 0.1
"""Relative update of a weight matrix that is worth naming as evidence."""


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What a run's log says about its warmup."""

    verdict: Literal["too steep", "fine", "failed", "unclear"]
    summary: str
    """One line."""
    evidence: tuple[str, ...]
    """One line each: what was measured, and when."""
    proposal: str
    """The next warmup and peak, with the reason; empty where nothing is to change."""

    def to_json(self) -> str:
        """As JSON, for `diagnosis.json` of a run's folder."""
        return json.dumps(asdict(self), indent=2)

    def __str__(self) -> str:
        lines = [f"warmup {self.verdict}: {self.summary}", *(f"  {line}" for line in self.evidence)]
        return "\n".join([*lines, *([f"  next: {self.proposal}"] if self.proposal else [])])


def diagnose(entries: Sequence[Mapping[str, Any]], *, total_steps: int, warmup_steps: int, peak_lr: float) -> Diagnosis:
    """Judge the warmup of a run, finished or not, from its Trainer's log with the values of a WarmupMonitor.

    The rule reads the effective rank of the last hidden state on a probe batch, over its value before the first update,
    when 10% of the run is done: below 0.5 the early updates have destroyed what the random weights could tell apart,
    and the final loss pays for it, while the early loss does not show it. It abstains where no rank was measured.

    Args:
        entries: the log, such as `trainer.state.log_history` or the lines of `log.jsonl`.
        total_steps: updates that the run is planned to have.
        warmup_steps: updates to the peak.
        peak_lr: the peak learning rate.

    >>> log = [{"step": 10, "loss": 6.0, "warmup/effective_rank": 7.0, "warmup/effective_rank_ratio": 0.125}]
    >>> print(diagnose(log, total_steps=100, warmup_steps=30, peak_lr=1e-2))
    warmup too steep: too short for a peak of 0.01: the representation had collapsed at 10% of the run
      effective rank 56 -> 7 by update 10, 0.12 of its start (a ramp gentle enough keeps 0.5)
      next: peak 0.0033 with a warmup of 30 updates
    """
    failure = _failure(entries)
    if failure:
        return Diagnosis(verdict="failed", summary=failure, evidence=(), proposal=_lower_peak(peak_lr, warmup_steps))
    ranks = [(entry["step"], *_rank(entry)) for entry in entries if RANK_RATIO in entry]
    early = [row for row in ranks if row[0] <= math.ceil(READ_AT * total_steps)]
    steps_done = max((entry.get("step", 0) for entry in entries), default=0)
    if not early or steps_done < READ_AT * total_steps:
        return _unclear(steps_done, total_steps, has_ranks=bool(ranks))
    evidence = (_rank_line(*early[-1]), *_further_evidence(entries))
    if early[-1][2] >= LOW_RANK:
        return Diagnosis(
            verdict="fine",
            summary=f"the representation was intact when {READ_AT:.0%} of the run was done",
            evidence=evidence,
            proposal="",
        )
    return _too_steep(evidence, total_steps, warmup_steps, peak_lr)


def _rank(entry: Mapping[str, Any]) -> tuple[float, float]:
    return float(entry[RANK]), float(entry[RANK_RATIO])


def _rank_line(step: int, rank: float, ratio: float) -> str:
    fall = f"{rank / ratio:.0f} -> {rank:.0f}" if ratio else "-> 0"
    return f"effective rank {fall} by update {step}, {ratio:.2f} of its start (a ramp gentle enough keeps {LOW_RANK:g})"


def _failure(entries: Sequence[Mapping[str, Any]]) -> str:
    for entry in entries:
        if "stopped" in entry:
            return f"stopped at update {entry['step']}: {entry['stopped']}"
        if not math.isfinite(float(entry.get("loss", 0.0))):
            return f"the loss was not finite at update {entry['step']}"
    return ""


def _further_evidence(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """What does not decide and helps to understand: large updates, spikes, clipping."""
    lines = []
    largest = max((float(entry[MAX_UPDATE]) for entry in entries if MAX_UPDATE in entry), default=0.0)
    if largest >= LARGE_UPDATE:
        lines.append(f"one update moved a weight matrix by {largest:.0%} of its size")
    logged = [entry for entry in entries if "loss" in entry]
    for spike in label_spikes([float(entry["loss"]) for entry in logged]):
        step, loss = logged[spike.index]["step"], logged[spike.index]["loss"]
        back = "" if spike.recovered_index is None else f", back by update {logged[spike.recovered_index]['step']}"
        lines.append(f"a spike of the loss at update {step}, to {float(loss):.2f}{back} ({spike.kind})")
    return lines


def _unclear(steps_done: int, total_steps: int, *, has_ranks: bool) -> Diagnosis:
    if steps_done < READ_AT * total_steps:
        summary = f"only {steps_done} of {total_steps} updates are logged; ask again when {READ_AT:.0%} are done"
    elif has_ranks:
        summary = f"no effective rank was measured in the first {READ_AT:.0%} of the run"
    else:
        summary = "no effective rank is in the log; train with watch_warmup(trainer)"
    return Diagnosis(verdict="unclear", summary=summary, evidence=(), proposal="")


def _too_steep(evidence: tuple[str, ...], total_steps: int, warmup_steps: int, peak_lr: float) -> Diagnosis:
    lower = _lower_peak(peak_lr, warmup_steps)
    longer = f"warmup {math.ceil(LONG_WARMUP * total_steps)} updates ({LONG_WARMUP:.0%} of the run) at the same peak"
    return Diagnosis(
        verdict="too steep",
        summary=f"too short for a peak of {peak_lr:.2g}: the representation had collapsed at {READ_AT:.0%} of the run",
        evidence=evidence,
        proposal=lower if warmup_steps >= LONG_WARMUP * total_steps else f"{longer}; if the rank still falls, {lower}",
    )


def _lower_peak(peak_lr: float, warmup_steps: int) -> str:
    return f"peak {peak_lr / 3:.2g} with a warmup of {warmup_steps} updates"
