"""Expressions of directions mean what they say; others are refused with the place."""

import pathlib

import pytest

from styleclip_jax.editing import direction_expressions as expressions
from styleclip_jax.editing.direction_expressions import Channel, File, Term
from tests import programs

A, B, C = File("a.npy"), File("b.npy"), File("c.npy")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.npy", [Term(A)]),
        ("my-dir/a+b.npy", [Term(File("my-dir/a+b.npy"))]),
        ("'my dir/a*b.npy'", [Term(File("my dir/a*b.npy"))]),
        ('"it\'s.npy"[3]', [Term(File("it's.npy", ("3",)))]),
        ("a.npy[age][ 3 ]", [Term(File("a.npy", ("age", "3")))]),
        ("a.npy[:,3]", [Term(File("a.npy", (":,3",)))]),
        ("6:501", [Term(Channel("6", 501))]),
        ("b16/conv1:501", [Term(Channel("b16/conv1", 501))]),
        ("a.npy - 0.5*b.npy", [Term(A), Term(B, -0.5)]),
        ("a.npy + b.npy - c.npy", [Term(A), Term(B), Term(C, -1)]),
        ("a.npy - 2*(b.npy - c.npy)", [Term(A), Term(B, -2), Term(C, 2)]),
        ("-a.npy * 2", [Term(A, -2)]),
        ("- - a.npy", [Term(A)]),
        ("1e1*a.npy*.5*(3 - 1)", [Term(A, 10)]),
        ("2*a.npy + b.npy*3", [Term(A, 2), Term(B, 3)]),
        ("a.npy@4-7", [Term(A, 1, ("4-7",))]),
        ("-2*a.npy[3]@0,2-3", [Term(File("a.npy", ("3",)), -2, ("0,2-3",))]),
        (
            "(a.npy@0-4 + b.npy)@1-c.npy",
            [Term(A, 1, ("0-4", "1")), Term(B, 1, ("1",)), Term(C, -1)],
        ),
        ("(a.npy)-(b.npy)", [Term(A), Term(B, -1)]),
    ],
)
def test_an_expression_is_a_sum_of_terms(text: str, expected: list[Term]) -> None:
    assert expressions.parse(text) == tuple(expected)


@pytest.mark.parametrize(
    ("text", "place", "expected"),
    [
        ("", 1, "a file, a number or layer:channel"),
        ("a.npy +", 8, "a file, a number or layer:channel"),
        ("a.npy b.npy", 7, "+, - or * between two operands"),
        ("a.npy * b.npy", 7, "a number on one side of *"),
        ("a.npy + 1", 7, "directions, or numbers, on both sides of +"),
        ("1 - a.npy", 3, "directions, or numbers, on both sides of -"),
        ("(a.npy", 7, "+, -, * or )"),
        ("a.npy)", 6, "or the end"),
        ("'a.npy", 7, "a second '"),
        ("a.npy[", 6, "[ with a number or name"),
        ("a.npy[]", 6, "[ with a number or name"),
        ("a.npy@x", 6, "rows of W+, such as age.npy@4-7"),
        ("2@4*a.npy", 2, "a direction @ rows"),
        ("1e999*a.npy", 1, "a finite number"),
        ("(" * 60, 51, "at most 50 parentheses"),
        ("a.npy ** 2", 8, "a file, a number"),
        ("__import__('os')", 11, "between two operands"),
    ],
)
def test_bad_syntax_is_refused_with_its_place(
    text: str, place: int, expected: str
) -> None:
    message = programs.refusal(expressions.parse, text)
    assert expected in message
    assert f"at character {place} of {text!r}" in message


def test_a_number_alone_is_no_direction() -> None:
    message = programs.refusal(expressions.parse, "2*3 - 1")
    assert message == "direction: expected a direction, found the number 5"


def test_the_name_of_a_file_is_this_file(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = "smile - old (2).npy"
    assert expressions.parse("(smile.npy)") == (Term(File("smile.npy")),)
    assert len(expressions.parse("smile - old")) == 2
    (tmp_path / name).write_bytes(b"")
    assert expressions.parse(name) == (Term(File(name)),)


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("dir/smile.safetensors", "smile"),
        ("smile.npy - 0.5*age.npy + pca.npz[3]@4-7", "smile - 0.5*age + pca[3]@4-7"),
        ("-2*(a.npy + b.npy) - (c.npy - 6:501)", "-2*a - 2*b - c + 6:501"),
        ("-a.npy + (b.npy@0-2 - c.npy)@1", "-a + b@0-2@1 - c@1"),
    ],
)
def test_titles_are_short_and_read_as_the_same(text: str, title: str) -> None:
    assert expressions.describe(expressions.parse(text)) == title
    assert expressions.describe(expressions.parse(title)) == title


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("a", [0, 1, 2, 3]),
        ("a@1-2", [1, 2]),
        ("a@0,2-3", [0, 2, 3]),
        ("a@0-2@2-3", [2]),
    ],
)
def test_rows_are_those_of_the_generator(text: str, rows: list[int]) -> None:
    (term,) = expressions.parse(text)
    assert expressions.rows_of(term, 4) == rows


@pytest.mark.parametrize("text", ["a@4", "a@2-4", "a@2-1", "a@0-3@9"])
def test_rows_that_do_not_exist_are_refused(text: str) -> None:
    (term,) = expressions.parse(text)
    message = programs.refusal(expressions.rows_of, term, 4)
    assert "expected rows from 0 to 3 of this generator, found @" in message


@pytest.mark.parametrize("text", ["6", "6:", "a.npy", "6:501 + 6:502", "b16:3"])
def test_a_channel_is_one_channel(text: str) -> None:
    assert expressions.parse_channel(" b16/conv1:3 ") == (
        Term(Channel("b16/conv1", 3)),
    )
    message = programs.refusal(expressions.parse_channel, text)
    assert f"expected layer:channel, such as 6:501, found {text!r}" in message
