"""The noise scale of gradients whose mean and covariance are known."""

from __future__ import annotations

import math

import pytest
import torch

from hfwarmup.measuring.noise_scale import NoiseScale, noise_and_signal


def test_exact_norms_give_exact_values():
    """E|g_b|^2 = |G|^2 + tr Sigma / b, here with |G|^2 = 5 and tr Sigma = 12."""
    assert noise_and_signal(5 + 12 / 2, 5 + 12 / 32, small_batch=2, big_batch=32) == pytest.approx((12.0, 5.0))


def test_a_synthetic_gradient_within_five_percent():
    """Per-sample gradients N(G, Sigma): noise scale tr Sigma / |G|^2 = 40, from batches of 4 of 32."""
    generator = torch.Generator().manual_seed(0)
    deviations = torch.linspace(0.5, 1.5, 50)
    mean = torch.ones(50) * (deviations.square().sum() / 40 / 50).sqrt()
    scale = NoiseScale(decay=0.999)
    for _ in range(4000):
        micro = mean + deviations * torch.randn(8, 50, generator=generator) / math.sqrt(4)
        small, big = micro.square().sum(dim=1).mean().item(), micro.mean(dim=0).square().sum().item()
        scale.observe(small, big, small_batch=4, big_batch=32)
    assert scale.samples == pytest.approx(40.0, rel=0.05)


def test_numerator_and_denominator_are_averaged_apart():
    """Two updates whose ratios are 1 and 9 and whose sums give 10 / 2."""
    scale = NoiseScale(decay=0.5)
    for noise in (1.0, 9.0):  # the EMA weighs them 1/4 and 1/2
        scale.observe(1 + noise, 1 + noise / 2, small_batch=1, big_batch=2)
    assert scale.samples == pytest.approx((0.25 * 1 + 0.5 * 9) / 0.75)


def test_before_any_update_and_without_signal():
    scale = NoiseScale()
    assert math.isnan(scale.samples)
    scale.observe(4.0, 1.0, small_batch=1, big_batch=4)  # |G|^2 = 0
    assert scale.samples == math.inf


@pytest.mark.parametrize(("small", "big"), [(4, 4), (8, 4), (0, 4)])
def test_batches_that_say_nothing(small, big):
    with pytest.raises(ValueError, match=f"small_batch={small} and big_batch={big}: give 0 < small_batch < big_batch"):
        noise_and_signal(1.0, 1.0, small_batch=small, big_batch=big)
