"""Metrics that need no network: `evaluate.Metric` classes, found by name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Any, ClassVar

import evaluate
import numpy as np
from datasets import Features, Value
from transformers import EvalPrediction

from hfwarmup.errors import UserError

_CHRF_ORDER = 6
_CHRF_BETA = 2.0


class _ShippedMetric(evaluate.Metric):
    """An `evaluate.Metric` of one prediction and one reference a sample; a subclass sets their type and computes."""

    dtype: ClassVar[str] = "int64"

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=type(self).__doc__ or "",
            citation="",
            inputs_description="predictions and references, one value a sample",
            features=Features({"predictions": Value(self.dtype), "references": Value(self.dtype)}),
        )


class Accuracy(_ShippedMetric):
    """Share of the samples whose predicted class is the true one: `accuracy`, in [0, 1].

    >>> Accuracy(keep_in_memory=True).compute(predictions=[0, 1, 1, 0], references=[0, 1, 0, 0])
    {'accuracy': 0.75}
    """

    def _compute(self, *, predictions: Sequence[int], references: Sequence[int], **_: Any) -> dict[str, float]:
        return {"accuracy": float(np.mean(np.equal(predictions, references)))}


class F1Macro(_ShippedMetric):
    """Mean over the classes of F1 = 2 TP / (2 TP + FP + FN): `f1_macro`, in [0, 1].

    Each class that is predicted or true somewhere has the same weight, however rare it is (Sokolova and Lapalme 2009,
    table 3, with the F1 of each class averaged, as scikit-learn does).

    >>> F1Macro(keep_in_memory=True).compute(predictions=[0, 0, 1, 1], references=[0, 0, 0, 1])
    {'f1_macro': 0.7333333333333334}
    """

    def _compute(self, *, predictions: Sequence[int], references: Sequence[int], **_: Any) -> dict[str, float]:
        true_positive, predicted, true = _class_counts(predictions, references)
        return {"f1_macro": float(np.mean(2 * true_positive / (predicted + true)))}


class MatthewsCorrelation(_ShippedMetric):
    """Correlation of predicted and true classes: `matthews_correlation`; 1 is perfect, 0 a guess, -1 the opposite.

    With c correct of s samples, and class k predicted p_k times and true t_k times (Gorodkin 2004, eq. 8, R_K for any
    number of classes; Matthews 1975 for two):
    (c s - sum p_k t_k) / sqrt((s^2 - sum p_k^2) (s^2 - sum t_k^2)), and 0 when only one class is predicted or true.

    >>> MatthewsCorrelation(keep_in_memory=True).compute(predictions=[0, 0, 1, 1], references=[0, 0, 0, 1])
    {'matthews_correlation': 0.5773502691896258}
    """

    def _compute(self, *, predictions: Sequence[int], references: Sequence[int], **_: Any) -> dict[str, float]:
        true_positive, predicted, true = _class_counts(predictions, references)
        samples = float(len(references))
        covariance = true_positive.sum() * samples - predicted @ true
        variances = (samples**2 - predicted @ predicted) * (samples**2 - true @ true)
        return {"matthews_correlation": float(covariance / np.sqrt(variances)) if variances else 0.0}


class MeanSquaredError(_ShippedMetric):
    """Mean of (prediction - reference)^2: `mse`.

    >>> MeanSquaredError(keep_in_memory=True).compute(predictions=[1.0, 4.0], references=[1.0, 2.0])
    {'mse': 2.0}
    """

    dtype = "float64"

    def _compute(self, *, predictions: Sequence[float], references: Sequence[float], **_: Any) -> dict[str, float]:
        return {"mse": float(np.mean(np.subtract(predictions, references) ** 2))}


class MeanAbsoluteError(_ShippedMetric):
    """Mean of |prediction - reference|: `mae`.

    >>> MeanAbsoluteError(keep_in_memory=True).compute(predictions=[1.0, 4.0], references=[1.0, 2.0])
    {'mae': 1.0}
    """

    dtype = "float64"

    def _compute(self, *, predictions: Sequence[float], references: Sequence[float], **_: Any) -> dict[str, float]:
        return {"mae": float(np.mean(np.abs(np.subtract(predictions, references))))}


class RougeL(_ShippedMetric):
    """Mean over the samples of the F-measure of the longest common subsequence of words: `rouge_l`, in [0, 1].

    With L = LCS(prediction, reference), P = L / words predicted, R = L / words of the reference: F = 2 P R / (P + R),
    the ROUGE-L of Lin 2004 (section 3.1, beta = 1), 0 where nothing is common. Words are runs of letters and digits,
    lower-cased, without stemming.

    >>> load_metric("rouge_l").compute(predictions=["Police kill the gunman!"], references=["police killed the gunman"])
    {'rouge_l': 0.75}
    """

    dtype = "string"

    def _compute(self, *, predictions: Sequence[str], references: Sequence[str], **_: Any) -> dict[str, float]:
        pairs = zip(map(_words, predictions), map(_words, references), strict=True)
        return {"rouge_l": float(np.mean([_rouge_l(predicted, true) for predicted, true in pairs]))}


class ChrF(_ShippedMetric):
    """Corpus F-score of character n-grams, n = 1 to 6, recall weighted beta = 2 times: `chrf`, in [0, 100].

    The n-grams are of the text without its white space, clipped and counted over the whole corpus. Precision and
    recall are averaged over the n that occur on both sides; F = (1 + beta^2) P R / (beta^2 P + R) (Popovic 2015; beta
    of Popovic 2016). It is sacrebleu's `corpus_chrf`.

    >>> ChrF(keep_in_memory=True).compute(predictions=["abc def"], references=["abcdef"])
    {'chrf': 100.0}
    """

    dtype = "string"

    def _compute(self, *, predictions: Sequence[str], references: Sequence[str], **_: Any) -> dict[str, float]:
        counts = np.zeros((_CHRF_ORDER, 3))  # common, predicted, true n-grams
        for predicted, true in zip(predictions, references, strict=True):
            counts += [_ngram_counts(predicted, true, n) for n in range(1, _CHRF_ORDER + 1)]
        common, num_predicted, num_true = counts[(counts[:, 1] > 0) & (counts[:, 2] > 0)].T
        if not common.any():
            return {"chrf": 0.0}
        precision, recall = np.mean(common / num_predicted), np.mean(common / num_true)
        score = (1 + _CHRF_BETA**2) * precision * recall / (_CHRF_BETA**2 * precision + recall)
        return {"chrf": float(100 * score)}


SHIPPED_METRICS: dict[str, type[_ShippedMetric]] = {
    "accuracy": Accuracy,
    "f1_macro": F1Macro,
    "matthews_correlation": MatthewsCorrelation,
    "mse": MeanSquaredError,
    "mae": MeanAbsoluteError,
    "rouge_l": RougeL,
    "chrf": ChrF,
}
"""What `load_metric` finds without a network; `compute` returns the value under the same name."""


def load_metric(name: str) -> evaluate.Metric:
    """The metric `name`: one of SHIPPED_METRICS, else what `evaluate.load` finds, on the hub or in a local script.

    Raises UserError for a name that is not shipped and cannot be loaded.

    >>> load_metric("accuracy").compute(predictions=[1, 2], references=[1, 1])
    {'accuracy': 0.5}
    """
    if name in SHIPPED_METRICS:
        return SHIPPED_METRICS[name](keep_in_memory=True)
    try:
        return evaluate.load(name)
    except (OSError, ImportError) as error:
        raise UserError(
            f"metric={name}: is not shipped ({', '.join(SHIPPED_METRICS)}) and cannot be loaded from the hub "
            f"({' '.join(str(error).split())}); choose a shipped one."
        ) from error


def compute_metrics(names: Sequence[str], *, predictions: Any, references: Any) -> dict[str, float]:
    """The values of the metrics of these names, in one dict.

    >>> compute_metrics(["mse", "mae"], predictions=[1.0, 4.0], references=[1.0, 2.0])
    {'mse': 2.0, 'mae': 1.0}
    """
    return _compute([load_metric(name) for name in names], predictions, references)


def compute_metrics_with(names: Sequence[str], *, is_regression: bool) -> Callable[[EvalPrediction], dict[str, float]]:
    """The `compute_metrics` of a Trainer that predicts a class, or one number: the metrics of these names.

    >>> accuracy = compute_metrics_with(["accuracy"], is_regression=False)
    >>> accuracy(EvalPrediction(predictions=np.array([[0.1, 0.9], [0.8, 0.2]]), label_ids=np.array([1, 1])))
    {'accuracy': 0.5}
    """
    metrics = [load_metric(name) for name in names]  # now: an unknown name must not end the training

    def compute(evaluated: EvalPrediction) -> dict[str, float]:
        outputs = evaluated.predictions[0] if isinstance(evaluated.predictions, tuple) else evaluated.predictions
        predictions = outputs.squeeze(-1) if is_regression else outputs.argmax(-1)
        return _compute(metrics, predictions, evaluated.label_ids)

    return compute


def _compute(metrics: Sequence[evaluate.Metric], predictions: Any, references: Any) -> dict[str, float]:
    values: dict[str, float] = {}
    for metric in metrics:
        values |= metric.compute(predictions=predictions, references=references) or {}
    return values


def _class_counts(predictions: Sequence[int], references: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How often each class that occurs is predicted correctly, is predicted, and is true."""
    classes, indices = np.unique(np.concatenate([predictions, references]), return_inverse=True)
    predicted, true = np.split(indices, 2)
    true_positive, times_predicted, times_true = (
        np.bincount(row, minlength=len(classes)).astype(np.float64)
        for row in (true[predicted == true], predicted, true)
    )
    return true_positive, times_predicted, times_true


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())


def _rouge_l(predicted: Sequence[str], true: Sequence[str]) -> float:
    common = _lcs_length(predicted, true)
    return 2 * common / (len(predicted) + len(true)) if common else 0.0


def _lcs_length(first: Sequence[Hashable], second: Sequence[Hashable]) -> int:
    """Length of the longest common subsequence, bit-parallel: a row of the usual table is one integer (Hyyrö 2004).

    >>> _lcs_length("ABCBDAB", "BDCABA")
    4
    """
    positions: dict[Hashable, int] = {}
    for index, item in enumerate(first):
        positions[item] = positions.get(item, 0) | 1 << index
    full = (1 << len(first)) - 1
    row = full  # bit i is 0 where the subsequence grows at first[i]
    for item in second:
        matches = row & positions.get(item, 0)
        row = ((row + matches) | (row - matches)) & full
    return len(first) - row.bit_count()


def _ngram_counts(predicted: str, true: str, order: int) -> tuple[int, int, int]:
    """Common, predicted and true character n-grams of a pair; without true ones the predicted ones do not count."""
    ngrams, true_ngrams = (_ngrams("".join(text.split()), order) for text in (predicted, true))
    return (ngrams & true_ngrams).total(), ngrams.total() if true_ngrams else 0, true_ngrams.total()


def _ngrams(text: str, order: int) -> Counter[str]:
    return Counter(text[start : start + order] for start in range(len(text) - order + 1))
