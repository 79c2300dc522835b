"""Spikes in losses that are made by hand."""

from __future__ import annotations

import math
import random

import pytest

from hfwarmup.measuring.spikes import Spike, find_spikes, label_spikes, robust_z_scores, spike_score


def falling_loss(length=300, noise=0.02, seed=0):
    """From 8 towards 3 nats, as a loss falls, with some noise."""
    draw = random.Random(seed)
    return [3 + 5 * math.exp(-step / 60) + draw.gauss(0, noise) for step in range(length)]


def test_a_falling_noisy_loss_has_no_spike():
    assert [find_spikes(falling_loss(seed=seed)) for seed in range(20)] == [[]] * 20


@pytest.mark.parametrize("step", [20, 57, 250])
def test_a_spike_is_found_at_its_top(step):
    losses = falling_loss()
    losses[step - 1] += 1.0
    losses[step] += 3.0
    losses[step + 1] += 1.5
    assert find_spikes(losses) == [step]


def test_one_spike_does_not_hide_the_next():
    losses = falling_loss()
    for step in (100, 120):
        losses[step] += 3.0
    assert find_spikes(losses) == [100, 120]


def test_a_loss_that_is_not_finite_is_a_spike():
    losses = falling_loss()
    losses[80] = math.nan
    assert find_spikes(losses) == [80]
    assert robust_z_scores(losses)[80] == math.inf


def test_too_little_history_says_nothing():
    assert find_spikes([1.0, 100.0, 1.0, 1.0, 1.0]) == []
    assert all(map(math.isnan, robust_z_scores([1.0, 100.0, 1.0, 1.0, 1.0])))


def test_a_catapult_comes_back_and_a_failure_does_not():
    recovering, failing = falling_loss(), falling_loss()
    recovering[100:105] = [6.0, 5.5, 5.0, 4.5, 4.2]
    failing[100:] = [7.5] * len(failing[100:])
    (catapult,) = label_spikes(recovering)
    assert (catapult.index, catapult.kind) == (100, "catapult")
    assert 104 < catapult.recovered_index < 115
    assert label_spikes(failing)[0] == Spike(index=100, kind="failure", recovered_index=None)


def test_a_spike_at_the_end_stays_open():
    losses = falling_loss()
    losses[-3:] = [7.0, 6.8, 6.7]
    assert [spike.kind for spike in label_spikes(losses)] == ["open"]


def test_the_spike_score_counts_seven_sigma():
    values = [1.0, 1.1, 0.9, 1.0, 1.1, 0.9] * 10
    assert spike_score(values) == 0.0
    values[40] = 5.0
    assert spike_score(values) == 1 / 60
    assert spike_score([]) == 0.0
