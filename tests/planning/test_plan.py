"""The plan: each scaling rule as a table, the cap, the reasons word by word, and what is refused."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hfwarmup import Duration, Plan, parse_duration, plan_run

few = settings(max_examples=100, deadline=None, derandomize=True)


def plan_of(**changes) -> Plan:
    """1e-3 and 100 warmup steps tuned at a batch of 32; 10 000 updates, so that no cap bites."""
    return plan_run(
        **{
            "learning_rate": 1e-3,
            "warmup": 100,
            "total_steps": 10_000,
            "global_batch_size": 32,
            "reference_batch_size": 32,
            **changes,
        }
    )


LR_TABLE = [
    # (rule, global batch, peak)
    ("linear", 16, 5e-4),  # k = 1/2: half
    ("linear", 32, 1e-3),  # k = 1: as tuned
    ("linear", 64, 2e-3),  # k = 2: twice
    ("linear", 256, 8e-3),  # k = 8: eight times
    ("sqrt", 16, 7.071067811865476e-4),  # 1e-3 / sqrt(2)
    ("sqrt", 32, 1e-3),
    ("sqrt", 64, 1.4142135623730952e-3),  # sqrt(2)
    ("sqrt", 256, 2.8284271247461903e-3),  # sqrt(8) = 2 sqrt(2)
    ("none", 16, 1e-3),  # the peak stays
    ("none", 32, 1e-3),
    ("none", 64, 1e-3),
    ("none", 256, 1e-3),
]


@pytest.mark.parametrize(("rule", "global_batch_size", "peak_lr"), LR_TABLE)
def test_learning_rate_rule(rule, global_batch_size, peak_lr):
    plan = plan_of(lr_scaling=rule, global_batch_size=global_batch_size)
    assert plan.peak_lr == pytest.approx(peak_lr, rel=1e-15)
    assert plan.scale == global_batch_size / 32


WARMUP_TABLE = [
    # (rule, global batch, warmup steps, samples of the warmup)
    ("linear", 16, 50, 800),  # k = 1/2: half the steps of half the size
    ("linear", 32, 100, 3200),  # k = 1: as tuned
    ("linear", 64, 200, 12_800),  # k = 2: twice the steps, four times the samples
    ("linear", 256, 800, 204_800),  # k = 8: 64 times the samples
    ("constant_samples", 16, 200, 3200),  # always 3200 samples
    ("constant_samples", 32, 100, 3200),
    ("constant_samples", 64, 50, 3200),
    ("constant_samples", 256, 13, 3328),  # 12.5 steps: halves go up
    ("constant_steps", 16, 100, 1600),  # always 100 steps
    ("constant_steps", 32, 100, 3200),
    ("constant_steps", 64, 100, 6400),
    ("constant_steps", 256, 100, 25_600),
    ("sqrt", 16, 71, 1136),  # 70.71
    ("sqrt", 32, 100, 3200),
    ("sqrt", 64, 141, 9024),  # 141.42
    ("sqrt", 256, 283, 72_448),  # 282.84
]


@pytest.mark.parametrize(("rule", "global_batch_size", "warmup_steps", "warmup_samples"), WARMUP_TABLE)
def test_warmup_rule(rule, global_batch_size, warmup_steps, warmup_samples):
    plan = plan_of(warmup_scaling=rule, global_batch_size=global_batch_size)
    assert plan.warmup_steps == warmup_steps
    assert plan.warmup_samples == warmup_samples
    assert plan.warmup_fraction == warmup_steps / 10_000
    assert plan.warnings == ()


def test_linear_and_linear_climb_at_the_same_rate_a_step():
    """A bigger run retraces the small run's ramp and goes on."""
    small, big = plan_of(), plan_of(global_batch_size=256)
    assert big.peak_lr / big.warmup_steps == small.peak_lr / small.warmup_steps


def test_without_a_reference_nothing_is_scaled():
    plan = plan_of(reference_batch_size=None, global_batch_size=4096)
    assert (plan.scale, plan.peak_lr, plan.warmup_steps, plan.reference_batch_size) == (1.0, 1e-3, 100, None)


DURATIONS = [
    # (settings, warmup steps) at a reference batch of 32 and a real one of 64: k = 2, linear
    ({"warmup": "0"}, 0),  # no warmup stays no warmup
    ({"warmup": "1%"}, 200),  # 100 of 10 000, twice
    ({"warmup": "1%", "reference_total_steps": 20_000}, 400),  # the reference run was longer: 200, twice
    ({"warmup": "2 epochs", "samples_per_epoch": 3200}, 400),  # 2 x 100 steps of 32, twice
    ({"warmup": "6400 samples"}, 400),  # 200 steps of 32, twice
    ({"warmup": "64k tokens", "tokens_per_sample": 10}, 400),  # 200 steps of 320 tokens, twice
    ({"warmup": "6400 samples", "warmup_scaling": "constant_samples"}, 100),  # 6400 / 64
]


@pytest.mark.parametrize(("changes", "warmup_steps"), DURATIONS)
def test_a_duration_is_counted_at_the_reference_batch(changes, warmup_steps):
    assert plan_of(global_batch_size=64, **changes).warmup_steps == warmup_steps


def test_a_length_is_rounded_once_and_not_before_it_is_scaled():
    """3% of 50 updates is 1.5 of them; eight times that is 12, not 8 x 2."""
    plan = plan_of(warmup="3%", total_steps=50, global_batch_size=256, max_warmup_fraction=1.0)
    assert plan.warmup_steps == 12


def test_constant_samples_is_what_was_asked_for_where_the_reference_batch_is_larger_than_the_warmup():
    """100 samples are less than half an update of 256, and 3 updates of 32 (96 samples), not 8 (256 samples)."""
    plan = plan_of(
        warmup="100 samples", reference_batch_size=256, global_batch_size=32, warmup_scaling="constant_samples"
    )
    assert plan.warmup_steps == 3


def test_the_recipe_is_kept_as_it_was_given():
    """So that the same plan can be made again at another batch."""
    plan = plan_of(warmup="1%", global_batch_size=256)
    assert (plan.learning_rate, plan.warmup) == (1e-3, Duration(amount=1, unit="%"))


def test_tokens_are_reported_when_known():
    assert plan_of().warmup_tokens is None
    assert plan_of(tokens_per_sample=128).warmup_tokens == 100 * 32 * 128


def test_the_global_batch_is_the_product_of_its_factors():
    factors = {"per_device_batch_size": 4, "num_processes": 2, "gradient_accumulation_steps": 8}
    assert plan_of(global_batch_size=None, **factors).global_batch_size == 64
    assert plan_of(global_batch_size=64, **factors).global_batch_size == 64


CAPS = [
    # (warmup, total steps, max_warmup_fraction, steps after the cap, warned)
    (500, 1000, 0.5, 500, False),  # exactly the cap
    (501, 1000, 0.5, 500, True),
    (5000, 1000, 0.1, 100, True),
    (1000, 1000, 1.0, 1000, False),  # 1 allows the whole run
    (2000, 1000, 1.0, 1000, True),  # and no more
    (10, 19, 0.5, 9, True),  # 9.5: below the fraction, not above
    (1, 1, 0.5, 1, False),  # one update of warmup is always left
]


@pytest.mark.parametrize(("warmup", "total_steps", "fraction", "steps", "warned"), CAPS)
def test_cap(warmup, total_steps, fraction, steps, warned):
    plan = plan_of(warmup=warmup, total_steps=total_steps, max_warmup_fraction=fraction)
    assert plan.warmup_steps == steps
    assert bool(plan.warnings) == warned


def test_the_cap_is_loud():
    plan = plan_of(warmup=300, total_steps=1000, global_batch_size=64)
    assert plan.warnings == (
        "warmup_steps 600 -> 500: cut to max_warmup_fraction=0.5 of 1000 steps, so the ramp is steeper than asked for; "
        "make the run longer or raise max_warmup_fraction.",
    )
    assert str(plan).splitlines()[-1] == f"warning: {plan.warnings[0]}"


REASONS = [
    (
        {"global_batch_size": 256, "tokens_per_sample": 128},
        [
            "global batch 256, k = 8 times the reference batch of 32",
            "peak_lr 0.001 -> 0.008: lr_scaling=linear (eta k, Goyal et al. 2017)",
            "warmup_steps 100 -> 800: warmup_scaling=linear (T_w k steps, the ramp climbs at the same rate a step)",
            "warmup is 800 of 10000 steps (8.0%), 204,800 samples, 26,214,400 tokens",
        ],
    ),
    (
        {"global_batch_size": 16, "lr_scaling": "sqrt", "warmup_scaling": "constant_samples"},
        [
            "global batch 16, k = 0.5 times the reference batch of 32",
            "peak_lr 0.001 -> 0.000707107: lr_scaling=sqrt (eta sqrt(k), Malladi et al. 2022)",
            "warmup_steps 100 -> 200: warmup_scaling=constant_samples (T_w / k steps, the same samples, "
            "Goyal et al. 2017)",
            "warmup is 200 of 10000 steps (2.0%), 3,200 samples",
        ],
    ),
    (
        {"global_batch_size": 64, "lr_scaling": "none", "warmup_scaling": "constant_steps", "warmup": "1%"},
        [
            "global batch 64, k = 2 times the reference batch of 32",
            "peak_lr 0.001 -> 0.001: lr_scaling=none (the peak stays)",
            "warmup_steps 100 (1%) -> 100: warmup_scaling=constant_steps (the same steps, You et al. 2020)",
            "warmup is 100 of 10000 steps (1.0%), 6,400 samples",
        ],
    ),
    (
        {"global_batch_size": 64, "warmup_scaling": "sqrt", "warmup": "2 epochs", "samples_per_epoch": 3200},
        [
            "global batch 64, k = 2 times the reference batch of 32",
            "peak_lr 0.001 -> 0.002: lr_scaling=linear (eta k, Goyal et al. 2017)",
            "warmup_steps 200 (2 epochs) -> 283: warmup_scaling=sqrt (T_w sqrt(k) steps)",
            "warmup is 283 of 10000 steps (2.8%), 18,112 samples",
        ],
    ),
    (
        {
            "global_batch_size": None,
            "per_device_batch_size": 4,
            "num_processes": 2,
            "gradient_accumulation_steps": 8,
            "reference_batch_size": None,
        },
        [
            "global batch 64 = 4 per device x 2 processes x 8 accumulation; no reference_batch_size, nothing is scaled",
            "peak_lr 0.001",
            "warmup_steps 100",
            "warmup is 100 of 10000 steps (1.0%), 6,400 samples",
        ],
    ),
]


@pytest.mark.parametrize(("changes", "reasons"), REASONS)
def test_reasons_word_by_word(changes, reasons):
    plan = plan_of(**changes)
    assert list(plan.reasons) == reasons
    assert str(plan) == "\n".join(reasons)


def test_json_is_the_plan():
    plan = plan_of(warmup=300, total_steps=1000, global_batch_size=64, tokens_per_sample=128)
    data = json.loads(plan.to_json())
    assert data["peak_lr"] == 2e-3
    assert data["warmup_steps"] == 500
    assert data["warmup_tokens"] == 500 * 64 * 128
    assert data["warmup"] == "300 steps"
    data["warmup"] = parse_duration(data["warmup"])
    data["reasons"], data["warnings"] = tuple(data["reasons"]), tuple(data["warnings"])
    assert Plan(**data) == plan


NAN, INF = math.nan, math.inf
BY_FACTORS = {"global_batch_size": None, "per_device_batch_size": 4}
REFUSED = [
    ({"learning_rate": -1e-3}, "learning_rate=-0.001: give a finite learning rate, 0 or more."),
    ({"learning_rate": NAN}, "learning_rate=nan: give a finite learning rate, 0 or more."),
    ({"learning_rate": INF}, "learning_rate=inf: give a finite learning rate, 0 or more."),
    ({"learning_rate": True}, "learning_rate=True: give a finite learning rate, 0 or more."),
    ({"total_steps": 0}, "total_steps=0: give a whole number, 1 or more."),
    ({"total_steps": 2.5}, "total_steps=2.5: give a whole number, 1 or more."),
    ({"total_steps": NAN}, "total_steps=nan: give a whole number, 1 or more."),
    ({"total_steps": INF}, "total_steps=inf: give a whole number, 1 or more."),
    ({"reference_total_steps": -1}, "reference_total_steps=-1: give a whole number, 1 or more."),
    ({"global_batch_size": 0}, "global_batch_size=0: give a whole number, 1 or more."),
    ({"global_batch_size": True}, "global_batch_size=True: give a whole number, 1 or more."),
    ({"reference_batch_size": 0}, "reference_batch_size=0: give a whole number, 1 or more."),
    ({**BY_FACTORS, "num_processes": 0}, "num_processes=0: give a whole number, 1 or more."),
    (
        {**BY_FACTORS, "gradient_accumulation_steps": -2},
        "gradient_accumulation_steps=-2: give a whole number, 1 or more.",
    ),
    ({"tokens_per_sample": -5}, "tokens_per_sample=-5: give a number above 0."),
    ({"samples_per_epoch": -5}, "samples_per_epoch=-5: give a whole number, 1 or more."),
    (
        {"global_batch_size": None},
        "no batch size: give global_batch_size, or per_device_batch_size and its factors.",
    ),
    (
        {"per_device_batch_size": 4, "num_processes": 2},
        "global_batch_size=32, but 4 per device x 2 processes x 1 accumulation = 8; give one of the two.",
    ),
    ({"lr_scaling": "lin"}, "lr_scaling='lin'; did you mean 'linear'? Choose one of linear, sqrt, none."),
    (
        {"warmup_scaling": "samples"},
        "warmup_scaling='samples'; did you mean 'constant_samples'? "
        "Choose one of linear, constant_samples, constant_steps, sqrt.",
    ),
    ({"max_warmup_fraction": 0.0}, "max_warmup_fraction=0.0: give a share of the run above 0 and at most 1."),
    ({"max_warmup_fraction": 1.1}, "max_warmup_fraction=1.1: give a share of the run above 0 and at most 1."),
    ({"max_warmup_fraction": NAN}, "max_warmup_fraction=nan: give a share of the run above 0 and at most 1."),
    ({"warmup": 0.1}, "duration 0.1 can be read as '0.1 of a step' or as '10%'; write the one you mean."),
    (
        {"warmup": "2 epochs"},
        "duration '2 epochs' needs steps_per_epoch to become steps, and it is None; give steps_per_epoch, or steps.",
    ),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_what_is_refused(changes, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011  the whole text is compared
        plan_of(**changes)
    assert str(error.value) == message


@given(
    st.floats(1e-6, 1.0),
    st.integers(0, 5000),
    st.integers(1, 20_000),
    st.integers(1, 4096),
    st.integers(1, 4096),
    st.sampled_from(["linear", "sqrt", "none"]),
    st.sampled_from(["linear", "constant_samples", "constant_steps", "sqrt"]),
)
@few
def test_every_plan_is_possible(learning_rate, warmup, total_steps, batch, reference, lr_scaling, warmup_scaling):
    plan = plan_run(
        learning_rate=learning_rate,
        warmup=warmup,
        total_steps=total_steps,
        global_batch_size=batch,
        reference_batch_size=reference,
        lr_scaling=lr_scaling,
        warmup_scaling=warmup_scaling,
    )
    assert 0.0 < plan.peak_lr < math.inf
    assert (plan.warmup_steps == 0) == (warmup == 0)
    assert plan.warmup_steps <= max(1, total_steps / 2)
    assert len(plan.reasons) == 4
    assert all("\n" not in line for line in (*plan.reasons, *plan.warnings))


def test_numbers_of_numpy_make_the_same_plan():
    numbers = {"warmup": np.int64(100), "total_steps": np.int64(10_000), "global_batch_size": np.int64(64)}
    own = {name: int(number) for name, number in numbers.items()}
    assert json.loads(plan_of(**numbers).to_json()) == json.loads(plan_of(**own).to_json())
