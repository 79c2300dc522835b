"""Train a small encoder-decoder from scratch with the schedule of "Attention Is All You Need": noam with d_model.

    ./launch.sh train_seq2seq --config configs/train_seq2seq/stdlib.yaml [--key value …]

The task: from the words of a Python function's signature and body to the first line of its docstring. A script to copy
and change: arguments, data, model, plan, training, results, in this order. For another task, replace `write_pairs`.
"""

from __future__ import annotations

import ast
import json
import logging
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict
from transformers import (
    AutoModelForSeq2SeqLM,
    DataCollatorForSeq2Seq,
    PreTrainedTokenizerBase,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    set_seed,
)

import hfwarmup
from hfwarmup.errors import UserError
from hfwarmup.planning.arguments import DataArguments, ModelArguments, WarmupArguments
from hfwarmup.recipe.arguments import RecipeArguments
from hfwarmup.recipe.console import run_recipe, speak_from_rank_zero
from hfwarmup.recipe.corpus import load_corpus
from hfwarmup.recipe.data import IGNORED_LABEL, build_tokenizer
from hfwarmup.recipe.metrics import load_metric
from hfwarmup.recipe.model import build_model
from hfwarmup.recipe.parsing import parse_arguments
from hfwarmup.recipe.precision import settle_compile
from hfwarmup.recipe.run import finish_run, train_to_end
from hfwarmup.recipe.run_config import KeepConfig
from hfwarmup.run_folder.checkpoints import find_checkpoint
from hfwarmup.trainer.monitor import watch_warmup
from hfwarmup.trainer.non_finite import NonFiniteGuard
from hfwarmup.trainer.planning import plan_training, planned_arguments
from hfwarmup.trainer.recorder import RunRecorder
from hfwarmup.trainer.replan import Replan
from hfwarmup.trainer.tracking import track_plan

logger = logging.getLogger("hfwarmup.recipe")


@dataclass(kw_only=True)
class SummaryArguments:
    """How long a summary may be."""

    max_target_tokens: int = field(
        default=32, metadata={"help": "tokens of a summary, in training and in generation, 2 or more"}
    )

    def __post_init__(self) -> None:
        if self.max_target_tokens < 2:
            raise UserError(f"max_target_tokens={self.max_target_tokens} < 2: a token and the end; raise it.")


@dataclass(kw_only=True)
class Seq2SeqArguments(RecipeArguments, Seq2SeqTrainingArguments):
    """RecipeArguments and Seq2SeqTrainingArguments in one."""

    torch_compile: str = field(  # type: ignore[assignment]
        default="false", metadata={"help": "auto, true or false; each batch has the length of its longest pair"}
    )


def find_functions(source: str) -> Iterator[tuple[str, str, str]]:
    """Name, code without its docstring, and the docstring's first line, of every documented function of a source.

    Functions without a body beside the docstring are left out, and so are first lines that begin with no letter, such
    as doctests.

    >>> list(find_functions('class A:\\n    def one(self):\\n        "Return 1."\\n        return 1\\n'))
    [('one', 'def one(self):\\n    return 1', 'Return 1.')]
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Python thinks of the sources
        tree = ast.parse(source)
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        summary = (ast.get_docstring(function) or "").partition("\n")[0].strip()
        if not summary[:1].isalpha() or len(function.body) < 2:
            continue
        del function.body[0]
        yield function.name, ast.unparse(function), summary


def write_pairs(documents: dict[str, list[str]]) -> dict[str, list[str]]:
    """The functions of a batch of sources; a source that is not this Python's has none."""
    found: list[tuple[str, str, str]] = []
    for source in documents["text"]:
        try:
            found += find_functions(source)
        except (SyntaxError, ValueError):  # ValueError: null bytes
            continue
    return {key: [row[index] for row in found] for index, key in enumerate(("name", "code", "summary"))}


def drop_duplicates(pairs: DatasetDict) -> DatasetDict:
    """Keep the first of the pairs with the same code, and of those with the same name and summary.

    Train comes first, so no validation pair is a training pair, nor a method that only overrides one.
    """
    seen: set[Any] = set()
    kept = DatasetDict()
    for split, dataset in pairs.items():
        indices = []
        for index, pair in enumerate(dataset):
            keys = {pair["code"], (pair["name"], pair["summary"])}
            if not keys & seen:
                indices.append(index)
            seen |= keys
        kept[split] = dataset.select(indices)
    return kept


def load_pairs(data: DataArguments, seed: int) -> DatasetDict:
    """The pairs `name`, `code`, `summary` of the splits `train` and `validation`: no file is in both."""
    corpus = load_corpus(data, seed=seed)
    pairs = corpus.map(write_pairs, batched=True, batch_size=64, remove_columns=corpus["train"].column_names)
    pairs = drop_duplicates(pairs)
    for split, dataset in pairs.items():
        if len(dataset) == 0:
            sys.exit(f"error: dataset={data.dataset}: the {split} split has no documented function; give more files.")
    return pairs


def encode(
    pairs: Dataset, tokenizer: PreTrainedTokenizerBase, *, source_tokens: int, target_tokens: int
) -> list[dict[str, list[int]]]:
    """`input_ids` of the code's words, `labels` of the summary, each cut to its length and ended by eos; not padded."""

    def tokenize(texts: list[str], length: int) -> list[list[int]]:
        ids = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        return [[*row[: length - 1], tokenizer.eos_token_id] for row in ids]

    sources = tokenize([split_words(code) for code in pairs["code"]], source_tokens)
    targets = tokenize(pairs["summary"][:], target_tokens)
    return [{"input_ids": source, "labels": target} for source, target in zip(sources, targets, strict=True)]


def split_words(code: str) -> str:
    """The words of a piece of code, lower-cased, identifiers split into theirs (Alon et al. 2019, code2seq, section 5).

    A word then has the same tokens in the code and in the summary, so that it can be copied.

    >>> split_words("def _parse_HTTPHeader2(self, rawLine):")
    'def parse http header 2 self raw line'
    """
    return " ".join(re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", code)).lower()


def score(predictions: list[str], references: list[str]) -> dict[str, float]:
    """ROUGE-L in [0, 1] and chrF in [0, 100]."""
    scores: dict[str, float] = {}
    for name in ("rouge_l", "chrf"):
        scores |= load_metric(name).compute(predictions=predictions, references=references)
    return scores


def best_constant(summaries: Sequence[str], num_candidates: int = 300) -> str:
    """Of `num_candidates` of the summaries, evenly spaced, the one nearest to all of these: highest mean ROUGE-L."""
    chosen = np.linspace(0, len(summaries) - 1, min(num_candidates, len(summaries)), dtype=int)
    sample, rouge = [summaries[index] for index in chosen], load_metric("rouge_l")

    def closeness(answer: str) -> float:
        return rouge.compute(predictions=[answer] * len(sample), references=sample)["rouge_l"]

    return max(sample, key=closeness)


def summarize(trainer: Seq2SeqTrainer, rows: Sequence[dict[str, list[int]]]) -> tuple[list[str], dict[str, float]]:
    """A summary of each row, decoded greedily, and the Trainer's metrics of the rows."""
    output = trainer.predict(rows, metric_key_prefix="eval")
    generated = output.predictions[: len(rows)].tolist()  # Seq2SeqTrainer keeps what fills up the last batches
    ids = [[token for token in row if token != IGNORED_LABEL] for row in generated]
    return trainer.processing_class.batch_decode(ids, skip_special_tokens=True), output.metrics


ARGUMENTS = (ModelArguments, DataArguments, SummaryArguments, WarmupArguments, Seq2SeqArguments)


def main() -> None:
    # 1. Arguments: the YAML file of --config, then flags.
    hfwarmup.register()
    model_args, data_args, summary_args, warmup_args, args = parse_arguments(*ARGUMENTS)
    speak_from_rank_zero()
    checkpoint = find_checkpoint(args.output_dir, args.resume)
    set_seed(args.seed)

    # 2. Data: pairs of code and summary, split by file, tokenized, and padded batch by batch.
    data_args.tokenizer = data_args.tokenizer or model_args.model
    with args.main_process_first():
        pairs = load_pairs(data_args, seed=args.data_seed or 0)
        words = [split_words(code) for code in pairs["train"]["code"]]
        texts = Dataset.from_dict({"text": [*words, *pairs["train"]["summary"]]})
        tokenizer = build_tokenizer(data_args, texts, special_tokens={"pad_token": "<|pad|>"})
    lengths = {"source_tokens": data_args.block_size, "target_tokens": summary_args.max_target_tokens}
    train, validation = (encode(pairs[split], tokenizer, **lengths) for split in ("train", "validation"))

    # 3. Model: a checkpoint, or a new one from a config; like T5 and Marian it begins to decode at the padding token.
    pad = tokenizer.pad_token_id
    special = {} if model_args.model else {"pad_token_id": pad, "decoder_start_token_id": pad}
    model = build_model(AutoModelForSeq2SeqLM, model_args, tokenizer, max(lengths.values()), **special)
    # The length under which Seq2SeqTrainer gathers the ranks' summaries; the first of them is the start token.
    # No pair of tokens comes twice in a summary: a small model repeats itself.
    length = {"max_length": 1 + summary_args.max_target_tokens, "forced_eos_token_id": None}
    model.generation_config.update(num_beams=1, no_repeat_ngram_size=2, use_cache=True, **length)
    logger.info(
        "%s, %.1fM parameters; %d training pairs, %d validation pairs of other files",
        model.config.model_type,
        model.num_parameters() / 1e6,
        len(train),
        len(validation),
    )
    logger.info("%s", args.precision_reason)

    # 4. Plan: warmup at the real global batch, and the peak where the schedule leaves it open; then compiling.
    plan = plan_training(args, warmup_args, num_samples=len(train), checkpoint=checkpoint)
    planned = planned_arguments(args, warmup_args, plan)
    logger.info("%s", plan)
    collator = DataCollatorForSeq2Seq(tokenizer, model=model)
    sample = collator([train[i] for i in range(min(args.train_batch_size, len(train)))])
    logger.info("%s", settle_compile(planned, model, sample, total_steps=plan.total_steps))

    # 5. Training; while it lasts, only the loss is evaluated.
    replan = Replan(args, warmup_args, num_samples=len(train))
    trainer = Seq2SeqTrainer(
        model=model,
        args=planned,
        train_dataset=train,
        eval_dataset=validation,
        processing_class=tokenizer,
        data_collator=collator,
        callbacks=[replan, NonFiniteGuard(), RunRecorder(), KeepConfig()],
    )
    watch_warmup(trainer)
    track_plan(trainer)
    train_metrics = train_to_end(trainer, checkpoint, total_steps=plan.total_steps)

    # 6. Results: greedy summaries and their scores beside three guesses, model, pictures.
    trainer.args.predict_with_generate = True
    own, metrics = summarize(trainer, validation)
    moved = [validation[index - len(validation) // 2]["input_ids"] for index in range(len(validation))]
    shuffled = [{**row, "input_ids": source} for row, source in zip(validation, moved, strict=True)]
    names, references = pairs["validation"]["name"][:], pairs["validation"]["summary"][:]
    constant = best_constant(pairs["train"]["summary"][:])
    answers = {
        "eval": own,
        "eval_baseline": [split_words(name).capitalize() for name in names],
        "eval_constant": [constant] * len(references),
        "eval_shuffled": summarize(trainer, shuffled)[0],
    }
    scores = {prefix: score(texts, references) for prefix, texts in answers.items()}
    metrics |= {f"{prefix}_{key}": value for prefix, row in scores.items() for key, value in row.items()}
    if trainer.is_world_process_zero():
        table = zip(names, references, own, strict=True)
        lines = [json.dumps({"name": name, "reference": true, "summary": own}) for name, true, own in table]
        Path(str(args.output_dir), "summaries.jsonl").write_text("\n".join(lines) + "\n")
    finish_run(
        trainer,
        train_metrics=train_metrics,
        eval_metrics=metrics,
        summary=f"validation loss {metrics['eval_loss']:.3f}; ROUGE-L and chrF of the summaries: "
        + "; ".join(
            f"{answer} {row['rouge_l']:.3f} and {row['chrf']:.1f}"
            for answer, row in zip(
                ("model", "the function's name", f"always {constant!r}", "model on other functions' code"),
                scores.values(),
                strict=True,
            )
        ),
    )


if __name__ == "__main__":
    run_recipe(main)
