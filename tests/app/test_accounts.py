"""Accounts of the page: their file, and what is wrong with it."""

import pathlib

import pytest

from styleclip_jax.app import accounts
from styleclip_jax.errors import UserError


def test_passwords_have_names(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("\ufeff# people\n\nana: a:b c \nbea:#1\n", "utf-8")
    assert accounts.read(str(path)) == {"ana": "a:b c", "bea": "#1"}
    path.chmod(0o600)
    assert not accounts.is_exposed(str(path))
    path.chmod(0o640)
    assert accounts.is_exposed(str(path))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"ana:a\nsecret\n", 'line 2: expected "name:password", found no password'),
        (b":secret\n", 'line 1: expected "name:password", found no name'),
        (b"ana:secret\nana:secret2\n", "line 2: expected each name once"),
        (b"# none\n", 'expected lines "name:password", found none'),
        (b"ana:secret\xff\n", "expected a text in UTF-8"),
        (bytes(2**20 + 1), "expected a file of 1 MB at most"),
    ],
)
def test_wrong_lines_are_said_without_a_password(
    tmp_path: pathlib.Path, content: bytes, said: str
) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        accounts.read(str(path))
    assert str(error.value) == f"{path}: {said}"


def test_a_password_in_the_command_line_is_refused_and_not_shown() -> None:
    with pytest.raises(UserError, match="expected a file with lines") as error:
        accounts.read("ana:secret")
    assert "secret" not in str(error.value)
