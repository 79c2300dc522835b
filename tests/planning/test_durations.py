"""Durations: what can be written, what it means in steps, and what is refused with which words."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hfwarmup import Duration, parse_duration

few = settings(max_examples=100, deadline=None, derandomize=True)

READ = [
    # (as written, amount, unit)
    (500, 500, "steps"),  # a whole number alone counts steps
    ("500", 500, "steps"),
    (" 500 ", 500, "steps"),
    ("500 steps", 500, "steps"),
    ("500steps", 500, "steps"),
    ("1 step", 1, "steps"),
    ("500 updates", 500, "steps"),
    ("500 Steps", 500, "steps"),
    (0, 0, "steps"),
    (2.0, 2, "steps"),  # transformers and people read 2.0 as 2 steps
    ("1_000", 1000, "steps"),
    ("1,000", 1000, "steps"),
    ("1e3", 1000, "steps"),
    ("2k", 2000, "steps"),
    ("2.5k steps", 2500, "steps"),
    ("5%", 5, "%"),
    ("5 %", 5, "%"),
    ("0.5%", 0.5, "%"),
    ("3 percent", 3, "%"),
    ("100%", 100, "%"),
    ("2 epochs", 2, "epochs"),
    ("1 epoch", 1, "epochs"),
    ("0.5 epochs", 0.5, "epochs"),
    ("100k samples", 1e5, "samples"),
    ("100K samples", 1e5, "samples"),
    ("1 sample", 1, "samples"),
    ("20M tokens", 2e7, "tokens"),
    ("20 M tokens", 2e7, "tokens"),
    ("1.5B tokens", 1.5e9, "tokens"),
    ("1G tokens", 1e9, "tokens"),
    ("1T tokens", 1e12, "tokens"),
    ("20 tokens", 20, "tokens"),  # the t is the unit's, not a trillion
    ("20 Tokens", 20, "tokens"),  # nor is a capital one
    ("20M Tokens", 2e7, "tokens"),
]


@pytest.mark.parametrize(("text", "amount", "unit"), READ)
def test_what_can_be_written(text, amount, unit):
    assert parse_duration(text) == Duration(amount=amount, unit=unit)


def test_a_duration_is_its_own_duration():
    duration = Duration(amount=3, unit="epochs")
    assert parse_duration(duration) is duration


EXAMPLES = "write for example 500, '5%', '2 epochs', '100k samples' or '20M tokens'."
UNITS = "Use steps, %, epochs, samples or tokens."
REFUSED = [
    # a fraction alone is a share of the run to some and steps to others
    (1.0, "duration 1.0 can be read as '1 step' or as '100%'; write the one you mean."),
    ("1.0", "duration '1.0' can be read as '1 step' or as '100%'; write the one you mean."),
    (0.1, "duration 0.1 can be read as '0.1 of a step' or as '10%'; write the one you mean."),
    ("0.05", "duration '0.05' can be read as '0.05 of a step' or as '5%'; write the one you mean."),
    (1.5, "duration 1.5 is no whole number of steps; write for example '2 steps'."),
    # what is no number of anything
    ("", f"duration '': {EXAMPLES}"),
    ("-5", f"duration '-5': {EXAMPLES}"),
    (-5, f"duration -5: {EXAMPLES}"),
    ("five epochs", f"duration 'five epochs': {EXAMPLES}"),
    ("epochs", f"duration 'epochs': {EXAMPLES}"),
    ("5 6 epochs", f"duration '5 6 epochs': {EXAMPLES}"),
    ("1,5 epochs", f"duration '1,5 epochs': {EXAMPLES}"),  # a decimal comma must not become 15 epochs
    (math.nan, f"duration nan: {EXAMPLES}"),
    (math.inf, f"duration inf: {EXAMPLES}"),
    (True, f"duration True: {EXAMPLES}"),
    (None, f"duration None: {EXAMPLES}"),
    ([5], f"duration [5]: {EXAMPLES}"),
    # what is too much
    ("1e400", "duration '1e400' is not finite; give a number of updates, or a share such as '5%'."),
    ("101%", "duration '101%' is more than the whole run; give at most 100%."),
    # what is counted in nothing known
    ("5 epchs", f"duration '5 epchs' has the unknown unit 'epchs'; did you mean 'epochs'? {UNITS}"),
    ("5 tokns", f"duration '5 tokns' has the unknown unit 'tokns'; did you mean 'tokens'? {UNITS}"),
    ("5 furlongs", f"duration '5 furlongs' has the unknown unit 'furlongs'. {UNITS}"),
]


@pytest.mark.parametrize(("text", "message"), REFUSED)
def test_what_is_refused(text, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011  the whole text is compared
        parse_duration(text)
    assert str(error.value) == message


@pytest.mark.parametrize("amount", [-1.0, math.nan, math.inf])
def test_an_impossible_duration_cannot_be_built(amount):
    with pytest.raises(ValueError, match="amount"):
        Duration(amount=amount, unit="steps").to_steps()


RUN = {"steps_per_epoch": 31.25, "batch_size": 32, "tokens_per_sample": 128, "total_steps": 250}
STEPS = [
    # (as written, steps in a run of 250 updates of 32 samples of 128 tokens, an epoch being 1000 samples)
    ("500", 500),  # steps stay steps, whatever the run is
    ("0", 0),
    ("0 epochs", 0),
    ("5%", 13),  # 12.5: halves go up
    ("4%", 10),
    ("0.1%", 1),  # 0.25: at least one, since some warmup was asked for
    ("100%", 250),
    ("1 epoch", 31),  # 31.25
    ("2 epochs", 63),  # 62.5: rounded once, not 2 x 31
    ("100k samples", 3125),  # 100000 / 32
    ("100 samples", 3),  # 3.125
    ("1 sample", 1),
    ("1M tokens", 244),  # 1e6 / (32 * 128) = 244.14
    ("1 token", 1),
]


@pytest.mark.parametrize(("text", "steps"), STEPS)
def test_steps(text, steps):
    converted = parse_duration(text).to_steps(**RUN)
    assert converted == steps
    assert isinstance(converted, int)


NEEDS = [
    ("5%", {}, "duration '5%' needs total_steps to become steps, and it is None; give total_steps, or steps."),
    (
        "2 epochs",
        {"total_steps": 9},
        "duration '2 epochs' needs steps_per_epoch to become steps, and it is None; give steps_per_epoch, or steps.",
    ),
    (
        "100k samples",
        {},
        "duration '100,000 samples' needs batch_size to become steps, and it is None; give batch_size, or steps.",
    ),
    (
        "20M tokens",
        {"batch_size": 8},
        "duration '20,000,000 tokens' needs tokens_per_sample to become steps, and it is None; "
        "give tokens_per_sample, or steps.",
    ),
    (
        "5%",
        {"total_steps": 0},
        "duration '5%' needs total_steps to become steps, and it is 0; give total_steps, or steps.",
    ),
    (
        "2 epochs",
        {"steps_per_epoch": -1},
        "duration '2 epochs' needs steps_per_epoch to become steps, and it is -1; give steps_per_epoch, or steps.",
    ),
]


@pytest.mark.parametrize(("text", "given", "message"), NEEDS)
def test_what_is_missing_is_named(text, given, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011  the whole text is compared
        parse_duration(text).to_steps(**given)
    assert str(error.value) == message


SAID = [
    ("500", "500 steps"),
    ("2k", "2,000 steps"),
    ("5%", "5%"),
    ("0.5%", "0.5%"),
    ("1.5 epochs", "1.5 epochs"),
    ("1234567 tokens", "1,234,567 tokens"),
    ("1.5B tokens", "1,500,000,000 tokens"),
]


@pytest.mark.parametrize(("text", "said"), SAID)
def test_a_duration_says_itself_and_can_be_read_again(text, said):
    assert str(parse_duration(text)) == said
    assert parse_duration(said) == parse_duration(text)


@given(st.integers(0, 10**12), st.sampled_from(["steps", "epochs", "samples", "tokens"]))
@few
def test_whole_amounts_survive_being_written_and_read(amount, unit):
    duration = parse_duration(f"{amount} {unit}")
    assert duration == Duration(amount=float(amount), unit=unit)
    assert parse_duration(str(duration)) == duration


@given(st.floats(0.01, 100), st.integers(1, 10**6))
@few
def test_percent_is_the_nearest_step_and_at_least_one(percent, total_steps):
    steps = parse_duration(f"{percent:.6f}%").to_steps(total_steps=total_steps)
    exact = float(f"{percent:.6f}") / 100 * total_steps
    assert abs(steps - exact) <= 0.5 + 1e-9 * exact or steps == 1
    assert 1 <= steps <= total_steps


@given(st.integers(1, 10**7), st.integers(1, 4096), st.integers(1, 8192))
@few
def test_tokens_are_samples_times_their_tokens(samples, batch_size, tokens_per_sample):
    by_samples = parse_duration(f"{samples} samples").to_steps(batch_size=batch_size)
    by_tokens = parse_duration(f"{samples * tokens_per_sample} tokens").to_steps(
        batch_size=batch_size, tokens_per_sample=tokens_per_sample
    )
    assert by_tokens == by_samples
