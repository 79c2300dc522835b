"""What a language model must beat: predictions that need no training."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from datasets import Dataset

from hfwarmup.recipe.data import IGNORED_LABEL, PreparedData


def describe_language_model(eval_loss: float, data: PreparedData) -> tuple[dict[str, float], str]:
    """The metrics of a causal language model with a validation loss of `eval_loss` nats a token, and a line about them.

    `eval_perplexity` = e^eval_loss; `eval_bits_per_byte` = eval_loss / ln 2 / bytes per token, which does not depend on
    the tokenizer; `eval_baseline_loss`, in nats a token: what `unigram_loss` gives.
    """
    metrics = {
        "eval_baseline_loss": unigram_loss(data.train, next_token_targets(data.validation), len(data.tokenizer)),
        "eval_perplexity": math.exp(min(eval_loss, 700.0)),
        "eval_bits_per_byte": eval_loss / math.log(2) / data.validation_bytes_per_token,
    }
    summary = (
        f"validation loss {eval_loss:.3f} nats a token, perplexity {metrics['eval_perplexity']:.1f}, "
        f"{metrics['eval_bits_per_byte']:.3f} bits a byte; token frequencies alone give "
        f"{metrics['eval_baseline_loss']:.3f} nats, a uniform guess {math.log(len(data.tokenizer)):.2f}"
    )
    return metrics, summary


def unigram_loss(train: Dataset, targets: Iterable[np.ndarray], vocab_size: int) -> float:
    """The loss, in nats a target, of a model that knows only how often each token is a label in the blocks `train`.

    loss = -mean(ln p), with p = (n + 1) / (N + vocab_size) for a token that is n of the N labels (Laplace's rule).
    `targets` are arrays of token ids; -100 does not count.

    >>> train = Dataset.from_dict({"labels": [[0, 0, 0, 1]]})
    >>> round(unigram_loss(train, [np.array([0, -100]), np.array([0])], vocab_size=4), 3)  # p = (3 + 1) / (4 + 4)
    0.693
    """
    counts = 1 + _count((batch["labels"] for batch in train.with_format("numpy").iter(batch_size=1024)), vocab_size)
    times = _count(targets, vocab_size)
    return float(np.log(counts.sum()) - times @ np.log(counts) / times.sum())


def next_token_targets(blocks: Dataset) -> Iterable[np.ndarray]:
    """The tokens that a causal language model predicts in the blocks: each label but the first of a block.

    >>> [row.tolist() for row in next_token_targets(Dataset.from_dict({"labels": [[5, 6, 7], [8, 9, 9]]}))]
    [[[6, 7], [9, 9]]]
    """
    return (batch["labels"][:, 1:] for batch in blocks.with_format("numpy").iter(batch_size=1024))


def _count(labels: Iterable[np.ndarray], vocab_size: int) -> np.ndarray:
    counts = np.zeros(vocab_size)
    for row in labels:
        counts += np.bincount(row[row != IGNORED_LABEL], minlength=vocab_size)
    return counts
