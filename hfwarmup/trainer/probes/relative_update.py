"""How large an update is, compared with the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from hfwarmup.measuring.products import local_part
from hfwarmup.measuring.representation import angle, relative_change
from hfwarmup.trainer.probes.base import Moment, Probe


class RelativeUpdate(Probe):
    """The size of an update, over the trained weight matrices; of sharded weights each rank measures its own shards.

    * `relative_update`: the largest ||dW|| / ||W|| of a matrix in this update;
    * `max_relative_update`: the largest of any update measured so far, those at powers of two included;
    * `angle`: how far this update turns a matrix, in radians, as the mean over the matrices.

    Matrices that are 0 when the run begins are left out, because ||dW|| / ||W|| has no bound in their first updates.
    Half of a LoRA adapter is such a matrix.
    """

    at_powers_of_two = True

    def __init__(self) -> None:
        self._update = self._max_update = self._angle = 0.0

    def resume(self, past: Sequence[Mapping[str, float]]) -> None:
        self._max_update = max((values.get("max_relative_update", 0.0) for values in past), default=0.0)

    def begin(self, moment: Moment) -> None:
        matrices = (p for p in moment.model.parameters() if p.requires_grad and p.ndim >= 2)
        self._matrices = [p for p in matrices if local_part(p.detach()).any()]
        self._before: list[Tensor] = []  # of a run that ended in the middle of an update

    def before_update(self, moment: Moment) -> None:
        self._before = [local_part(p.detach()).clone() for p in self._matrices]

    def after_update(self, moment: Moment) -> None:
        pairs = list(zip(self._before, (local_part(p.detach()) for p in self._matrices), strict=True))
        self._before = []
        self._update = max((relative_change(*pair) for pair in pairs), default=0.0)
        self._max_update = max(self._max_update, self._update)
        if moment.marked:
            self._angle = sum(angle(*pair) for pair in pairs) / max(1, len(pairs))

    def values(self, moment: Moment) -> dict[str, float]:
        return {
            "relative_update": self._update,
            "max_relative_update": self._max_update,
            "angle": self._angle,
        }
