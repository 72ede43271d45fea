"""Several CLIPs that count as one: losses and logits are the weighted means."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from styleclip_jax import losses
from styleclip_jax.errors import UserError
from styleclip_jax.models import bpe, clip, clip_input
from styleclip_jax.models.network import Network
from styleclip_jax.ops import norms
from tests import tiny

WEIGHTS = (3.0, 1.0)
# Features of other lengths, another size of images, and another scale of the logits.
SMALL = tiny.clip_network()
LARGE = tiny.clip_network(dataclasses.replace(tiny.CLIP_32, embed_dim=12))
MEMBERS = (
    SMALL,
    Network({**LARGE.params, "logit_scale": jnp.log(70.0)}, LARGE.config),
)
JOINT = clip.join(MEMBERS, WEIGHTS)


def distance(network: clip.Clip, text: jax.Array, image: jax.Array) -> jax.Array:
    edit: Any = losses.Edit(image, None, None, text)
    return losses.clip_distance(losses.Networks(tiny.generator(), network), edit)


def tokens(batch: int) -> tuple[jax.Array, ...]:
    found = np.random.default_rng(0)
    return tuple(
        jnp.asarray(found.integers(0, m.config.vocab_size, (batch, 9)), jnp.int32)
        for m in MEMBERS
    )


def test_loss_and_its_gradient_are_the_weighted_means() -> None:
    image, inputs = tiny.image(2, 16), tokens(2)

    @jax.jit
    def values(image: jax.Array) -> tuple[jax.Array, ...]:
        joint = norms.unit(clip.encode_text(JOINT, inputs))
        alone = [
            distance(m, norms.unit(clip.encode_text(m, part)), image)
            for m, part in zip(MEMBERS, inputs, strict=True)
        ]
        return distance(JOINT, joint, image), (3 * alone[0] + alone[1]) / 4, *alone

    found, expected, *alone = values(image)
    assert np.abs(alone[0] - alone[1]).min() > 1e-3
    np.testing.assert_allclose(found, expected, atol=1e-6)
    gradients = [
        jax.jit(jax.grad(lambda x, i=i: values(x)[i].sum()))(image) for i in (0, 1)
    ]
    scale = np.abs(gradients[1]).max()
    np.testing.assert_allclose(*gradients, atol=1e-5 * scale)


@pytest.mark.slow
def test_logits_are_the_weighted_mean() -> None:
    image, inputs = tiny.image(3, 16), tokens(2)

    @jax.jit
    def encode(network: clip.Clip, tokens: Any) -> tuple[jax.Array, jax.Array]:
        seen = clip_input.preprocess_clip(network, image)
        return clip.encode_image(network, seen), clip.encode_text(network, tokens)

    features = [
        encode(m, part)
        for m, part in zip((JOINT, *MEMBERS), (inputs, *inputs), strict=True)
    ]
    assert features[0][0].shape == (3, JOINT.config.embed_dim) == (3, 20)
    found, *alone = (
        clip.logits(m, *pair)
        for m, pair in zip((JOINT, *MEMBERS), features, strict=True)
    )
    np.testing.assert_allclose(found, (3 * alone[0] + alone[1]) / 4, rtol=1e-4)


@pytest.mark.slow
def test_prompts_are_cut_into_tokens_of_each(tmp_path) -> None:
    words = []
    for count in (100, tiny.NUM_MERGES):
        folder = tmp_path / str(count)
        folder.mkdir()
        bpe.write(bpe.OPENAI_MERGES, folder, count)
        words.append(bpe.read(folder / "vocab.json", folder / "merges.txt"))
    joint = clip.encode_prompts(JOINT, tuple(words), ["a cat", "dog"])
    np.testing.assert_allclose(np.linalg.norm(joint, axis=-1), 1, atol=1e-6)
    parts = [
        clip.encode_prompts(m, w, ["a cat", "dog"])
        for m, w in zip(MEMBERS, words, strict=True)
    ]
    shares = np.array([3 * 100, 70.0]) / (3 * 100 + 70)
    halves = jnp.split(joint, [8], axis=-1)
    for part, found, share in zip(parts, halves, shares, strict=True):
        np.testing.assert_allclose(found, np.sqrt(share) * part, atol=1e-6)
    with pytest.raises(UserError, match="at most 12 tokens"):
        clip.tokenize(JOINT, tuple(words), ["a b c d e f g h i j k l m n"])


def test_preprocessing_is_that_of_each() -> None:
    image = tiny.image(2, 16)
    for preprocess in (clip_input.preprocess_styleclip, clip_input.preprocess_clip):
        found = preprocess(JOINT, image)
        for part, member in zip(found, MEMBERS, strict=True):
            np.testing.assert_array_equal(part, preprocess(member, image))


def test_images_need_no_tower_of_texts() -> None:
    seen = clip_input.preprocess_clip(JOINT, tiny.image(2, 16))
    lean = clip.without_text(JOINT)
    assert not any("text_model" in params for params in lean.params)
    np.testing.assert_array_equal(
        clip.encode_image(lean, seen), clip.encode_image(JOINT, seen)
    )


def test_one_clip_is_itself_and_weights_are_checked() -> None:
    assert clip.join([SMALL]) is SMALL
    assert clip.members(SMALL) == [SMALL]
    equal = clip.join(MEMBERS).config.weights
    assert equal == (0.5, 0.5)
    for weights in ((1.0,), (1.0, 0.0), (1.0, float("nan"))):
        with pytest.raises(UserError, match="clip_weights: expected 2 numbers above 0"):
            clip.join(MEMBERS, weights)
