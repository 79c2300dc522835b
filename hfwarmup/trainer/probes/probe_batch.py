"""A few fixed samples of the training data, for probes that run the model."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any, cast

from accelerate.utils import send_to_device
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import TrainingArguments

from hfwarmup.trainer.first_batches import NothingToMeasureError, collate_samples, has_samples

PROBE_TOKENS = 1024
"""About the number of tokens in the probe batch: enough rows for the rank of a small model, cheap for a large one."""


def probe_batch(dataloader: DataLoader, args: TrainingArguments) -> dict[str, Any]:
    """The first samples of the training data, about PROBE_TOKENS in all; what is not a tensor stays as it is.

    Raises:
        NothingToMeasureError: the data only streams; a data set or collator raises its own errors, of any kind.
    """
    if not has_samples(dataloader):
        raise NothingToMeasureError("the training data cannot be read by index")
    tensors = [value for value in collate_samples(dataloader, [0]).values() if isinstance(value, Tensor)]
    tokens = max(tensor.numel() for tensor in tensors)
    count = max(1, min(len(cast(Sized, dataloader.dataset)), PROBE_TOKENS // tokens))
    return dict(send_to_device(collate_samples(dataloader, range(count)), args.device))


def reason_of(error: Exception) -> str:
    """One line that says why nothing can be measured; for errors of other code it begins with their type.

    >>> reason_of(NothingToMeasureError("the training data cannot be read by index"))
    'the training data cannot be read by index'
    >>> reason_of(KeyError("labels"))
    "KeyError: 'labels'"
    """
    is_own = isinstance(error, NothingToMeasureError)
    return (str(error) if is_own else f"{type(error).__name__}: {error}").splitlines()[0]
