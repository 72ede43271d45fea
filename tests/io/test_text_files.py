"""Texts that people write: what is cleaned, and what a file of them may be."""

import pathlib

import pytest

from styleclip_jax.editing import prompts
from styleclip_jax.errors import UserError
from styleclip_jax.io import text_files


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\ufeffa smiling face\r", "a smiling face"),
        ("a\u200b smi\u00adling  \u00a0face\u200f", "a smiling face"),
        ("a\u200b \u200bface", "a face"),
        ("tre\u0300s", "très"),
        ("\x01a\x7fb", "ab"),
        # Joiners hold an emoji together.
        ("👩\u200d🦰", "👩\u200d🦰"),
        ("微笑", "微笑"),
        ("{}", "{}"),
    ],
)
def test_what_nobody_sees_is_taken_out(text: str, expected: str) -> None:
    assert text_files.clean(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "\u200b", "\ufeff", "\u00ad", "\x01", "\u200d", "\u3164", "\u2800"),
        *("\ufe0f", "\u0301", "&nbsp;", "&amp;nbsp;", "<|endoftext|>", "\ue000"),
    ],
)
def test_a_text_that_shows_nothing_is_refused(text: str) -> None:
    with pytest.raises(UserError) as error:
        prompts.read(prompts.PromptRequest(prompt=text))
    assert str(error.value).startswith("prompt: expected a text, found '")
    assert str(error.value).isascii()
    with pytest.raises(UserError, match="prompt: expected a text"):
        prompts.Prompts.of(["a face", text])


@pytest.mark.parametrize(
    ("encoding", "told"),
    [
        ("utf-8", []),
        ("utf-8-sig", []),
        ("utf-16", ["UTF-16"]),
        ("utf-16-be", ["UTF-16"]),
        ("utf-32", ["UTF-32"]),
    ],
)
def test_files_of_every_editor_are_read(
    tmp_path: pathlib.Path, encoding: str, told: list[str]
) -> None:
    path, lines = tmp_path / "prompts.txt", []
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    path.write_bytes(f"{mark}a smiling face\r\n\r\n très \r\n".encode(encoding))
    request = prompts.PromptRequest(prompts_file=str(path))
    found = prompts.read(request, tell=lines.append)
    assert found.texts == ("a smiling face", "très")
    assert lines == [f"{path}: read as {name}" for name in told]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            b"\xef\xbb\xbfa face\r\na  face\r\n",
            "found 'a face' twice, in lines 1 and 2",
        ),
        ("a face\n".encode("utf-16-le"), "found UTF-16 without a byte order mark"),
        ("a face\ntrès\n".encode("latin-1"), "found other bytes in line 2; save it as"),
        (b"\xff\xfea", "found other bytes in line 1; save it as UTF-16"),
        ("\u200b\n \n".encode(), "expected texts, one a line, found none"),
    ],
)
def test_other_files_are_refused(
    tmp_path: pathlib.Path, content: bytes, expected: str
) -> None:
    path = tmp_path / "texts.txt"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        text_files.read_lines(path, "texts")
    assert expected in str(error.value)
    assert str(error.value).startswith(f"{path}: ")


def test_lines_that_begin_with_a_hash_are_comments(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("# hair\na face\n  # later\n\\#metoo\na #1 dad\n# hair\n")
    assert text_files.read_lines(path, "prompts") == ["a face", "#metoo", "a #1 dad"]
    path.write_text("# nothing\n")
    with pytest.raises(UserError, match="expected prompts, one a line, found none"):
        text_files.read_lines(path, "prompts")
