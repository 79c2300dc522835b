"""For mkdocstrings: how the docstrings of this package are read."""

from __future__ import annotations

import ast
import re
from typing import Any

from griffe import Attribute, Class, Extension, Object


class Docstrings(Extension):
    """Doctests between paragraphs become code blocks, and the fields of a class, with a line on each, one table."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        if obj.docstring is not None:  # Markdown would take >>> for three quotations
            obj.docstring.value = re.sub(r"(?m)^>>> .*(?:\n.+)*", r"```pycon\n\g<0>\n```", obj.docstring.value)

    def on_class(self, *, cls: Class, **kwargs: Any) -> None:
        fields = {name: (field.annotation, text) for name, field in cls.attributes.items() if (text := about(field))}
        if cls.docstring is not None and fields:
            rows = "".join(f"    {name} ({kind}): {text}\n" for name, (kind, text) in fields.items())
            cls.docstring.value += f"\n\nAttributes:\n{rows}"
        for name in fields:
            cls.del_member(name)


def about(field: Attribute) -> str:
    """The line under a field, or the help of a command-line argument."""
    if field.docstring is not None:
        return field.docstring.value
    texts = re.search(r"metadata=(\{.*\})", str(field.value), re.DOTALL)
    return ast.literal_eval(texts[1])["help"].replace("%%", "%") if texts else ""
