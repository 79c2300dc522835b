"""Labelled texts of a table or hub dataset, checked before a model learns from them."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, DatasetDict, Value

from hfwarmup.errors import UserError
from hfwarmup.planning.arguments import DataArguments
from hfwarmup.recipe.corpus import load_rows

_STRINGS = ("string", "large_string")


def load_labelled(data: DataArguments, label_column: str) -> DatasetDict:
    """The rows that `data.dataset` names: split `train`, and `validation` where the data has one; columns `text` and
    `labels`.

    Raises UserError for data that cannot be loaded, for columns that are missing or hold no text, for rows without a
    text or a label, and when all labels are the same.
    """
    splits = load_rows(data)
    columns = {"text_column": data.text_column, "label_column": label_column}
    for flag, column in columns.items():
        for split in splits.values():
            _check_column(data, split, flag, column)
    kind = splits["train"].features[data.text_column]
    if not isinstance(kind, Value) or kind.dtype not in _STRINGS:
        raise UserError(f"text_column={data.text_column}: holds {kind}, no text; name the column of the texts.")
    if "validation" not in splits and len(splits["train"]) < 2:
        raise UserError(f"dataset={data.dataset}: a single row cannot be split; give more.")
    labels = {label for split in splits.values() for label in split.unique(label_column)}
    if len(labels) < 2:
        raise UserError(
            f"label_column={label_column}: every row has {labels.pop()!r}, so there is nothing to learn; "
            "add rows, or name another column."
        )
    names = {data.text_column: "text", label_column: "labels"}
    return splits.select_columns(list(columns.values())).rename_columns(names)


def split_and_encode(examples: DatasetDict, *, validation_fraction: float, seed: int) -> DatasetDict:
    """Splits `train` and `validation`, with `labels` as class ids or, when they are floats, as float32.

    Rows are held out at random when there is no validation split. The classes are those of all splits, in alphabetical
    order, under `features["labels"].names`.

    >>> examples = DatasetDict(train=Dataset.from_dict({"text": ["a", "b", "c", "d"], "labels": ["y", "x", "y", "x"]}))
    >>> encoded = split_and_encode(examples, validation_fraction=0.5, seed=0)
    >>> encoded["train"].features["labels"].names, len(encoded["validation"])
    (['x', 'y'], 2)
    """
    if "validation" not in examples:
        train, validation = examples["train"].train_test_split(validation_fraction, seed=seed).values()
        examples = DatasetDict(train=train, validation=validation)
    kind = examples["train"].features["labels"]
    if isinstance(kind, ClassLabel):
        return examples
    if kind.dtype.startswith("float"):
        return examples.cast_column("labels", Value("float32"))
    values = sorted({value for split in examples.values() for value in split.unique("labels")})
    names = pa.array(values).cast(pa.string()).to_pylist()  # written as the cast of the column writes them: true, 1
    return examples.cast_column("labels", Value("string")).cast_column("labels", ClassLabel(names=names))


def _check_column(data: DataArguments, split: Dataset, flag: str, column: str) -> None:
    if column not in split.column_names:
        raise UserError(
            f"{flag}={column}: dataset={data.dataset} has the columns {', '.join(split.column_names)}; "
            f"choose one with --{flag}."
        )
    values = split.with_format("arrow")[:][column]
    missing = pc.sum(pc.is_null(values, nan_is_null=True)).as_py()
    if missing:
        raise UserError(
            f"{flag}={column}: {missing} of {len(split)} rows of dataset={data.dataset} have no value there "
            "(empty, NA, null, None and nan count as none); fill or drop them."
        )
