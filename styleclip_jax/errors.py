"""UserError: an error that programs turn into a single line; lines for a terminal."""

import unicodedata
from collections.abc import Sequence

# Joiners of letters and emojis.
_JOINERS = "\u200c\u200d"
# Largest number of characters of a message.
_MAX_LENGTH = 500


class UserError(ValueError):
    """Refusal of something that the user gave.

    The message is one line: which file or field, what was expected, what was found,
    and what to do about it. What it quotes of a file may be of any length and hold
    control characters; the line is shortened, and these are shown as escapes.

    Attributes:
      field: name of the field of a configuration, or argument, that is wrong; None for
        a file and the like.
      also: further fields that the message names.
    """

    def __init__(
        self, message: str, *, field: str | None = None, also: Sequence[str] = ()
    ) -> None:
        super().__init__(_shorten(printable(" ".join(message.splitlines()))))
        self.field, self.also = field, tuple(also)


def printable(text: str) -> str:
    r"""Text of a file for a terminal, which would obey its control characters.

    These become escapes, such as \x1b. Blanks and joiners of letters and emojis stay.
    """
    if text.isprintable():
        return text
    return "".join(map(_show, text))


def cut(text: str, length: int) -> str:
    """Text of which the end is left out where it has more characters."""
    return text if len(text) <= length else f"{text[:length]} …"


def _show(character: str) -> str:
    is_blank = unicodedata.category(character) == "Zs"
    if character.isprintable() or character in _JOINERS or is_blank:
        return character
    return character.encode("unicode_escape").decode()


def _shorten(text: str) -> str:
    """Text without its middle where it is too long: file and advice are at its ends."""
    if len(text) <= _MAX_LENGTH:
        return text
    half = _MAX_LENGTH // 2 - 1
    return f"{text[:half]} … {text[-half + 1 :]}"
