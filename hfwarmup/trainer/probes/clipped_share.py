"""How often the gradient is clipped."""

from __future__ import annotations

from hfwarmup.trainer.probes.base import Moment, Probe


class ClippedShare(Probe):
    """`clipped_share`: the share of the updates logged so far whose gradient norm was above `max_grad_norm`.

    It is not measured if the Trainer does not clip.
    """

    def values(self, moment: Moment) -> dict[str, float]:
        limit = moment.args.max_grad_norm
        norms = [float(entry["grad_norm"]) for entry in moment.state.log_history if "grad_norm" in entry]
        if not norms or limit <= 0:
            return {}
        return {"clipped_share": sum(norm > limit for norm in norms) / len(norms)}
