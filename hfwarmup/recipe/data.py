"""From text to blocks of tokens: the tokenizer, the token ids, the blocks that a language model trains on.

Token ids are written once to the cache of `datasets` and memory-mapped: a corpus may be larger than memory, and a
second run, or another rank, reads what the first one wrote.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc
import tokenizers
from datasets import Dataset
from datasets.fingerprint import Hasher
from datasets.table import InMemoryTable
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from hfwarmup.errors import UserError
from hfwarmup.planning.arguments import DataArguments
from hfwarmup.recipe.corpus import load_corpus

logger = logging.getLogger(__name__)

END_OF_TEXT = "<|endoftext|>"
IGNORED_LABEL = -100  # what torch's cross entropy leaves out of the loss
_NONE: Mapping[str, str] = {}


@dataclass(frozen=True, kw_only=True)
class PreparedData:
    """What a language-model recipe trains on."""

    tokenizer: PreTrainedTokenizerFast
    train: Dataset
    """Blocks of `block_size` tokens: columns `input_ids` and `labels`, read as int64 torch tensors."""
    validation: Dataset
    """The same for the held-out documents."""
    validation_bytes_per_token: float
    """bits per byte = loss in nats per token / ln 2 / this."""


def prepare_data(
    data: DataArguments,
    *,
    seed: int = 0,
    cache_dir: str | None = None,
    special_tokens: Mapping[str, str] = _NONE,
    main_process_first: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
) -> PreparedData:
    """Load, split, tokenize and pack the corpus that `data` names.

    The first rank trains the tokenizer and tokenizes, while the others wait and then read its cache.

    Args:
        data: which text, which tokenizer, and how long a block is.
        seed: of the split into train and validation.
        cache_dir: None is the cache of `datasets`.
        special_tokens: as for `build_tokenizer`.
        main_process_first: `TrainingArguments.main_process_first` or `accelerate.PartialState().main_process_first`.

    Raises:
        UserError: the data cannot be used.
    """
    with main_process_first():
        corpus = load_corpus(data, seed, cache_dir)
        tokenizer = build_tokenizer(data, corpus["train"], cache_dir, special_tokens=special_tokens)
        tokenized = {name: tokenize(documents, tokenizer, data.tokenize_workers) for name, documents in corpus.items()}
    return PreparedData(
        tokenizer=tokenizer,
        train=pack(tokenized["train"], data.block_size),
        validation=pack(tokenized["validation"], data.block_size),
        validation_bytes_per_token=bytes_per_token(corpus["validation"], tokenized["validation"]),
    )


def build_tokenizer(
    data: DataArguments,
    train_documents: Dataset,
    cache_dir: str | None = None,
    *,
    special_tokens: Mapping[str, str] = _NONE,
) -> PreTrainedTokenizerFast:
    """Load `data.tokenizer`, or train a byte-level BPE of `data.vocab_size` entries on the train documents, in lower
    case if `data.uncased`.

    A trained tokenizer is kept in `<cache_dir>/tokenizers` under a fingerprint of the text, the size of the vocabulary
    and the version of the library. Its `<|endoftext|>`, which is bos and eos, has id 0.

    `special_tokens`, such as `{"mask_token": "<|mask|>"}`, gives tokens to roles that have none. In a trained tokenizer
    they are the last of the `vocab_size` entries; a tokenizer that is loaded may grow by them.

    Raises UserError when `data.tokenizer` cannot be loaded, is slow, or has no eos or sep token.
    """
    if data.tokenizer:
        tokenizer = _load_tokenizer(data)
    else:
        num_entries = data.vocab_size - len(special_tokens)
        tokenizer = _trained_tokenizer(train_documents, num_entries, data.uncased, cache_dir)
    missing: dict[str, Any] = {
        role: token for role, token in special_tokens.items() if getattr(tokenizer, role) is None
    }
    tokenizer.add_special_tokens(missing)
    if not data.tokenizer and len(tokenizer) < data.vocab_size:
        logger.warning("vocab_size=%d: the corpus has pairs for only %d entries.", data.vocab_size, len(tokenizer))
    return tokenizer


def _trained_tokenizer(
    documents: Dataset, num_entries: int, uncased: bool, cache_dir: str | None
) -> PreTrainedTokenizerFast:
    kind = "bpe-uncased" if uncased else "bpe"
    name = f"{kind}-{num_entries}-{_fingerprint_text(documents)}-{tokenizers.__version__}.json"
    file = Path(cache_dir or datasets.config.HF_DATASETS_CACHE) / "tokenizers" / name
    if not file.exists():
        logger.info("Training a byte-level BPE of %d entries on %d documents.", num_entries, len(documents))
        _write_atomically(file, _train_bpe(_texts(documents), num_entries, uncased).to_str())
    return PreTrainedTokenizerFast(
        tokenizer_file=str(file), bos_token=END_OF_TEXT, eos_token=END_OF_TEXT, clean_up_tokenization_spaces=False
    )


def _load_tokenizer(data: DataArguments) -> PreTrainedTokenizerFast:
    try:
        tokenizer = AutoTokenizer.from_pretrained(data.tokenizer)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"tokenizer={data.tokenizer}: cannot be loaded ({reason}); name a local folder, or omit it to train one."
        ) from error
    if tokenizer.eos_token is None:
        tokenizer.eos_token = tokenizer.sep_token  # as in BERT, where [SEP] ends a text
    if not isinstance(tokenizer, PreTrainedTokenizerFast) or tokenizer.eos_token_id is None:
        raise UserError(f"tokenizer={data.tokenizer}: is not a fast tokenizer with an eos token; choose one that is.")
    if data.vocab_size != DataArguments.vocab_size:
        logger.warning("vocab_size=%d is ignored: tokenizer=%s has its own.", data.vocab_size, data.tokenizer)
    if data.uncased:
        logger.warning("uncased=true is ignored: tokenizer=%s is used as it was trained.", data.tokenizer)
    return tokenizer


def _texts(documents: Dataset) -> Iterator[str]:
    for batch in documents.select_columns(["text"]).iter(batch_size=256):
        yield from (text for text in batch["text"] if text)


def _fingerprint_text(documents: Dataset) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for text in _texts(documents):
        digest.update(text.encode() + b"\xff")  # 0xff is in no UTF-8 text: moving a boundary changes the digest
    return digest.hexdigest()


def _train_bpe(texts: Iterable[str], vocab_size: int, uncased: bool) -> Tokenizer:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not uncased)
    if uncased:
        bpe.normalizer = normalizers.BertNormalizer(lowercase=True)
        bpe.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.BertPreTokenizer(), bpe.pre_tokenizer])
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=not datasets.are_progress_bars_disabled(),
    )
    bpe.train_from_iterator(texts, trainer)
    return bpe


def _write_atomically(file: Path, content: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    partial.write_text(content, encoding="utf-8")
    os.replace(partial, file)


def tokenize(documents: Dataset, tokenizer: PreTrainedTokenizerFast, num_workers: int = 0) -> Dataset:
    """Return one row of `input_ids` (int32) a document: all its tokens, then the eos token; an empty document has none.

    With `num_workers` > 1 so many processes share the work; otherwise the threads of the tokenizer do.
    """
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    # The default fingerprint hashes the Python object, which changes with use: ranks and runs would miss the cache.
    cache_key = (documents._fingerprint, backend.to_str(), tokenizer.eos_token_id, tokenizers.__version__)
    return documents.map(
        _encode,
        batched=True,
        batch_size=256,
        fn_kwargs={"backend": backend, "eos_token_id": tokenizer.eos_token_id},
        input_columns=["text"],
        remove_columns=documents.column_names,
        num_proc=min(num_workers, len(documents)) if num_workers > 1 else None,
        new_fingerprint=Hasher.hash(cache_key),
        desc="Tokenizing",
    )


def _encode(texts: list[str | None], backend: Tokenizer, eos_token_id: int) -> dict[str, list[list[int]]]:
    encodings = backend.encode_batch_fast([text or "" for text in texts], add_special_tokens=False)
    return {"input_ids": [[*encoding.ids, eos_token_id] if encoding.ids else [] for encoding in encodings]}


def bytes_per_token(documents: Dataset, tokenized: Dataset) -> float:
    """Return the UTF-8 bytes of the documents over their tokens: bits per byte = nats per token / ln 2 / this."""
    batches = documents.select_columns(["text"]).with_format("arrow").iter(batch_size=1000)
    num_bytes = sum(pc.sum(pc.binary_length(batch["text"])).as_py() or 0 for batch in batches)
    return num_bytes / sum(len(token_ids) for token_ids in _flat_chunks(tokenized))


def pack(tokenized: Dataset, block_size: int) -> Dataset:
    """Cut the concatenated `input_ids` into blocks of exactly `block_size` tokens: columns `input_ids` and `labels`.

    No token is lost, and none is a label twice: the rest at the end becomes a block of the last `block_size` tokens,
    with labels of -100 for tokens that the block before it has already. Blocks are views of the memory-mapped column;
    only a block across two of its chunks is copied. They are read as int64 torch tensors.
    Raises UserError when there is less than one block.

    >>> blocks = pack(Dataset.from_dict({"input_ids": [[1, 2, 3], [4, 5]]}), block_size=4)
    >>> blocks["input_ids"][:].tolist(), blocks["labels"][:].tolist()
    ([[1, 2, 3, 4], [2, 3, 4, 5]], [[1, 2, 3, 4], [-100, -100, -100, 5]])
    """
    fingerprint = Hasher.hash((tokenized._fingerprint, "pack", block_size))
    return Dataset(_packed_table(tokenized, block_size), fingerprint=fingerprint).with_format("torch")


class _PackedTable(InMemoryTable):
    """A table, pickled as the call that makes it: a DataLoader worker gets file names, not copies of the corpus."""

    def __init__(self, table: pa.Table, recipe: tuple[Dataset, int]):
        super().__init__(table)
        self.recipe = recipe

    def replace_schema_metadata(self, metadata: Mapping[bytes, bytes] | None = None) -> _PackedTable:
        return _PackedTable(self.table.replace_schema_metadata(metadata), self.recipe)

    def __reduce__(self) -> tuple[Any, ...]:
        return _packed_table, (*self.recipe, self.table.schema.metadata)


def _packed_table(tokenized: Dataset, block_size: int, metadata: Mapping[bytes, bytes] | None = None) -> _PackedTable:
    *runs, left_over = _cut(list(_flat_chunks(tokenized)), block_size)
    input_ids = [pa.FixedSizeListArray.from_arrays(run, block_size) for run in runs]
    labels = input_ids.copy()
    if len(left_over):
        seen = runs[-1][len(left_over) - block_size :]
        ignored = pa.array([IGNORED_LABEL] * len(seen), type=seen.type)
        for column, before in ((input_ids, seen), (labels, ignored)):
            column.append(pa.FixedSizeListArray.from_arrays(pa.concat_arrays([before, left_over]), block_size))
    table = pa.table({"input_ids": pa.chunked_array(input_ids), "labels": pa.chunked_array(labels)})
    return _PackedTable(table.replace_schema_metadata(metadata), (tokenized, block_size))


def _flat_chunks(tokenized: Dataset) -> Iterator[pa.Array]:
    """The token ids of each Arrow chunk, with its documents joined, without a copy."""
    if tokenized._indices is not None:
        tokenized = tokenized.flatten_indices()
    return (chunk.flatten() for chunk in tokenized.data.column("input_ids").chunks)


def _cut(chunks: list[pa.Array], block_size: int) -> Iterator[pa.Array]:
    """Runs of whole blocks, in the order of the stream, and at last the rest, which is less than a block."""
    num_tokens = sum(map(len, chunks))
    if num_tokens < block_size:
        raise UserError(
            f"block_size={block_size}: the documents have only {num_tokens} tokens; lower block_size, give more text, "
            "or, if this is the validation split, raise validation_fraction."
        )
    pieces: list[pa.Array] = []  # the beginning of a block, from the end of earlier chunks
    missing = 0  # tokens that complete this block
    for chunk in chunks:
        if missing:
            pieces.append(chunk[:missing])
            missing -= len(pieces[-1])
            if missing:
                continue
            yield pa.concat_arrays(pieces)
            chunk = chunk[len(pieces[-1]) :]
        whole = len(chunk) - len(chunk) % block_size
        if whole:
            yield chunk[:whole]
        pieces, missing = [chunk[whole:]], (whole - len(chunk)) % block_size
    yield pa.concat_arrays(pieces)
