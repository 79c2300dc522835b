"""A few batches of a Trainer's data and the model's loss on them, without drawing from its sampler."""

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
from transformers import TrainingArguments

from hfwarmup.measuring.products import gradient, mean_over_ranks


class NothingToMeasureError(ValueError):
    """No loss of the first batches can be had; what to do about it depends on what it was for."""


class FirstBatches:
    """Batches of the size of an update's, from samples that are spread evenly over the training set.

    No sampler is asked and no random state is used up, so the training sees the data that it would have seen. Each rank
    has samples of its own, and losses and gradients are means over the ranks, so every rank must ask for them.

    Args:
        model: a model that gives its own loss, as a Trainer needs it; the caller sets its mode, see `preserving_state`.
        dataloader: the Trainer's.
        args: the Trainer's; of it the accumulation, clipping, device and rank are read.
        batch_size: samples a process and micro-batch.
        count: how many batches.

    Raises:
        NothingToMeasureError: the data only streams, or the model gives no loss for it.
    """

    def __init__(
        self, model: nn.Module, dataloader: DataLoader, args: TrainingArguments, *, batch_size: int, count: int = 1
    ) -> None:
        if not has_samples(dataloader):
            raise NothingToMeasureError("the training data only streams, so there are no batches to measure first")
        self.count = count
        self._model, self._args, self._batch_size = model, args, batch_size
        self._dataloader = dataloader

    def mean_loss(self, index: int) -> float:
        """The loss of batch `index` at the current weights."""
        with torch.no_grad():
            losses = [loss() for loss in self._losses(index)]
        return mean_over_ranks(torch.stack(losses).mean()).item()

    def write_gradients(self, index: int, parameters: Sequence[Tensor]) -> None:
        """Put the gradient of batch `index` into `.grad`, clipped as the Trainer clips it."""
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
        """This rank's part of a micro-batch, counted over all batches."""
        total = self.count * self._args.gradient_accumulation_steps * self._args.world_size * self._batch_size
        first = (micro_batch * self._args.world_size + self._args.process_index) * self._batch_size
        size = len(cast(Sized, self._dataloader.dataset))
        return collate_samples(
            self._dataloader, [index * size // total for index in range(first, first + self._batch_size)]
        )


def has_samples(dataloader: Any) -> bool:
    """Whether its data set can be asked for samples by index: neither a stream nor hidden in an iterable."""
    dataset = getattr(dataloader, "dataset", None)
    return isinstance(dataset, Sized) and not isinstance(dataset, IterableDataset)


def collate_samples(dataloader: DataLoader, indices: Iterable[int]) -> Any:
    """The samples at `indices` as the dataloader's batch, without using up a random state.

    A data set may draw augmentations and a collator masks, from any of the three sources; a collator with a generator
    of its own is copied and draws from the copy.
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
    """A copy that shares what is large and draws nothing: the data set that it may belong to, and the tokenizer."""
    collate = dataloader.collate_fn
    tokenizer = getattr(getattr(collate, "data_collator", collate), "tokenizer", None)  # inside RemoveColumnsCollator
    try:
        return copy.deepcopy(collate, {id(shared): shared for shared in (dataloader.dataset, tokenizer)})
    except Exception:  # one that holds a lock or a file has no copy; any other object may say so in any way
        return collate


def loss_of(model: nn.Module, batch: Mapping[str, Any]) -> Tensor:
    """The loss that the model gives for a batch, where it gives one and no `compute_loss` is needed.

    Raises:
        NothingToMeasureError: it does not take the batch, or gives no loss.
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
