"""What the small CLIP learns from moves in W+."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from styleclip_jax import loading
from styleclip_jax.models import clip
from styleclip_jax.ops import norms
from styleclip_jax.toy import attributes, drawing
from tests import tiny
from tests.toy import faces as toy_faces
from train.demo import (
    clip_losses,
    clip_pictures,
    clip_stage,
    common,
)


def test_moves_change_what_they_say_and_nothing_else():
    count = 300
    rows, shown = clip_pictures.move(count, tiny.GENERATOR, seed=1)
    size = (count, 2, tiny.GENERATOR.num_rows, attributes.VECTOR_SIZE)
    assert rows.shape == size
    assert shown.shape == (count, 2, attributes.VECTOR_SIZE)
    # The noise of both sides is the same: what does not move is equal.
    moves = np.abs(rows[:, 1] - rows[:, 0]).max(axis=1) > 1e-9
    change = np.abs(shown[:, 1] - shown[:, 0])
    moved_attributes = []
    for name, part in attributes.SLICES.items():
        known = np.isfinite(shown[:, 0, part]).all(axis=1)
        assert np.all(np.isfinite(shown[:, 0, part]).any(axis=1) == known), name
        moved = moves[:, part].any(axis=1)
        # What is known of an attribute that moves is how far; of the others, nothing.
        says = change[:, part].max(axis=1) > 0
        np.testing.assert_array_equal(says[known], moved[known])
        np.testing.assert_array_equal(shown[known & ~moved][:, :, part] % 1, 0)
        moved_attributes.append(moved | ~known)
    assert set(np.sum(moved_attributes, axis=0)) == {1, 2}
    assert not moves[:, attributes.NUM_VALUES :].any()
    unknown = np.isnan(shown).any(axis=(1, 2)).mean()
    assert 0.42 < unknown < 0.58


def test_disagreement_is_what_changes_otherwise():
    rng = np.random.default_rng(2)
    size = 16
    frame = clip_losses.frame(size)
    codes = [rng.random((5, 9)).astype(np.float32) for _ in range(2)]
    # Features are normalised, as codes of pictures are by their constant length.
    length = clip_losses.CODE_LENGTH
    codes = [
        code / np.linalg.norm(code, axis=1, keepdims=True) * length for code in codes
    ]
    features = [3 * code @ frame[:9] for code in codes]
    assert float(clip_losses.disagreement(features, codes)) < 1e-6
    still = float(clip_losses.disagreement([features[0]] * 2, codes))
    wanted = np.sum((codes[1] - codes[0]) ** 2, axis=1) / length**2
    np.testing.assert_allclose(still, np.mean(wanted / (wanted + 0.004)), rtol=1e-4)

    # What is unknown does not count, in the value and in the gradient.
    unknown = [code.copy() for code in codes]
    for code in unknown:
        code[:, 3] = np.nan
    features[1] = features[1] + 0.7 * frame[3]
    features[1] = features[1] / np.linalg.norm(features[1], axis=1, keepdims=True)
    known = jax.grad(lambda x: clip_losses.disagreement([features[0], x], unknown))
    assert np.all(np.isfinite(known(jnp.asarray(features[1]))))


@pytest.mark.slow
def test_the_clip_sees_small_moves_of_the_generator():
    network = loading.load_generator()
    model, _ = loading.load_clip()
    rows, shown = clip_pictures.move(200, network.config, seed=9)
    images = [clip_pictures.render(network, rows[:, side]) for side in range(2)]
    encode = jax.jit(lambda x: clip.encode_image(model, x))
    known = np.isfinite(shown).all(axis=(1, 2))
    features = [encode(common.to_float(image[known])) for image in images]
    codes = [
        clip_losses.picture_code(jnp.asarray(shown[known, side])) for side in range(2)
    ]
    # 1 is a feature that stays, and 0.84 a CLIP that was not trained on moves.
    assert float(clip_losses.disagreement(features, codes)) < 0.6


@pytest.mark.slow
def test_the_clip_names_what_drawings_show():
    model, words = loading.load_clip()
    shares = clip_stage.zero_shot(
        model.params, *toy_faces.held_out(400), config=model.config, words=words
    )
    assert min(shares.values()) > 0.98, shares


@pytest.mark.slow
def test_similarity_rises_from_the_first_step_of_the_way_to_a_prompt(
    faces: list[attributes.Face],
):
    model, words = loading.load_clip()
    others = [face for face in faces if face.mouth != "smile"][:40]
    smiling = [dataclasses.replace(face, mouth="smile") for face in others]
    source, target = (
        np.stack([drawing.draw(face, 64) for face in part]) / 127.5 - 1
        for part in (others, smiling)
    )
    text = clip.encode_prompts(model, words, ["a smiling face"])[0]
    encode = jax.jit(lambda x: norms.unit(clip.encode_image(model, x)))
    shares = np.linspace(0, 1, 11)
    pictures = [source + share * (target - source) for share in shares]
    rise = np.diff([float(np.mean(encode(x) @ text)) for x in pictures])
    assert np.all(rise > 0.005), rise
