"""Labelled texts of a table or hub dataset, and what must hold before a model can learn from them."""

from __future__ import annotations

import pyarrow.compute as pc
from datasets import Dataset, DatasetDict, Value

from hfwarmup.errors import UserError
from hfwarmup.planning.arguments import DataArguments
from hfwarmup.recipe.corpus import load_rows

_STRINGS = ("string", "large_string")


def load_labelled(data: DataArguments, label_column: str) -> DatasetDict:
    """Return the rows that `data.dataset` names: split `train`, and `validation` where the data brings one, columns
    `text` and `labels`.

    Raises ValueError, in one line, for data that cannot be loaded, for columns that are not there or not of text, for
    rows without a text or a label, and for labels that are all the same.
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
            f"label_column={label_column}: every row has {labels.pop()!r}, there is nothing to tell apart; "
            "add rows, or name another column."
        )
    names = {data.text_column: "text", label_column: "labels"}
    return splits.select_columns(list(columns.values())).rename_columns(names)


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
