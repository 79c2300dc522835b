"""The critical learning rate where it is known, what its search may cost, and the range test."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hfwarmup.measuring.critical_lr import CriticalLr, critical_lr, saved_steps
from hfwarmup.measuring.range_test import RangeTest, lr_range_test


def parabola(eta_c: float):
    """A loss along a line that falls, and is back at its first value at eta_c."""
    return lambda lr: 1.0 + lr * (lr - eta_c) / eta_c**2


@given(eta_c=st.floats(1e-6, 1e2), start=st.floats(1e-5, 10.0))
def test_the_bracket_holds_the_critical_learning_rate(eta_c, start):
    found = critical_lr(parabola(eta_c), start=start, upper=1e6)
    assert found.lower < eta_c * (1 + 1e-9)
    assert found.upper > eta_c * (1 - 1e-9)
    assert found.forwards <= 12


@given(eta_c=st.floats(1e-6, 1e2), ratio=st.floats(1 / 128, 128))
def test_a_cold_search_is_exact_to_its_width_within_two_decades(eta_c, ratio):
    found = critical_lr(parabola(eta_c), start=eta_c * ratio, upper=1e6)
    assert 1 - found.lower / found.upper <= 1 / 8
    assert found.lr == pytest.approx(eta_c, rel=1 / 8)


@given(eta_c=st.floats(1e-6, 1e2), drift=st.floats(0.75, 1.33))
def test_a_warm_search_follows_a_drift_in_six_forwards(eta_c, drift):
    found = critical_lr(parabola(eta_c * drift), start=eta_c, upper=1e6, warm=True)
    assert found.forwards <= 6
    assert found.lr == pytest.approx(eta_c * drift, rel=0.1)


def test_a_loss_that_always_falls_has_none():
    found = critical_lr(lambda lr: -lr, start=1.0, upper=100.0)
    assert (found.lr, found.lower, found.upper, found.found) == (math.inf, 100.0, math.inf, False)


def test_a_loss_that_never_falls_has_none():
    found = critical_lr(lambda lr: lr, start=1.0, upper=100.0)
    assert (found.lr, found.lower, found.found) == (0.0, 0.0, False)


def test_a_loss_that_is_not_finite_has_risen():
    found = critical_lr(lambda lr: -lr if lr < 0.3 else math.nan, start=1.0, upper=100.0)
    assert found.lower < 0.3 <= found.upper


def test_the_first_point_is_the_loss_at_the_weights():
    found = critical_lr(parabola(1.0), start=0.5, upper=10.0)
    assert found.points[0] == (0.0, 1.0)
    assert found.points[1][0] == 0.5
    assert len(found.points) == found.forwards


@pytest.mark.parametrize("setting", ["start", "upper"])
def test_an_impossible_end_is_an_error(setting):
    with pytest.raises(ValueError, match=rf"^{setting}=0: give a finite learning rate above 0\.$"):
        critical_lr(parabola(1.0), **{"start": 1.0, "upper": 2.0, setting: 0})


def found_at(lr: float) -> CriticalLr:
    return CriticalLr(lr=lr, lower=lr, upper=lr, points=((0.0, 1.0),) * 8)


@pytest.mark.parametrize(
    ("eta_c", "saved"),
    [
        (2.5e-4, 25 - 4),  # a quarter of the way up
        (5e-3, 100 - 4),  # above the peak: the whole warmup
        (math.inf, 100 - 4),
        (0.0, -4),  # nothing is saved, and the search is paid
    ],
)
def test_the_saved_steps(eta_c, saved):
    assert saved_steps(found_at(eta_c), peak_lr=1e-3, warmup_steps=100) == saved


def quadratic_descent(curvature: float):
    x = 1.0

    def update_at(lr: float) -> float:
        nonlocal x
        loss = curvature * x * x / 2
        x -= lr * curvature * x
        return loss

    return update_at


@pytest.mark.parametrize("curvature", [0.7, 7.0, 70.0])
def test_the_range_test_sees_the_loss_turn_at_two_over_the_curvature(curvature):
    found = lr_range_test(quadratic_descent(curvature), low=1e-5, high=100, updates=200, smoothing=0.0)
    assert found.lowest == pytest.approx(2 / curvature, rel=0.1)
    assert found.steepest < found.lowest
    assert found.points[-1][0] < 100  # it stops when the loss has risen


@pytest.mark.parametrize("shift", [-1.5, -10.0])
def test_a_loss_of_any_sign_has_the_same_range(shift):
    """The quadratic begins at 1.5, so one of them begins at 0 and the other is negative until it diverges."""
    settings = {"low": 1e-5, "high": 100, "updates": 200, "smoothing": 0.0}
    descend, shifted = quadratic_descent(3.0), quadratic_descent(3.0)
    plain = lr_range_test(descend, **settings)
    moved = lr_range_test(lambda lr: shifted(lr) + shift, **settings)
    assert moved.steepest == plain.steepest
    assert 1 / 3 < moved.lowest <= plain.lowest  # beside the shift the last digits before 2 / 3 are rounded away
    assert moved.points[-1][0] < 10


@pytest.mark.parametrize(
    ("losses", "seen"),
    [
        ([4.0, 2.0, 7.9, 8.1], 3),  # four times the lowest
        ([-1.0, -2.0, 3.9, 4.1], 3),  # lowest + 3 |lowest|
        ([1.0, -0.01, 0.9, 1.1], 3),  # around zero: the first value
        ([1.0, math.inf, 1.0], 1),
    ],
)
def test_it_stops_where_the_loss_has_risen(losses, seen):
    given = iter(losses)
    found = lr_range_test(lambda _: next(given), low=1e-5, high=1, updates=len(losses), smoothing=0.0)
    assert [loss for _, loss in found.points] == losses[:seen]


def test_a_loss_that_only_rises_has_no_range():
    losses = iter(range(1, 100))
    found = lr_range_test(lambda _: float(next(losses)), low=1e-5, high=1, updates=20)
    assert math.isnan(found.steepest)
    assert math.isnan(found.lowest)


NOISE = [1.8, 0.8, 0.9, 0.5, 1.7, 0.8, 1.4, 2.0, 1.9, 0.9]  # of single batches: 1.27 on average
RATES = [1e-5 * 10 ** (update / 10) for update in range(50)]


def range_of(losses) -> RangeTest:
    given = iter(losses)
    return lr_range_test(lambda _: next(given), low=RATES[0], high=RATES[-1], updates=len(losses))


def test_the_noise_of_the_first_batches_is_no_fall():
    """The loss falls from update 30 to 39 and stays; the smoothed one moves most at update 1."""
    losses = NOISE * 3 + [loss * (1 - n / 10) for n, loss in enumerate(NOISE)] + [0.3, 0.1] * 5
    found = range_of(losses)
    (first, second), (third, fourth) = ([loss for _, loss in found.points[at : at + 2]] for at in (0, 30))
    assert first - second > 4 * abs(third - fourth)
    assert RATES[27] < found.steepest < RATES[39]
    assert not found.open_below


@pytest.mark.parametrize(
    ("losses", "is_open"),
    [
        ([50 * 0.9**t for t in range(50)], (True, True)),
        ([50 * 0.9 ** min(t, 20) + max(0, t - 30) for t in range(50)], (True, False)),
        ([9.0] * 35 + [9 - t / 2 for t in range(15)], (False, True)),
        ([9.0] * 20 + [9 - t / 2 for t in range(15)] + [1.5 + t for t in range(15)], (False, False)),
    ],
)
def test_a_fall_at_an_end_of_the_range_is_open(losses, is_open):
    """Falling from the start or not, and at the end or not."""
    found = range_of(losses)
    assert (found.open_below, found.open_above) == is_open


def test_smoothing_is_unbiased_from_the_first_update_on():
    found = lr_range_test(lambda _: 3.0, low=1e-5, high=1, updates=5)
    assert [loss for _, loss in found.points] == pytest.approx([3.0] * 5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"low": 1.0, "high": 1.0, "updates": 9},
            r"^low=1.0, high=1.0: give finite learning rates with 0 < low < high\.$",
        ),
        ({"low": 0.1, "high": 1.0, "updates": 2}, r"^updates=2: give 3 or more\.$"),
    ],
)
def test_an_impossible_range_is_an_error(settings, message):
    with pytest.raises(ValueError, match=message):
        lr_range_test(lambda _: 1.0, **settings)
