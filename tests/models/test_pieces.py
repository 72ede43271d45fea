"""Tokenizers of SigLIP: ids are those of transformers; what is refused."""

import json
import pathlib
import sys

import numpy as np
import pytest
import tokenizers

from styleclip_jax.io import clip_files
from styleclip_jax.models import clip, pieces
from tests import golden_data, programs

FOLDER = golden_data.ROOT / "siglip"
SPIECE = FOLDER / "siglip" / "spiece.model"
JSON = FOLDER / "siglip2_fixed" / "tokenizer.json"


@pytest.fixture(scope="module", params=["siglip", "siglip2_fixed"])
def case(request: pytest.FixtureRequest) -> golden_data.Case:
    return golden_data.Case(f"siglip/{request.param}")


def test_ids_are_those_of_transformers(case: golden_data.Case) -> None:
    tokenizer = clip_files.load_tokenizer(case.folder)
    network = clip_files.load(case.folder)
    found = clip.tokenize(network, tokenizer, case.meta["prompts"], truncate=True)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, case["token_ids"])


def test_texts_too_long_are_refused(case: golden_data.Case) -> None:
    tokenizer = clip_files.load_tokenizer(case.folder)
    message = programs.refusal(
        pieces.tokenize, tokenizer, ["a", "a photo of a face"], context_length=4
    )
    assert message.startswith("text 'a photo of a face': expected at most 4 tokens")


def test_siglip_sees_no_case_punctuation_and_space() -> None:
    tokenizer = pieces.read_sentencepiece(SPIECE)
    expected = tokenizer.encode("a photo of a face")
    assert len(expected) == 8
    for text in (
        " A  photo, of a\tface!",
        '"a photo" (of a) face',
        "a p-hoto of a face",
    ):
        assert tokenizer.encode(text) == expected
    assert tokenizer.encode("") == tokenizer.encode(" ?! ") == []
    # Letters that look alike are one, as in the model's own normalization.
    assert tokenizer.encode("ﬁne ①") == tokenizer.encode("fine 1")


def test_siglip_2_sees_no_case_whatever_its_file_says(tmp_path: pathlib.Path) -> None:
    document = json.loads(JSON.read_text())
    _, spaces = document["normalizer"]["normalizers"]
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(document | {"normalizer": spaces}))
    expected = pieces.read_json(JSON).encode("A photo of a FACE!")
    assert pieces.read_json(path).encode("A photo of a FACE!") == expected


def test_settings_of_a_file_do_not_cut_or_pad(tmp_path: pathlib.Path) -> None:
    model = tokenizers.Tokenizer.from_file(str(JSON))
    model.enable_truncation(2)
    model.enable_padding(length=50)
    model.save(str(tmp_path / "tokenizer.json"))
    found = pieces.read_json(tmp_path / "tokenizer.json").encode("a photo")
    assert found == pieces.read_json(JSON).encode("a photo")


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    message = programs.refusal(pieces.read_sentencepiece, SPIECE)
    assert message.endswith("needs sentencepiece: pip install 'styleclip-jax[siglip]'")


@pytest.mark.parametrize("content", [b"", b"no model", SPIECE.read_bytes()[:-100]])
def test_broken_sentencepiece_model_is_refused(
    tmp_path: pathlib.Path, content: bytes
) -> None:
    path = tmp_path / "spiece.model"
    path.write_bytes(content)
    message = programs.refusal(pieces.read_sentencepiece, path)
    assert f"{path}: not a sentencepiece model (" in message


def test_model_without_a_space_before_a_text_is_refused(tmp_path: pathlib.Path) -> None:
    # Field 3 of the model, the normalizer; in it, field 3 is add_dummy_prefix.
    path = tmp_path / "spiece.model"
    path.write_bytes(SPIECE.read_bytes() + bytes([3 << 3 | 2, 2, 3 << 3, 0]))
    message = programs.refusal(pieces.read_sentencepiece, path)
    assert "expected a model that puts a space before a text" in message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "not a readable tokenizer"),
        (
            tokenizers.Tokenizer(tokenizers.models.Unigram([("a", 0.0)], 0)).to_str(),
            "expected a byte-pair encoding, as SigLIP 2 has, found Unigram",
        ),
        (
            tokenizers.Tokenizer(tokenizers.models.BPE()).to_str(),
            "expected '<eos>' in its vocabulary, found none",
        ),
    ],
)
def test_other_tokenizer_files_are_refused(
    tmp_path: pathlib.Path, content: str, message: str
) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    found = programs.refusal(pieces.read_json, path)
    assert found.startswith(f"{path}: {message}")
