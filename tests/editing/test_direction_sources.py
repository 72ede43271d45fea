"""Directions of files and channels are steps in S, alone and in expressions."""

import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

import styleclip_jax as sc
from styleclip_jax import spaces
from styleclip_jax.editing import direction_expressions, direction_sources
from tests import programs, tiny

LAYOUT = tiny.GENERATOR.style_layout
ROWS, LENGTH = tiny.GENERATOR.num_rows, tiny.GENERATOR.w_dim
CHANNELS = sum(layer.channels for layer in LAYOUT)


@pytest.fixture
def session(
    models: dict[str, str], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> sc.Session:
    """A session in a folder with files of directions."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    np.save("age.npy", random.normal(size=(1, LENGTH)).astype(np.float32))
    np.save("pose.npy", random.normal(size=(ROWS, LENGTH)).astype(np.float32))
    session = sc.load(generator=models["generator"], quiet=True)
    delta = jnp.asarray(random.normal(size=CHANNELS), jnp.float32)
    direction = sc.Direction(delta, LAYOUT)
    session.save_direction(direction, "smile.safetensors", texts="face to smile")
    return session


def read(session: sc.Session, text: str) -> direction_sources.Source:
    terms = direction_expressions.parse(text)
    return direction_sources.read(session.loaded, terms)


@pytest.mark.parametrize(
    ("name", "rows"), [("age.npy", None), ("pose.npy@1-2", [1, 2])]
)
def test_edits_are_those_in_w_plus(
    session: sc.Session, name: str, rows: list[int] | None
) -> None:
    direction = read(session, name).direction
    faces = session.sample(seeds=range(3))
    step = np.zeros((ROWS, LENGTH), np.float32)
    chosen = slice(None) if rows is None else rows
    step[chosen] = np.load(name.partition("@")[0])[chosen if rows else 0]
    expected = session.faces(faces.latents + 2 * step, ["a", "b", "c"])
    moved = session.move(faces, direction, 2)
    flat = spaces.flatten_styles(session.to_styles(expected))
    np.testing.assert_allclose(moved.latents, flat, atol=2e-5)
    largest = np.abs(expected.images).max()
    np.testing.assert_allclose(moved.images, expected.images, atol=1e-4 * largest)


def test_an_expression_is_worked_out(session: sc.Session) -> None:
    smile, age, pose = (
        read(session, name).direction.delta
        for name in ("smile.safetensors", "age.npy", "pose.npy")
    )
    found = read(session, "smile.safetensors - 0.5*(age.npy + 2*pose.npy)")
    expected = smile - 0.5 * (age + 2 * pose)
    np.testing.assert_allclose(found.direction.delta, expected, atol=1e-5)
    assert found.title == "smile - 0.5*age - pose"
    names = ("smile.safetensors", "age.npy", "pose.npy")
    assert list(found.inputs) == [f"direction {name}" for name in names]
    assert found.notes == [
        "smile.safetensors, saved with texts face to smile",
        f"age.npy, in W, moves rows 0 to {ROWS - 1} of {ROWS}",
        f"pose.npy, in W+, a row for each of {ROWS}",
    ]
    again = session.read_direction("-(-smile.safetensors)")
    np.testing.assert_array_equal(again.delta, smile)
    path = session.read_direction(pathlib.Path("smile.safetensors"))
    np.testing.assert_array_equal(path.delta, smile)


def test_a_channel_is_one_standard_deviation(session: sc.Session) -> None:
    delta = np.asarray(read(session, "3:7").direction.delta)
    place = sum(layer.channels for layer in LAYOUT[:3]) + 7
    assert np.flatnonzero(delta).tolist() == [place]
    assert LAYOUT[3].name == "b8/conv1"
    named = read(session, "b8/conv1:7").direction.delta
    np.testing.assert_array_equal(named, delta)
    faces = session.sample(seeds=range(400), truncation_cutoff=8)
    spread = np.std(spaces.flatten_styles(session.to_styles(faces)), axis=0)
    assert delta[place] == pytest.approx(float(spread[place]), rel=0.15)
    torgb = read(session, "-2*b4/torgb:3").direction.delta
    assert np.flatnonzero(torgb).tolist() == [LAYOUT[0].channels + 3]
    assert float(torgb.min()) < 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("absent.npy", "absent.npy: no such file"),
        ("age.npy-pose.npy", "no such file; a sign between two files stands alone"),
        ("age.npy[3]", "expected a number from 0 to 0 in brackets, found [3]"),
        ("pose.npy@4", "expected rows from 0 to 3 of this generator, found @4"),
        ("99:0", "channel 99:0: expected a layer from 0 to 4 or one of b4/conv1"),
        ("b16/conv0:0", "or one of b4/conv1"),
        ("0:10", "channel 0:10: expected 0 to 9 in b4/conv1, found 10"),
        ("1e30*1e30*age.npy", "its values are not finite, expected smaller factors"),
    ],
)
def test_what_does_not_exist_is_refused(
    session: sc.Session, text: str, expected: str
) -> None:
    assert expected in programs.refusal(read, session, text)


def test_a_direction_of_another_generator_is_refused(session: sc.Session) -> None:
    embedded = sc.load(quiet=True)
    for name, expected in (
        ("2*smile.safetensors", "is for the generator"),
        ("age.npy", "expected a direction [128] in W"),
    ):
        assert expected in programs.refusal(read, embedded, name)
