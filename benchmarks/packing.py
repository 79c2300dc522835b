"""Packing a tokenized corpus into blocks: hfwarmup's Arrow views against the usual `map(group_texts)`.

The corpus is the Python standard library's source, tokenized once and memory-mapped. Both sides start from that file,
with caching off. The usual way, known from transformers' run_clm.py, concatenates Python lists a thousand documents at
a time, drops what is left over of each thousand, and writes every token to disk twice more. Ours cuts views of the file
and loses nothing. Views could move the work to the reader: the time to read all blocks as torch batches stands beside.

    python benchmarks/packing.py
"""

from __future__ import annotations

import itertools
import tempfile
import timeit
from collections.abc import Callable
from functools import partial

import datasets
from datasets import Dataset, concatenate_datasets

from hfwarmup.planning.arguments import DataArguments
from hfwarmup.recipe.corpus import load_corpus
from hfwarmup.recipe.data import IGNORED_LABEL, build_tokenizer, pack, tokenize

BLOCK_SIZE = 256  # tokens
REPEATS = 3


def group_texts(batch: dict[str, list[list[int]]]) -> dict[str, list[list[int]]]:
    stream = list(itertools.chain.from_iterable(batch["input_ids"]))
    end = len(stream) // BLOCK_SIZE * BLOCK_SIZE
    blocks = [stream[start : start + BLOCK_SIZE] for start in range(0, end, BLOCK_SIZE)]
    return {"input_ids": blocks, "labels": blocks.copy()}


def map_group_texts(tokenized: Dataset) -> Dataset:
    return tokenized.map(group_texts, batched=True, load_from_cache_file=False).with_format("torch")


def best_seconds(call: Callable[[], object]) -> float:
    return min(timeit.repeat(call, number=1, repeat=REPEATS))


def read_all(blocks: Dataset) -> int:
    """The number of labels that are trained on."""
    return sum(int((batch["labels"] != IGNORED_LABEL).sum()) for batch in blocks.iter(batch_size=32))


def main() -> None:
    datasets.disable_progress_bars()
    data = DataArguments(block_size=BLOCK_SIZE)
    with tempfile.TemporaryDirectory() as cache_dir:
        corpus = load_corpus(data, cache_dir=cache_dir)
        tokenizer = build_tokenizer(data, corpus["train"], cache_dir)
        tokenized = concatenate_datasets([tokenize(split, tokenizer) for split in corpus.values()])
        num_tokens = sum(len(row) for row in tokenized["input_ids"])
        datasets.disable_caching()
        print(f"{len(tokenized)} documents, {num_tokens} tokens, blocks of {BLOCK_SIZE}, best of {REPEATS}")
        seconds = {}
        for name, way in (
            ("map(group_texts)", map_group_texts),
            ("hfwarmup.pack", partial(pack, block_size=BLOCK_SIZE)),
        ):
            seconds[name] = best_seconds(partial(way, tokenized))
            blocks = way(tokenized)
            lost = num_tokens - read_all(blocks)
            reading = best_seconds(partial(read_all, blocks))
            print(
                f"{name:17} {seconds[name] * 1e3:9.2f} ms, {len(blocks)} blocks, {lost} tokens lost; "
                f"reading them all {reading * 1e3:.0f} ms"
            )
        usual, ours = seconds.values()
        print(f"ratio {usual / ours:.0f}")


if __name__ == "__main__":
    main()
