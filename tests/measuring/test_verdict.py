"""What is said of logs that are made by hand."""

from __future__ import annotations

import json
import math

import pytest

from hfwarmup.measuring.verdict import diagnose


def log_of(ratios, start=50.0, every=5, **more):
    """A log entry every 5 updates, the loss falling, with these effective ranks over their start."""
    return [
        {
            "step": every * (number + 1),
            "loss": 8.0 - 0.1 * number,
            "warmup/effective_rank": start * ratio,
            "warmup/effective_rank_ratio": ratio,
            "warmup/max_relative_update": 0.01,
            **more,
        }
        for number, ratio in enumerate(ratios)
    ]


RUN = {"total_steps": 100, "warmup_steps": 2, "peak_lr": 1e-2}


@pytest.mark.parametrize(
    ("ratios", "verdict"),
    [
        ([0.9, 0.51, 0.1, 0.1], "fine"),  # what comes after 10% of the run is the model's own way
        ([0.9, 0.49, 0.8, 0.9], "too steep"),
        ([0.1, 0.9], "fine"),  # the last measurement up to 10% counts
        ([0.9], "unclear"),  # 5 of 100 updates
        ([], "unclear"),
    ],
)
def test_the_rank_at_a_tenth_of_the_run_decides(ratios, verdict):
    assert diagnose(log_of(ratios), **RUN).verdict == verdict


def test_a_short_warmup_is_lengthened_and_a_long_one_keeps_its_length():
    short = diagnose(log_of([0.3, 0.2]), **RUN)
    assert short.summary == "too short for a peak of 0.01: the representation had collapsed at 10% of the run"
    assert short.proposal == (
        "warmup 25 updates (25% of the run) at the same peak; if the rank still falls, "
        "peak 0.0033 with a warmup of 2 updates"
    )
    long = diagnose(log_of([0.3, 0.2]), **RUN | {"warmup_steps": 30})
    assert long.proposal == "peak 0.0033 with a warmup of 30 updates"


def test_the_evidence_names_rank_update_and_spikes():
    entries = log_of([0.9, 0.14, *[0.1] * 18], **{"warmup/max_relative_update": 0.305})
    entries[10]["loss"] = 20.0
    assert diagnose(entries, **RUN).evidence == (
        "effective rank 50 -> 7 by update 10, 0.14 of its start (a ramp gentle enough keeps 0.5)",
        "one update moved a weight matrix by 30% of its size",
        "a spike of the loss at update 55, to 20.00, back by update 60 (catapult)",
    )


def test_a_run_that_was_stopped_has_failed():
    entries = [*log_of([0.9]), {"step": 7, "stopped": "the loss or its gradient was not finite"}]
    said = diagnose(entries, **RUN)
    assert (said.verdict, said.summary) == (
        "failed", "stopped at update 7: the loss or its gradient was not finite"
    )  # fmt: skip
    nan = diagnose([{"step": 3, "loss": math.nan}], **RUN)
    assert (nan.verdict, nan.summary) == ("failed", "the loss was not finite at update 3")


@pytest.mark.parametrize(
    ("entries", "summary"),
    [
        (log_of([0.9]), "only 5 of 100 updates are logged; ask again when 10% are done"),
        ([{"step": 50, "loss": 5.0}], "no effective rank is in the log; train with watch_warmup(trainer)"),
        (log_of([0.9], every=50), "no effective rank was measured in the first 10% of the run"),
    ],
)
def test_where_the_evidence_is_thin_it_abstains_and_says_why(entries, summary):
    said = diagnose(entries, **RUN)
    assert (said.verdict, said.summary, said.proposal) == ("unclear", summary, "")


def test_a_rank_of_zero_has_no_start():
    assert diagnose(log_of([0.0, 0.0]), **RUN).evidence[0].startswith("effective rank -> 0 by update 10, 0.00")


def test_as_json_it_has_what_the_report_reads():
    read = json.loads(diagnose(log_of([0.9, 0.9]), **RUN).to_json())
    assert set(read) == {"verdict", "summary", "evidence", "proposal"}
    assert read["verdict"] == "fine"
