"""Which charts there are, and that thinning a series hides no extreme."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_folders import SPIKE_AT

from hfwarmup.reporting.panels import MAX_POINTS, make_panels, thin
from hfwarmup.run_folder.data import read_run, read_runs


def titles(runs):
    return [panel.title for panel in make_panels(runs)]


def test_the_charts_of_one_run(make_run):
    assert titles([read_run(make_run())]) == ["Learning rate", "Loss", "Gradient norm"]


def test_what_was_measured_is_shown_too(make_run):
    assert titles([read_run(make_run(measured=True))])[3:] == ["Effective rank", "Max relative update"]


def test_several_runs_have_their_losses_apart(make_run):
    runs = read_runs([make_run("a"), make_run("b", steps=80)])
    assert titles(runs) == ["Learning rate", "Training loss", "Validation loss", "Gradient norm"]
    assert [line.run for line in make_panels(runs)[1].lines] == [0, 1]


def test_a_run_without_gradient_norms_has_no_chart_of_them(make_run):
    folder = make_run()
    text = (folder / "log.jsonl").read_text().replace("grad_norm", "other")
    (folder / "log.jsonl").write_text(text)
    assert titles([read_run(folder)]) == ["Learning rate", "Loss"]


def test_each_evaluation_set_has_its_line(make_run):
    folder = make_run()
    text = (folder / "log.jsonl").read_text().replace('"eval_loss"', '"eval_code_loss"', 1)
    (folder / "log.jsonl").write_text(text)
    labels = [line.label for line in make_panels([read_run(folder)])[1].lines]
    assert labels == ["training", "validation, code", "validation"]


@pytest.mark.parametrize("title", ["Loss", "Gradient norm"])
def test_a_spike_is_marked_where_it_is(title, make_run):
    panel = next(panel for panel in make_panels([read_run(make_run())]) if panel.title == title)
    assert [update for update, _ in panel.lines[0].spikes] == [SPIKE_AT]


def test_a_series_of_many_points_says_that_it_was_thinned(make_run):
    panel = make_panels([read_run(make_run(steps=5000))])[1]
    assert panel.note == "5,000 points; the chart shows the lowest and the highest of every 5."
    assert make_panels([read_run(make_run("short"))])[1].note == ""


VALUES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300)


@given(values=VALUES, limit=st.integers(2, 100))
def test_thinning_keeps_the_extremes_the_order_and_only_what_was_there(values, limit):
    points = list(enumerate(values))
    shown = thin(points, limit)
    assert len(shown) <= max(limit + 2, len(points) if len(points) <= limit else 0)
    assert set(shown) <= set(points)
    assert shown == sorted(shown)
    assert {min(values), max(values)} <= {value for _, value in shown}


def test_a_short_series_is_shown_as_it_is():
    points = [(update, math.nan if update == 3 else 1.0) for update in range(MAX_POINTS)]
    assert thin(points) is points
