"""The embedded world: drawing, captions, checks, and the models trained on it."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from styleclip_jax import loading, losses
from styleclip_jax.methods import optimization
from styleclip_jax.models import clip, stylegan2
from styleclip_jax.models.network import Network
from styleclip_jax.ops import convolutions
from styleclip_jax.toy import judge, world
from tests import tiny
from train.demo import (
    clip_stage,
    convolution,
    generator_stage,
    identity_stage,
    judge_stage,
    report_stage,
)

ASSETS = pathlib.Path(loading.__file__).parent


@pytest.fixture(scope="module")
def faces() -> list[world.Face]:
    rng = np.random.default_rng(0)
    return [world.sample_face(rng) for _ in range(300)]


@pytest.fixture(scope="module")
def pictures(faces: list[world.Face]) -> list[np.ndarray]:
    return [world.draw(face, 64) / 127.5 - 1 for face in faces]


def test_a_seed_decides_faces_pictures_and_captions():
    def make() -> tuple[world.Face, np.ndarray, world.Caption]:
        rng = np.random.default_rng(7)
        face = world.sample_face(rng)
        return face, world.draw(face, 64), world.caption(face, rng)

    (face, picture, caption), (other, other_picture, other_caption) = make(), make()
    assert face == other
    assert caption == other_caption
    np.testing.assert_array_equal(picture, other_picture)


@pytest.mark.parametrize("size", [32, 64, 128])
def test_pictures_are_anti_aliased_colour_images(faces: list[world.Face], size: int):
    picture = world.draw(faces[0], size)
    assert picture.shape == (size, size, 3)
    assert picture.dtype == np.uint8
    # A drawing without anti-aliasing has a few dozen colours.
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 100


def test_resolutions_show_the_same_face(faces: list[world.Face]):
    for face in faces[:5]:
        large = world.draw(face, 128).reshape(64, 2, 64, 2, 3).mean(axis=(1, 3))
        assert np.abs(large - world.draw(face, 64)).mean() < 3


def test_faces_survive_vectors(faces: list[world.Face]):
    for face in faces:
        vector = world.to_vector(face)
        again = world.from_vector(vector)
        np.testing.assert_array_equal(world.to_vector(again), vector)
        for name in world.ATTRIBUTES:
            assert getattr(again, name) == getattr(face, name)


def test_values_come_at_their_frequencies():
    rng = np.random.default_rng(1)
    vectors = np.stack([world.to_vector(world.sample_face(rng)) for _ in range(4000)])
    for name, table in world.ATTRIBUTES.items():
        found = vectors[:, world.SLICES[name]].mean(axis=0)
        np.testing.assert_allclose(found, list(table.values()), atol=0.03)


def test_every_attribute_changes_the_picture(faces: list[world.Face]):
    face = dataclasses.replace(faces[0], hair_style="short", glasses="none")
    picture = world.draw(face, 64).astype(int)
    for name, table in world.ATTRIBUTES.items():
        for value in set(table) - {getattr(face, name)}:
            changed = world.draw(dataclasses.replace(face, **{name: value}), 64)
            assert np.abs(changed - picture).max() > 20, (name, value)


def test_unknown_values_are_refused(faces: list[world.Face]):
    with pytest.raises(ValueError, match="glasses must be one of none, glasses"):
        dataclasses.replace(faces[0], glasses="monocle")
    with pytest.raises(ValueError, match="expected 11 shapes and 8 tints"):
        dataclasses.replace(faces[0], shapes=(0.0,))


def test_captions_are_true_of_their_face(faces: list[world.Face]):
    rng = np.random.default_rng(2)
    captions = [world.caption(face, rng) for face in faces]
    vectors = np.stack([world.to_vector(face) for face in faces])
    wrong = vectors[:, : world.NUM_VALUES] @ world.contradictions(captions).T
    assert np.all(np.diag(wrong) == 0)
    # They are also false of most other faces, and in many different words.
    assert np.mean(wrong > 0) > 0.5
    assert len({caption.text for caption in captions}) > 250


def test_captions_name_what_they_say(faces: list[world.Face]):
    rng = np.random.default_rng(3)
    for face in faces:
        caption = world.caption(face, rng)
        words = caption.text.replace(".", "").split()
        if "sunglasses" in words:
            assert caption.allowed["glasses"] == ("sunglasses",)
        if "bearded" in words:
            assert caption.allowed["facial_hair"] == ("beard",)
        if "smiling" in words:
            assert caption.allowed["mouth"] == ("smile",)
        if "blonde" in words:
            assert caption.allowed["hair_color"] == ("blonde",)
            assert "bald" not in caption.allowed["hair_style"]


@pytest.mark.parametrize(
    ("attribute", "value"), judge.CHECKS, ids=lambda x: x.replace("_", "-")
)
def test_checks_see_what_is_drawn(
    faces: list[world.Face], pictures: list[np.ndarray], attribute: str, value: str
):
    vectors = np.stack([world.to_vector(face) for face in faces])
    seen = world.visible(vectors, attribute)
    found = np.array([judge.CHECKS[attribute, value](x) for x in pictures])
    drawn = np.array([getattr(face, attribute) == value for face in faces])
    assert np.mean(found[drawn & seen]) > 0.9
    assert np.mean(found[~drawn & seen]) < 0.1


def test_the_judge_recognises_drawings():
    params, config = judge.load(ASSETS / "judge")
    shares = judge_stage.accuracies(params, *_held_out(600), config)
    assert min(shares.values()) > 0.97, shares


def test_the_clip_names_what_drawings_show():
    model, words = loading.load_clip()
    shares = clip_stage.zero_shot(
        model.params, *_held_out(400), config=model.config, words=words
    )
    assert min(shares.values()) > 0.98, shares


def test_similarity_rises_from_the_first_step_of_the_way_to_a_prompt(
    faces: list[world.Face],
):
    model, words = loading.load_clip()
    others = [face for face in faces if face.mouth != "smile"][:40]
    smiling = [dataclasses.replace(face, mouth="smile") for face in others]
    source, target = (
        np.stack([world.draw(face, 64) for face in part]) / 127.5 - 1
        for part in (others, smiling)
    )
    text = clip.encode_prompts(model, words, ["a smiling face"])[0]
    encode = jax.jit(lambda x: clip.normalize(clip.encode_image(model, x)))
    shares = np.linspace(0, 1, 11)
    pictures = [source + share * (target - source) for share in shares]
    rise = np.diff([float(np.mean(encode(x) @ text)) for x in pictures])
    assert np.all(rise > 0.005), rise


def test_optimization_does_what_the_prompt_says_and_little_else():
    network, config = judge.load()
    generator = loading.load_generator()
    model, words = loading.load_clip()
    w_plus = report_stage.sample_latents(generator, 8, seed=5, truncation_psi=0.7)
    text = clip.encode_prompts(model, words, ["a person wearing sunglasses"])[0]
    problem = optimization.official(
        optimization.OptimizationConfig(steps=80, l2_lambda=0.0045)
    )
    compiled = optimization.compiled(problem, sharding=None)
    networks = losses.Networks(generator, model)
    state = compiled.start(networks, w_plus, text)
    for _ in range(problem.steps):
        state = compiled.step(networks, state)
    images = [
        report_stage.pictures(generator, latents) for latents in (w_plus, state.latent)
    ]
    before, after = (
        jax.device_get(judge.predict(Network(network, config), image))
        for image in images
    )
    sunglasses = list(world.ATTRIBUTES["glasses"]).index("sunglasses")
    assert np.mean(before["glasses"] == sunglasses) < 0.5
    assert np.mean(after["glasses"] == sunglasses) >= 0.9
    assert judge.kept(before, after, "glasses").mean() >= 0.85


def test_the_identity_network_tells_persons_apart(tmp_path: pathlib.Path):
    network = loading.load_identity()
    images = identity_stage.persons(tmp_path, 120, 3, seed=77)
    scores = identity_stage.verification(network.params, images, network.config)
    assert scores["accuracy"] > 0.9, scores


def test_a_person_keeps_face_skin_and_hair_style(faces: list[world.Face]):
    rng = np.random.default_rng(0)
    person, others = (
        faces[0],
        [identity_stage.another_picture(faces[0], rng) for _ in range(50)],
    )
    for name in ("skin", "hair_style", "eyes"):
        assert {getattr(face, name) for face in others} == {getattr(person, name)}
    for name in ("mouth", "glasses", "background", "hair_color"):
        assert len({getattr(face, name) for face in others}) > 1
    width = world.SHAPES.index("face_width")
    yaw = world.SHAPES.index("yaw")
    assert {face.shapes[width] for face in others} == {person.shapes[width]}
    assert len({face.shapes[yaw] for face in others}) > 40


def test_arcface_adds_its_margin_to_the_right_angle():
    angles = np.array([[0.3, 1.2, 2.9], [2.0, 3.1, 0.4]])
    feature = np.array([[1.0, 0.0]])
    for row, label in zip(angles, (0, 1), strict=True):
        centers = 5 * np.stack([np.cos(row), np.sin(row)], axis=1)
        widened = np.cos(row)
        widened[label] = np.cos(min(row[label] + 0.2, np.pi))
        logits = 10 * widened
        expected = np.log(np.exp(logits).sum()) - logits[label]
        found = identity_stage.arcface(
            jnp.asarray(feature),
            jnp.asarray(centers),
            jnp.array([label]),
            scale=10,
            margin=0.2,
        )
        np.testing.assert_allclose(found, [expected], rtol=1e-4)


def test_samples_are_as_varied_as_drawings():
    generator = loading.load_generator()
    latents = report_stage.sample_latents(generator, 300, seed=0, truncation_psi=1.0)
    params, config = judge.load(ASSETS / "judge")
    images = report_stage.pictures(generator, latents)
    scores = judge.logits(Network(params, config), images)
    sunglasses = list(world.ATTRIBUTES["glasses"]).index("sunglasses")
    seen = {"eyes": np.argmax(scores["glasses"], axis=1) != sunglasses}
    for name, score in scores.items():
        one_hot = np.eye(score.shape[1])[np.argmax(score, axis=1)]
        found = one_hot[seen.get(name, slice(None))].mean(axis=0)
        wanted = list(world.ATTRIBUTES[name].values())
        np.testing.assert_allclose(found, wanted, atol=0.1, err_msg=name)


def test_the_mapping_network_makes_the_codes_of_faces():
    config = generator_stage.GeneratorTraining().network
    params = {"mapping": generator_stage.mapping_params(config)}
    params = jax.tree.map(jnp.asarray, params)
    z = tiny.normal(0, 500, config.z_dim)
    w = stylegan2.map_latents(Network(params, config), z)
    vectors = np.asarray(w - params["mapping"]["w_avg"]) @ np.linalg.pinv(
        generator_stage.embedding(config.w_dim)
    )
    vectors += generator_stage.mean_vector()
    attributes = vectors[:, : world.NUM_VALUES]
    # All but the few latents on a ramp have one value of each attribute.
    assert np.mean(np.minimum(abs(attributes), abs(1 - attributes)) < 1e-2) > 0.99
    np.testing.assert_allclose(
        w, params["mapping"]["w_avg"] + generator_stage.to_w(vectors, 128), atol=1e-3
    )


def test_quick_weight_gradients_are_those_of_xla():
    x, kernel = tiny.normal(0, 2, 8, 8, 3), tiny.normal(1, 3, 3, 3, 5)
    for name in ("conv3x3", "upsample_conv3x3"):

        def loss(x: jax.Array, kernel: jax.Array) -> jax.Array:
            function = getattr(convolutions, name)  # noqa: B023
            return jnp.sum(jnp.sin(function(x, kernel)))

        wanted = jax.jit(jax.grad(loss, (0, 1)))(x, kernel)
        with convolution.quick_weight_gradients():
            found = jax.jit(jax.grad(loss, (0, 1)))(x, kernel)
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4)


def _held_out(count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(99)
    made = [world.sample_face(rng) for _ in range(count)]
    pictures = np.stack([world.draw(face, 64) for face in made])
    return pictures, np.stack([world.to_vector(face) for face in made])
