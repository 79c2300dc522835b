"""What a trained model must beat: answers that need no training."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from datasets import Dataset

from hfwarmup.recipe.data import IGNORED_LABEL


def unigram_loss(train: Dataset, targets: Iterable[np.ndarray], vocab_size: int) -> float:
    """Nats a target, predicted by how often each token is a label of the blocks `train`.

    loss = -mean(ln p), p = (n + 1) / (N + vocab_size) for a token that is n of the N labels (Laplace's rule). `targets`
    are arrays of token ids, those of -100 do not count.

    >>> train = Dataset.from_dict({"labels": [[0, 0, 0, 1]]})
    >>> round(unigram_loss(train, [np.array([0, -100]), np.array([0])], vocab_size=4), 3)  # p = (3 + 1) / (4 + 4)
    0.693
    """
    counts = 1 + _count((batch["labels"] for batch in train.with_format("numpy").iter(batch_size=1024)), vocab_size)
    times = _count(targets, vocab_size)
    return float(np.log(counts.sum()) - times @ np.log(counts) / times.sum())


def next_token_targets(blocks: Dataset) -> Iterable[np.ndarray]:
    """What a causal language model is to predict in the blocks: every label but a block's first.

    >>> [row.tolist() for row in next_token_targets(Dataset.from_dict({"labels": [[5, 6, 7], [8, 9, 9]]}))]
    [[[6, 7], [9, 9]]]
    """
    return (batch["labels"][:, 1:] for batch in blocks.with_format("numpy").iter(batch_size=1024))


def _count(labels: Iterable[np.ndarray], vocab_size: int) -> np.ndarray:
    counts = np.zeros(vocab_size)
    for row in labels:
        counts += np.bincount(row[row != IGNORED_LABEL], minlength=vocab_size)
    return counts
