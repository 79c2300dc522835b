"""Train a small encoder-decoder from scratch with the schedule of "Attention Is All You Need": noam with d_model.

    ./launch.sh train_seq2seq --config configs/train_seq2seq/stdlib.yaml [--key value …]

The task: from the words of a Python function to the first line of its docstring; for another one replace `load_pairs`.
A script to copy and change. Its steps: arguments, data, model, plan, training, results.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from datasets import Dataset, DatasetDict
from transformers import (
    AutoModelForSeq2SeqLM,
    DataCollatorForSeq2Seq,
    PreTrainedTokenizerBase,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
)

from hfwarmup.recipe import (
    IGNORED_LABEL,
    DataArguments,
    ModelArguments,
    Range,
    RecipeArguments,
    Run,
    WarmupArguments,
    build_model,
    build_tokenizer,
    check_not_empty,
    compute_metrics,
    documented_functions,
    drop_repeated,
    find_rows,
    load_corpus,
    load_metric,
    parse_arguments,
    run_recipe,
    split_words,
)


@dataclass(kw_only=True)
class SummaryArguments:
    """How long a summary may be."""

    max_target_tokens: int = field(default=32, metadata={"help": "tokens of a summary, 2 or more"})

    def __post_init__(self) -> None:
        Range(2, whole=True).check("max_target_tokens", self.max_target_tokens)  # one token, and the end


@dataclass(kw_only=True)
class Seq2SeqArguments(RecipeArguments, Seq2SeqTrainingArguments):
    """RecipeArguments and Seq2SeqTrainingArguments in one."""

    torch_compile: bool | Literal["auto"] = field(  # type: ignore[assignment]
        default=False, metadata={"help": "auto, true or false; each batch has the length of its longest pair"}
    )


def find_functions(source: str) -> Iterator[tuple[str, str, str]]:
    """Name, code without the docstring, and first line of the docstring, of each documented function of a source.

    Left out are functions without further code, and first lines that do not begin with a letter, such as doctests.

    >>> list(find_functions('class A:\\n    def one(self):\\n        "Return 1."\\n        return 1\\n'))
    [('one', 'def one(self):\\n    return 1', 'Return 1.')]
    """
    for function, docstring in documented_functions(source):
        summary = docstring.partition("\n")[0].strip()
        if summary[:1].isalpha():
            del function.body[0]
            yield function.name, ast.unparse(function), summary


def load_pairs(data: DataArguments, seed: int) -> DatasetDict:
    """The pairs `name`, `code`, `summary` of the splits `train` and `validation`; no file is in both.

    Of the pairs with the same code the first is kept, and of those with the same name and summary: so no validation
    pair is a training pair, or a method that only overrides one.
    """
    pairs = find_rows(load_corpus(data, seed=seed), find_functions, ["name", "code", "summary"])
    pairs = drop_repeated(pairs, lambda pair: {pair["code"], (pair["name"], pair["summary"])})
    check_not_empty(pairs, data, "documented function")
    return pairs


def encode(
    pairs: Dataset, tokenizer: PreTrainedTokenizerBase, *, source_tokens: int, target_tokens: int
) -> list[dict[str, list[int]]]:
    """`input_ids` of the words of the code, `labels` of the summary; each is cut to its length and ends with eos."""

    def tokenize(texts: list[str], length: int) -> list[list[int]]:
        ids = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        return [[*row[: length - 1], tokenizer.eos_token_id] for row in ids]

    sources = tokenize([split_words(code) for code in pairs["code"]], source_tokens)
    targets = tokenize(pairs["summary"][:], target_tokens)
    return [{"input_ids": source, "labels": target} for source, target in zip(sources, targets, strict=True)]


def best_constant(summaries: Sequence[str], num_candidates: int = 300) -> str:
    """Of `num_candidates` summaries, evenly spaced, the one that is nearest to all of them: highest mean ROUGE-L."""
    chosen = np.linspace(0, len(summaries) - 1, min(num_candidates, len(summaries)), dtype=int)
    sample, rouge = [summaries[index] for index in chosen], load_metric("rouge_l")

    def closeness(answer: str) -> float:
        return rouge.compute(predictions=[answer] * len(sample), references=sample)["rouge_l"]

    return max(sample, key=closeness)


def summarize(trainer: Seq2SeqTrainer, rows: Sequence[dict[str, list[int]]]) -> tuple[list[str], dict[str, float]]:
    """A summary of each row, decoded greedily, and the Trainer's metrics on the rows."""
    output = trainer.predict(rows, metric_key_prefix="eval")
    generated = output.predictions[: len(rows)].tolist()  # Seq2SeqTrainer keeps the rows that fill the last batches
    ids = [[token for token in row if token != IGNORED_LABEL] for row in generated]
    return trainer.processing_class.batch_decode(ids, skip_special_tokens=True), output.metrics


ARGUMENTS = (ModelArguments, DataArguments, SummaryArguments, WarmupArguments, Seq2SeqArguments)
FACTS = {"tokens_per_sample": None, "trainer": True}


def main() -> None:
    # 1. Arguments: the YAML file of --config, then flags, which win.
    model_args, data_args, summary_args, warmup_args, args = parse_arguments(*ARGUMENTS)
    run = Run(args, warmup_args)

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
    # Seq2SeqTrainer gathers the summaries of the ranks at this length; the first token is the start token. No pair of
    # tokens may come twice in a summary, since a small model repeats itself.
    length = {"max_length": 1 + summary_args.max_target_tokens, "forced_eos_token_id": None}
    model.generation_config.update(num_beams=1, no_repeat_ngram_size=2, use_cache=True, **length)

    # 4. Plan: warmup at the real global batch, and the peak where the schedule leaves it open; then compiling.
    collator = DataCollatorForSeq2Seq(tokenizer, model=model)
    planned = run.plan(model, train, collator=collator)

    # 5. Training; while it lasts, only the loss is evaluated.
    trainer = Seq2SeqTrainer(
        model=model,
        args=planned,
        train_dataset=train,
        eval_dataset=validation,
        processing_class=tokenizer,
        data_collator=collator,
    )
    run.train(trainer)

    # 6. Results: greedy summaries and their scores beside three guesses, model, pictures.
    trainer.args.predict_with_generate = True
    own, metrics = summarize(trainer, validation)
    half = len(validation) // 2
    shuffled = [{**row, "input_ids": validation[i - half]["input_ids"]} for i, row in enumerate(validation)]
    names, references = pairs["validation"]["name"][:], pairs["validation"]["summary"][:]
    constant = best_constant(pairs["train"]["summary"][:])
    answers = {
        "eval": ("model", own),
        "eval_baseline": ("the function's name", [split_words(name).capitalize() for name in names]),
        "eval_constant": (f"always {constant!r}", [constant] * len(references)),
        "eval_shuffled": ("model on other functions' code", summarize(trainer, shuffled)[0]),
    }
    said = []
    for prefix, (answer, summaries) in answers.items():
        scores = compute_metrics(["rouge_l", "chrf"], predictions=summaries, references=references)
        metrics |= {f"{prefix}_{key}": value for key, value in scores.items()}
        said.append(f"{answer} {scores['rouge_l']:.3f} and {scores['chrf']:.1f}")
    if trainer.is_world_process_zero():
        rows = zip(names, references, own, strict=True)
        lines = (json.dumps({"name": name, "reference": true, "summary": text}) + "\n" for name, true, text in rows)
        Path(str(args.output_dir), "summaries.jsonl").write_text("".join(lines))
    results = f"validation loss {metrics['eval_loss']:.3f}; ROUGE-L and chrF of the summaries: {'; '.join(said)}"
    run.finish(trainer, metrics, summary=results)


if __name__ == "__main__":
    run_recipe(main)
