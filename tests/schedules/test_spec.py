"""A schedule over parameter groups: what each group runs at, what a checkpoint keeps, and what counts as a change."""

from __future__ import annotations

import dataclasses
import json
from fractions import Fraction

import numpy as np
import pytest

from hfwarmup.schedules.named import add_schedule
from hfwarmup.schedules.options import ScheduleOptions
from hfwarmup.schedules.spec import ScheduleSpec


def spec_of(name="warmup_linear", options=None, *, warmup_steps=10, total_steps=100, peak_lrs=(1.0,)):
    return ScheduleSpec(
        name=name,
        options=options or {},
        given_warmup_steps=warmup_steps,
        total_steps=total_steps,
        peak_lrs=list(peak_lrs),
    )


GROUPS = [
    # (options, update, the rates of groups with peaks 1, 0.1 and 0)
    ({}, 0, [1e-7, 1e-7, 0.0]),  # one default start for all; a frozen group stays frozen
    ({}, 10, [1.0, 0.1, 0.0]),  # each its own peak
    ({}, 55, [0.5, 0.05, 0.0]),
    ({"initial_lr": 0.02}, 0, [0.02, 0.02, 0.0]),  # absolute: the same for all
    ({"initial_ratio": 0.2}, 0, [0.2, 0.02, 0.0]),  # a ratio: of each peak
    ({"final_lr": 0.04}, 100, [0.04, 0.04, 0.0]),
    ({"final_lr": 0.04}, 55, [0.52, 0.07, 0.0]),  # half way from each peak to the common floor
    ({"final_ratio": 0.3}, 100, [0.3, 0.03, 0.0]),
    ({"warmup_shape": "exponential", "initial_ratio": 0.01}, 5, [0.1, 0.01, 0.0]),  # geometric, each in its own range
    ({"warmup_shape": "exponential", "initial_lr": 0.001}, 5, [1e-3**0.5, 1e-2, 0.0]),
    ({"decay": "exponential", "final_ratio": 0.01}, 55, [0.1, 0.01, 0.0]),
    ({"decay": "inverse_sqrt", "final_lr": 0.08}, 40, [0.5, 0.08, 0.0]),  # sqrt(10/40) of each, one floor for all
]


@pytest.mark.parametrize(("options", "step", "expected"), GROUPS)
def test_each_group_keeps_its_own_peak_start_and_floor(options, step, expected):
    spec = spec_of(options=options, peak_lrs=[1.0, 0.1, 0.0])
    assert spec.learning_rates(step) == pytest.approx(expected, rel=1e-12)


def test_starts_and_floors_are_listed_a_group():
    spec = spec_of(options={"initial_ratio": 0.25, "final_lr": 0.125}, peak_lrs=[1.0, 0.5])
    assert [tuple(level) for level in spec.levels] == [(0.25, 1.0, 0.125), (0.125, 0.5, 0.125)]


@pytest.mark.parametrize(
    "peak_lrs",
    [[1.0], [1.0] * 5, [1.0, 0.5, 1.0, 0.25, 0.5], [0.1 * n for n in range(1, 21)], [0.0, 0.0], []],
    ids=["one", "five of one peak", "mixed", "twenty distinct", "all frozen", "none"],
)
def test_groups_together_are_the_groups_one_by_one(peak_lrs):
    together = spec_of("warmup_cosine", peak_lrs=peak_lrs)
    alone = [spec_of("warmup_cosine", peak_lrs=[peak]) for peak in peak_lrs]
    for step in (0, 3, 10, 40, 100, 1000):
        assert together.learning_rates(step) == [spec.learning_rates(step)[0] for spec in alone]


def test_the_returned_list_is_the_callers():
    """A scheduler hands the list out as get_last_lr; whoever writes into it must not change the next answer."""
    for peak_lrs in ([1.0, 1.0], [1.0, 0.5], [1.0, 0.5, 1.0]):
        spec = spec_of(peak_lrs=peak_lrs)
        first = spec.learning_rates(50)
        kept = list(first)
        first[0] = -1.0
        assert spec.learning_rates(50) == kept


STRETCHED = [
    # (update, the rates of groups with T_w = 10, 5, 20 and 10, peaks 1, 1, 1 and 0.5; linear to 0 at 100)
    (0, [0.0, 0.0, 0.0, 0.0]),
    (5, [0.5, 1.0, 0.25, 0.25]),  # the half as long warmup is over
    (10, [1.0, 90 / 95, 0.5, 0.5]),  # its decay has begun; the first and the last are at their peaks
    (20, [80 / 90, 80 / 95, 1.0, 40 / 90]),  # the longest arrives
    (100, [0.0, 0.0, 0.0, 0.0]),  # the end is one for all
]


@pytest.mark.parametrize(("step", "expected"), STRETCHED)
def test_a_group_may_have_a_warmup_of_its_own_length(step, expected):
    spec = ScheduleSpec(
        name="warmup_linear",
        options={"initial_lr": 0.0},
        given_warmup_steps=10,
        total_steps=100,
        peak_lrs=[1.0, 1.0, 1.0, 0.5],
        warmup_stretch=[1.0, 0.5, 2.0, 1.0],
    )
    assert spec.learning_rates(step) == pytest.approx(expected, rel=1e-12)
    assert spec.warmup_steps == 20  # of the slowest
    assert ScheduleSpec(**json.loads(json.dumps(spec.to_dict()))) == spec


def test_a_warmup_stretched_beyond_the_run_is_an_error():
    spec = dataclasses.replace(spec_of(), warmup_stretch=[11.0])
    with pytest.raises(ValueError, match=r"^num_warmup_steps=110 > num_training_steps=100: the peak is never reached"):
        spec.learning_rates(0)


def test_another_stretch_is_a_difference():
    one, other = spec_of(), dataclasses.replace(spec_of(), warmup_stretch=[0.5])
    assert one.differences(other) == {"warmup_steps": (10, 5), "warmup_stretch": (None, [0.5])}


def test_a_start_above_one_groups_peak_is_an_error():
    spec = spec_of(options={"initial_lr": 0.2}, peak_lrs=[1.0, 0.1])
    with pytest.raises(
        ValueError,
        match=r"^initial_lr=0\.2 is above the peak learning rate 0\.1; lower it, or give initial_ratio\.$",
    ):
        spec.learning_rates(0)


def test_plain_data_makes_the_same_schedule_again():
    spec = spec_of("warmup_cosine", {"final_ratio": 0.2}, peak_lrs=[1.0, 0.1])
    data = json.loads(json.dumps(spec.to_dict()))
    again = ScheduleSpec(**data)
    assert again.to_dict() == data
    assert again.differences(spec) == {}
    assert [again.learning_rates(step) for step in range(120)] == [spec.learning_rates(step) for step in range(120)]


def test_plain_data_is_a_copy():
    spec = spec_of(options={"final_ratio": 0.2})
    data = spec.to_dict()
    data["options"]["final_ratio"] = 0.9
    data["peak_lrs"][0] = 9.0
    assert spec == spec_of(options={"final_ratio": 0.2})


def test_a_spec_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec_of().total_steps = 5  # type: ignore[misc]


def test_the_warmup_of_beta2_says_its_length():
    assert spec_of("untuned_linear", {"beta2": 0.98}, warmup_steps=None, total_steps=None).warmup_steps == 100
    assert spec_of(warmup_steps=7).warmup_steps == 7


BETA2_98 = {"beta2": 0.98}
DIFFERENCES = [
    # (the one, the other, what differs)
    (spec_of(), spec_of(), {}),
    (spec_of(), spec_of(warmup_steps=20), {"warmup_steps": (10, 20)}),
    (spec_of(), spec_of(total_steps=200), {"max_steps": (100, 200)}),
    (spec_of(), spec_of(peak_lrs=[2.0]), {"learning_rate": (1.0, 2.0)}),
    (spec_of(peak_lrs=[1.0, 0.1]), spec_of(peak_lrs=[1.0, 0.2]), {"learning_rate": ([1.0, 0.1], [1.0, 0.2])}),
    (spec_of(peak_lrs=[1.0]), spec_of(peak_lrs=[1.0, 1.0]), {}),  # one peak, however the groups are cut
    # an option at its default is no change, whether written or not
    (spec_of("warmup_cosine"), spec_of("warmup_cosine", {"final_ratio": 0.1}), {}),
    # a name is only its defaults
    (spec_of("gradual_warmup", {"decay": "linear"}), spec_of("warmup_linear"), {}),
    (
        spec_of("warmup_linear"),
        spec_of("warmup_cosine"),
        {"decay": ("linear", "cosine"), "final_ratio": (None, 0.1)},
    ),
    (spec_of(options={"initial_lr": 0.0}), spec_of(), {"initial_lr": (0.0, None)}),
    (spec_of(), spec_of(options={"weight_decay": "independent"}), {"weight_decay": ("coupled", "independent")}),
    # what the curve does not read is not compared
    (spec_of("gradual_warmup"), spec_of("gradual_warmup", total_steps=200), {}),  # endless: longer is no change
    (spec_of("noam"), spec_of("noam", total_steps=None), {}),
    (
        spec_of("warmup_plateau"),
        spec_of("warmup_plateau", {"patience": 3}, total_steps=500),
        {"patience": (10, 3)},
    ),
    # of an endless one and one with an end, the end is part of the change
    (
        spec_of("gradual_warmup"),
        spec_of("warmup_linear"),
        {"decay": ("constant", "linear"), "max_steps": (None, 100)},
    ),
    # the length of beta2 counts as a warmup
    (
        spec_of("gi_warmup", BETA2_98, warmup_steps=None),
        spec_of("gi_warmup", {"beta2": 0.99}, warmup_steps=0, total_steps=300),
        {"beta2": (0.98, 0.99), "warmup_steps": (100, 200)},
    ),
    (
        spec_of("gi_warmup", BETA2_98, warmup_steps=None),
        spec_of("gi_warmup", BETA2_98, warmup_steps=0),
        {},
    ),
]


@pytest.mark.parametrize(("one", "other", "expected"), DIFFERENCES)
def test_differences(one, other, expected):
    assert one.differences(other) == expected
    assert other.differences(one) == {name: (new, old) for name, (old, new) in expected.items()}


@pytest.fixture(scope="module")
def own_name():
    def factory(*, peak_lr, num_warmup_steps, num_training_steps, exponent=1):
        return lambda step: peak_lr * min(1.0, step / num_warmup_steps) ** exponent

    add_schedule("test_spec_own", factory)
    return "test_spec_own"


def test_a_users_own_schedule_runs_each_peak_through_its_factory(own_name):
    spec = spec_of(own_name, {"exponent": 2}, peak_lrs=[1.0, 0.5, 1.0])
    assert spec.learning_rates(5) == [0.25, 0.125, 0.25]
    assert spec.curve is None
    assert spec.resolved == ScheduleOptions()
    assert spec.warmup_steps == 10


def test_a_users_own_schedule_differs_by_name_options_and_lengths(own_name):
    one = spec_of(own_name, {"exponent": 2})
    assert one.differences(spec_of(own_name, {"exponent": 2})) == {}
    assert one.differences(spec_of(own_name, {"exponent": 3}, total_steps=200)) == {
        "exponent": (2, 3),
        "max_steps": (100, 200),
    }


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e-3, None, "0.1"])
def test_a_users_own_schedule_that_gives_no_learning_rate_is_an_error(value, monkeypatch):
    monkeypatch.setattr("hfwarmup.schedules.named._factories", {})
    add_schedule("broken", lambda **_: lambda step: 0.5 if step < 3 else value)
    spec = spec_of("broken", peak_lrs=[1.0, 2.0])
    assert spec.learning_rates(2) == [0.5, 0.5]
    with pytest.raises(ValueError) as error:  # noqa: PT011  the whole text is compared
        spec.learning_rates(3)
    assert str(error.value) == (
        f"schedule 'broken': it returned {value!r} as the learning rate of update 3; return a finite number, 0 or more."
    )


@pytest.mark.parametrize("number", [Fraction(1, 4), np.float32(0.25), 0.25])
def test_a_number_of_another_library_becomes_a_plain_one(number):
    name = f"plain_{type(number).__name__}"
    add_schedule(name, lambda **_: lambda _: number)
    (lr,) = spec_of(name).learning_rates(3)
    assert (type(lr), lr) == (float, 0.25)


def test_an_unknown_name_is_an_error():
    with pytest.raises(ValueError, match=r"^unknown schedule 'warmup_cosin'; did you mean 'warmup_cosine'\?"):
        spec_of("warmup_cosin").learning_rates(0)


def test_numbers_of_numpy_are_taken_and_kept_as_pythons_own():
    lengths = {"warmup_steps": np.int64(10), "total_steps": np.int32(100)}
    spec = spec_of(options={"final_ratio": np.float32(0.5), "decay": "step", "step_size": np.int64(5)}, **lengths)
    own = spec_of(options={"final_ratio": 0.5, "decay": "step", "step_size": 5})
    assert json.loads(json.dumps(spec.to_dict())) == own.to_dict()
    assert spec.learning_rates(57) == own.learning_rates(57)
    for refused in (True, np.True_):
        with pytest.raises(ValueError, match=r"^num_warmup_steps=True: give a whole number of updates, 0 or more\.$"):
            spec_of(warmup_steps=refused).learning_rates(0)


SUMMARIES = [
    # schedule, options, T_w of 40 updates, what is said: the warmup's end where it is, one earlier if it counts from 1
    ("warmup_linear", {}, 4, "1e-07 at update 0, 1 at update 4, 0.0277778 at update 39"),
    ("noam", {}, 4, "0.25 at update 0, 1 at update 3, 0.316228 at update 39"),
    ("noam", {}, 1, "1 at update 0, 0.158114 at update 39"),
    ("untuned_linear", {"beta2": 0.9}, None, "0.05 at update 0, 1 at update 19, 1 at update 39"),
    ("gi_warmup", {"beta2": 0.9}, None, "0.316228 at update 0, 0.937242 at update 19, 0.992582 at update 39"),
]


@pytest.mark.parametrize(("name", "options", "warmup_steps", "said"), SUMMARIES)
def test_a_summary_has_the_update_at_which_the_warmup_has_arrived(name, options, warmup_steps, said):
    spec = spec_of(name, options, warmup_steps=warmup_steps, total_steps=40)
    assert spec.summary() == f"schedule {name}: learning rate {said}"
