"""Session: faces by seed and photo, moves, edits and files as the app asks for them."""

import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from styleclip_jax import latents, losses, spaces
from styleclip_jax.editing import session, session_edits
from styleclip_jax.editing.session import Edited, Face, Studio
from styleclip_jax.errors import UserError
from styleclip_jax.io import clip_files, direction_files, latent_files
from styleclip_jax.methods import global_directions, mapper, optimization
from styleclip_jax.models import clip, stylegan2
from styleclip_jax.models.network import Network
from tests import tiny

LAYOUT = tiny.GENERATOR.style_layout
MAPPER = mapper.MapperConfig(levels=("coarse",), w_dim=12, num_layers=1)


@pytest.fixture(scope="module")
def room(networks: losses.Networks, models: dict[str, str]) -> Studio:
    """A studio with tiny networks, and random relevance for all texts."""
    random = np.random.RandomState(0)
    layers = global_directions.select_layers(LAYOUT, "all")
    count = int(global_directions.channels_of(LAYOUT, layers).sum())
    rows = random.randn(count, tiny.CLIP.embed_dim)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    std = random.rand(sum(layer.channels for layer in LAYOUT)) + 0.5
    return Studio(
        networks=networks,
        tokenizer=clip_files.load_tokenizer(models["clip"]),
        templates=["a {}", "the {}"],
        origin=direction_files.Origin("tiny", "0" * 64),
        mappers={"a cat": tiny.mapper_network(MAPPER)},
        relevance=global_directions.expand(rows, std, layers, LAYOUT),
    )


@pytest.fixture(scope="module")
def face(room: Studio) -> Face:
    return session.draw(room, 3, 0.7)


@pytest.fixture(scope="module")
def relevance(room: Studio) -> global_directions.TextRelevance:
    return session_edits.measure(room, "dog", "cat", lambda count: None)


def test_a_seed_is_the_face_of_the_other_programs(room: Studio, face: Face) -> None:
    z = latents.seeded_z(3, tiny.GENERATOR.z_dim)[None]
    params = tiny.generator().params
    w = stylegan2.map_latents(Network(params, tiny.GENERATOR), z)
    w_plus = spaces.broadcast_w(w, tiny.GENERATOR.num_rows)
    w_plus = spaces.truncate(w_plus, params["mapping"]["w_avg"], 0.7)
    assert face.w_plus is not None
    np.testing.assert_allclose(face.w_plus, w_plus[0], atol=1e-5)
    image = stylegan2.synthesize(Network(params, tiny.GENERATOR), w_plus)[0]
    levels = np.clip((np.asarray(image) + 1) * 127.5, 0, 255)
    assert np.abs(face.image - levels).max() < 0.6


def test_moving_is_alpha_times_the_direction(
    room: Studio, face: Face, relevance: global_directions.TextRelevance
) -> None:
    beta = session_edits.beta_for(relevance, 5)
    edited, kept = session_edits.move(room, face, relevance, 2.5, beta)
    assert kept == 5
    direction = global_directions.make_direction(relevance, beta)
    expected = face.styles + 2.5 * np.asarray(direction.delta)
    np.testing.assert_allclose(edited.face.styles, expected, atol=1e-5)
    assert edited.face.w_plus is None
    assert not np.array_equal(edited.face.image, face.image)
    # Without strength nothing moves, and W+ is kept.
    still, _ = session_edits.move(room, face, relevance, 0, beta)
    np.testing.assert_array_equal(still.face.image, face.image)
    assert still.face.w_plus is face.w_plus


def test_sliders_compile_nothing(
    room: Studio, face: Face, relevance: global_directions.TextRelevance
) -> None:
    session_edits.warm_up(room)
    before = session_edits._move._cache_size()
    for alpha, beta in ((1, 0.1), (-3.5, 0.2), (0, 0.0)):
        session_edits.move(room, face, relevance, alpha, beta)
    assert session_edits._move._cache_size() == before


def test_relevance_is_measured_once_for_a_pair(
    room: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(
        session_edits, "measure", lambda room, *pair: asked.append(pair[:2]) or pair
    )
    known = session_edits.Relevances(room, capacity=2)
    for target in ("cat", " cat", "fox", "cat", "cow", "fox"):
        known.find("dog", target, print)
    # The fox was asked for longest ago when the cow came.
    assert [target for _, target in asked] == ["cat", "fox", "cow", "fox"]


def test_relevance_needs_no_file(room: Studio) -> None:
    bare, done = dataclasses.replace(room, relevance=None, num_samples=2), []
    found = session_edits.measure(bare, "dog", "cat", done.append)
    assert sum(done) == 2
    assert 0 < np.abs(np.asarray(found.value)).max() <= 1


def test_sheet_has_a_row_for_each_number_of_channels(
    room: Studio, face: Face, relevance: global_directions.TextRelevance
) -> None:
    one = session_edits.sheet(room, face, relevance, [0, 3], [2])
    two = session_edits.sheet(room, face, relevance, [0, 3], [2, 4])
    assert two.width == one.width
    assert two.height > 1.5 * one.height


@pytest.mark.parametrize("space", ["w_plus", "s"])
def test_optimization_is_the_official_one(room: Studio, face: Face, space: str) -> None:
    settings = session_edits.Settings(4, 0.05, 0.01)
    start = face if space == "w_plus" else face._replace(w_plus=None)
    *_, (done, edited) = session_edits.optimize(room, start, "cat", settings)
    assert done == 4
    config = optimization.OptimizationConfig(
        space=space, steps=4, learning_rate=0.05, l2_lambda=0.01
    )
    text = clip.encode_prompts(room.networks.clip, room.tokenizer, ["cat"])[0]
    latent: Any = jnp.asarray(face.w_plus)
    if space == "s":
        latent = spaces.unflatten_styles(jnp.asarray(face.styles), LAYOUT)
    result = jax.jit(
        lambda *x: optimization.optimize(*x, problem=optimization.official(config))
    )(room.networks, latent, text)
    found = edited.face.w_plus if space == "w_plus" else edited.face.styles
    assert found is not None
    np.testing.assert_allclose(found, latents.pack(result.latent), atol=1e-4)


def test_mapper_edits_in_w_plus_alone(room: Studio, face: Face) -> None:
    edited = session_edits.map_face(room, face, "a cat", 0.01)
    network = room.mappers["a cat"]
    assert face.w_plus is not None
    expected = mapper.edit(
        Network(network.params, MAPPER), face.w_plus[None], strength=0.01
    )[0]
    np.testing.assert_allclose(edited.face.w_plus, expected, atol=1e-5)
    with pytest.raises(UserError, match=r"edits in W\+"):
        session_edits.map_face(room, face._replace(w_plus=None), "a cat", 0.01)
    with pytest.raises(UserError, match="expected one of --mapper"):
        session_edits.map_face(room, face, "a dog", 0.01)


def test_photo_becomes_a_face(room: Studio, tmp_path: pathlib.Path) -> None:
    photo = np.zeros((40, 64, 3), np.uint8)
    photo[:, 12:52] = (200, 120, 90)
    Image.fromarray(photo).save(tmp_path / "me.png")
    steps: list[int] = []
    found, about = session.invert_photo(
        room, str(tmp_path / "me.png"), find_face=False, report=steps.append
    )
    assert sum(steps) == session.count_inversion_steps(room)
    assert (found.name, about) == ("me.png", "used as it is")
    # The middle, whose colour the inversion comes nearer to than the average face is.
    colour = photo[20, 32].astype(int)
    average = session.draw(room, 0, 0.0)
    assert np.abs(found.image - colour).mean() < np.abs(average.image - colour).mean()


def test_where_an_upload_is_kept_is_not_told(
    room: Studio, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "me.png").write_text("no picture")
    with pytest.raises(UserError, match=r"me\.png: not a readable photo") as error:
        session.invert_photo(
            room, str(tmp_path / "me.png"), find_face=True, report=print
        )
    assert str(tmp_path) not in str(error.value)


def test_files_can_be_read_again(
    room: Studio,
    face: Face,
    relevance: global_directions.TextRelevance,
    tmp_path: pathlib.Path,
) -> None:
    edited, _ = session_edits.move(room, face, relevance, 2, 0.1)
    paths = session.save(room, edited, tmp_path)
    names = ["edited.png", "edited.npz", "direction.safetensors"]
    assert [path.name for path in paths] == names
    np.testing.assert_array_equal(np.asarray(Image.open(paths[0])), edited.face.image)
    found = latent_files.read(paths[1], tiny.GENERATOR, None)
    np.testing.assert_array_equal(found.array[0], edited.face.styles)
    delta, note = direction_files.read_direction(
        paths[2], layout=LAYOUT, generator=room.origin
    )
    np.testing.assert_array_equal(delta, edited.delta)
    assert note["alpha"] == 2
    # Without a direction, in W+.
    paths = session.save(room, Edited(face, ""), tmp_path / "start")
    assert [path.name for path in paths] == ["edited.png", "edited.npy"]
    np.testing.assert_array_equal(np.load(paths[1])[0], face.w_plus)


@pytest.mark.parametrize(
    ("act", "expected"),
    [
        (lambda r, f: session.draw(r, -1, 1), "seed"),
        (lambda r, f: session_edits.measure(r, " ", "cat", print), "neutral text"),
        (lambda r, f: session_edits.measure(r, "cat", "cat", print), "must differ"),
        (lambda r, f: [*session_edits.optimize(r, f, "", _settings())], "prompt"),
        (lambda r, f: [*session_edits.optimize(r, f, "a", _settings(0))], "steps"),
        (lambda r, f: [*session_edits.optimize(r, f, "a", _settings(1, -1))], "rate"),
        (
            lambda r, f: [*session_edits.optimize(r, f, "a", _settings(1, 0.1, 0, 1))],
            "--identity",
        ),
    ],
)
def test_bad_input_is_refused(
    room: Studio, face: Face, act: Any, expected: str
) -> None:
    with pytest.raises(UserError, match=expected):
        act(room, face)


def _settings(*values: float) -> session_edits.Settings:
    return session_edits.Settings(*values)  # type: ignore[arg-type]
