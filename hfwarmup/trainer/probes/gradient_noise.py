"""How noisy the gradient is, and beyond which batch size more samples hardly help."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from transformers import TrainingArguments

from hfwarmup.measuring.noise_scale import NoiseScale, noise_and_signal
from hfwarmup.trainer.compat import parameters_are_sharded
from hfwarmup.trainer.probes.base import Moment, Probe
from hfwarmup.trainer.probes.micro_batches import MicroBatchGradients


class GradientNoise(Probe):
    """The gradient noise scale, from the gradients of the micro-batches, if an update has several.

    * `gradient_noise`: tr Sigma of one sample, estimated from this update alone;
    * `gradient_signal`: |G|^2, estimated from this update alone;
    * `noise_scale_samples`: the running mean of tr Sigma over that of |G|^2, in samples.

    It is not measured under fp16, because the gradients contain the scaler's factor, and not for sharded weights. If a
    `compute_loss_func` or label smoothing weighs micro-batches by their labels, all are assumed to have equally many.
    """

    def __init__(self) -> None:
        self._gradients = MicroBatchGradients()

    def resume(self, past: Sequence[Mapping[str, float]]) -> None:
        self._noise_scale = NoiseScale()
        for values in past:
            if "gradient_noise" in values:
                self._noise_scale.add(values["gradient_noise"], values["gradient_signal"])

    def begin(self, moment: Moment) -> None:
        self._gradients.forget()  # the hooks of a run that ended in the middle of an update

    def before_gradients(self, moment: Moment) -> None:
        args = moment.args
        if args.gradient_accumulation_steps * args.world_size > 1 and gradients_are_whole(args):
            self._gradients.watch(moment.model)

    def before_update(self, moment: Moment) -> None:
        self._measured = self._gradients.squared_norm_and_share(accumulation=moment.micro_batches)

    def values(self, moment: Moment) -> dict[str, float]:
        args, state = moment.args, moment.state
        grad_norm = state.log_history[-1].get("grad_norm")
        squared_norm, share = self._measured
        has_several = share < args.world_size  # at the end of an epoch one micro-batch may be the whole update
        if grad_norm is None or not has_several:
            return {}
        rank_samples = (state.train_batch_size or args.train_batch_size) * moment.micro_batches
        noise, signal = noise_and_signal(
            squared_norm,
            float(grad_norm) ** 2,
            small_batch=rank_samples * share,
            big_batch=rank_samples * args.world_size,
        )
        self._noise_scale.add(noise, signal)
        return {
            "gradient_noise": noise,
            "gradient_signal": signal,
            "noise_scale_samples": self._noise_scale.samples,
        }


def gradients_are_whole(args: TrainingArguments) -> bool:
    """Whether a backward pass leaves the gradient of its own batch: not scaled, and not spread over the ranks."""
    return not args.fp16 and not parameters_are_sharded()
