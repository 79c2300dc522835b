"""Rank, change and angle of tensors whose values are known."""

from __future__ import annotations

import math

import pytest
import torch

from hfwarmup.measuring.representation import angle, effective_rank, relative_change


def rows_with_singular_values(values, rows=64, width=8):
    """(rows, width) of mean 0 and the given singular values."""
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    left, _ = torch.linalg.qr(left - left.mean(dim=0))
    right, _ = torch.linalg.qr(torch.randn(width, width, generator=generator, dtype=torch.float64))
    return left @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ right.T


@pytest.mark.parametrize(
    ("singular_values", "rank"),
    [
        ([1.0] * 8, 8.0),  # all directions alike
        ([5.0] * 4 + [0.0] * 4, 4.0),  # half of them
        ([3.0] + [0.0] * 7, 1.0),  # one
        ([3.0, 1.0] + [0.0] * 6, math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))),  # p = 3/4, 1/4
    ],
)
def test_the_rank_of_known_singular_values(singular_values, rank):
    assert effective_rank(rows_with_singular_values(singular_values)) == pytest.approx(rank, rel=1e-5)


def test_wide_and_tall_matrices_go_by_the_same_singular_values():
    tall = rows_with_singular_values([4.0, 3.0, 2.0, 1.0, 1.0, 1.0, 0.5, 0.1])
    wide = tall.T - tall.T.mean(dim=0)
    values = torch.linalg.svdvals(wide)
    p = values[values > 1e-12] / values.sum()
    assert effective_rank(tall.T) == pytest.approx(math.exp(-(p * p.log()).sum().item()), rel=1e-5)


@pytest.mark.parametrize(("scale", "shift"), [(1e-3, 0.0), (1e3, 0.0), (1.0, 100.0), (0.5, -3.0)])
def test_the_rank_sees_neither_scale_nor_mean(scale, shift):
    rows = rows_with_singular_values([4.0, 3.0, 2.0, 1.0, 1.0, 1.0, 0.5, 0.1])
    assert effective_rank(scale * rows + shift) == pytest.approx(effective_rank(rows), rel=1e-4)


@pytest.mark.parametrize(("rows", "rank"), [(torch.ones(4, 3), 0.0), (torch.full((4, 3), math.nan), math.nan)])
def test_the_rank_of_degenerate_rows(rows, rank):
    assert effective_rank(rows) == pytest.approx(rank, nan_ok=True)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [([3.0, 4.0], [3.0, 4.0], 0.0), ([3.0, 4.0], [0.0, 0.0], 1.0), ([0.0, 0.0], [1.0, 0.0], math.inf)],
)
def test_relative_change(before, after, expected):
    assert relative_change(torch.tensor(before), torch.tensor(after)) == expected


@pytest.mark.parametrize("radians", [1e-6, 0.01, 1.0, 3.0])
def test_the_angle_of_a_rotation_is_its_angle_also_when_small(radians):
    turned = 5 * torch.tensor([math.cos(radians), math.sin(radians)], dtype=torch.float64)
    assert angle(torch.tensor([2.0, 0.0], dtype=torch.float64), turned) == pytest.approx(radians, rel=1e-6)


class OnMps(torch.Tensor):
    """A tensor on a device without float64."""

    @property
    def device(self):
        return torch.device("mps")

    def cpu(self):
        return self.as_subclass(torch.Tensor)

    def double(self):
        raise TypeError("MPS has no float64")


def test_the_rank_where_there_is_no_float64():
    rows = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    assert effective_rank(rows.as_subclass(OnMps)) == effective_rank(rows)
