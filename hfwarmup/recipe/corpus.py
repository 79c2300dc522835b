"""Where the text comes from: documents, split into train and validation by document.

All of it is written once to the cache of `datasets` and memory-mapped, so it may be larger than memory.
"""

from __future__ import annotations

import glob
import hashlib
import re
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path

import datasets
import numpy as np
from datasets import Dataset, DatasetDict, Features, Value

from hfwarmup.errors import UserError
from hfwarmup.planning.arguments import DataArguments

_TEXT_SUFFIXES = {".txt", ".py", ".md"}
_TABLE_BUILDERS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}
_KNOWN_SUFFIXES = _TEXT_SUFFIXES | set(_TABLE_BUILDERS)
_NOT_STDLIB = {"test", "tests", "idle_test", "idlelib", "site-packages", "dist-packages", "ensurepip", "__pycache__"}
_VALIDATION_SPLITS = ("validation", "valid", "val", "dev")
_SECTION_CHARACTERS = 4096


def load_corpus(data: DataArguments, seed: int = 0, cache_dir: str | None = None) -> DatasetDict:
    """Return the documents that `data.dataset` names: splits `train` and `validation`, columns `text` and `source`.

    A .txt, .py or .md file is one document. So is a row of a table (.json, .jsonl, .csv, .parquet, hub), which has no
    `source`. A text file that is the only one is cut at blank lines into documents of at least 4096 characters.

    A validation split of the data is kept. Otherwise a document is held out if its name (for a row, its text) hashes
    below `validation_fraction`, and at least one is. So the split of a document depends on the document and on `seed`,
    not on the order, and not on documents that are added later.

    Raises UserError for data that is missing, of an unknown kind, unreachable, or impossible to split.
    """
    splits = _train_and_validation(data, _load_splits(data, cache_dir))
    if "validation" not in splits:
        splits["train"], splits["validation"] = _hold_out(splits["train"], data, seed)
    return splits


def load_rows(data: DataArguments, cache_dir: str | None = None) -> DatasetDict:
    """Return the rows of the table or hub dataset that `data.dataset` names, with all columns: split `train`, and
    `validation` where the data has one.

    Raises UserError for data that is missing, not a table, or unreachable.
    """
    _, files = _local_files(data.dataset)
    tables = [file for file in files if file.suffix.lower() in _TABLE_BUILDERS]
    _check_found(data, tables, set(_TABLE_BUILDERS))
    return _train_and_validation(data, _load_tables(data, tables, cache_dir))


def _train_and_validation(data: DataArguments, splits: Mapping[str, Dataset]) -> DatasetDict:
    if "train" not in splits:
        raise UserError(f"dataset={data.dataset}: no train split, only {', '.join(splits)}; name files.")
    validation = [splits[name] for name in _VALIDATION_SPLITS if name in splits][:1]
    return DatasetDict(zip(("train", "validation"), [splits["train"], *validation], strict=False))


def _load_splits(data: DataArguments, cache_dir: str | None) -> Mapping[str, Dataset]:
    if data.dataset == "stdlib":
        root = Path(sysconfig.get_path("stdlib"))
        files = sorted(file for file in root.rglob("*.py") if _is_stdlib_source(file.relative_to(root)))
        return {"train": _read_documents(data, root, files, cache_dir)}
    root, files = _local_files(data.dataset)
    tables = [file for file in files if file.suffix.lower() in _TABLE_BUILDERS]
    texts = [file for file in files if file not in tables and not (tables and file.name == "README.md")]
    if tables and texts:
        raise UserError(
            f"dataset={data.dataset}: holds tables ({tables[0].name}) and text files ({texts[0].name}); "
            "name one kind, for example with a glob."
        )
    if texts:
        return {"train": _read_documents(data, root, texts, cache_dir)}
    _check_found(data, tables, _KNOWN_SUFFIXES)
    return {name: _text_only(split, data) for name, split in _load_tables(data, tables, cache_dir).items()}


def _check_found(data: DataArguments, tables: list[Path], kinds: set[str]) -> None:
    if not tables and not _is_hub_name(data.dataset):
        raise UserError(
            f"dataset={data.dataset}: no such file, or none of a known kind ({' '.join(sorted(kinds))}); "
            "correct the path."
        )


def _is_stdlib_source(path: Path) -> bool:
    return not any(part in _NOT_STDLIB or part.startswith("config-") for part in path.parent.parts)


def _is_hub_name(name: str) -> bool:
    path = Path(name).expanduser()
    return not path.exists() and path.suffix not in _KNOWN_SUFFIXES and bool(re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name))


def _local_files(pattern: str) -> tuple[Path, list[Path]]:
    """The folder that document names are relative to, and the files of a known kind that a path or glob matches."""
    path = Path(pattern).expanduser()
    if path.is_file():
        root, found = path.parent, [path]
    elif path.is_dir():
        root, found = path, list(path.rglob("*"))
    else:
        root = Path(re.split(r"[*?\[]", str(path))[0] + "_").parent  # names in data/a*/b.txt are relative to data/
        found = [Path(name) for name in glob.glob(str(path), recursive=True)]
    files = [file for file in found if file.suffix.lower() in _KNOWN_SUFFIXES and file.is_file()]
    return root, sorted(file for file in files if not any(p.startswith(".") for p in file.relative_to(root).parts))


def _read_documents(data: DataArguments, root: Path, files: list[Path], cache_dir: str | None) -> Dataset:
    _refuse_hub_options(data)
    if data.text_column != DataArguments.text_column:
        raise UserError(f"text_column={data.text_column}: dataset={data.dataset} is text without columns; omit it.")
    if not files:
        raise UserError(f"dataset={data.dataset}: no .py file below {root}; name a file, a folder or a hub dataset.")
    # Size and time of change are part of the cache's key: an edited file is read again. A list would become shards.
    listing = tuple(
        (file.relative_to(root).as_posix(), str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns)
        for file in files
    )
    return Dataset.from_generator(
        _generate_documents,
        features=Features({"text": Value("large_string"), "source": Value("string")}),
        cache_dir=cache_dir,
        gen_kwargs={"listing": listing},
    )


def _generate_documents(listing: tuple[tuple[str, str, int, int], ...]) -> Iterator[dict[str, str]]:
    for name, path, *_ in listing:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
        if len(listing) > 1:
            yield {"text": text, "source": name}
        else:
            yield from ({"text": part, "source": f"{name}#{i}"} for i, part in enumerate(_sections(text)))


def _sections(text: str) -> Iterator[str]:
    start = 0
    for blank_lines in re.finditer(r"\n\s*\n", text):
        if blank_lines.end() - start >= _SECTION_CHARACTERS:
            yield text[start : blank_lines.end()]
            start = blank_lines.end()
    if start < len(text) or start == 0:
        yield text[start:]


def _load_tables(data: DataArguments, files: list[Path], cache_dir: str | None) -> Mapping[str, Dataset]:
    path = Path(data.dataset).expanduser()
    if files:
        _refuse_hub_options(data)
    try:
        if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():  # written by save_to_disk
            saved = datasets.load_from_disk(str(path))
            return {"train": saved} if isinstance(saved, Dataset) else saved
        if path.is_dir():  # datasets finds the splits in the names of the files
            return datasets.load_dataset(str(path), cache_dir=cache_dir)
        if files:
            builder = _TABLE_BUILDERS[files[0].suffix.lower()]
            return datasets.load_dataset(builder, data_files=[str(file) for file in files], cache_dir=cache_dir)
        return datasets.load_dataset(data.dataset, data.dataset_config or None, cache_dir=cache_dir)
    except (OSError, ValueError, datasets.exceptions.DatasetGenerationError) as error:
        remedy = "correct the file" if files else "without a network name local files, or 'stdlib'"
        reason = " ".join(str(error.__cause__ or error).split())
        raise UserError(f"dataset={data.dataset}: cannot be loaded ({reason}); {remedy}.") from error


def _refuse_hub_options(data: DataArguments) -> None:
    if data.dataset_config:
        raise UserError(f"dataset_config={data.dataset_config}: dataset={data.dataset} is local and has none; omit it.")


def _text_only(split: Dataset, data: DataArguments) -> Dataset:
    if data.text_column not in split.column_names:
        raise UserError(
            f"text_column={data.text_column}: not a column of dataset={data.dataset}; "
            f"choose one of {', '.join(split.column_names)}."
        )
    split = split.select_columns([data.text_column])
    return split if data.text_column == "text" else split.rename_column(data.text_column, "text")


def _hold_out(documents: Dataset, data: DataArguments, seed: int) -> tuple[Dataset, Dataset]:
    if len(documents) < 2:
        raise UserError(
            f"dataset={data.dataset}: {len(documents)} document(s) cannot be split; give several files, or more text."
        )
    key = "source" if "source" in documents.column_names else "text"
    hashed = documents.map(
        _hash_to_shares,
        batched=True,
        input_columns=[key],
        fn_kwargs={"seed": seed},
        remove_columns=documents.column_names,
        desc="Splitting",
    )
    shares = hashed.data.column("share").to_numpy()
    by_share = np.argsort(shares, kind="stable")
    held_out = int(np.clip((shares < data.validation_fraction).sum(), 1, len(shares) - 1))
    return documents.select(np.sort(by_share[held_out:])), documents.select(np.sort(by_share[:held_out]))


def _hash_to_shares(names: list[str | None], seed: int) -> dict[str, list[float]]:
    """A number in [0, 1) for each name; it depends on the name and the seed only.

    >>> _hash_to_shares(["abc.py", "ast.py"], seed=0)
    {'share': [0.45478968811211334, 0.7938784525475948]}
    """
    digests = (hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest() for name in names)
    return {"share": [int.from_bytes(digest, "big") / 2**64 for digest in digests]}
