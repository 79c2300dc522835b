"""The settings of a recipe that decide its plan."""

from __future__ import annotations

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
