"""Known answers of the shipped metrics, their laws, and their agreement with the field's own implementations."""

from __future__ import annotations

import math
import random

import datasets
import evaluate
import numpy as np
import pytest

from hfwarmup.recipe.metrics import SHIPPED_METRICS, Accuracy, ChrF, _lcs_length, load_metric


def score(name, predictions, references):
    (value,) = load_metric(name).compute(predictions=predictions, references=references).values()
    return value


@pytest.mark.parametrize(
    ("name", "predictions", "references", "value"),
    [
        # F1 2/3, 4/5 and 0 of the classes 0, 1, 2
        ("f1_macro", [0, 0, 1, 1, 1], [0, 2, 1, 1, 0], (0.5 + 0.8 + 0.0) / 3),
        ("f1_macro", [7, 7], [7, 7], 1.0),
        ("accuracy", [0, 0, 1, 1, 1], [0, 2, 1, 1, 0], 0.6),
        # (TP TN - FP FN) / sqrt((TP+FP)(TP+FN)(TN+FP)(TN+FN)), TP 4, TN 3, FP 1, FN 2
        (
            "matthews_correlation",
            [1] * 4 + [0] * 3 + [1] + [0] * 2,
            [1] * 4 + [0] * 3 + [0] + [1] * 2,
            (4 * 3 - 1 * 2) / math.sqrt(5 * 6 * 4 * 5),
        ),
        # three classes: c = 3, s = 5, p = (2, 3, 0), t = (2, 2, 1): (15 - 10) / sqrt((25 - 13) (25 - 9))
        ("matthews_correlation", [0, 0, 1, 1, 1], [0, 2, 1, 1, 0], 5 / math.sqrt(12 * 16)),
        ("matthews_correlation", [1, 1, 1], [0, 1, 2], 0.0),  # one class predicted: undefined, a guess
        ("matthews_correlation", [1, 0], [0, 1], -1.0),
        ("mse", [1.0, 2.0, 4.0], [1.5, 2.0, 1.0], 9.25 / 3),
        ("mae", [1.0, 2.0, 4.0], [1.5, 2.0, 1.0], 3.5 / 3),
        # Lin 2004, section 3.1, "police killed the gunman": S2 3/4, S3 2/4
        ("rouge_l", ["Police kill the gunman!"], ["police killed the gunman"], 0.75),
        ("rouge_l", ["the gunman kill police", "a b"], ["police killed the gunman", "b"], (0.5 + 2 / 3) / 2),
        ("rouge_l", ["", "..."], ["something", ""], 0.0),
        ("chrf", ["ab"], ["abc"], None),
        ("chrf", ["abc", ""], ["xyz", ""], 0.0),
        ("chrf", ["one two", "three"], ["one two", "three"], 100.0),
    ],
)
def test_known_answers(name, predictions, references, value):
    if value is None:
        # n = 1: P 1, R 2/3; n = 2: P 1, R 1/2; n = 3 is missing on one side
        precision, recall = 1.0, (2 / 3 + 1 / 2) / 2
        value = 100 * 5 * precision * recall / (4 * precision + recall)
    assert score(name, predictions, references) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("name", ["accuracy", "f1_macro", "matthews_correlation"])
def test_names_of_the_classes_and_order_of_the_samples_do_not_count(name):
    rng = np.random.default_rng(0)
    predictions, references = rng.integers(0, 5, 200), rng.integers(0, 5, 200)
    order, renamed = rng.permutation(200), np.array([40, 3, 17, 0, 8])
    assert score(name, renamed[predictions[order]], renamed[references[order]]) == pytest.approx(
        score(name, predictions, references), rel=1e-12
    )


def test_batches_add_up_to_the_whole():
    for metric, samples in ((Accuracy(), [(0, 0), (1, 0), (2, 2)]), (ChrF(), [("a b", "ab c"), ("abc", "abd")])):
        predictions, references = map(list, zip(*samples, strict=True))
        metric.add(prediction=predictions[0], reference=references[0])
        metric.add_batch(predictions=predictions[1:], references=references[1:])
        apart = metric.compute()
        assert apart == metric.compute(predictions=predictions, references=references)


def test_metrics_combine_as_the_libraries_own():
    both = evaluate.combine([load_metric("accuracy"), load_metric("f1_macro")])
    assert both.compute(predictions=[0, 1], references=[0, 0]) == {"accuracy": 0.5, "f1_macro": pytest.approx(1 / 3)}


def test_every_shipped_name_is_the_key_of_its_value_and_has_its_own_file(tmp_path):
    for name, kind in SHIPPED_METRICS.items():
        metric = kind(cache_dir=str(tmp_path))
        value = "a" if kind.dtype == "string" else 1
        assert list(metric.compute(predictions=[value], references=[value])) == [name]
        assert metric.description == kind.__doc__


def test_longest_common_subsequence_equals_the_table_of_dynamic_programming():
    rng = random.Random(0)
    for _ in range(200):
        first, second = ([rng.choice("abcd") for _ in range(rng.randrange(30))] for _ in range(2))
        table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
        for i, a in enumerate(first):
            for j, b in enumerate(second):
                table[i + 1][j + 1] = table[i][j] + 1 if a == b else max(table[i][j + 1], table[i + 1][j])
        assert _lcs_length(first, second) == table[-1][-1]


def noisy_pairs(count=200):
    """Sentences, and copies of them with words dropped, doubled, swapped and misspelt; some are empty."""
    rng = random.Random(0)
    words = [
        "return",
        "the",
        "file_object",
        "of",
        "a",
        "request,",
        "raise",
        "when",
        "it's",
        "closed",
        "(see",
        "RFC",
        "822)",
    ]
    references = [" ".join(rng.choices(words, k=rng.randrange(25))) for _ in range(count)]
    predictions = []
    for text in references:
        kept = [word[:: rng.choice((1, 1, 1, -1))] for word in text.split() for _ in range(rng.choice((0, 1, 1, 1, 2)))]
        predictions.append(" ".join(kept))
    return predictions, references


def test_chrf_is_sacrebleus():
    sacrebleu = pytest.importorskip("sacrebleu")
    for size in (200, 3, 1):
        predictions, references = (column[:size] for column in noisy_pairs())
        theirs = sacrebleu.corpus_chrf(predictions, [references]).score
        assert score("chrf", predictions, references) == pytest.approx(theirs, abs=0.01)


def test_rouge_l_is_googles():
    rouge_scorer = pytest.importorskip("rouge_score.rouge_scorer")
    predictions, references = noisy_pairs()
    scorer = rouge_scorer.RougeScorer(["rougeL"])
    theirs = [scorer.score(r, p)["rougeL"].fmeasure for p, r in zip(predictions, references, strict=True)]
    assert score("rouge_l", predictions, references) == pytest.approx(np.mean(theirs), rel=1e-12)


def test_an_unknown_metric_without_a_network_is_one_line(monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(evaluate, "load", lambda name: (_ for _ in ()).throw(FileNotFoundError(f"no '{name}'\nhere")))
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z") as error:
        load_metric("accurracy")
    assert str(error.value) == (
        "metric=accurracy: is not shipped (accuracy, f1_macro, matthews_correlation, mse, mae, rouge_l, chrf) and "
        "cannot be loaded from the hub (no 'accurracy' here); choose a shipped one."
    )
