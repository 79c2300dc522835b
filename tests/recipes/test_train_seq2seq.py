"""From code to the first line of its docstring: which pairs, no leak, and noam's absolute learning rate."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import datasets
import pytest
from datasets import Dataset, DatasetDict
from transformers import AutoModelForSeq2SeqLM, DataCollatorForSeq2Seq, Seq2SeqTrainingArguments

import hfwarmup
from hfwarmup.planning.arguments import DataArguments, ModelArguments, WarmupArguments
from hfwarmup.planning.recipe_files import import_script
from hfwarmup.recipe.corpus import load_corpus
from hfwarmup.recipe.data import build_tokenizer
from hfwarmup.recipe.metrics import compute_metrics
from hfwarmup.recipe.model import build_model
from hfwarmup.recipe.parsing import parse_arguments
from hfwarmup.run_folder.files import read_learning_rates

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs" / "train_seq2seq"
RECIPE = vars(import_script(ROOT / "recipes" / "train_seq2seq.py"))
ASYNCIO = Path(sysconfig.get_path("stdlib"), "asyncio")  # about thirty files with docstrings


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)
        yield folder


@pytest.fixture(scope="module")
def data() -> DataArguments:
    return DataArguments(dataset=str(ASYNCIO), validation_fraction=0.2, vocab_size=600, block_size=24)


@pytest.fixture(scope="module")
def pairs(cache, data):
    return RECIPE["load_pairs"](data, seed=0)


@pytest.fixture(scope="module")
def tokenizer(pairs, data, cache):
    words = [RECIPE["split_words"](code) for code in pairs["train"]["code"]]
    texts = Dataset.from_dict({"text": [*words, *pairs["train"]["summary"]]})
    return build_tokenizer(data, texts, special_tokens={"pad_token": "<|pad|>"})


# --- the pairs

FUNCTIONS = {
    "the first line alone": (
        'def one(x: int = 1) -> int:\n    """One.\n\n    More.\n    """\n    # why\n    return x\n',
        [("one", "def one(x: int=1) -> int:\n    return x", "One.")],
    ),
    "a method and its inner function": (
        'class A:\n    async def a(self):\n        "A."\n        def b():\n            "B."\n            return 2\n',
        [
            ("a", 'async def a(self):\n\n    def b():\n        """B."""\n        return 2', "A."),
            ("b", "def b():\n    return 2", "B."),
        ],
    ),
    "a summary that begins on the second line": (
        'def one():\n    """\n    One.\n    """\n    return 1\n',
        [("one", "def one():\n    return 1", "One.")],
    ),
    "no docstring": ("def one():\n    return 1\n", []),
    "nothing but a docstring": ('def one():\n    "One."\n', []),
    "an empty docstring": ('def one():\n    ""\n    return 1\n', []),
    "a doctest": ('def one():\n    ">>> one()"\n    return 1\n', []),
    "a class": ('class A:\n    "A."\n    b = 1\n', []),
}


@pytest.mark.parametrize(("source", "expected"), FUNCTIONS.values(), ids=FUNCTIONS)
def test_the_functions_of_a_source(source, expected):
    assert list(RECIPE["find_functions"](source)) == expected


def test_a_source_of_another_language_has_no_pairs_and_an_odd_one_no_warning():
    sources = ["print 'two'", "\0", 'def one():\n    "One."\n    return "\\d"\n']
    assert [[name for name, _, _ in RECIPE["find_functions"](source)] for source in sources] == [[], [], ["one"]]


def test_duplicates_are_dropped_and_train_keeps_the_first(data, cache, monkeypatch):
    def split(*rows):
        return Dataset.from_dict(
            dict(zip(("name", "code", "summary"), map(list, zip(*rows, strict=True)), strict=True))
        )

    pairs = DatasetDict(
        train=split(("a", "a1", "A."), ("a", "a2", "A."), ("a", "a3", "Another.")),
        validation=split(("a", "a4", "A."), ("b", "a2", "B."), ("c", "c", "A.")),
    )
    load_pairs = RECIPE["load_pairs"]
    monkeypatch.setitem(load_pairs.__globals__, "find_rows", lambda *_: pairs)
    kept = load_pairs(data, seed=0)
    assert kept["train"]["code"][:] == ["a1", "a3"]  # a2 is an override of a1
    assert kept["validation"]["code"][:] == ["c"]  # a4 is an override too, and the code a2 was seen


def test_no_pair_and_no_file_is_in_both_splits(pairs, data):
    keys = {split: {(pair["name"], pair["summary"]) for pair in pairs[split]} for split in pairs}
    codes = {split: set(pairs[split]["code"]) for split in pairs}
    assert not keys["train"] & keys["validation"]
    assert not codes["train"] & codes["validation"]
    sources = {split: set(documents["source"]) for split, documents in load_corpus(data, seed=0).items()}
    assert not sources["train"] & sources["validation"]
    found = [
        pair for text in load_corpus(data, seed=0)["validation"]["text"] for pair in RECIPE["find_functions"](text)
    ]
    assert {(name, summary) for name, _, summary in found} >= keys["validation"]
    assert min(len(pairs["train"]), len(pairs["validation"])) > 20


def test_a_docstring_is_not_in_its_own_code(pairs):
    leaks = [pair for split in pairs.values() for pair in split if repr(pair["summary"])[1:-1] in pair["code"]]
    assert leaks == []


def test_sources_and_targets_end_with_eos_within_their_length(pairs, tokenizer):
    rows = RECIPE["encode"](pairs["validation"], tokenizer, source_tokens=24, target_tokens=8)
    for row, pair in zip(rows, pairs["validation"], strict=True):
        words = RECIPE["split_words"](pair["code"])
        for ids, text, length in ((row["input_ids"], words, 24), (row["labels"], pair["summary"], 8)):
            assert ids[-1] == tokenizer.eos_token_id
            assert ids[:-1] == tokenizer(text, add_special_tokens=False)["input_ids"][: length - 1]
            assert len(ids) <= length


# --- the model


@pytest.mark.parametrize("config", ["stdlib", "smoke"])
def test_the_model_of_a_config_decodes_from_the_padding_token(config, tokenizer, tmp_path):
    types = (ModelArguments, DataArguments, RECIPE["SummaryArguments"], WarmupArguments, RECIPE["Seq2SeqArguments"])
    hfwarmup.register()
    argv = ["--config", str(CONFIGS / f"{config}.yaml"), "--output_dir", str(tmp_path), "--use_cpu", "true"]
    model_args, data_args, _, _, args = parse_arguments(*types, argv=argv)
    assert isinstance(args, Seq2SeqTrainingArguments)
    assert args.lr_scheduler_kwargs["d_model"] == model_args.config_overrides["d_model"]
    special = {"pad_token_id": tokenizer.pad_token_id, "decoder_start_token_id": tokenizer.pad_token_id}
    model = build_model(AutoModelForSeq2SeqLM, model_args, tokenizer, data_args.block_size, **special)
    batch = DataCollatorForSeq2Seq(tokenizer, model=model)(
        [{"input_ids": [5, 0], "labels": [7, 8, 0]}, {"input_ids": [0], "labels": [9, 0]}]
    )
    pad = tokenizer.pad_token_id
    assert batch["input_ids"].tolist() == [[5, 0], [0, pad]]
    assert batch["labels"].tolist() == [[7, 8, 0], [9, 0, -100]]
    assert batch["decoder_input_ids"].tolist() == [[pad, 7, 8], [pad, 9, 0]]


def test_the_words_of_code():
    codes = {"_parse_HTTPHeader2": "parse http header 2", "createSocket": "create socket", "__len__": "len", "_": ""}
    codes |= {"def f(x: int=1):\n    return x.rawLine": "def f x int 1 return x raw line"}
    assert {code: RECIPE["split_words"](code) for code in codes} == codes


def test_a_word_has_the_same_tokens_in_code_and_in_a_summary(pairs, tokenizer):
    """But for the first word, which no space precedes."""
    name, summary = (tokenizer.tokenize(text) for text in ("def event loop", "The event loop"))
    assert name[-2:] == summary[-2:]


def test_the_best_constant_is_the_summary_nearest_to_the_others():
    """'a b' and 'a b c' are equally near to all three, (1 + 0.8 + 0) / 3, and the first wins; 'x' is near to itself."""
    assert RECIPE["best_constant"](["x", "a b", "a b c"]) == "a b"
    assert RECIPE["best_constant"](["x", "a c", "a b c", "b c"]) == "a b c"


def test_known_scores():
    for text, scores in (("Return the size.", {"rouge_l": 1.0, "chrf": 100.0}), ("qqq", {"rouge_l": 0.0, "chrf": 0.0})):
        assert compute_metrics(list(scores), predictions=[text], references=["Return the size."]) == scores


def test_too_short_a_summary_is_one_line():
    with pytest.raises(ValueError, match=r"^max_target_tokens=1: give a whole number, 2 or more\.$"):
        RECIPE["SummaryArguments"](max_target_tokens=1)


# --- the run


def test_the_launched_smoke_run_applies_vaswanis_rate_and_leaves_its_results(tmp_path, cache):
    """d_model^-0.5 min(s^-0.5, s T_w^-1.5) at update s = 1, 2, … (Vaswani et al. 2017, eq. 3); no learning_rate."""
    env = {**os.environ, "HFWARMUP_PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    env["HF_DATASETS_CACHE"] = str(cache)
    folder = tmp_path / "run"
    flags = {"output_dir": folder, "dataset": ASYNCIO, "validation_fraction": 0.2, "vocab_size": 600}
    flags |= {"max_steps": 4, "warmup": 2, "eval_strategy": "no", "learning_rate": 123}
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    command = [ROOT / "launch.sh", "train_seq2seq", "--config", CONFIGS / "smoke.yaml", *words]
    result = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    rates = [row[2] for row in read_learning_rates(folder / "learning_rates.csv")]
    assert rates == pytest.approx([32**-0.5 * min(s**-0.5, s * 2**-1.5) for s in range(1, 5)], rel=1e-12)
    metrics = json.loads((folder / "all_results.json").read_text())
    names = {
        f"{prefix}_{key}"
        for prefix in ("eval", "eval_baseline", "eval_constant", "eval_shuffled")
        for key in ("rouge_l", "chrf")
    }
    assert names <= set(metrics)
    assert metrics["eval_baseline_rouge_l"] > 0
    summaries = [json.loads(line) for line in (folder / "summaries.jsonl").read_text().splitlines()]
    assert set(summaries[0]) == {"name", "reference", "summary"}
    assert len(summaries) > 20
    model = AutoModelForSeq2SeqLM.from_pretrained(folder)
    assert model.get_input_embeddings().weight.shape == (600, 32)
    assert model.generation_config.max_length == 17  # the start token and 16
