"""The gradient noise scale: beyond which batch size more samples an update hardly help."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hfwarmup.errors import UserError


def noise_and_signal(
    small_squared_norm: float, big_squared_norm: float, *, small_batch: float, big_batch: float
) -> tuple[float, float]:
    """Unbiased (tr Sigma, |G|^2) from the squared norms of gradients over two batch sizes.

    |G|^2 = (B |g_B|^2 - b |g_b|^2) / (B - b) and tr Sigma = (|g_b|^2 - |g_B|^2) / (1/b - 1/B), with g_b the mean
    gradient of b = `small_batch` samples and g_B that of B = `big_batch` (McCandlish et al. 2018, arXiv:1812.06162,
    equation A.2). One pair is noisy, so either value may be negative.

    Raises UserError unless 0 < small_batch < big_batch.

    >>> noise_and_signal(3.0, 1.5, small_batch=1, big_batch=4)  # |g_b|^2 = |G|^2 + tr Sigma / b: 1 + 2, 1 + 2/4
    (2.0, 1.0)
    """
    if not 0 < small_batch < big_batch:
        raise UserError(f"small_batch={small_batch} and big_batch={big_batch}: give 0 < small_batch < big_batch.")
    signal = (big_batch * big_squared_norm - small_batch * small_squared_norm) / (big_batch - small_batch)
    noise = (small_squared_norm - big_squared_norm) / (1 / small_batch - 1 / big_batch)
    return noise, signal


@dataclass(kw_only=True)
class NoiseScale:
    """The simple noise scale tr Sigma / |G|^2 in samples, both averaged over updates before they are divided.

    Use the ratio of the averages: the average of the ratios is biased, and the |G|^2 of one update may be negative
    (McCandlish et al. 2018, appendix A.1).

    >>> scale = NoiseScale()
    >>> scale.observe(3.0, 1.5, small_batch=1, big_batch=4)
    >>> scale.samples
    2.0
    """

    decay: float = 0.95
    """Weight of the past in both averages, in [0, 1)."""
    noise: float = 0.0
    signal: float = 0.0
    weight: float = 0.0

    def observe(
        self, small_squared_norm: float, big_squared_norm: float, *, small_batch: float, big_batch: float
    ) -> None:
        """Add one update: the mean squared norm of its micro-batches' gradients, and that of the whole batch."""
        self.add(*noise_and_signal(small_squared_norm, big_squared_norm, small_batch=small_batch, big_batch=big_batch))

    def add(self, noise: float, signal: float) -> None:
        """Add one update whose tr Sigma and |G|^2 are known."""
        self.noise = self.decay * self.noise + (1 - self.decay) * noise
        self.signal = self.decay * self.signal + (1 - self.decay) * signal
        self.weight = self.decay * self.weight + (1 - self.decay)

    @property
    def samples(self) -> float:
        """tr Sigma / |G|^2; NaN before the first update, inf while the averaged |G|^2 is not above 0."""
        if not self.weight:
            return math.nan
        return max(0.0, self.noise) / self.signal if self.signal > 0 else math.inf
