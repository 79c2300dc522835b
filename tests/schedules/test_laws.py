"""Laws of every warmup with every decay, over generated options, peaks and lengths."""

from __future__ import annotations

import math
import sys
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import hfwarmup
from hfwarmup import get_schedule
from hfwarmup.schedules.decay_shapes import DECAY_SHAPES
from hfwarmup.schedules.warmup_shapes import WARMUP_SHAPES

FAR = 10**9
BETA2 = ("untuned_linear", "untuned_exponential", "radam", "gi")
FROM_ONE = ("noam", *BETA2)  # counted from 1: their 0 is before the first update
ZERO_BASED = [warmup for warmup in WARMUP_SHAPES if warmup not in FROM_ONE]
REACHES_FLOOR = ("linear", "cosine", "polynomial", "exponential", "wsd", "restarts")
few = settings(max_examples=120, deadline=None, derandomize=True)


# The formulas of design.md once more, in plain mathematics.


def rise(warmup: str, step: int, eta: float, eta0: float, length: int, o: dict[str, Any]) -> float:
    """The learning rate during the warmup, at the 0-based update `step`."""
    p = step / length
    return {
        "linear": lambda: eta0 + (eta - eta0) * p,
        "gradual": lambda: eta0 + (eta - eta0) * p,
        "exponential": lambda: eta * (eta0 / eta) ** (1 - p),
        "cosine": lambda: eta0 + (eta - eta0) * (1 - math.cos(math.pi * p)) / 2,
        "polynomial": lambda: eta0 + (eta - eta0) * p ** o.get("power", 2.0),
        "saturating": lambda: eta0 + (eta - eta0) * saturation(step, length, o.get("tau") or length / 5),
        "constant": lambda: eta0,
        "noam": lambda: eta * (step + 1) / length,
        "untuned_linear": lambda: eta * min(1.0, (1 - o["beta2"]) * (step + 1) / 2),
        "untuned_exponential": lambda: eta * (1 - math.exp(-(1 - o["beta2"]) * (step + 1))),
        "radam": lambda: eta * rectification(step + 1, o["beta2"]),
        "gi": lambda: eta * math.sqrt(1 - o["beta2"] ** (step + 1)),
    }[warmup]()


def saturation(step: int, length: int, tau: float) -> float:
    return math.expm1(-step / tau) / math.expm1(-length / tau)


def rectification(count: int, beta2: float) -> float:
    def rho(t: int) -> float:
        return rho_inf - 2 * t * beta2**t / (1 - beta2**t)

    rho_inf = 2 / (1 - beta2) - 1
    t = count
    for first in range(1, 100):
        if rho(first) > 4:
            t = count + first - 1
            break
    return math.sqrt((rho(t) - 4) * (rho(t) - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho(t)))


def fall(decay: str, n: int, eta: float, floor: float, length: int, warmup: int, o: dict[str, Any]) -> float:
    """The learning rate `n` updates after the peak, at most `length` of them, after a warmup of `warmup` updates."""
    q = n / length if length else 0.0
    if decay in ("constant", "plateau"):
        return eta
    if decay == "step":
        return max(floor, eta * o.get("gamma", 0.1) ** (n // o["step_size"]))
    if decay == "inverse_sqrt":
        return max(floor, eta * math.sqrt(max(1, warmup) / (n + max(1, warmup))))
    if decay == "exponential":
        return eta * (floor / eta) ** q
    if decay == "wsd":
        begin = o.get("stable_ratio", 0.9) * (warmup + length)  # the tests choose ratios that make it whole
        cooled = max(0.0, (n + warmup - begin) / (warmup + length - begin)) if begin < warmup + length else 0.0
        shapes = {"linear": 1 - cooled, "cosine": (1 + math.cos(math.pi * cooled)) / 2, "1-sqrt": 1 - cooled**0.5}
        height = shapes[o.get("cooldown_shape", "linear")]
    elif decay == "restarts":
        cycle = o.get("num_cycles", 2) * n
        height = 0.0 if n == length > 0 else (1 + math.cos(math.pi * (cycle % max(1, length)) / max(1, length))) / 2
    else:
        height = {
            "linear": 1 - q,
            "cosine": (1 + math.cos(math.pi * q)) / 2,
            "polynomial": (1 - q) ** o.get("power", 2.0),
        }[decay]
    return floor + (eta - floor) * height


# What is generated.

PEAKS = st.floats(1e-6, 10.0)
RATIOS = st.one_of(st.just(0.0), st.just(1.0), st.floats(1e-6, 1.0))


@st.composite
def levels(draw, prefix: str, *, above_zero: bool) -> dict[str, float]:
    """Nothing, a ratio, or a learning rate that the law turns into a share of the peak."""
    kind = draw(st.sampled_from(["ratio", "lr"] if above_zero and prefix == "final" else ["none", "ratio", "lr"]))
    if kind == "none":
        return {}
    return {f"{prefix}_{kind}": draw(st.floats(1e-6, 1.0) if above_zero else RATIOS)}


@st.composite
def runs(draw, warmups=tuple(WARMUP_SHAPES), decays=tuple(DECAY_SHAPES), min_decay_steps: int = 0) -> dict[str, Any]:
    """One run: warmup, decay, peak, start, floor, warmup_steps, total_steps and the options of get_schedule."""
    warmup, decay = draw(st.sampled_from(warmups)), draw(st.sampled_from(decays))
    peak = draw(PEAKS)
    options: dict[str, Any] = {}
    if warmup in BETA2:
        options["beta2"] = draw(st.one_of(st.sampled_from([0.9, 0.95, 0.98, 0.99, 0.999]), st.floats(0.75, 0.9999)))
        warmup_steps = math.ceil(2 / (1 - options["beta2"]) - 1e-6)
    else:
        warmup_steps = draw(st.one_of(st.integers(1 if warmup == "noam" else 0, 12), st.integers(13, 5000)))
    decay_steps = draw(st.one_of(st.integers(min_decay_steps, 12), st.integers(13, 20_000)))
    if warmup not in FROM_ONE:
        options |= draw(levels("initial", above_zero=warmup == "exponential"))
    if decay not in ("constant", "plateau"):
        options |= draw(levels("final", above_zero=decay == "exponential"))
    if "polynomial" in (warmup, decay):
        options["power"] = draw(st.floats(0.25, 6.0))
    if warmup == "saturating" and draw(st.booleans()):
        options["tau"] = draw(st.floats(0.5, 1e4))
    if decay == "step":
        options |= {"step_size": draw(st.integers(1, 500)), "gamma": draw(st.floats(0.0, 1.0))}
    if decay == "restarts":
        options["num_cycles"] = draw(st.integers(1, 30))
    if decay == "wsd":
        options["cooldown_shape"] = draw(st.sampled_from(["linear", "cosine", "1-sqrt"]))
        if warmup_steps > round(0.9 * (warmup_steps + decay_steps)) or draw(st.booleans()):
            decay_steps = max(warmup_steps, min_decay_steps)
            options["stable_ratio"] = 0.5
    for key in ("initial_lr", "final_lr"):
        if key in options:
            options[key] *= peak
    run = {"warmup": warmup, "decay": decay, "peak": peak, "options": options}
    run |= {"warmup_steps": warmup_steps, "total_steps": warmup_steps + decay_steps}
    default_start = 0.0 if warmup == "linear" else min(1e-7, peak)
    run["start"] = options.get("initial_lr", options.get("initial_ratio", default_start / peak) * peak)
    if "initial_lr" not in options and "initial_ratio" not in options:
        run["start"] = default_start
    run["floor"] = options.get("final_lr", options.get("final_ratio", 0.0) * peak)
    return run


def schedule_of(run: dict[str, Any]):
    lengths = {"num_warmup_steps": run["warmup_steps"], "num_training_steps": run["total_steps"]}
    if run["warmup"] in BETA2:
        lengths["num_warmup_steps"] = None
    return get_schedule(
        "hfwarmup", peak_lr=run["peak"], warmup_shape=run["warmup"], decay=run["decay"], **lengths, **run["options"]
    )


def peak_step(run: dict[str, Any]) -> int:
    """The 0-based update at which the warmup has arrived."""
    return run["warmup_steps"] - (1 if run["warmup"] in FROM_ONE else 0)


def steps_of(run: dict[str, Any]) -> list[int]:
    """The edges of the run and a walk through it."""
    warmup_steps, total_steps = run["warmup_steps"], run["total_steps"]
    edges = [0, 1, warmup_steps - 1, warmup_steps, warmup_steps + 1, total_steps - 1, total_steps, total_steps + 1, FAR]
    walk = range(0, total_steps + 2, 1 + total_steps // 60)
    return sorted({step for step in (*edges, *walk) if step >= 0})


@given(runs())
@few
def test_finite_and_between_zero_and_the_peak(run):
    schedule = schedule_of(run)
    for step in steps_of(run):
        lr = schedule(step)
        assert isinstance(lr, float)
        assert math.isfinite(lr)
        assert 0.0 <= lr <= run["peak"], f"update {step}: {lr}"


@given(runs(warmups=(*ZERO_BASED, "noam")))
@few
def test_every_update_is_what_the_formula_says(run):
    schedule = schedule_of(run)
    warmup_steps, total_steps = run["warmup_steps"], run["total_steps"]
    if run["decay"] == "wsd":
        ratio = run["options"].get("stable_ratio", 0.9)
        assume(abs(ratio * total_steps - round(ratio * total_steps)) < 1e-9)
    for step in steps_of(run):
        count = min(step + (1 if run["warmup"] == "noam" else 0), total_steps)
        if count < warmup_steps:
            expected = rise(run["warmup"], step, run["peak"], run["start"], warmup_steps, run["options"])
        else:
            length = total_steps - warmup_steps
            after = (
                max(0, min(step, total_steps) - warmup_steps) if run["decay"] in REACHES_FLOOR else count - warmup_steps
            )
            expected = fall(run["decay"], after, run["peak"], run["floor"], length, warmup_steps, run["options"])
        # Near 0 a cosine's own rounding is all that is left, so the error is measured against the peak.
        assert schedule(step) == pytest.approx(expected, rel=1e-9, abs=1e-12 * run["peak"]), f"update {step}"


@given(runs(warmups=BETA2, decays=("constant",)))
@few
def test_a_warmup_of_beta2_is_what_its_paper_says_to_the_end(run):
    schedule = schedule_of(run)
    for step in steps_of(run)[:-1]:
        count = min(step, run["total_steps"] - 1)
        assert schedule(step) == pytest.approx(
            rise(run["warmup"], count, run["peak"], 0.0, 1, run["options"]), rel=1e-9
        )


@given(runs(warmups=ZERO_BASED))
@few
def test_the_start_is_exact(run):
    first = schedule_of(run)(0)
    if run["warmup_steps"] == 0:
        assert first == run["peak"]
    elif "initial_ratio" in run["options"]:
        assert first == run["options"]["initial_ratio"] * run["peak"]
    else:
        assert first == run["start"]


@given(runs(warmups=ZERO_BASED))
@few
def test_the_peak_is_exact(run):
    assert schedule_of(run)(run["warmup_steps"]) == run["peak"]


@given(runs(warmups=("noam",)))
@few
def test_noam_peaks_one_update_earlier(run):
    assert schedule_of(run)(run["warmup_steps"] - 1) == run["peak"]


@given(runs(decays=REACHES_FLOOR, min_decay_steps=1))
@few
def test_the_floor_is_reached_at_the_end(run):
    final = schedule_of(run)(run["total_steps"])
    floor = run["options"].get("final_lr", run["options"].get("final_ratio", 0.0) * run["peak"])
    if run["warmup"] in BETA2:  # these never end, so what is left of the warmup may still damp the floor
        damped = rise(run["warmup"], run["total_steps"] - 1, floor, 0.0, 1, run["options"])
        assert damped * (1 - 1e-9) <= final <= floor
    else:
        assert final == floor


@given(runs(warmups=FROM_ONE, decays=REACHES_FLOOR, min_decay_steps=1))
@few
def test_a_decay_that_ends_is_the_same_behind_a_warmup_that_counts_from_one(run):
    """No update is lost at the floor: only what is left of a ramp of beta2 is between the two."""
    schedule, total_steps = schedule_of(run), run["total_steps"]
    options = {name: value for name, value in run["options"].items() if name != "beta2"}
    other = schedule_of({**run, "warmup": "gradual", "options": options})
    for step in [step for step in steps_of(run) if step >= run["warmup_steps"]]:
        counted = min(step, total_steps)
        left = rise(run["warmup"], counted, 1.0, 0.0, 1, run["options"]) if run["warmup"] in BETA2 else 1.0
        assert schedule(step) == pytest.approx(other(step) * left, rel=1e-9, abs=1e-12 * run["peak"]), f"update {step}"


def largest_last_step(run: dict[str, Any]) -> float:
    """A bound, as a share of the peak, for the last step of the warmup: the shape's steepest slope near its end."""
    length = run["warmup_steps"]
    if run["warmup"] in BETA2:
        return 1 - run["options"]["beta2"]
    if run["warmup"] == "polynomial":
        return max(1.0, run["options"].get("power", 2.0)) / length  # the slope at p = 1, or the secant
    if run["warmup"] == "exponential":
        return -math.log(run["start"] / run["peak"]) / length  # 1 - r^(1/n) <= -ln(r) / n
    return 1.0 / length  # a line; saturating is flatter at the end, and a cosine's last step is below 1 / n too


@given(runs(warmups=[warmup for warmup in WARMUP_SHAPES if warmup != "constant"]))
@few
def test_continuous_at_the_join(run):
    """T_w - 1 to T_w is one step of the warmup's shape and nothing more."""
    assume(run["warmup_steps"] > 0)
    schedule, last = schedule_of(run), peak_step(run)
    before = schedule(last - 1) if last else 0.0
    bound = (largest_last_step(run) if last or run["warmup"] in FROM_ONE else 1.0) * run["peak"]
    assert abs(schedule(last) - before) <= bound * (1 + 1e-9) + 1e-15


@given(runs())
@few
def test_constant_from_the_end_on(run):
    schedule, total_steps = schedule_of(run), run["total_steps"]
    final = schedule(total_steps)
    assert {schedule(total_steps + n) for n in (1, 2, 17, total_steps, FAR)} == {final}


@given(runs())
@few
def test_never_falls_during_the_warmup(run):
    schedule = schedule_of(run)
    walk = [step for step in steps_of(run) if step <= peak_step(run)]
    rates = [schedule(step) for step in walk]
    for earlier, later in pairwise(rates):
        assert later >= earlier * (1 - 4 * sys.float_info.epsilon)  # four roundings at most


@given(runs(warmups=(*ZERO_BASED, "noam"), decays=[decay for decay in DECAY_SHAPES if decay != "restarts"]))
@few
def test_never_rises_after_the_peak(run):
    schedule = schedule_of(run)
    walk = [step for step in steps_of(run) if step >= peak_step(run)]
    rates = [schedule(step) for step in walk]
    for earlier, later in pairwise(rates):
        assert later <= earlier + 4 * sys.float_info.epsilon * run["peak"]


@given(runs(), st.randoms(use_true_random=False))
@few
def test_pure_the_order_of_the_questions_does_not_matter(run, random):
    schedule = schedule_of(run)
    forward = {step: schedule(step) for step in steps_of(run)}
    shuffled = list(forward)
    random.shuffle(shuffled)
    fresh = schedule_of(run)
    assert {step: fresh(step) for step in shuffled} == forward
    assert {step: schedule(step) for step in reversed(shuffled)} == forward


@pytest.mark.parametrize("decay", DECAY_SHAPES)
@pytest.mark.parametrize("warmup", WARMUP_SHAPES)
def test_a_step_costs_the_same_at_update_a_billion(warmup, decay):
    """Counted in executed lines, so that a loop over the updates cannot hide in a fast machine."""
    options: dict[str, Any] = {"beta2": 0.9} if warmup in BETA2 else {}
    options |= {"step": {"step_size": 10}, "exponential": {"final_ratio": 0.1}}.get(decay, {})
    schedule = get_schedule(
        "hfwarmup",
        peak_lr=1.0,
        num_warmup_steps=None if warmup in BETA2 else 20,
        num_training_steps=2 * FAR,
        warmup_shape=warmup,
        decay=decay,
        **options,
    )

    def lines(step: int) -> int:
        count = 0

        def tracer(frame, *_):
            nonlocal count
            if not frame.f_code.co_filename.startswith(hfwarmup.__path__[0]):
                return None  # a garbage collection, for example
            count += 1
            return tracer

        outer = sys.gettrace()
        sys.settrace(tracer)
        try:
            schedule(step)
        finally:
            sys.settrace(outer)
        return count

    assert lines(FAR) == lines(40) > 0


def test_every_restart_is_at_the_peak():
    """Cycles of 7 updates: after each 7 the peak again, whatever the rounding of 1 / num_cycles."""

    def restarts(num_cycles: int) -> list[float]:
        lengths = {"num_warmup_steps": 0, "num_training_steps": 7 * num_cycles}
        schedule = get_schedule("warmup_restarts", peak_lr=1.0, num_cycles=num_cycles, **lengths)
        return [schedule(7 * cycle) for cycle in range(num_cycles)]

    assert [num_cycles for num_cycles in range(1, 101) if restarts(num_cycles) != [1.0] * num_cycles] == []
