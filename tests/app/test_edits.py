"""Edits of the app, without its page: faces by seed and photo, moves, files."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from styleclip_jax import latents, loading, spaces
from styleclip_jax.app import edits
from styleclip_jax.app.edits import Edited, Room
from styleclip_jax.editing.faces import Faces
from styleclip_jax.editing.session import Session
from styleclip_jax.errors import UserError
from styleclip_jax.io import direction_files, latent_files
from styleclip_jax.methods import global_directions, mapper, optimization
from styleclip_jax.models import stylegan2
from styleclip_jax.ops import pixels
from tests import tiny

LAYOUT = tiny.GENERATOR.style_layout
MAPPER = mapper.MapperConfig(levels=("coarse",), w_dim=12, num_layers=1)


@pytest.fixture(scope="module")
def room(
    models: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> edits.Room:
    """A room with tiny networks, and random relevance for all texts."""
    random = np.random.RandomState(0)
    layers = global_directions.select_layers(LAYOUT, "all")
    count = int(global_directions.channels_of(LAYOUT, layers).sum())
    rows = random.randn(count, tiny.CLIP.embed_dim)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    std = random.rand(sum(layer.channels for layer in LAYOUT)) + 0.5
    templates = tmp_path_factory.mktemp("templates") / "templates.txt"
    templates.write_text("a {}\nthe {}\n")
    names = loading.Models(**models, templates=str(templates))
    return Room(
        session=Session(names, devices=jax.local_devices()[:1]),
        mappers={"a cat": tiny.mapper_network(MAPPER)},
        relevance=global_directions.expand(rows, std, layers, LAYOUT),
    )


@pytest.fixture(scope="module")
def face(room: Room) -> Faces:
    return edits.draw(room, 3, 0.7)


@pytest.fixture(scope="module")
def relevance(room: Room) -> global_directions.TextRelevance:
    return edits.measure(room, "dog", "cat", lambda count: None)


def test_a_seed_is_the_face_of_the_other_programs(face: Faces) -> None:
    generator = tiny.generator()
    z = latents.seeded_z(3, tiny.GENERATOR.z_dim)[None]
    w = stylegan2.map_latents(generator, z)
    w_plus = spaces.broadcast_w(w, tiny.GENERATOR.num_rows)
    w_plus = spaces.truncate(w_plus, generator.params["mapping"]["w_avg"], 0.7)
    np.testing.assert_allclose(face.latent, w_plus, atol=1e-5)
    image = stylegan2.synthesize(generator, w_plus)
    np.testing.assert_allclose(face.images, image, atol=1e-4)


def test_moving_is_alpha_times_the_direction(
    room: Room, face: Faces, relevance: global_directions.TextRelevance
) -> None:
    beta = edits.beta_for(relevance, 5)
    edited, kept = edits.move(room, face, relevance, 2.5, beta)
    assert kept == 5
    direction = global_directions.make_direction(relevance, beta)
    flat = spaces.flatten_styles(room.session.to_styles(face))
    expected = flat + 2.5 * np.asarray(direction.delta)
    np.testing.assert_allclose(edited.face.latents, expected, atol=1e-5)
    assert edited.face.space == "s"
    assert not np.array_equal(edited.face.images, face.images)
    # Without strength nothing moves, and W+ is kept.
    still, _ = edits.move(room, face, relevance, 0, beta)
    np.testing.assert_array_equal(still.face.images, face.images)
    assert still.face.latent is face.latent


def test_sliders_compile_nothing(
    room: Room, face: Faces, relevance: global_directions.TextRelevance
) -> None:
    edits.warm_up(room)
    with _compiled() as names:
        for alpha, beta in ((1, 0.1), (-3.5, 0.2), (0, 0.0)):
            edits.move(room, face, relevance, alpha, beta)
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
        edits, "measure", lambda room, *pair: asked.append(pair[:2]) or pair
    )
    known = edits.Relevances(room, capacity=2)
    for target in ("cat", " cat", "fox", "cat", "cow", "fox"):
        known.find("dog", target, print)
    # The fox was asked for longest ago when the cow came.
    assert [target for _, target in asked] == ["cat", "fox", "cow", "fox"]


@pytest.mark.slow
def test_relevance_needs_no_file(room: Room) -> None:
    bare, done = dataclasses.replace(room, relevance=None, num_samples=2), []
    found = edits.measure(bare, "dog", "cat", done.append)
    assert sum(done) == 2
    assert 0 < np.abs(np.asarray(found.value)).max() <= 1


def test_sheet_has_a_row_for_each_number_of_channels(
    room: Room, face: Faces, relevance: global_directions.TextRelevance
) -> None:
    one = edits.sheet(room, face, relevance, [0, 3], [2])
    two = edits.sheet(room, face, relevance, [0, 3], [2, 4])
    assert two.width == one.width
    assert two.height > 1.5 * one.height


@pytest.mark.slow
@pytest.mark.parametrize("space", ["w_plus", "s"])
def test_optimization_is_the_official_one(room: Room, face: Faces, space: str) -> None:
    settings, start = edits.Settings(4, 0.05, 0.01), face
    if space == "s":
        start = room.session.faces(room.session.to_styles(face), face.names)
    *_, (done, edited) = edits.optimize(room, start, "cat", settings)
    assert done == 4
    config = optimization.OptimizationConfig(
        space=space, steps=4, learning_rate=0.05, l2_lambda=0.01
    )
    (text,) = room.session.encode("cat")
    latent: Any = jax.tree.map(lambda x: jnp.asarray(x[0]), start.latent)
    result = jax.jit(
        lambda *x: optimization.optimize(*x, problem=optimization.official(config))
    )(room.session.networks(), latent, text)
    expected = latents.pack(result.latent)
    np.testing.assert_allclose(edited.face.latents[0], expected, atol=1e-4)


def test_mapper_edits_in_w_plus_alone(room: Room, face: Faces) -> None:
    edited = edits.map_face(room, face, "a cat", 0.01)
    expected = mapper.edit(room.mappers["a cat"], face.latent, strength=0.01)
    np.testing.assert_allclose(edited.face.latent, expected, atol=1e-5)
    in_s = room.session.faces(room.session.to_styles(face), face.names)
    with pytest.raises(UserError, match=r"edits in W\+"):
        edits.map_face(room, in_s, "a cat", 0.01)
    with pytest.raises(UserError, match="mapper: expected one of a cat, found 'a dog'"):
        edits.map_face(room, face, "a dog", 0.01)


@pytest.mark.slow
def test_photo_becomes_a_face(room: Room, tmp_path: pathlib.Path) -> None:
    photo = np.zeros((40, 64, 3), np.uint8)
    photo[:, 12:52] = (200, 120, 90)
    Image.fromarray(photo).save(tmp_path / "me.png")
    steps: list[int] = []
    found, about = edits.invert_photo(
        room, str(tmp_path / "me.png"), find_face=False, report=steps.append
    )
    assert sum(steps) == room.num_inversion_steps
    assert (found.names, about) == (("me.png",), "used as it is")
    # The middle, whose colour the inversion comes nearer to than the average face is.
    colour = photo[20, 32].astype(int)
    shown, average = (
        pixels.to_uint8(x.images[0]) for x in (found, edits.draw(room, 0, 0.0))
    )
    assert np.abs(shown - colour).mean() < np.abs(average - colour).mean()


def test_where_an_upload_is_kept_is_not_told(
    room: Room, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "me.png").write_text("no picture")
    with pytest.raises(UserError, match=r"me\.png: not a readable photo") as error:
        edits.invert_photo(room, str(tmp_path / "me.png"), find_face=True, report=print)
    assert str(tmp_path) not in str(error.value)


def test_files_can_be_read_again(
    room: Room,
    face: Faces,
    relevance: global_directions.TextRelevance,
    tmp_path: pathlib.Path,
) -> None:
    edited, _ = edits.move(room, face, relevance, 2, 0.1)
    paths = edits.save(room, edited, tmp_path)
    names = ["edited.png", "edited.npz", "direction.safetensors"]
    assert [path.name for path in paths] == names
    shown = pixels.to_uint8(edited.face.images[0])
    np.testing.assert_array_equal(np.asarray(Image.open(paths[0])), shown)
    found = latent_files.read(paths[1], tiny.GENERATOR, None)
    np.testing.assert_array_equal(found.array, edited.face.latents)
    delta, note = direction_files.read_direction(
        paths[2], layout=LAYOUT, generator=room.origin
    )
    assert edited.direction is not None
    np.testing.assert_array_equal(delta, edited.direction.delta)
    assert note["alpha"] == 2
    # Without a direction, in W+.
    paths = edits.save(room, Edited(face, ""), tmp_path / "start")
    assert [path.name for path in paths] == ["edited.png", "edited.npy"]
    np.testing.assert_array_equal(np.load(paths[1]), face.latent)


@pytest.mark.parametrize(
    ("act", "expected"),
    [
        (lambda r, f: edits.draw(r, -1, 1), "seed"),
        (lambda r, f: edits.measure(r, " ", "cat", print), "neutral text"),
        (lambda r, f: edits.measure(r, "cat", "cat", print), "must differ"),
        (lambda r, f: [*edits.optimize(r, f, "", _settings())], "prompt"),
        (lambda r, f: [*edits.optimize(r, f, "a", _settings(0))], "steps"),
        (lambda r, f: [*edits.optimize(r, f, "a", _settings(1, -1))], "rate"),
        (
            lambda r, f: [*edits.optimize(r, f, "a", _settings(1, 0.1, 0, 1))],
            "identity",
        ),
    ],
)
def test_bad_input_is_refused(room: Room, face: Faces, act: Any, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        act(room, face)


def _settings(*values: float) -> edits.Settings:
    return edits.Settings(*values)  # type: ignore[arg-type]
