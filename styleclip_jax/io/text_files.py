"""Texts that people write: cleaned of what nobody sees, one at a time or from a file.

A text file is in UTF-8, or in UTF-16 or UTF-32 with a byte order mark. Lines that begin
with # are comments; a text that does has a backslash before it.
"""

import codecs
import html
import math
import pathlib
import re
import unicodedata
from collections.abc import Callable

from styleclip_jax.errors import UserError
from styleclip_jax.io import files
from styleclip_jax.progress import ignore

# Largest size in bytes, and largest number of lines.
_MAX_BYTES, _MAX_LINES = 64 << 20, 1_000_000
# Longer marks first: that of UTF-16 begins that of UTF-32.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8", "UTF-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le", "UTF-32"),
    (codecs.BOM_UTF32_BE, "utf-32-be", "UTF-32"),
    (codecs.BOM_UTF16_LE, "utf-16-le", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16-be", "UTF-16"),
)
# Formatting characters that change what is written: joiners and the tags of flags.
_JOINERS = {"\u200c", "\u200d", *map(chr, range(0xE0020, 0xE0080))}
# Letters and symbols that are blank: fillers of Hangul, and the empty Braille cell.
_BLANK = {"\u115f", "\u1160", "\u3164", "\uffa0", "\u2800"}
# Beginning of a comment, and of a text that begins like one.
_COMMENT, _ESCAPED = "#", "\\#"
# Marks of start and end, which tokenizers read as such.
_SPECIAL = re.compile(r"<\|(start|end)oftext\|>", re.IGNORECASE)


def clean(text: str) -> str:
    """Text in composed form, with single blanks and without invisible characters.

    Byte order marks, soft hyphens, zero-width spaces, marks of the direction and
    control characters go. What is left is "" if nobody could see it.
    """
    spaced = " ".join(unicodedata.normalize("NFC", text).split())
    kept = "".join(x for x in spaced if x in _JOINERS or not _is_control(x))
    kept = " ".join(kept.split())
    # Tokenizers resolve entities such as &nbsp; twice.
    seen = _SPECIAL.sub("", html.unescape(html.unescape(kept)))
    return kept if any(map(_is_visible, seen)) else ""


def require(field: str, value: str | None) -> str:
    """The text of a field, cleaned.

    Args:
      field: name of the field that holds the text.
      value: text as it was given.

    Raises:
      UserError: the text is missing, or nothing in it can be seen.
    """
    cleaned = clean(value or "")
    if not cleaned:
        raise UserError(f"{field}: expected a text, found {value!a}", field=field)
    return cleaned


def split_weight(text: str) -> tuple[str, float | None]:
    """Text and weight of TEXT or TEXT=WEIGHT; None without a finite number there."""
    before, equals, after = text.rpartition("=")
    try:
        weight = float(after)
    except ValueError:
        weight = math.nan
    return (before, weight) if equals and math.isfinite(weight) else (text, None)


def read_lines(
    path: files.Path, what: str, *, tell: Callable[[str], None] = ignore
) -> list[str]:
    """Different texts of a file, one a line and cleaned, without empty lines.

    Lines that begin with # are comments; a backslash before the # makes it a text.

    Args:
      path: file in UTF-8, or with a byte order mark.
      what: what its lines are, such as "prompts", for messages.
      tell: is given a line if the file is in another encoding than UTF-8.

    Raises:
      UserError: no such file, not a text, a line is there twice, or there is none.
    """
    first: dict[str, int] = {}
    for number, line in enumerate(read(path, what, tell=tell).splitlines(), 1):
        text = clean(line)
        if text.startswith(_COMMENT):
            continue
        text = text.removeprefix("\\") if text.startswith(_ESCAPED) else text
        if text in first:
            raise UserError(
                f"{path}: expected different {what}, one a line, found {text!r} twice, "
                f"in lines {first[text]} and {number}"
            )
        if text:
            first[text] = number
    if not first:
        raise UserError(f"{path}: expected {what}, one a line, found none")
    return list(first)


def read(path: files.Path, what: str, *, tell: Callable[[str], None] = ignore) -> str:
    """Text of a file; arguments and errors as of `read_lines`."""
    try:
        with pathlib.Path(path).open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise UserError(
            f"{path}: expected a text file of {what} ({error.strerror or error})"
        ) from None
    if len(content) > _MAX_BYTES or content.count(b"\n") > _MAX_LINES:
        raise UserError(
            f"{path}: expected a text file of {what} of at most {_MAX_BYTES >> 20} MB "
            f"and {_MAX_LINES:,} lines, found more"
        )
    mark, encoding, name = next(
        (x for x in _MARKS if content.startswith(x[0])), (b"", "utf-8", "UTF-8")
    )
    if not mark and b"\0" in content:
        raise UserError(
            f"{path}: expected a text file of {what} in UTF-8, found UTF-16 without a "
            "byte order mark, or no text; save it as UTF-8"
        )
    try:
        text = content[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, len(mark) + error.start) + 1
        raise UserError(
            f"{path}: expected a text file of {what} in UTF-8, found other bytes in "
            f"line {line}; save it as {name}"
        ) from None
    if name != "UTF-8":
        tell(f"{path}: read as {name}")
    return text


def _is_control(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf")


def _is_visible(character: str) -> bool:
    """Whether a character shows something by itself."""
    return unicodedata.category(character)[0] not in "CZM" and character not in _BLANK
