"""The model's loss and gradients on a few batches of a Trainer's data, without disturbing the training."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset
from transformers import TrainerState, TrainingArguments

from hfwarmup.measuring.products import gradient, mean_over_ranks


class NothingToMeasureError(ValueError):
    """The first batches have no loss; the caller knows what its user can do about that."""


class FirstBatches:
    """Batches as large as those of an update, from samples that are spread evenly over the training set.

    They use neither the Trainer's sampler nor its random state, so the training sees the same data as without them.
    Each rank has its own samples, and losses and gradients are means over the ranks: every rank must call the methods.

    Args:
        model: a model that computes its own loss; the caller puts it into the right mode, see `preserving_state`.
        dataloader: the Trainer's.
        args: the Trainer's; accumulation, clipping, device and rank are read.
        state: the Trainer's; auto_find_batch_size may have lowered its batch.
        count: how many batches.

    Raises:
        NothingToMeasureError: the data is a stream, or the model gives no loss for it.
    """

    def __init__(
        self, model: nn.Module, dataloader: DataLoader, args: TrainingArguments, state: TrainerState, *, count: int = 1
    ) -> None:
        if not has_samples(dataloader):
            raise NothingToMeasureError("the training data is a stream, so no batch can be read before the training")
        self.count = count
        self._model, self._dataloader, self._args = model, dataloader, args
        self._batch_size = state.train_batch_size or args.train_batch_size

    def mean_loss(self, index: int) -> float:
        """The loss of batch `index` at the current weights."""
        with torch.no_grad():
            losses = [loss() for loss in self._losses(index)]
        return mean_over_ranks(torch.stack(losses).mean()).item()

    def write_gradients(self, index: int, parameters: Sequence[Tensor]) -> None:
        """Write the gradient of batch `index` into `.grad`, clipped as the Trainer clips it."""
        for parameter in parameters:
            parameter.grad = None
        for loss in self._losses(index):
            for parameter, found in zip(parameters, gradient(loss, parameters), strict=True):
                share = found / self._args.gradient_accumulation_steps
                parameter.grad = share if parameter.grad is None else parameter.grad + share
        if self._args.max_grad_norm > 0:
            torch.nn.utils.clip_grad_norm_(parameters, self._args.max_grad_norm)

    def _losses(self, index: int) -> Iterator[Callable[[], Tensor]]:
        """The loss of each micro-batch of batch `index`, as a function of the weights."""
        accumulation = self._args.gradient_accumulation_steps
        for micro_batch in range(accumulation):
            samples = self._samples(index * accumulation + micro_batch)
            yield partial(loss_of, self._model, send_to_device(samples, self._args.device))

    def _samples(self, micro_batch: int) -> Any:
        """This rank's part of a micro-batch; micro-batches are numbered over all batches."""
        total = self.count * self._args.gradient_accumulation_steps * self._args.world_size * self._batch_size
        first = (micro_batch * self._args.world_size + self._args.process_index) * self._batch_size
        size = len(cast(Sized, self._dataloader.dataset))
        return collate_samples(
            self._dataloader, [index * size // total for index in range(first, first + self._batch_size)]
        )


def has_samples(dataloader: Any) -> bool:
    """Whether samples of its data set can be read by index; those of a stream cannot."""
    dataset = getattr(dataloader, "dataset", None)
    return isinstance(dataset, Sized) and not isinstance(dataset, IterableDataset)


def collate_samples(dataloader: DataLoader, indices: Iterable[int]) -> Any:
    """The samples at `indices` as the dataloader would collate them, with every random state left as it was.

    A data set may draw augmentations and a collator may draw masks, from Python, numpy or torch. A collator with a
    generator of its own is copied and draws from the copy.
    """
    dataset, collate = dataloader.dataset, _copied_collator(dataloader)
    python_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            return collate([dataset[index] for index in indices])
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)


def _copied_collator(dataloader: DataLoader) -> Callable[[list[Any]], Any]:
    """A copy of the collator that shares the tokenizer and the data set, which are large and draw nothing."""
    collate = dataloader.collate_fn
    tokenizer = getattr(getattr(collate, "data_collator", collate), "tokenizer", None)  # RemoveColumnsCollator wraps it
    try:
        return copy.deepcopy(collate, {id(shared): shared for shared in (dataloader.dataset, tokenizer)})
    except Exception:  # a lock or a file cannot be copied, and each class raises an error of its own
        return collate


def loss_of(model: nn.Module, batch: Mapping[str, Any]) -> Tensor:
    """The loss that the model itself computes for a batch.

    Raises:
        NothingToMeasureError: the model does not take the batch, or gives no loss: its Trainer's `compute_loss` does.
    """
    name = type(model).__name__
    try:
        outputs = model(**batch)
    except TypeError as error:
        raise NothingToMeasureError(f"{name} does not take this data by itself ({error})") from error
    loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs[0]
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        raise NothingToMeasureError(f"{name} gives no loss for this data by itself")
    return loss
