"""UserError: an error that programs turn into a single line; lines for a terminal."""

from collections.abc import Sequence


class UserError(ValueError):
    """Refusal of something that the user gave.

    The message is one line: which file or field, what was expected, what was found,
    and what to do about it.

    Attributes:
      field: name of the field of a configuration, or argument, that is wrong; None for
        a file and the like.
      also: further fields that the message names.
    """

    def __init__(
        self, message: str, *, field: str | None = None, also: Sequence[str] = ()
    ) -> None:
        super().__init__(message)
        self.field, self.also = field, tuple(also)


def printable(text: str) -> str:
    r"""Text of a file for a terminal, which would obey its control characters.

    These become escapes, such as \x1b.
    """
    return "".join(
        x if x.isprintable() else x.encode("unicode_escape").decode() for x in text
    )
