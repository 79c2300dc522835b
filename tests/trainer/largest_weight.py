"""A measurement as CONTRIBUTING describes it; `test_new_measurement.py` puts a copy of this file in its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hfwarmup.trainer.probes.base import Moment, Probe


class LargestWeight(Probe):
    """`largest_weight`: the largest |weight| of a matrix after any of the updates measured so far."""

    def __init__(self) -> None:
        self._largest = 0.0

    def resume(self, past: Sequence[Mapping[str, float]]) -> None:
        self._largest = max((values.get("largest_weight", 0.0) for values in past), default=0.0)

    def after_update(self, moment: Moment) -> None:
        matrices = [p.detach() for p in moment.model.parameters() if p.ndim >= 2]
        self._largest = max(self._largest, *(matrix.abs().max().item() for matrix in matrices))

    def values(self, moment: Moment) -> dict[str, float]:
        return {"largest_weight": self._largest}
