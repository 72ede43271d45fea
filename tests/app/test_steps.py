"""Edits of the app, without its page: faces, steps of all methods, files."""

import contextlib
import dataclasses
import json
import pathlib
import zipfile
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from styleclip_jax import latents, spaces
from styleclip_jax.app import optimizing, rooms, steps, views
from styleclip_jax.app.optimizing import Settings
from styleclip_jax.app.rooms import Face, Room
from styleclip_jax.editing import searching
from styleclip_jax.errors import UserError
from styleclip_jax.io import direction_files, latent_files
from styleclip_jax.methods import global_directions, mapper, optimization, strength
from styleclip_jax.methods.global_directions import TextRelevance
from styleclip_jax.models import stylegan2
from styleclip_jax.ops import norms, pixels
from tests import tiny

LAYOUT = tiny.GENERATOR.style_layout
TEXTS = ("dog", "cat")


@pytest.fixture(scope="module")
def face(room: Room) -> Face:
    return rooms.draw(room, 3, 0.7)


@pytest.fixture(scope="module")
def relevance(room: Room) -> TextRelevance:
    return steps.measure(room, *TEXTS, lambda count: None)


def test_a_seed_is_the_face_of_the_other_programs(room: Room, face: Face) -> None:
    generator = tiny.generator()
    z = latents.seeded_z(3, tiny.GENERATOR.z_dim)[None]
    w = stylegan2.map_latents(generator, z)
    w_plus = spaces.broadcast_w(w, tiny.GENERATOR.num_rows)
    w_plus = spaces.truncate(w_plus, generator.params["mapping"]["w_avg"], 0.7)
    np.testing.assert_allclose(face.latent, w_plus, atol=1e-5)
    image = pixels.to_uint8(np.asarray(stylegan2.synthesize(generator, w_plus)))
    assert np.abs(room.render(face.latent).astype(int) - image).max() <= 1


@pytest.mark.parametrize("seed", [-5, 1.5, 2**32, 1e300, float("nan")])
def test_seeds_that_are_none_get_one_clear_line(room: Room, seed: float) -> None:
    line = r"^Seed: expected a whole number from 0 to 4294967295, found \S+$"
    with pytest.raises(UserError, match=line):
        rooms.draw(room, seed)


def test_direction_is_strength_times_the_step(
    room: Room, face: Face, relevance: TextRelevance
) -> None:
    beta = steps.beta_for(relevance, 5)
    step = steps.direct(room, face.latent, TEXTS, relevance, beta)
    assert steps.count_kept(relevance, beta) == 5
    direction = global_directions.make_direction(relevance, beta)
    flat = spaces.flatten_styles(room.to_styles(face.latent))
    expected = flat + 2.5 * np.asarray(direction.delta)
    moved = steps.moved(step, 2.5)
    np.testing.assert_allclose(latents.pack(moved), expected, atol=1e-5)
    assert not np.array_equal(room.render(moved), room.render(face.latent))
    # Without strength nothing moves, and W+ is kept.
    still = views.see(room, face, step, 0.0)
    assert still.latent is face.latent


@pytest.mark.slow
def test_search_is_that_of_the_programs(
    room: Room, face: Face, relevance: TextRelevance
) -> None:
    step = steps.direct(room, face.latent, TEXTS, relevance)
    found = steps.search(room, step)
    samples = searching.look_around(room.session.loaded)
    aim = strength.aim_at(samples, norms.unit_by_rsqrt(room.session.encode("cat")[0]))
    whole = jax.tree.map(lambda x: step.first * x, step.whole)
    networks = room.session.networks()
    search = jax.jit(lambda *x: strength.search(x[0], latents.SPACES["s"], *x[1:]))
    expected = search(networks, step.start, whole, aim)
    by = step.first * float(expected.strength[0])
    # The slider's own strengths are a hundredth of the method's apart.
    np.testing.assert_allclose(found.strength[0], by, atol=step.resolution)
    moved = steps.moved(found, found.strength)
    np.testing.assert_allclose(
        latents.pack(moved), latents.pack(expected.latent), atol=1e-4
    )
    assert found.fit is not None
    # A share of the channels alone is kept, or the face stays as it is.
    if by:
        kept = np.count_nonzero(np.asarray(latents.pack(found.delta)))
        assert 0 < kept < np.count_nonzero(np.asarray(latents.pack(step.whole)))


def test_other_faces_get_the_same_edit(
    room: Room, face: Face, relevance: TextRelevance
) -> None:
    others = np.concatenate([rooms.draw(room, 5).latent, face.latent])
    made = steps.direct(room, face.latent, TEXTS, relevance, 0.1)
    again = made.again(others, lambda count: None)
    alone = latents.pack(steps.moved(made, 2.0))[0]
    np.testing.assert_allclose(
        latents.pack(steps.moved(again, 2.0))[1], alone, atol=1e-5
    )


def test_sliders_compile_nothing(
    room: Room, face: Face, relevance: TextRelevance
) -> None:
    rooms.warm_up(room)
    step = steps.direct(room, face.latent, TEXTS, relevance)
    room.render(steps.moved(step, 2.0))
    with _compiled() as names:
        for by in (1, -3.5, 0.02):
            room.render(steps.moved(step, by))
    assert not names


@contextlib.contextmanager
def _compiled() -> Iterator[list[str]]:
    """Names of the programs that are compiled inside of it."""
    found: list[str] = []

    def listen(event: str, duration: float, **about: Any) -> None:
        if event.endswith("backend_compile_duration"):
            found.append(str(about))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_relevance_is_measured_once_for_a_pair(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(
        steps, "measure", lambda room, *pair: asked.append(pair[:2]) or pair
    )
    known = steps.Relevances(room, capacity=2)
    for target in ("cat", " cat", "fox", "cat", "cow", "fox"):
        known.find("dog", target)
    # The fox was asked for longest ago when the cow came.
    assert [target for _, target in asked] == ["cat", "fox", "cow", "fox"]


@pytest.mark.slow
def test_relevance_needs_no_file(room: Room) -> None:
    bare, done = dataclasses.replace(room, relevance=None, num_samples=2), []
    found = steps.measure(bare, "dog", "cat", done.append)
    assert sum(done) == 2
    assert 0 < np.abs(np.asarray(found.value)).max() <= 1


def test_sheet_has_a_row_for_each_number_of_channels(
    room: Room, face: Face, relevance: TextRelevance
) -> None:
    step = steps.direct(room, face.latent, TEXTS, relevance)
    one = views.sheet(room, step, relevance, [0, 3], [2])
    two = views.sheet(room, step, relevance, [0, 3], [2, 4])
    assert two.width == one.width
    assert two.height > 1.5 * one.height


@pytest.mark.slow
@pytest.mark.parametrize("space", ["w_plus", "s"])
def test_optimization_is_the_official_one(room: Room, face: Face, space: str) -> None:
    settings, start = Settings(4, 0.05, 0.01), face.latent
    if space == "s":
        start = room.to_styles(start)
    *_, (done, step) = optimizing.optimize(room, start, "cat", settings)
    assert done == 4
    config = optimization.OptimizationConfig(
        space=space, steps=4, learning_rate=0.05, l2_lambda=0.01
    )
    (text,) = room.session.encode("cat")
    latent: Any = jax.tree.map(lambda x: jnp.asarray(x[0]), start)
    result = jax.jit(
        lambda *x: optimization.optimize(*x, problem=optimization.official(config))
    )(room.session.networks(), latent, text)
    expected = latents.pack(result.latent)
    edited = latents.pack(steps.moved(step, 1.0))
    np.testing.assert_allclose(edited[0], expected, atol=1e-4)
    # Several faces at once are edited as each alone.
    twice = jax.tree.map(lambda x: np.repeat(np.asarray(x), 2, axis=0), start)
    both = latents.pack(steps.moved(step.again(twice, lambda count: None), 1.0))
    np.testing.assert_allclose(both, np.stack([expected, expected]), atol=1e-4)


def test_mapper_edits_in_w_plus_alone(room: Room, face: Face) -> None:
    step = steps.map_latents(room, face.latent, "a cat")
    expected = mapper.edit(room.mappers["a cat"], face.latent, strength=0.01)
    np.testing.assert_allclose(steps.moved(step, 0.01), expected, atol=1e-5)
    assert step.strength[0] == room.mappers["a cat"].config.strength
    with pytest.raises(UserError, match="no direction has moved: press Undo"):
        steps.map_latents(room, room.to_styles(face.latent), "a cat")
    with pytest.raises(UserError, match="Mapper: expected one of a cat, found 'a dog'"):
        steps.map_latents(room, face.latent, "a dog")


def test_files_of_the_zip_can_be_read_again(
    room: Room, face: Face, relevance: TextRelevance, tmp_path: pathlib.Path
) -> None:
    step = steps.direct(room, face.latent, TEXTS, relevance, 0.1)
    view = views.see(room, face, step, 2.0)
    names = ["direction.safetensors", "edit.json", "edited.npz", "edited.png"]
    assert _unpack(views.save(room, view, tmp_path)) == [
        *names,
        "start.npy",
        "start.png",
    ]
    shown = room.render(view.latent)[0]
    np.testing.assert_array_equal(
        np.asarray(Image.open(tmp_path / "edited.png")), shown
    )
    found = latent_files.read(tmp_path / "edited.npz", tiny.GENERATOR, None)
    np.testing.assert_array_equal(found.array, latents.pack(view.latent))
    delta, note = direction_files.read_direction(
        tmp_path / "direction.safetensors", layout=LAYOUT, generator=room.origin
    )
    np.testing.assert_array_equal(delta, latents.pack(step.delta)[0])
    about = json.loads((tmp_path / "edit.json").read_text())
    assert note["strength"] == about["strength"] == 2
    assert (about["neutral"], about["text"]) == TEXTS
    # Without an edit, in W+.
    path = views.save(room, views.see(room, face), tmp_path / "start")
    names = ["edit.json", "edited.npy", "edited.png", "start.npy", "start.png"]
    assert _unpack(path) == names
    np.testing.assert_array_equal(np.load(path.parent / "edited.npy"), face.latent)


def _unpack(path: pathlib.Path) -> list[str]:
    with zipfile.ZipFile(path) as packed:
        packed.extractall(path.parent)
        return sorted(packed.namelist())


def test_trail_goes_back_and_forgets_what_was_undone(room: Room, face: Face) -> None:
    one, two, three = (
        views.see(room, face._replace(name=name)) for name in ("one", "two", "three")
    )
    trail = views.Trail((), -1).add(one).add(two)
    assert trail.view is two
    assert trail.go(0).view is one
    assert trail.go(-1).view is one
    assert trail.go(0).add(three).views == (one, three)


@pytest.mark.parametrize(
    ("act", "expected"),
    [
        (lambda r, x: steps.measure(r, " ", "cat", print), "^Away from: expected a"),
        (lambda r, x: steps.measure(r, "cat", "", print), "^Towards: expected a text"),
        (lambda r, x: steps.measure(r, "cat", "cat", print), "two different texts"),
        (
            lambda r, x: steps.measure(r, "dog", "w " * 250, print),
            "^Towards: expected a text that CLIP reads .* found 499 letters$",
        ),
        (lambda r, x: [*optimizing.optimize(r, x, "", _settings())], "Towards"),
        (lambda r, x: [*optimizing.optimize(r, x, "a", _settings(0))], "^Steps"),
        (lambda r, x: [*optimizing.optimize(r, x, "a", _settings(1.5))], "^Steps"),
        (
            lambda r, x: [*optimizing.optimize(r, x, "a", _settings(1, -1))],
            "^Learning rate: .* found -1$",
        ),
        (
            lambda r, x: [*optimizing.optimize(r, x, "a", _settings(1, 0.1, 0, 1))],
            "^Keep identity: expected 0",
        ),
    ],
)
def test_messages_name_the_fields_of_the_page(
    room: Room, face: Face, act: Any, expected: str
) -> None:
    with pytest.raises(UserError, match=expected) as error:
        act(room, face.latent)
    assert len(str(error.value)) < 200


@pytest.mark.parametrize("number", [0, 10**6, 2.5])
def test_channels_that_are_none_get_one_clear_line(
    relevance: TextRelevance, number: float
) -> None:
    with pytest.raises(UserError, match=r"^Channels: expected a whole number from 1"):
        steps.beta_for(relevance, number)


def _settings(*values: Any) -> Settings:
    return Settings(*values)
