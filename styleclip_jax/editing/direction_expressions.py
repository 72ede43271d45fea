"""Expressions of directions: files, channels and numbers with +, −, * and parentheses.

  smile.safetensors - 0.5*age.npy + ganspace.npz[3]@4-7

  sum      = product { ("+" | "-") product }
  product  = factor { "*" factor }
  factor   = { "+" | "-" } item { "@" rows }
  item     = number | channel | file { "[" choice "]" } | "(" sum ")"

A channel is layer:channel. `file[choice]` takes a part of a file, and `item@4-7` keeps
what the rows 4 to 7 of W+ move. A sign between two operands stands alone, since names
of files have signs; names with blanks, brackets, * or @ stand in quotes.

All of it is linear, so an expression is a sum of terms: a factor, what it multiplies,
and the rows that are kept.
"""

import dataclasses
import pathlib
import re
from typing import NamedTuple

from styleclip_jax.errors import UserError
from styleclip_jax.io import files
from styleclip_jax.settings.edits import DirectionSettings

_FIELD = "direction"
# What a name without quotes does not hold.
_RUN = re.compile(r"""[^\s*()\[\]@'"]+""")
_NUMBER = re.compile(r"(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_CHANNEL = re.compile(r"(\d{1,4}|b\d{1,4}/\w+):(\d{1,6})")
_ROWS = re.compile(r"\d{1,4}(-\d{1,4})?(,\d{1,4}(-\d{1,4})?)*")
_MAX_DEPTH = 50


class File(NamedTuple):
    """File with what is chosen of it."""

    path: str
    choices: tuple[str, ...] = ()

    def __str__(self) -> str:
        return pathlib.Path(self.path).stem + "".join(f"[{x}]" for x in self.choices)


class Channel(NamedTuple):
    """Channel of a layer, which is an index or a name."""

    layer: str
    number: int

    def __str__(self) -> str:
        return f"{self.layer}:{self.number}"


class Term(NamedTuple):
    """Multiple of the direction of a file or channel.

    Attributes:
      source: file or channel.
      factor: what it is multiplied by.
      rows: rows of W+ that it moves, as texts such as "4-7", each of which keeps a part
        of what those before it keep.
    """

    source: File | Channel
    factor: float = 1.0
    rows: tuple[str, ...] = ()


# Sum of terms, one or more.
Terms = tuple[Term, ...]


@dataclasses.dataclass(frozen=True)
class DirectionConfig(DirectionSettings):
    """Settings of edits along global directions, whose expressions are checked."""

    def __post_init__(self) -> None:
        super().__post_init__()
        terms(self)


def terms(config: DirectionSettings) -> Terms:
    """Terms of the direction or channel; none where directions are made of texts.

    Raises:
      UserError: the direction is no expression, or the channel none.
    """
    if config.channel is not None:
        return parse_channel(config.channel)
    if config.direction is not None:
        return parse(config.direction)
    return ()


def parse(text: files.Path) -> Terms:
    """Terms that a text says; a path, or the name of a file, is this file.

    Raises:
      UserError: the text is no expression, or its value is a number.
    """
    if not isinstance(text, str) or _is_file(text):
        return (Term(File(str(text))),)
    reader = _Reader(text)
    found = reader.sum()
    reader.end()
    if isinstance(found, float):
        raise UserError(
            f"{_FIELD}: expected a direction, found the number {found:g}",
            field=_FIELD,
        )
    return found


def parse_channel(text: str) -> Terms:
    """Term of a channel such as 6:501 or b16/conv1:501.

    Raises:
      UserError: the text is something else.
    """
    match = _CHANNEL.fullmatch(text.strip())
    if match is None:
        raise UserError(
            f"channel: expected layer:channel, such as 6:501, found {text!r}",
            field="channel",
        )
    return (Term(Channel(match[1], int(match[2]))),)


def rows_of(term: Term, count: int) -> list[int]:
    """Rows of W+ that a term moves, of a generator with `count` rows.

    Raises:
      UserError: the generator has no such rows.
    """
    found = set(range(count))
    for text in term.rows:
        rows: set[int] = set()
        for piece in text.split(","):
            low, _, high = piece.partition("-")
            if not int(low) <= int(high or low) < count:
                raise UserError(
                    f"{_FIELD}: expected rows from 0 to {count - 1} of this generator, "
                    f"found @{text}",
                    field=_FIELD,
                )
            rows |= set(range(int(low), int(high or low) + 1))
        found &= rows
    return sorted(found)


def describe(terms: Terms) -> str:
    """Title of a sum, with the names of files short."""
    words = []
    for term in terms:
        size = abs(term.factor)
        rows = "".join(f"@{text}" for text in term.rows)
        name = f"{'' if size == 1 else f'{size:g}*'}{term.source}{rows}"
        words += ["-" if term.factor < 0 else "+", name]
    sign, *rest = words
    return sign.replace("+", "") + " ".join(rest)


def _is_file(text: str) -> bool:
    try:
        return bool(text.strip()) and pathlib.Path(text).is_file()
    except (OSError, ValueError):
        # Too long for a name, or with a character that no name has.
        return False


def _scale(factor: float, terms: Terms) -> Terms:
    return tuple(term._replace(factor=factor * term.factor) for term in terms)


class _Reader:
    """Reader of a text from left to right, by the rules above."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._place = 0
        self._depth = 0

    def sum(self) -> Terms | float:
        """Reads products with signs between."""
        found = self._product()
        while (place := self._peek("+-")) is not None:
            sign = -1.0 if self._text[place] == "-" else 1.0
            found = self._add(found, sign, self._product(), place)
        return found

    def end(self) -> None:
        """Expects the end."""
        self._skip()
        if self._place < len(self._text):
            raise self._expected("+, - or * between two operands, or the end")

    def _product(self) -> Terms | float:
        found = self._factor()
        while (place := self._peek("*")) is not None:
            other = self._factor()
            if isinstance(found, float):
                found, other = other, found
            if isinstance(other, tuple):
                raise self._expected("a number on one side of *", place)
            found = found * other if isinstance(found, float) else _scale(other, found)
        return found

    def _factor(self) -> Terms | float:
        sign = 1.0
        while (place := self._peek("+-")) is not None:
            sign *= -1.0 if self._text[place] == "-" else 1.0
        found = self._item()
        while (place := self._peek("@")) is not None:
            found = self._rows(found, place)
        return sign * found if isinstance(found, float) else _scale(sign, found)

    def _item(self) -> Terms | float:
        if (place := self._peek("(")) is not None:
            self._depth += 1
            if self._depth > _MAX_DEPTH:
                raise self._expected(f"at most {_MAX_DEPTH} parentheses", place)
            found = self.sum()
            if self._peek(")") is None:
                raise self._expected("+, -, * or )")
            self._depth -= 1
            return found
        if (place := self._peek("'\"")) is not None:
            stop = self._text.find(self._text[place], place + 1)
            if stop < 0:
                raise self._expected(f"a second {self._text[place]}", len(self._text))
            name, self._place = self._text[place + 1 : stop], stop + 1
            return (Term(File(name, self._choices())),)
        self._skip()
        run = _RUN.match(self._text, self._place)
        if run is None:
            raise self._expected("a file, a number or layer:channel")
        place, self._place = self._place, run.end()
        if _NUMBER.fullmatch(run[0]):
            value = float(run[0])
            if value == float("inf"):
                raise self._expected("a finite number", place)
            return value
        if _CHANNEL.fullmatch(run[0]):
            return parse_channel(run[0])
        return (Term(File(run[0], self._choices())),)

    def _choices(self) -> tuple[str, ...]:
        choices = []
        while self._text[self._place : self._place + 1] == "[":
            stop = self._text.find("]", self._place)
            inner = self._text[self._place + 1 : stop].strip().strip("'\"")
            if stop < 0 or not inner:
                raise self._expected("[ with a number or name, and ]")
            choices.append(inner)
            self._place = stop + 1
        return tuple(choices)

    def _rows(self, found: Terms | float, place: int) -> Terms:
        match = _ROWS.match(self._text, self._place)
        if match is None or isinstance(found, float):
            raise self._expected("a direction @ rows of W+, such as age.npy@4-7", place)
        self._place = match.end()
        return tuple(term._replace(rows=(*term.rows, match[0])) for term in found)

    def _add(
        self, left: Terms | float, sign: float, right: Terms | float, place: int
    ) -> Terms | float:
        if isinstance(left, float) and isinstance(right, float):
            return left + sign * right
        if isinstance(left, float) or isinstance(right, float):
            what = "directions, or numbers, on both sides of"
            raise self._expected(f"{what} {self._text[place]}", place)
        return left + _scale(sign, right)

    def _peek(self, characters: str) -> int | None:
        """Place of the next character if it is one of these, which is then read."""
        self._skip()
        place = self._place
        if place < len(self._text) and self._text[place] in characters:
            self._place += 1
            return place
        return None

    def _skip(self) -> None:
        while self._text[self._place : self._place + 1].isspace():
            self._place += 1

    def _expected(self, what: str, place: int | None = None) -> UserError:
        place = self._place if place is None else place
        rest = self._text[place : place + 20]
        return UserError(
            f"{_FIELD}: expected {what} at character {place + 1} of {self._text!r}, "
            f"found {repr(rest) if rest else 'the end'}",
            field=_FIELD,
        )
