"""The settings of a recipe that decide its plan."""

from __future__ import annotations

import re

import pytest

from hfwarmup.planning.settings import PlanSettings


def test_noam_with_d_model_sets_the_peak_and_says_so():
    settings = PlanSettings(
        lr_scheduler_type="noam", lr_scheduler_kwargs={"d_model": 512}, warmup="4000", max_steps=100_000
    )
    plan = settings.plan(num_processes=1)
    assert plan.peak_lr == pytest.approx(512**-0.5 * 4000**-0.5, rel=1e-12)  # Vaswani et al. 2017, eq. 3 at s = T_w
    assert plan.reasons[1].endswith("learning_rate and lr_scaling do not act")
    assert settings.spec(plan).learning_rates(3999) == [plan.peak_lr]


def test_a_warmup_of_beta2_is_planned_at_its_own_length():
    settings = PlanSettings(lr_scheduler_type="untuned_linear", adam_beta2=0.98, max_steps=1000, reference_batch_size=1)
    plan = settings.plan(num_processes=4)
    assert (plan.scale, plan.warmup_steps) == (32.0, 100)  # 2 / (1 - 0.98), whatever the batch


def test_a_warmup_of_beta2_that_the_run_does_not_hold_is_refused():
    settings = PlanSettings(lr_scheduler_type="untuned_linear", adam_beta2=0.999, max_steps=300)
    with pytest.raises(ValueError, match=r"^warmup_shape='untuned_linear' takes 2 / \(1 - beta2\) = 2000 updates"):
        settings.plan(num_processes=1)


def test_a_plan_has_the_ends_of_its_curve_in_numbers_and_in_words():
    settings = PlanSettings(lr_scheduler_type="warmup_linear", warmup="10", max_steps=100, learning_rate=1e-3)
    plan = settings.plan(num_processes=1)
    assert (plan.schedule, plan.first_lr, plan.last_lr) == ("warmup_linear", 1e-7, pytest.approx(1e-3 / 90))
    assert plan.reasons[-1] == settings.spec(plan).summary()
    assert str(plan).splitlines() == list(plan.reasons)


def test_a_schedule_of_transformers_has_no_curve_here():
    plan = PlanSettings(lr_scheduler_type="cosine", warmup="10", max_steps=100).plan(num_processes=1)
    assert (plan.schedule, plan.first_lr, plan.last_lr) == ("cosine", None, None)


MODEL_OF_TOKENS = {"model": "", "tokens_per_sample": 64}
CAVEATS = [
    # settings, the beginning of what is said of them (None: nothing)
    ({"warmup": "4", **MODEL_OF_TOKENS}, "warmup is 4 of 1000 steps (0.40%), under 0.5%"),
    ({"warmup": "5", **MODEL_OF_TOKENS}, None),
    ({"warmup": "0", **MODEL_OF_TOKENS}, "warmup is 0 of 1000 steps (0.00%), under 0.5%"),
    ({"warmup": "4", "model": "gpt2", "tokens_per_sample": 64}, None),  # fine-tuning
    ({"warmup": "4", "model": ""}, None),  # no language model
    ({"warmup": "4", "tokens_per_sample": 64}, None),  # nobody said where the weights are from
    ({"reference_batch_size": 4}, "lr_scaling=linear at k = 2 with optim=adamw_torch_fused"),
    ({"reference_batch_size": 4, "lr_scaling": "sqrt"}, None),
    ({"reference_batch_size": 4, "optim": "sgd"}, None),
    ({"reference_batch_size": 16}, None),
    (
        {"reference_batch_size": 4, "lr_scheduler_type": "noam", "lr_scheduler_kwargs": {"d_model": 8}, "warmup": "9"},
        None,  # d_model sets the peak
    ),
    ({"noise_scale_samples": 7.9}, "global batch 8 is beyond the noise scale of 7.9 samples"),
    ({"noise_scale_samples": 8}, None),
    ({"lr_scheduler_type": "constant_warmup"}, "constant_warmup jumps to the peak"),
    ({"lr_scheduler_type": "constant"}, "warmup_steps 10: constant of transformers ignores the warmup"),
    ({"lr_scheduler_type": "constant", "warmup": "0"}, None),
    ({"lr_scheduler_type": "constant_with_warmup"}, None),
    ({"learning_rate": 0}, "learning_rate 0: no weight will change"),
    ({"warmup": "60%"}, "warmup_steps 600 -> 500: cut to max_warmup_fraction=0.5"),
]


@pytest.mark.parametrize(("settings", "said"), CAVEATS)
def test_what_deserves_a_second_look(settings, said):
    own = {"lr_scheduler_type": "warmup_linear", "warmup": "10", "max_steps": 1000, **settings}
    plan = PlanSettings(**own).plan(num_processes=1)
    assert [warning.startswith(said or " ") for warning in plan.warnings] == ([True] if said else [])


def test_all_that_is_wrong_with_the_settings_is_said_at_once():
    settings = PlanSettings(
        warmup="5 epochs", warmup_steps=5, lr_scheduler_type="warmup_cosin", max_steps=10, target_batch_size=7
    )
    (first, twice), (second, unknown) = settings.mistakes()
    assert (first, second) == ("warmup", "lr_scheduler_type")
    assert twice == "warmup='5 epochs' and warmup_steps=5 are both given; keep warmup."
    assert unknown.startswith("unknown schedule 'warmup_cosin'; did you mean 'warmup_cosine'?")
    with pytest.raises(ValueError, match=re.escape("\n".join((twice, unknown)))) as caught:
        settings.plan(num_processes=1)
    assert caught.value.findings == (twice, unknown)


def test_a_length_that_cannot_be_read_makes_no_settings():
    with pytest.raises(
        ValueError, match=r"^duration '5 epoch s' has the unknown unit 'epoch s'; did you mean 'epochs'"
    ):
        PlanSettings(warmup="5 epoch s")


def test_the_shape_of_a_warmup_has_another_name_than_its_length():
    settings = PlanSettings(
        warmup="5", max_steps=10, lr_scheduler_type="hfwarmup", lr_scheduler_kwargs={"warmup": "cosine"}
    )
    ((setting, message),) = settings.mistakes()
    assert setting == "lr_scheduler_kwargs"
    assert message.startswith("'hfwarmup' has no option 'warmup'; did you mean 'warmup_shape'?")


COUNT = "give a whole number, 1 or more."
OUT_OF_RANGE = [
    # setting, a value that no run can have, the remedy
    ("learning_rate", -1, "give a finite learning rate, 0 or more."),
    ("learning_rate", float("nan"), "give a finite learning rate, 0 or more."),
    ("learning_rate", "fast", "give a finite learning rate, 0 or more."),
    ("warmup_steps", -5, "give a number of updates, 0 or more, or below 1 a share of the run."),
    ("reference_batch_size", 0, COUNT),
    ("target_batch_size", 0, COUNT),
    ("per_device_train_batch_size", 0, COUNT),
    ("gradient_accumulation_steps", 0, COUNT),
    ("gradient_accumulation_steps", 1.5, COUNT),
    ("max_warmup_fraction", 2, "give a share of the run above 0 and at most 1."),
    ("max_steps", 10.5, "give a whole number of updates, or -1 for a run of num_train_epochs."),
    ("max_steps", -3, "give a whole number of updates, or -1 for a run of num_train_epochs."),
    ("num_train_epochs", -1, "give a number of epochs above 0, or max_steps."),
    ("adam_beta2", 1.0, "give a number from 0 to below 1."),
    ("noise_scale_samples", -4, "give a number above 0."),
]


@pytest.mark.parametrize(("setting", "value", "remedy"), OUT_OF_RANGE)
def test_a_number_that_no_run_can_have_is_one_line(setting, value, remedy):
    settings = PlanSettings(**{setting: value})
    assert settings.mistakes() == [(setting, f"{setting}={value!r}: {remedy}")]
    with pytest.raises(ValueError, match=rf"\A{re.escape(f'{setting}={value!r}: {remedy}')}\Z"):
        settings.plan(num_processes=1, num_samples=1000)


@pytest.mark.parametrize("max_steps", [-1, 0])
def test_what_transformers_means_by_its_numbers_stays_valid(max_steps):
    """No max_steps is -1 or 0, epochs have fractions, and count only then; below 1 warmup_steps is a share."""
    by_epochs = PlanSettings(max_steps=max_steps, num_train_epochs=0.5, warmup_steps=0.1)
    assert by_epochs.plan(num_processes=1, num_samples=800).total_steps == 50
    assert PlanSettings(max_steps=5, num_train_epochs=-1).plan(num_processes=1).total_steps == 5


OF_A_WRONG_KIND = [
    # setting, a value that is not of its kind, the remedy
    ("lr_scheduler_kwargs", [1], "give a map."),
    ("lr_scaling", ["sqrt"], "give one of linear, sqrt, none."),
    ("warmup_scaling", {"a": 1}, "give one of linear, constant_samples, constant_steps, sqrt."),
    ("lr_scheduler_type", ["noam"], "give text (in quotes)."),
    ("optim", 3, "give text (in quotes)."),
    ("dataloader_drop_last", 3, "give true or false."),
    ("tokens_per_sample", "wide", "give a number above 0."),
]


@pytest.mark.parametrize(("setting", "value", "remedy"), OF_A_WRONG_KIND)
def test_a_value_of_a_wrong_kind_is_one_line(setting, value, remedy):
    settings = PlanSettings(max_steps=10, **{setting: value})
    assert settings.mistakes() == [(setting, f"{setting}={value!r}: {remedy}")]
    with pytest.raises(ValueError, match=rf"\A{re.escape(f'{setting}={value!r}: {remedy}')}\Z"):
        settings.plan(num_processes=1)


def test_an_option_of_a_wrong_kind_is_one_line():
    settings = PlanSettings(lr_scheduler_type="hfwarmup", lr_scheduler_kwargs={"warmup_shape": ["linear"]})
    ((setting, mistake),) = settings.mistakes()
    assert setting == "lr_scheduler_kwargs"
    assert mistake.startswith("warmup_shape=['linear']")


@pytest.mark.parametrize("setting", ["num_processes", "num_samples"])
def test_no_processes_and_no_samples_make_no_plan(setting):
    counts = {"num_processes": 1, "num_samples": 100, setting: 0}
    with pytest.raises(ValueError, match=rf"\A{setting}=0: {re.escape(COUNT)}\Z"):
        PlanSettings(target_batch_size=8).plan(**counts)
