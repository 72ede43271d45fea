"""Docstrings for mkdocstrings: what they say in fewer signs than Markdown wants.

A paragraph that is set in by two spaces is code or an equation; "Source:" and "Parity:"
begin notes; "a, b: …" describes several arguments at once.
"""

import ast
import re
from typing import Any

import griffe

_SECTIONS = ("Args:", "Attributes:", "Raises:", "Returns:")
_NOTE = re.compile(r"(Source|Parity): (.*)", re.DOTALL)
_SEVERAL = re.compile(r"  (\w+(?:, \w+)+): (.*)", re.DOTALL)


class Docstrings(griffe.Extension):
    """Prepares every docstring before it is parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = prepare(obj.docstring.value)


def prepare(text: str) -> str:
    """A docstring as Google's style and Markdown have it."""
    paragraphs: list[str] = []
    for paragraph in text.split("\n\n"):
        if _is_code(paragraph) and paragraphs and _is_code(paragraphs[-1]):
            # Code with an empty line in it.
            paragraphs[-1] += f"\n\n{paragraph}"
        else:
            paragraphs.append(paragraph)
    return "\n\n".join(map(_prepare, paragraphs))


def _is_code(paragraph: str) -> bool:
    return all(line.startswith("  ") for line in paragraph.split("\n") if line)


def _prepare(paragraph: str) -> str:
    lines = paragraph.split("\n")
    if lines[0] in _SECTIONS:
        return "\n".join([lines[0], *_split_names(lines[1:])])
    if note := _NOTE.fullmatch(paragraph):
        return f"{note[1]}:\n" + "\n".join(f"  {x}" for x in note[2].split("\n"))
    if _is_code(paragraph):
        code = "\n".join(line[2:] for line in lines)
        return f"```{_language(code)}\n{code}\n```"
    return paragraph


def _split_names(lines: list[str]) -> list[str]:
    """Lines of a section with an item for each name."""
    items = re.split(r"\n(?=  \S)", "\n".join(lines))
    found: list[str] = []
    for item in items:
        several = _SEVERAL.fullmatch(item)
        names = several[1].split(", ") if several else []
        found += [f"  {name}: {several[2]}" for name in names if several] or [item]
    return found


def _language(code: str) -> str:
    try:
        ast.parse(code)
    except SyntaxError:
        return "text"
    return "python"
