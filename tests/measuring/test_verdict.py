"""What is said of logs that are made by hand."""

from __future__ import annotations

import math

import pytest

from hfwarmup.measuring.verdict import diagnose


def log_of(updates, every=5, **more):
    """A log entry every 5 updates, the loss falling, with these largest relative updates so far."""
    return [
        {"step": every * (number + 1), "loss": 8.0 - 0.1 * number, "warmup/max_relative_update": largest, **more}
        for number, largest in enumerate(updates)
    ]


RUN = {"total_steps": 100, "warmup_steps": 2, "peak_lr": 1e-2}


@pytest.mark.parametrize(
    ("updates", "verdict"),
    [
        ([0.01, 0.029, 0.5], "fine"),  # what comes after 10% of the run is not the warmup's
        ([0.01, 0.03, 0.03], "too steep"),
        ([0.5], "unclear"),  # 5 of 100 updates
        ([], "unclear"),
    ],
)
def test_the_largest_update_of_the_first_tenth_decides_after_a_short_warmup(updates, verdict):
    assert diagnose(log_of(updates), **RUN).verdict == verdict


@pytest.mark.parametrize(
    ("updates", "verdict"),
    [
        ([0.001] * 3 + [0.5] * 3, "too steep"),  # the ramp is longer than a tenth: it is read to its end at update 30
        ([0.001] * 6 + [0.5], "fine"),
        ([0.001] * 5, "unclear"),  # gentle so far
        ([0.5] * 3, "too steep"),  # no need to wait
    ],
)
def test_a_longer_warmup_is_judged_when_it_is_over(updates, verdict):
    said = diagnose(log_of(updates), **RUN | {"warmup_steps": 30})
    assert said.verdict == verdict
    if verdict == "unclear":
        assert said.summary == "only 25 of 100 updates are logged; ask again after update 30"


@pytest.mark.parametrize(
    ("largest", "warmup_steps", "proposal"),
    [
        # from a tenth of the run on, the learning rate at that tenth goes with 1 / warmup
        (0.06, 2, "warmup 20 updates (20% of the run) at the same peak, a ramp 2.0 times as gentle"),
        (0.06, 20, "warmup 40 updates (40% of the run) at the same peak, a ramp 2.0 times as gentle"),
        (0.03, 10, "warmup 10 updates (10% of the run) at the same peak, a ramp 1.0 times as gentle"),
        # 10 x 10% = 100% of the run is too long: half of it, to half the peak
        (0.3, 10, "warmup 50 updates (50% of the run) at a peak of 0.005, a ramp 10.0 times as gentle"),
    ],
)
def test_the_next_ramp_is_as_many_times_gentler_as_the_update_was_too_large(largest, warmup_steps, proposal):
    said = diagnose(log_of([largest] * 4), **RUN | {"warmup_steps": warmup_steps})
    assert said.summary == f"too short for a peak of 0.01, by {max(10, warmup_steps)}% of the run"
    assert said.proposal == proposal


def test_the_evidence_names_update_rank_and_spikes():
    entries = log_of([0.305] * 20)
    for step, rank in ((5, 45.0), (10, 7.0), (15, 20.0)):
        entries[step // 5 - 1] |= {"warmup/effective_rank": rank, "warmup/effective_rank_ratio": rank / 50}
    entries[10]["loss"] = 20.0
    assert diagnose(entries, **RUN).evidence == (
        "one update moved a weight matrix by 30.5% of its size (a ramp gentle enough stays below 3%)",
        "effective rank 7 at update 10, its lowest: 14% of its start",
        "a spike of the loss at update 55, to 20.00, back by update 60 (catapult)",
    )


def test_a_run_that_was_stopped_has_failed():
    entries = [*log_of([0.01]), {"step": 7, "stopped": "the loss or its gradient was not finite"}]
    said = diagnose(entries, **RUN)
    assert (said.verdict, said.summary) == (
        "failed", "stopped at update 7: the loss or its gradient was not finite"
    )  # fmt: skip
    nan = diagnose([{"step": 3, "loss": math.nan}], **RUN)
    assert (nan.verdict, nan.summary) == ("failed", "the loss was not finite at update 3")


@pytest.mark.parametrize(
    ("entries", "summary"),
    [
        (log_of([0.01]), "only 5 of 100 updates are logged; ask again after update 10"),
        ([{"step": 50, "loss": 5.0}], "nothing was measured; train with watch_warmup(trainer)"),
        (log_of([0.01], every=50), "nothing was measured in the first 10 updates"),
    ],
)
def test_where_the_evidence_is_thin_it_abstains_and_says_why(entries, summary):
    said = diagnose(entries, **RUN)
    assert (said.verdict, said.summary, said.proposal) == ("unclear", summary, "")
