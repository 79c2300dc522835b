"""What the examples are, that nothing leaks between the splits, and that a run fine-tunes what it is given."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
import transformers
from datasets import Dataset, DatasetDict
from safetensors.torch import load_file
from transformers import EvalPrediction

import hfwarmup
from hfwarmup.planning.arguments import DataArguments
from hfwarmup.recipe.corpus import load_corpus
from hfwarmup.recipe.data import build_tokenizer
from hfwarmup.recipe.metrics import compute_metrics_with
from hfwarmup.recipe.parsing import parse_arguments
from hfwarmup.run_folder.files import read_learning_rates

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs" / "finetune_classification"
ENCODER = json.dumps(
    {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "classifier_pooling": "mean",
        "cls_token_id": 0,
        "sep_token_id": 0,
    }
)


@pytest.fixture(scope="module")
def recipe(load_recipe):
    return load_recipe("finetune_classification")


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    """A hundred texts in a CSV file, labelled by the word that they hold."""
    file = tmp_path_factory.mktemp("table") / "reviews.csv"
    rows = [f"it was {('good', 'bad')[i % 2]} number {i},{('yes', 'no')[i % 2]},{i / 10}" for i in range(100)]
    file.write_text("\n".join(["review,liked,score", *rows]) + "\n")
    return file


def flags(table, output_dir, **own) -> list[str]:
    """The smoke config on the table, with a model that is smaller still."""
    settings = {
        "config": CONFIGS / "smoke.yaml",
        "dataset": table,
        "text_column": "review",
        "label_column": "liked",
        "output_dir": output_dir,
        "config_overrides": ENCODER,
        "vocab_size": 300,
        "precision": "fp32",
        "disable_tqdm": "true",
        "use_cpu": "true",
        "max_steps": 2,
        "warmup": 1,
        **own,
    }
    return [word for name, value in settings.items() for word in (f"--{name}", str(value))]


@pytest.fixture
def run(recipe, table, cache, monkeypatch):
    """Runs the recipe's main in this process."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)

    def main(output_dir, **own) -> None:
        monkeypatch.setattr(sys, "argv", ["finetune_classification.py", *flags(table, output_dir, **own)])
        recipe.main()

    return main


# The default task


@pytest.fixture(scope="module")
def arguments():
    return DataArguments(validation_fraction=0.25)


@pytest.fixture(scope="module")
def docstrings(recipe, arguments):
    return recipe.load_examples(arguments, "label", 38)


def test_the_default_task_is_a_few_thousand_docstrings_of_several_packages(docstrings):
    train, validation = docstrings["train"], docstrings["validation"]
    assert 1000 < len(train) < 10_000
    assert 300 < len(validation) < len(train)
    names = train.features["labels"].names
    assert {"asyncio", "email", "unittest"} <= set(names)
    assert train.features["labels"] == validation.features["labels"]
    assert set(train["labels"]) == set(validation["labels"]) == set(range(len(names)))


def test_no_text_is_in_both_splits_and_none_names_a_package(docstrings):
    texts = [*docstrings["train"]["text"], *docstrings["validation"]["text"]]
    assert len(set(texts)) == len(texts)
    names = re.compile("|".join(docstrings["train"].features["labels"].names), re.IGNORECASE)
    assert not any(names.search(text) for text in texts)


def test_validation_docstrings_are_from_files_that_pretraining_holds_out(docstrings, arguments):
    """Every long word of a validation docstring stands in the source of a held-out file of its package."""
    corpus, label = load_corpus(arguments, 38), docstrings["train"].features["labels"]
    assert not set(corpus["train"]["source"]) & set(corpus["validation"]["source"])
    source = dict.fromkeys(label.names, "")
    for path, text in zip(corpus["validation"]["source"], corpus["validation"]["text"], strict=True):
        if path.split("/")[0] in source:
            source[path.split("/")[0]] += text
    for row in docstrings["validation"]:
        words = [word for word in re.findall(r"[a-z]{5,}", row["text"]) if "___" not in word]
        assert all(word in source[label.names[row["labels"]]] for word in words)


def test_docstrings_known_answer(recipe, monkeypatch):
    """Two packages are kept; names are masked, repeated texts and texts of both splits are kept once."""
    files = {
        "abc.py": '"""A module is in no package, so it is not here."""',
        "web/a.py": '"""Web pages and what\n    they link to."""\nclass Page:\n    """Short."""',
        "web/b.py": 'def f():\n  """Fetch a PostPage of the web."""\ndef g():\n    """Fetch one more of the pages."""',
        "post/a.py": 'async def h():\n    """Send what is in the box."""\ndef i():\n    """Send what is in the box."""',
        "rare/a.py": '"""A package that is never validated."""',
    }
    held_out = {
        "web/c.py": '"""Fetch one more of the pages."""\nclass C:\n    """The webs of all the spiders."""',
        "post/b.py": '"""Read what is in the Post."""',
    }
    splits = {"train": files, "validation": held_out}
    corpus = DatasetDict(
        {name: Dataset.from_dict({"source": list(of), "text": list(of.values())}) for name, of in splits.items()}
    )
    monkeypatch.setattr(recipe, "load_corpus", lambda *_: corpus)
    for name in ("MIN_TRAIN", "MIN_VALIDATION"):
        monkeypatch.setattr(recipe, name, 1)
    examples = recipe.load_examples(DataArguments(), "label", 0)
    names = examples["train"].features["labels"].names
    assert names == ["post", "web"]
    assert {split: [(row["text"], names[row["labels"]]) for row in examples[split]] for split in examples} == {
        "train": [
            ("___ pages and what they link to.", "web"),
            ("Fetch a ___Page of the ___.", "web"),
            ("Fetch one more of the pages.", "web"),
            ("Send what is in the box.", "post"),
        ],
        "validation": [("The ___s of all the spiders.", "web"), ("Read what is in the ___.", "post")],
    }


# Tables


@pytest.mark.parametrize(
    ("column", "names", "labels"),
    [
        ("word", ["no", "yes"], {"a": 1, "b": 0, "c": 1, "d": 1}),
        ("number", ["0", "3"], {"a": 1, "b": 0, "c": 0, "d": 1}),
        ("score", None, {"a": 0.5, "b": 1.0, "c": 2.0, "d": 0.25}),
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_labels_come_from_the_data(recipe, cache, monkeypatch, tmp_path, column, names, labels, suffix):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    rows = [("a", "yes", 3, 0.5), ("b", "no", 0, 1.0), ("c", "yes", 0, 2.0), ("d", "yes", 3, 0.25)]
    file, header = tmp_path / f"rows{suffix}", ("text", "word", "number", "score")
    if suffix == ".csv":
        file.write_text("\n".join(",".join(map(str, row)) for row in (header, *rows)) + "\n")
    else:
        file.write_text("".join(json.dumps(dict(zip(header, row, strict=True))) + "\n" for row in rows))
    data = DataArguments(dataset=str(file), validation_fraction=0.3)
    examples = recipe.load_examples(data, column, 0)
    assert (len(examples["train"]), len(examples["validation"])) == (2, 2)
    found = {row["text"]: row["labels"] for split in examples.values() for row in split}
    assert found == labels
    assert getattr(examples["train"].features["labels"], "names", None) == names


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_labels_that_are_true_and_false(recipe, cache, monkeypatch, tmp_path, suffix):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    file = tmp_path / f"rows{suffix}"
    rows = [
        f'{{"text": "{text}", "label": {label}}}\n' for text, label in (("a", "true"), ("b", "false"), ("c", "true"))
    ]
    file.write_text("text,label\na,True\nb,False\nc,True\n" if suffix == ".csv" else "".join(rows))
    examples = recipe.load_examples(DataArguments(dataset=str(file), validation_fraction=0.3), "label", 0)
    assert {row["text"]: row["labels"] for split in examples.values() for row in split} == {"a": 1, "b": 0, "c": 1}
    assert examples["train"].features["labels"].names == ["false", "true"]


def test_a_label_that_only_the_validation_split_has_is_a_class(recipe, cache, monkeypatch, tmp_path):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    for split, labels in (("train", "xy"), ("validation", "yz")):
        (tmp_path / f"{split}.csv").write_text("text,label\n" + "".join(f"t{label},{label}\n" for label in labels))
    examples = recipe.load_examples(DataArguments(dataset=str(tmp_path)), "label", 0)
    assert {split: examples[split]["labels"][:] for split in examples} == {"train": [0, 1], "validation": [1, 2]}


NO_FILE = "no such file, or none of a known kind (.csv .json .jsonl .parquet); correct the path."
NO_VALUE = "have no value there (empty, NA, null, None and nan count as none); fill or drop them."


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", None, f"dataset={{}}: {NO_FILE}"),
        ("x.tsv", "text\tlabel\n", f"dataset={{}}: {NO_FILE}"),
        ("x.csv", "review,label\na,1\nb,0\n",
         "text_column=text: dataset={} has the columns review, label; choose one with --text_column."),
        ("x.csv", "text,stars\na,1\nb,0\n",
         "label_column=label: dataset={} has the columns text, stars; choose one with --label_column."),
        ("x.csv", "text,label\na,1\nb,\nc,0\n", f"label_column=label: 1 of 3 rows of dataset={{}} {NO_VALUE}"),
        ("x.csv", "text,label\n,1\n,0\nc,0\n", f"text_column=text: 2 of 3 rows of dataset={{}} {NO_VALUE}"),
        ("x.csv", "text,label\na,yes\nb,yes\n",
         "label_column=label: every row has 'yes', so there is nothing to learn; add rows, or name another column."),
        ("x.csv", "text,label\n1.5,yes\n2,no\n",
         "text_column=text: holds Value('float64'), no text; name the column of the texts."),
        ("x.csv", "text,label\na,yes\n", "dataset={}: a single row cannot be split; give more."),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_learned_from_is_one_line(recipe, cache, monkeypatch, tmp_path, name, content, message):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    file = tmp_path / name
    if content is not None:
        file.write_text(content)
    with pytest.raises(ValueError, match=r"\A.+\Z") as error:
        recipe.load_examples(DataArguments(dataset=str(file)), "label", 0)
    assert str(error.value) == message.format(file)


@pytest.mark.parametrize("content", ["", "text,label\n"])
def test_an_empty_file_is_one_line(recipe, cache, monkeypatch, tmp_path, content):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    file = tmp_path / "x.csv"
    file.write_text(content)
    with pytest.raises(ValueError, match=r"\A.+x\.csv: cannot be loaded \(.*\); correct the file\.\Z"):
        recipe.load_examples(DataArguments(dataset=str(file)), "label", 0)


# From texts to numbers


def test_a_text_begins_with_a_special_token_and_is_cut(recipe):
    examples = DatasetDict(train=Dataset.from_dict({"text": ["one two three", "one"], "labels": [1.0, 0.0]}))
    tokenizer = build_tokenizer(DataArguments(vocab_size=300), examples["train"])
    rows = recipe.encode(examples, tokenizer, 5)["train"]
    for ids, text in zip(rows["input_ids"], examples["train"]["text"], strict=True):
        assert ids == [tokenizer.eos_token_id, *tokenizer(text)["input_ids"]][:5]
    assert len(rows["input_ids"][0]) == 5


def test_metrics_of_classes_and_of_numbers():
    logits, labels = np.array([[2.0, 1.0, 0.0], [0.0, 1.0, 3.0]]), np.array([0, 1])
    compute = compute_metrics_with(["accuracy", "f1_macro"], is_regression=False)
    expected = {"accuracy": 0.5, "f1_macro": pytest.approx(1 / 3)}
    assert compute(EvalPrediction(logits, labels)) == expected
    assert compute(EvalPrediction((logits, np.zeros(1)), labels)) == expected
    compute = compute_metrics_with(["mae"], is_regression=True)
    assert compute(EvalPrediction(np.array([[1.0], [2.5]]), np.array([0.0, 2.0]))) == {"mae": 0.75}


# Which model


def test_a_missing_folder_is_a_new_model_only_when_asked_for(recipe, tmp_path):
    missing, there = str(tmp_path / "missing"), str(tmp_path)
    new = recipe.CheckpointArguments(model=missing, new_if_missing=True, config_overrides='{"hidden_size": 8}')
    assert (new.model, new.config_overrides) == ("", {"hidden_size": 8})
    found = recipe.CheckpointArguments(model=there, new_if_missing=True, config_overrides='{"hidden_size": 8}')
    assert (found.model, found.config_overrides) == (there, {})
    assert recipe.CheckpointArguments(model=missing).model == missing
    with pytest.raises(ValueError, match="config_overrides are for a new model"):
        recipe.CheckpointArguments(model=there, config_overrides='{"hidden_size": 8}')


def test_the_encoder_of_pretrain_mlm_is_fine_tuned(load_recipe, run, tmp_path, table, monkeypatch):
    """At a vanishing learning rate the body of the new classifier is the body of the masked language model."""
    text = tmp_path / "text"
    text.mkdir()
    for index, line in enumerate(table.read_text().splitlines()):
        (text / f"{index}.txt").write_text(line)
    mlm = ["pretrain_mlm.py", "--config", ROOT / "configs" / "pretrain_mlm" / "smoke.yaml", "--dataset", text]
    mlm += ["--output_dir", tmp_path / "mlm", "--vocab_size", 300, "--block_size", 16, "--config_overrides", ENCODER]
    mlm += ["--max_steps", 1, "--warmup", 0, "--use_cpu", "true", "--disable_tqdm", "true", "--precision", "fp32"]
    monkeypatch.setattr(sys, "argv", list(map(str, mlm)))
    load_recipe("pretrain_mlm").main()
    own = {"learning_rate": 1e-30, "weight_decay": 0, "lr_scheduler_type": "constant", "warmup": 0}
    run(tmp_path / "run", model=tmp_path / "mlm", new_if_missing="true", **own)
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("mlm", "run"))
    body = [name for name in before if name.startswith("model.")]
    assert len(body) > 5
    assert all(torch.equal(before[name], after[name]) for name in body)
    tokenizers = [transformers.AutoTokenizer.from_pretrained(tmp_path / name) for name in ("mlm", "run")]
    assert tokenizers[0].get_vocab() == tokenizers[1].get_vocab()


# Runs


def test_the_smoke_config_launches(table, cache, tmp_path):
    launchers = ("ACCELERATE_", "NUM_", "MACHINE_", "MAIN_PROCESS_", "SLURM_", "MIXED_", "OMP_", "MALLOC_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(launchers)}
    own = {"HFWARMUP_PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    environment = {**clean, **own, "HF_DATASETS_CACHE": str(cache)}
    command = [ROOT / "launch.sh", "finetune_classification", *flags(table, tmp_path / "run")]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=150)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    assert "Warning" not in result.stderr
    assert re.match(
        r"validation loss 0\.\d+, accuracy 0\.\d+, f1_macro 0\.\d+, matthews_correlation -?\d\.\d+; always '\w+': "
        r"accuracy 0\.\d+$",
        result.stderr.splitlines()[-6],
    )
    assert [applied for _, _, applied in read_learning_rates(tmp_path / "run" / "learning_rates.csv")] == [1e-7, 1e-3]
    config = transformers.AutoConfig.from_pretrained(tmp_path / "run")
    assert config.id2label == {0: "no", 1: "yes"}
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "run")
    assert config.pad_token_id == tokenizer.pad_token_id == len(tokenizer) - 1


def test_floats_make_a_regression(run, tmp_path):
    run(tmp_path / "run", label_column="score")
    results = json.loads((tmp_path / "run" / "all_results.json").read_text())
    assert {"eval_mse", "eval_mae", "eval_baseline_mse"} <= set(results)
    assert results["eval_mse"] == pytest.approx(results["eval_loss"], rel=1e-4)
    assert transformers.AutoConfig.from_pretrained(tmp_path / "run").problem_type == "regression"


def test_a_stretched_warmup_makes_groups_of_its_own(run, recipe, tmp_path, monkeypatch):
    trainers = []
    monkeypatch.setattr(recipe.Run, "finish", lambda *given, **_: trainers.append(given[1]))
    run(tmp_path / "run", warmup=4, max_steps=8, warmup_stretch='{"^classifier": 0.25}', eval_strategy="no")
    (trainer,) = trainers
    groups = trainer.optimizer.param_groups
    assert [group["warmup_stretch"] for group in groups] == [1.0, 0.25, 1.0, 0.25]
    heads = {id(parameter) for parameter in trainer.model.classifier.parameters()}
    assert {id(parameter) for group in (groups[1], groups[3]) for parameter in group["params"]} == heads
    rates = np.array([trainer.lr_scheduler.spec.learning_rates(step) for step in range(8)])
    ramp = [1e-3 * (1e-7 / 1e-3) ** max(0.0, 1 - t / 4) for t in range(8)]
    assert rates[:, 0] == pytest.approx(ramp, rel=1e-12)
    assert rates[:, 1] == pytest.approx([1e-7] + [1e-3] * 7, rel=1e-12)


@pytest.mark.parametrize("config", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_parses(config, recipe, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    hfwarmup.register()
    types = (
        recipe.CheckpointArguments,
        DataArguments,
        recipe.TaskArguments,
        recipe.WarmupArguments,
        recipe.RecipeArguments,
    )
    model, data, task, warmup, training = parse_arguments(*types, argv=["--config", str(config), "--use_cpu", "true"])
    assert Path(training.output_dir) == Path("runs", "finetune_classification", config.stem)
    assert (data.validation_fraction, training.data_seed) == (0.25, 38)
    assert model.config_overrides["classifier_pooling"] == "mean"
    assert bool(task.warmup_stretch) == (config.stem == "layerwise")
    assert warmup.reference_batch_size
