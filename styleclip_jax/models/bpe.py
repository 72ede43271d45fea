"""Byte-pair encoding of CLIP: bytes merged into tokens, by any number of merges."""

import dataclasses
import functools
import gzip
import html
import itertools
import json
import pathlib
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import regex
import tokenizers

from styleclip_jax import documents
from styleclip_jax.errors import UserError
from styleclip_jax.models import token_rows

START, END = "<|startoftext|>", "<|endoftext|>"
# OpenAI's list of merges, and how many of them CLIP uses.
OPENAI_MERGES = (
    pathlib.Path(__file__).parent.parent / "assets" / "bpe_simple_vocab_16e6.txt.gz"
)
NUM_MERGES = 48_894
# Every byte, every byte at the end of a word, and the two special tokens.
NUM_TOKENS_BESIDE_MERGES = 2 * 256 + 2

_END_OF_WORD = "</w>"
_MAX_LINES = 1_000_000
# Case-insensitive also on lower-cased text: "ſ" is then an "s".
_WORD = regex.compile(
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d"
    r"|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
    regex.IGNORECASE,
)


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """Tokenizer: a vocabulary and its merges.

    Attributes:
      bpe: splits a word into tokens.
      start: id that begins a text.
      end: id that ends a text.
      num_tokens: length of the vocabulary.
    """

    bpe: tokenizers.models.BPE
    start: int
    end: int
    num_tokens: int


def _repair(text: str) -> str:
    """Text as ftfy repairs it, which is imported where there may be what it repairs."""
    if text.isascii() and text.isprintable() and "&" not in text:
        return text
    import ftfy

    return ftfy.fix_text(text)


def encode(tokenizer: Tokenizer, text: str) -> Iterator[int]:
    """Ids of a text, without those that begin and end it.

    The text is repaired by ftfy, freed of HTML entities and lower-cased; every letter
    run, digit and run of other characters is then a word, and white space is dropped.
    """
    symbols = _byte_symbols()
    text = html.unescape(html.unescape(_repair(text)))
    for word in _WORD.findall(text.lower()):
        if word == START:
            yield tokenizer.start
        elif word == END:
            yield tokenizer.end
        else:
            spelled = "".join(symbols[byte] for byte in word.encode())
            yield from (token.id for token in tokenizer.bpe.tokenize(spelled))


def tokenize(
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    context_length: int,
    truncate: bool = False,
) -> np.ndarray:
    """Token ids of texts: start, tokens, end, then zeros.

    Args:
      tokenizer: that of the CLIP.
      texts: B texts; an empty one gives start and end alone.
      context_length: length T of a row.
      truncate: cut long texts, and let them end with the end token, instead of raising.

    Returns:
      [B, T] int32.

    Raises:
      UserError: a text is too long.

    Source: clip.tokenize.
    """
    return token_rows.fill(
        texts,
        lambda text: itertools.chain([tokenizer.start], encode(tokenizer, text)),
        length=context_length,
        end=tokenizer.end,
        padding=0,
        truncate=truncate,
    )


def read(vocab_path: pathlib.Path, merges_path: pathlib.Path) -> Tokenizer:
    """Reads a vocabulary in transformers' two files.

    Args:
      vocab_path: JSON object of ids by token.
      merges_path: a line to skip, then two symbols a line.

    Raises:
      UserError: broken files, or not a byte-level vocabulary.
    """
    vocab = documents.read(vocab_path)
    try:
        text = documents.read_bytes(merges_path).decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{merges_path}: expected text ({error})") from None
    lines = _split(text, merges_path)[1:]
    merges = [tuple(line.split()) for line in lines]
    if any(len(merge) != 2 for merge in merges):
        raise UserError(f"{merges_path}: expected two symbols a line after the first")
    return _build(vocab, merges, vocab_path, merges_path)


def read_json(path: pathlib.Path) -> Tokenizer:
    """Reads a vocabulary in transformers' tokenizer.json.

    Raises:
      UserError: a broken file, or not a byte-level vocabulary as CLIP has it.
    """
    document = documents.read(path)
    model = document.get("model") if isinstance(document, dict) else None
    if not isinstance(model, dict) or model.get("type") != "BPE":
        raise UserError(f"{path}: expected a model of type 'BPE'")
    if model.get("end_of_word_suffix") != _END_OF_WORD:
        raise UserError(
            f"{path}: end_of_word_suffix: expected {_END_OF_WORD!r}, found "
            f"{model.get('end_of_word_suffix')!r}"
        )
    found = model.get("merges")
    if not isinstance(found, list):
        found = []
    # Newer files have pairs, older ones lines.
    merges = [
        tuple(merge.split() if isinstance(merge, str) else merge)
        for merge in found
        if isinstance(merge, str | list)
    ]
    if (
        not found
        or len(merges) != len(found)
        or any(
            len(merge) != 2 or not all(isinstance(part, str) for part in merge)
            for merge in merges
        )
    ):
        raise UserError(f"{path}: merges: expected pairs of symbols")
    return _build(model.get("vocab"), merges, path, path)


def _build(
    vocab: Any,
    merges: list[tuple[str, ...]],
    vocab_path: pathlib.Path,
    merges_path: pathlib.Path,
) -> Tokenizer:
    """Tokenizer of a vocabulary and its merges, checked."""
    if not isinstance(vocab, dict) or sorted(
        value for value in vocab.values() if type(value) is int
    ) != list(range(len(vocab))):
        raise UserError(f"{vocab_path}: expected an object with ids 0, 1, 2, …")
    made = ["".join(merge) for merge in merges]
    for token in [*_byte_tokens(), START, END, *made]:
        if token not in vocab:
            raise UserError(
                f"{vocab_path}: expected a byte-level vocabulary with all tokens of "
                f"{merges_path.name}, {token!r} is missing"
            )
    try:
        bpe = tokenizers.models.BPE(vocab, merges, end_of_word_suffix=_END_OF_WORD)
    except Exception as error:  # The package raises no narrower class.
        reason = " ".join(str(error).split())
        raise UserError(f"{merges_path}: not readable as merges ({reason})") from None
    return Tokenizer(bpe, vocab[START], vocab[END], len(vocab))


def write(
    bpe_gz: str | pathlib.Path,
    directory: str | pathlib.Path,
    num_merges: int = NUM_MERGES,
) -> None:
    """Writes vocab.json and merges.txt of a list of merges in OpenAI's format.

    Args:
      bpe_gz: such as OPENAI_MERGES.
      directory: existing folder to write into.
      num_merges: number of merges to keep, the first and so the most frequent; the
        vocabulary has NUM_TOKENS_BESIDE_MERGES tokens more.

    Raises:
      UserError: the list cannot be read, or is shorter.
    """
    try:
        with gzip.open(bpe_gz, "rt", encoding="utf-8") as file:
            text = file.read(documents.MAX_BYTES)
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise UserError(f"{bpe_gz}: not a gzip file of merges ({error})") from None
    merges = _split(text, bpe_gz)[1 : num_merges + 1]
    pairs = [merge.split() for merge in merges]
    if len(pairs) != num_merges or any(len(pair) != 2 for pair in pairs):
        raise UserError(
            f"{bpe_gz}: expected {num_merges} lines of two symbols after the first"
        )
    tokens = [*_byte_tokens(), *("".join(pair) for pair in pairs), START, END]
    vocab = {token: index for index, token in enumerate(tokens)}
    directory = pathlib.Path(directory)
    (directory / "vocab.json").write_text(
        json.dumps(vocab, ensure_ascii=False), encoding="utf-8"
    )
    (directory / "merges.txt").write_text(
        "\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8"
    )


def _split(text: str, path: str | pathlib.Path) -> list[str]:
    """Lines of a list of merges, of any system."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").strip()
    if lines.count("\n") > _MAX_LINES:
        raise UserError(f"{path}: expected at most {_MAX_LINES:,} lines, found more")
    return lines.split("\n")


@functools.cache
def _byte_symbols() -> dict[int, str]:
    """Visible character of each byte, in the order of the vocabulary.

    Bytes that print stand for themselves and come first; the others take the
    characters from U+0100 up.
    """
    printing = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    symbols = {byte: chr(byte) for byte in printing}
    others = (byte for byte in range(256) if byte not in symbols)
    return symbols | {byte: chr(256 + n) for n, byte in enumerate(others)}


def _byte_tokens() -> list[str]:
    """First 512 tokens: every byte, then every byte at the end of a word."""
    symbols = _byte_symbols().values()
    return [*symbols, *(symbol + _END_OF_WORD for symbol in symbols)]
