"""What the model computes: how many directions its last hidden state uses, and how far an update changes it."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainingArguments

from hfwarmup.measuring.preserving_state import preserving_state
from hfwarmup.measuring.representation import effective_rank, relative_change
from hfwarmup.trainer.first_batches import NothingToMeasureError
from hfwarmup.trainer.probes.base import Moment, Probe
from hfwarmup.trainer.probes.probe_batch import probe_batch, reason_of
from hfwarmup.trainer.running import is_rank_zero

logger = logging.getLogger(__name__)


class Representation(Probe):
    """The last hidden state Y of the model on the probe batch.

    * `effective_rank`: how many directions it uses after this update (Roy & Vetterli 2007);
    * `effective_rank_ratio`: the effective rank over its value before the first update;
    * `representation_change`: ||dY|| / ||Y||, how far this update changes it.

    If the data cannot be indexed or the model has no hidden states, it is not measured, and a message says why.
    """

    def __init__(self) -> None:
        self._batch: dict[str, Any] | None = None
        self._initial_rank = math.nan
        self._values: dict[str, float] = {}

    def resume(self, past: Sequence[Mapping[str, float]]) -> None:
        ranked = (values for values in past if values.get("effective_rank_ratio"))  # the rank may have fallen to 0
        first = next(ranked, {"effective_rank": math.nan, "effective_rank_ratio": 1.0})
        self._initial_rank = first["effective_rank"] / first["effective_rank_ratio"]

    def begin(self, moment: Moment) -> None:
        self._batch, self._values = None, {}
        try:
            batch = probe_batch(moment.dataloader, moment.args)
            hidden = last_hidden_state(moment.model, batch, moment.args)
            if moment.state.global_step == 0:
                self._initial_rank = effective_rank(hidden)
            self._batch = batch
        except Exception as error:  # a user's data set, collator or model may raise anything and train all the same
            if is_rank_zero():
                logger.info("the effective rank is not measured: %s", reason_of(error))

    def before_update(self, moment: Moment) -> None:
        if self._batch is not None:
            self._before = last_hidden_state(moment.model, self._batch, moment.args)

    def after_update(self, moment: Moment) -> None:
        if self._batch is None:
            return
        hidden = last_hidden_state(moment.model, self._batch, moment.args)
        rank = effective_rank(hidden)
        self._values = {
            "effective_rank": rank,
            "effective_rank_ratio": rank / self._initial_rank if self._initial_rank else math.nan,
            "representation_change": relative_change(self._before, hidden),
        }

    def values(self, moment: Moment) -> dict[str, float]:
        return self._values


def last_hidden_state(model: nn.Module, batch: Mapping[str, Any], args: TrainingArguments) -> Tensor:
    """The last hidden state of a batch's tokens without padding, (tokens, width); the decoder's in a seq2seq model.

    Raises:
        NothingToMeasureError: the model's output has no hidden states; a model that does not know
            `output_hidden_states` raises its own error.
    """
    with (
        preserving_state(model),
        torch.no_grad(),
        torch.autocast(args.device.type, dtype=torch.bfloat16, enabled=args.bf16),
    ):
        output = model(**batch, output_hidden_states=True)
    states = output.get("hidden_states") or output.get("decoder_hidden_states")
    if not states:
        name = type(model).__name__
        raise NothingToMeasureError(f"the output of {name} has neither hidden_states nor decoder_hidden_states")
    mask = batch.get("attention_mask")
    rows: Tensor = states[-1].flatten(0, -2).float()
    return rows if mask is None or mask.numel() != len(rows) else rows[mask.flatten().bool()]
