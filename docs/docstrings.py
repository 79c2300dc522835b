"""An extension of mkdocstrings that fits it to the docstrings of this package."""

from __future__ import annotations

import ast
import re
from typing import Any

from griffe import Attribute, Class, Extension, Object


class Docstrings(Extension):
    """Doctests become code blocks, and the documented fields of a class become one table."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        if obj.docstring is not None:  # without a code block Markdown reads >>> as quotations
            obj.docstring.value = re.sub(r"(?m)^>>> .*(?:\n.+)*", r"```pycon\n\g<0>\n```", obj.docstring.value)

    def on_class(self, *, cls: Class, **kwargs: Any) -> None:
        own = {name: field for name, field in cls.members.items() if isinstance(field, Attribute)}
        fields = {name: (field.annotation, text) for name, field in own.items() if (text := describe(field))}
        if cls.docstring is not None and fields:
            rows = "".join(f"    {name} ({kind}): {text}\n" for name, (kind, text) in fields.items())
            cls.docstring.value += f"\n\nAttributes:\n{rows}"
        for name in fields:
            cls.del_member(name)


def describe(field: Attribute) -> str:
    """The docstring under a field, or the help text of a command-line argument."""
    if field.docstring is not None:
        return field.docstring.value
    texts = re.search(r"metadata=(\{.*\})", str(field.value), re.DOTALL)
    return ast.literal_eval(texts[1])["help"].replace("%%", "%") if texts else ""
