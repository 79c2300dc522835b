"""What happened in a run's warmup, in plain words, from what was logged. Standard library only.

The rule was calibrated on three of the four kinds of run in docs/predictors.md, which shows where it misses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hfwarmup.measuring.spikes import label_spikes

READ_AT = 0.10
"""Share of the run after which a warmup is judged; a longer warmup is judged when it ends."""
LARGE_UPDATE = 0.03
"""Relative size ||dW|| / ||W|| of one update of one weight matrix, from which a gentler ramp paid off."""
LONGEST_WARMUP = 0.5
"""Longest warmup to propose, as a share of the run; beyond it a lower peak is proposed."""
MEASURED = "warmup/"
"""Prefix of the measured values in a log."""
RANK, RANK_RATIO, MAX_UPDATE = (
    MEASURED + name for name in ("effective_rank", "effective_rank_ratio", "max_relative_update")
)


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

    def __str__(self) -> str:
        lines = [f"warmup {self.verdict}: {self.summary}", *(f"  {line}" for line in self.evidence)]
        return "\n".join([*lines, *([f"  next: {self.proposal}"] if self.proposal else [])])


def diagnose(entries: Sequence[Mapping[str, Any]], *, total_steps: int, warmup_steps: int, peak_lr: float) -> Diagnosis:
    """Judge the warmup of a run, finished or not, from its Trainer's log with the values of a WarmupMonitor.

    The rule reads the largest relative update of a weight matrix in the warmup, or in the first 10% of the run if that
    is longer. From 3% on, a gentler ramp (longer, or to a lower peak) ended at a lower loss. The early loss does not
    show it. If nothing was measured, or if the warmup is not over and was gentle so far, the verdict is unclear.

    Args:
        entries: the log, such as `trainer.state.log_history` or the lines of `log.jsonl`.
        total_steps: updates that the run is planned to have.
        warmup_steps: updates to the peak.
        peak_lr: the peak learning rate.

    >>> log = [{"step": 10, "loss": 6.0, "warmup/max_relative_update": 0.09}]
    >>> print(diagnose(log, total_steps=100, warmup_steps=2, peak_lr=1e-2))
    warmup too steep: too short for a peak of 0.01, by 10% of the run
      one update moved a weight matrix by 9.0% of its size (a ramp gentle enough stays below 3%)
      next: warmup 30 updates (30% of the run) at the same peak, a ramp 3.0 times as gentle
    """
    failure = _failure(entries)
    if failure:
        proposal = f"peak {peak_lr / 3:.2g} with a warmup of {warmup_steps} updates"
        return Diagnosis(verdict="failed", summary=failure, evidence=_evidence(entries), proposal=proposal)
    read_until = math.ceil(max(READ_AT * total_steps, warmup_steps))
    early = [entry for entry in entries if MAX_UPDATE in entry and entry["step"] <= read_until]
    steps_done = max((entry.get("step", 0) for entry in entries), default=0)
    largest = float(early[-1][MAX_UPDATE]) if early else 0.0
    is_steep = largest >= LARGE_UPDATE
    if not early or steps_done < (READ_AT * total_steps if is_steep else read_until):
        return _unclear(entries, steps_done, total_steps=total_steps, read_until=read_until)
    fault = f"too short for a peak of {peak_lr:.2g}" if is_steep else "no update was too large"
    limit = f"(a ramp gentle enough stays below {LARGE_UPDATE:.0%})"
    return Diagnosis(
        verdict="too steep" if is_steep else "fine",
        summary=f"{fault}, by {min(read_until, steps_done) / total_steps:.0%} of the run",
        evidence=(f"one update moved a weight matrix by {largest:.1%} of its size {limit}", *_evidence(entries)),
        proposal=_gentler(largest, total_steps, warmup_steps, peak_lr) if is_steep else "",
    )


def _gentler(largest: float, total_steps: int, warmup_steps: int, peak_lr: float) -> str:
    """A gentler ramp: it makes learning rates, and with them relative updates, as small as they must be."""
    times = largest / LARGE_UPDATE
    needed, longest = times * max(warmup_steps, READ_AT * total_steps), LONGEST_WARMUP * total_steps
    steps = math.ceil(min(needed, longest))
    peak = "the same peak" if needed <= longest else f"a peak of {peak_lr * longest / needed:.2g}"
    return (
        f"warmup {steps} updates ({steps / total_steps:.0%} of the run) at {peak}, a ramp {times:.1f} times as gentle"
    )


def _failure(entries: Sequence[Mapping[str, Any]]) -> str:
    for entry in entries:
        if "stopped" in entry:
            return f"stopped at update {entry['step']}: {entry['stopped']}"
        if not math.isfinite(float(entry.get("loss", 0.0))):
            return f"the loss was not finite at update {entry['step']}"
    return ""


def _evidence(entries: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Lines that do not decide but help to understand: the representation's rank, and spikes."""
    lines = []
    ranks = [entry for entry in entries if RANK_RATIO in entry]
    if ranks:
        lowest = min(ranks, key=lambda entry: float(entry[RANK_RATIO]))
        lines.append(
            f"effective rank {float(lowest[RANK]):.0f} at update {lowest['step']}, its lowest: "
            f"{float(lowest[RANK_RATIO]):.0%} of its start"
        )
    logged = [entry for entry in entries if "loss" in entry]
    for spike in label_spikes([float(entry["loss"]) for entry in logged]):
        step, loss = logged[spike.index]["step"], logged[spike.index]["loss"]
        back = "" if spike.recovered_index is None else f", back by update {logged[spike.recovered_index]['step']}"
        lines.append(f"a spike of the loss at update {step}, to {float(loss):.2f}{back} ({spike.kind})")
    return tuple(lines)


def _unclear(entries: Sequence[Mapping[str, Any]], steps_done: int, *, total_steps: int, read_until: int) -> Diagnosis:
    if steps_done < read_until:
        summary = f"only {steps_done} of {total_steps} updates are logged; ask again after update {read_until}"
    elif any(MAX_UPDATE in entry for entry in entries):
        summary = f"nothing was measured in the first {read_until} updates"
    else:
        summary = "nothing was measured; train with watch_warmup(trainer)"
    return Diagnosis(verdict="unclear", summary=summary, evidence=(), proposal="")
