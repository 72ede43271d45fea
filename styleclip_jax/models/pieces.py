"""Tokenizers of SigLIP: texts in pieces of a sentencepiece model or of tokenizer.json.

SigLIP has a sentencepiece model, and sees texts without case and punctuation. SigLIP 2
has Gemma's byte-pair encoding, and sees them without case.
"""

import dataclasses
import pathlib
import re
import string
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tokenizers

from styleclip_jax import documents
from styleclip_jax.errors import UserError
from styleclip_jax.models import token_rows

# Characters of a token beside the vocabulary; real ones have some ten.
_MAX_ADDED = 1000
_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """Tokenizer: how a text becomes ids, and the ids around them.

    Attributes:
      encode: text → its ids, without those that end and pad it.
      end: id that ends a text.
      padding: id that fills a row.
      num_tokens: length of the vocabulary.
    """

    encode: Callable[[str], list[int]]
    end: int
    padding: int
    num_tokens: int


def tokenize(
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    context_length: int,
    truncate: bool = False,
) -> np.ndarray:
    """Token ids of texts: tokens, end, then padding.

    Args:
      tokenizer: that of the SigLIP.
      texts: B texts; an empty one gives the end alone.
      context_length: length T of a row.
      truncate: cut long texts, and let them end with the end token, instead of raising.

    Returns:
      [B, T] int32.

    Raises:
      UserError: a text is too long.
    """
    return token_rows.fill(
        texts,
        tokenizer.encode,
        length=context_length,
        end=tokenizer.end,
        padding=tokenizer.padding,
        truncate=truncate,
    )


def canonical(text: str) -> str:
    """Text as SigLIP sees it: no case, no ASCII punctuation, single spaces.

    Source: `canonicalize_text` of big_vision and transformers, after lower-casing.
    """
    return re.sub(r"\s+", " ", text.lower().translate(_PUNCTUATION)).strip()


def read_sentencepiece(
    path: pathlib.Path, *, end: str = "</s>", padding: str = "</s>"
) -> Tokenizer:
    """Reads the tokenizer of SigLIP.

    Args:
      path: a sentencepiece model, spiece.model.
      end: piece that ends a text.
      padding: piece that fills a row.

    Raises:
      UserError: the package sentencepiece is missing, or the file is broken or of
        another kind.
    """
    try:
        import sentencepiece
    except ImportError:
        raise UserError(
            f"{path}: reading it needs sentencepiece: pip install "
            "'styleclip-jax[siglip]'"
        ) from None
    content = documents.read_bytes(path)
    try:
        model = sentencepiece.SentencePieceProcessor()
        model.LoadFromSerializedProto(content)
        pieces = [model.id_to_piece(i) for i in range(model.get_piece_size())]
    except (RuntimeError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not a sentencepiece model ({reason})") from None
    if model.normalize("a") != "▁a":
        raise UserError(
            f"{path}: expected a model that puts a space before a text, as SigLIP's"
        )
    ids = {piece: index for index, piece in enumerate(pieces)}
    return Tokenizer(
        encode=lambda text: model.encode(canonical(text)),
        end=_find(path, ids, end),
        padding=_find(path, ids, padding),
        num_tokens=len(ids),
    )


def read_json(
    path: pathlib.Path, *, end: str = "<eos>", padding: str = "<pad>"
) -> Tokenizer:
    """Reads the tokenizer of SigLIP 2.

    Args:
      path: tokenizer.json of a byte-pair encoding.
      end: token that ends a text.
      padding: token that fills a row.

    Raises:
      UserError: the file is broken or of another kind.
    """
    content = documents.read_bytes(path)
    _check_added(path, documents.parse(content, str(path)))
    try:
        model = tokenizers.Tokenizer.from_buffer(content)
    except Exception as error:  # The package raises no narrower class.
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not a readable tokenizer ({reason})") from None
    if not isinstance(model.model, tokenizers.models.BPE):
        raise UserError(
            f"{path}: expected a byte-pair encoding, as SigLIP 2 has, found "
            f"{type(model.model).__name__}; SigLIP is read from spiece.model"
        )
    model.no_truncation()
    model.no_padding()
    # Parity: SigLIP 2 was trained on lower case, which some files leave to the caller.
    lower = tokenizers.normalizers.Lowercase()
    ids = model.get_vocab()
    return Tokenizer(
        encode=lambda text: (
            model.encode(lower.normalize_str(text), add_special_tokens=False).ids
        ),
        end=_find(path, ids, end),
        padding=_find(path, ids, padding),
        num_tokens=len(ids),
    )


def _check_added(path: pathlib.Path, document: Any) -> None:
    """Refuses long added tokens, which take the package time by their square."""
    added = document.get("added_tokens") if isinstance(document, dict) else None
    for token in added if isinstance(added, list) else ():
        length = len(str(token.get("content"))) if isinstance(token, dict) else 0
        if length > _MAX_ADDED:
            raise UserError(
                f"{path}: added_tokens: expected at most {_MAX_ADDED:,} characters, "
                f"found {length:,}"
            )


def _find(path: pathlib.Path, ids: dict[str, int], piece: str) -> int:
    """Id of a piece."""
    if piece not in ids:
        raise UserError(f"{path}: expected {piece!r} in its vocabulary, found none")
    return ids[piece]
