"""How far Adam's second moment can be trusted in an early update."""

from __future__ import annotations

from hfwarmup.schedules.warmup_shapes import radam
from hfwarmup.trainer.probes.base import Moment, Probe


class Rectification(Probe):
    """`rectification`: RAdam's variance rectification term of this update, if the optimizer has a beta2."""

    def values(self, moment: Moment) -> dict[str, float]:
        betas = moment.optimizer.param_groups[0].get("betas")
        if betas is None or betas[1] <= 0.6:  # then RAdam rectifies no update
            return {}
        return {"rectification": radam(betas[1])(moment.state.global_step)}
