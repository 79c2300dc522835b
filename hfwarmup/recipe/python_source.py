"""Rows found in Python source, such as docstrings: what recipes learn from when there is no network."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any

from datasets import DatasetDict

from hfwarmup.errors import UserError
from hfwarmup.planning.arguments import DataArguments

Function = ast.FunctionDef | ast.AsyncFunctionDef


def documented(source: str) -> Iterator[tuple[ast.Module | ast.ClassDef | Function, str]]:
    """Each module, class and function of a Python source that has a docstring, with the docstring; outer ones first.

    A source that this Python cannot parse has none.

    >>> [docstring for _, docstring in documented('"A module."\\ndef f():\\n    "A function."')]
    ['A module.', 'A function.']
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # Python warns of odd escapes in the source
            tree = ast.parse(source)
    except (SyntaxError, ValueError):  # ValueError: null bytes
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node)
            if docstring is not None:
                yield node, docstring


def documented_functions(source: str) -> Iterator[tuple[Function, str]]:
    """Each function of a Python source that has a docstring and code after it, with the docstring.

    >>> [function.name for function, _ in documented_functions('def f():\\n    "A."\\ndef g():\\n    "B."\\n    pass')]
    ['g']
    """
    for node, docstring in documented(source):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and len(node.body) > 1:
            yield node, docstring


def find_pairs(source: str) -> Iterator[tuple[str, str]]:
    """Each function of a Python source that has a docstring and code after it, as (prompt, completion).

    The prompt goes from `def` to the closing quotes of the docstring, the completion from the line break there to the
    end of the function, so that no token lies across. Both are dedented.

    >>> list(find_pairs('class A:\\n    def one(self):\\n        "One."\\n        return 1\\n'))
    [('def one(self):\\n    "One."', '\\n    return 1')]
    """
    lines = source.split("\n")
    for function, _ in documented_functions(source):
        docstring = function.body[0]
        first, middle, last = function.lineno - 1, docstring.end_lineno or 0, function.end_lineno
        if lines[middle - 1].encode()[docstring.end_col_offset :].strip():
            continue  # there is code on the line of the docstring
        indent = lines[first][: function.col_offset]
        prompt, body = (
            "\n".join(line.removeprefix(indent) for line in part).rstrip()
            for part in (lines[first:middle], lines[middle:last])
        )
        yield prompt, "\n" + body


def split_words(code: str) -> str:
    """The words of a piece of code in lower case, with identifiers split (Alon et al. 2019, code2seq, section 5).

    A word then has the same tokens in code and in prose, so that a model can copy it.

    >>> split_words("def _parse_HTTPHeader2(self, rawLine):")
    'def parse http header 2 self raw line'
    """
    return " ".join(re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", code)).lower()


def find_rows(
    documents: DatasetDict,
    find: Callable[..., Iterable[Sequence[Any]]],
    columns: Sequence[str],
    *,
    read: Sequence[str] = ("text",),
) -> DatasetDict:
    """The rows that `find` makes of each document, split by split; the documents' own columns are gone.

    Args:
        documents: splits of documents, as `load_corpus` returns them.
        find: makes rows from the values of a document in the columns `read`.
        columns: the names of the values of a row.
        read: the columns whose values `find` gets.

    >>> from datasets import Dataset
    >>> documents = DatasetDict(train=Dataset.from_dict({"text": ["a b", "c"]}))
    >>> find_rows(documents, lambda text: [(word, len(text)) for word in text.split()], ["word", "of"])["train"][:]
    {'word': ['a', 'b', 'c'], 'of': [3, 3, 1]}
    """
    return documents.map(
        _find_in_batch,
        batched=True,
        batch_size=64,
        remove_columns=documents["train"].column_names,
        fn_kwargs={"find": find, "columns": list(columns), "read": list(read)},
        desc="Searching",
    )


def _find_in_batch(
    batch: dict[str, list[Any]], find: Callable[..., Iterable[Sequence[Any]]], columns: list[str], read: list[str]
) -> dict[str, list[Any]]:
    rows = [row for values in zip(*(batch[name] for name in read), strict=True) for row in find(*values)]
    return {name: [row[index] for row in rows] for index, name in enumerate(columns)}


def drop_repeated(splits: DatasetDict, keys: Callable[[dict[str, Any]], set[Hashable]]) -> DatasetDict:
    """Drop each row that has a key in common with an earlier row, of its own split or of a split before it.

    So no validation row repeats a training row, whose split comes first.

    >>> from datasets import Dataset
    >>> splits = DatasetDict(train=Dataset.from_dict({"x": [1, 1, 2]}), validation=Dataset.from_dict({"x": [2, 3]}))
    >>> {name: rows["x"][:] for name, rows in drop_repeated(splits, lambda row: {row["x"]}).items()}
    {'train': [1, 2], 'validation': [3]}
    """
    seen: set[Hashable] = set()
    kept = DatasetDict()
    for split, rows in splits.items():
        indices = []
        for index, row in enumerate(rows):
            of_row = keys(row)
            if not of_row & seen:
                indices.append(index)
            seen |= of_row
        kept[split] = rows.select(indices)
    return kept


def check_not_empty(splits: DatasetDict, data: DataArguments, what: str) -> None:
    """Raise UserError for a split without rows; `what` is the name of a row."""
    for split, rows in splits.items():
        if len(rows) == 0:
            raise UserError(f"dataset={data.dataset}: the {split} split has no {what}; give more files.")
