"""Rows of tokens: texts as ids, cut or padded to one length."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from styleclip_jax.errors import UserError


def fill(
    texts: Sequence[str],
    encode: Callable[[str], Iterable[int]],
    *,
    length: int,
    end: int,
    padding: int,
    truncate: bool,
) -> np.ndarray:
    """Token ids of texts: those of the text, the end, then padding.

    Args:
      texts: B texts.
      encode: text → its ids without the end.
      length: length T of a row.
      end: id that ends a text.
      padding: id that fills a row.
      truncate: cut long texts, and let them end with the end token, instead of raising.

    Returns:
      [B, T] int32.

    Raises:
      UserError: a text is too long.
    """
    tokens = np.full((len(texts), length), padding, np.int32)
    for row, text in zip(tokens, texts, strict=True):
        ids = [*encode(text), end]
        if len(ids) > length:
            if not truncate:
                raise UserError(
                    f"text {text!r}: expected at most {length} tokens with those that "
                    f"begin and end it, found {len(ids)}: shorten it"
                )
            ids = [*ids[: length - 1], end]
        row[: len(ids)] = ids
    return tokens
