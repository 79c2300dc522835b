"""What a model computes on a few fixed samples: the probe batch and its last hidden state."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from typing import Any, cast

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import TrainingArguments

from hfwarmup.errors import UserError
from hfwarmup.measuring.preserving_state import preserving_state
from hfwarmup.trainer.first_batches import collate_samples

PROBE_TOKENS = 1024
"""About as many tokens are in the probe batch: enough rows for the rank of a small model, cheap for a large one."""


def probe_batch(dataloader: DataLoader, args: TrainingArguments) -> dict[str, Any]:
    """The first samples of the training data, about PROBE_TOKENS in all; what is no tensor stays as it is."""
    tensors = [value for value in collate_samples(dataloader, [0]).values() if isinstance(value, Tensor)]
    tokens = max(tensor.numel() for tensor in tensors)
    count = max(1, min(len(cast(Sized, dataloader.dataset)), PROBE_TOKENS // tokens))
    return dict(send_to_device(collate_samples(dataloader, range(count)), args.device))


def last_hidden_state(model: nn.Module, batch: Mapping[str, Any], args: TrainingArguments) -> Tensor:
    """The last hidden state of the batch's tokens, without padding: (tokens, width); of a seq2seq model the decoder's.

    Raises:
        UserError: the model's output has no hidden states; a model that cannot be asked for them raises its own error.
    """
    with (
        preserving_state(model),
        torch.no_grad(),
        torch.autocast(args.device.type, dtype=torch.bfloat16, enabled=args.bf16),
    ):
        output = model(**batch, output_hidden_states=True)
    states = output.get("hidden_states") or output.get("decoder_hidden_states")
    if not states:
        raise UserError(f"the output of {type(model).__name__} has neither hidden_states nor decoder_hidden_states")
    mask = batch.get("attention_mask")
    rows: Tensor = states[-1].flatten(0, -2).float()
    return rows if mask is None or mask.numel() != len(rows) else rows[mask.flatten().bool()]
