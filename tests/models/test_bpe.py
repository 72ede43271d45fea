"""Tokens of texts equal OpenAI's; lists of merges that are refused."""

import json

import numpy as np
import pytest

from styleclip_jax.errors import UserError
from styleclip_jax.models import bpe
from tests import golden_data

PATH = golden_data.ROOT / "clip_tokenizer" / "tokens.json"


def test_tokens_match_openai(tokenizer):
    document = json.loads(PATH.read_text())
    prompts = document["prompts"]
    found = bpe.tokenize(
        tokenizer, [p["text"] for p in prompts], context_length=77, truncate=True
    )
    expected = np.zeros((len(prompts), 77), np.int32)
    for row, prompt in zip(expected, prompts, strict=True):
        row[: len(prompt["ids"])] = prompt["ids"]
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, expected)


def test_entities_are_unescaped_twice(tokenizer):
    # ftfy leaves entities alone where a text contains "<".
    found, expected = bpe.tokenize(tokenizer, ["< &amp;amp;", "< &"], context_length=5)
    np.testing.assert_array_equal(found, expected)


def test_long_s_after_an_apostrophe_belongs_to_it(tokenizer):
    # The official split ignores case, and ſ is an s then. transformers 4 agrees; 5 has
    # 262, the apostrophe as a word.
    found = bpe.tokenize(tokenizer, ["that'ſ"], context_length=6)
    np.testing.assert_array_equal(found, [[49406, 682, 6, 129, 379, 49407]])


def test_empty_text_is_start_and_end(tokenizer):
    found = bpe.tokenize(tokenizer, [" "], context_length=4)
    np.testing.assert_array_equal(found, [[49406, 49407, 0, 0]])


def test_text_of_full_length_fits_and_longer_text_is_refused(tokenizer):
    found = bpe.tokenize(tokenizer, ["a a a"], context_length=5)
    np.testing.assert_array_equal(found, [[49406, 320, 320, 320, 49407]])
    with pytest.raises(UserError, match=r"'a a a a': expected at most 5 .* found 6"):
        bpe.tokenize(tokenizer, ["a", "a a a a"], context_length=5)
    cut = bpe.tokenize(tokenizer, ["a a a a"], context_length=5, truncate=True)
    np.testing.assert_array_equal(cut, found)


def test_write_refuses_a_broken_or_short_list_of_merges(tmp_path):
    with pytest.raises(UserError, match=r"none\.gz: not a gzip file.*No such file"):
        bpe.write(tmp_path / "none.gz", tmp_path)
    (tmp_path / "text.gz").write_text("a b")
    with pytest.raises(UserError, match=r"text\.gz: not a gzip file"):
        bpe.write(tmp_path / "text.gz", tmp_path)
    with pytest.raises(UserError, match="expected 1000000 lines"):
        bpe.write(bpe.OPENAI_MERGES, tmp_path, 1_000_000)
