"""Towers of our own against those of transformers' FlaxCLIPModel, which 4.x has."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers

import styleclip_jax as sc
from styleclip_jax.errors import UserError
from styleclip_jax.models import clip, clip_vit
from tests import tiny

needs_flax = pytest.mark.usefixtures("flax_clip_model")

CONFIGS = {
    "usual": tiny.CLIP_32,
    "activations and epsilons of their own": dataclasses.replace(
        tiny.CLIP_32,
        vision_act="gelu",
        text_act="gelu_new",
        vision_eps=1e-3,
        text_eps=1e-6,
    ),
    "deep, the end token as in old files": dataclasses.replace(
        tiny.CLIP_32,
        patch_size=8,
        vision_layers=3,
        vision_heads=4,
        text_layers=2,
        text_heads=1,
        text_width=24,
        eos_token_id=2,
    ),
    "bfloat16": dataclasses.replace(tiny.CLIP_32, dtype="bfloat16"),
}


def with_towers(network: clip.Clip, towers: str) -> clip.Clip:
    return clip_vit.choose_towers(network, towers)


@pytest.mark.slow
@needs_flax
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_features_and_gradients_are_equal(config: clip.ClipConfig) -> None:
    network = tiny.clip_network(config)
    image = tiny.image(3, config.image_size)
    tokens = np.random.default_rng(1).integers(0, config.vocab_size, (3, 11))

    @jax.jit
    def values(network: Any, image: jax.Array, tokens: jax.Array) -> Any:
        def score(image: jax.Array) -> jax.Array:
            return jnp.sum(jnp.sin(clip.encode_image(network, image)))

        return (
            clip.encode_image(network, image),
            clip.encode_text(network, tokens),
            jax.grad(score)(image),
        )

    found, expected = (
        values(with_towers(network, towers), image, jnp.asarray(tokens, jnp.int32))
        for towers in ("own", "transformers")
    )
    for ours, theirs in zip(found, expected, strict=True):
        scale = np.abs(theirs).max()
        assert scale > 0
        # A gradient in 16 bits is rounded after the product of patches.
        near = 1e-6 if config.dtype == "float32" else 0.02
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=near * scale)


@pytest.mark.slow
@needs_flax
def test_parameters_are_named_and_drawn_alike() -> None:
    config = tiny.CLIP_32
    module = clip_vit._transformers_module(config)

    @jax.jit
    def draw(key: jax.Array) -> Any:
        one = jnp.ones((1, 1), jnp.int32)
        inputs = (one, jnp.zeros((1, 32, 32, 3)), one, one)
        return module.init(key, *inputs)["params"], clip.init(key, config)

    tree, ours = draw(jax.random.key(0))
    assert jax.tree.structure(ours) == jax.tree.structure(tree)
    for (path, found), expected in zip(
        jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(tree), strict=True
    ):
        assert found.shape == expected.shape, path
        assert abs(found.std() - expected.std()) <= 0.3 * expected.std() + 1e-6, path


@needs_flax
@pytest.mark.slow
def test_edits_are_equal(models: dict[str, str]) -> None:
    made = []
    for towers in ("own", "transformers"):
        session = sc.load(**models, clip_towers=towers, quiet=True)
        faces = session.read(np.asarray(tiny.w_plus(2)))
        made.append(session.optimize(faces, "a cat", steps=5).after.latent)
    np.testing.assert_allclose(*made, atol=1e-6)


def test_missing_classes_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformers, "FlaxCLIPModel", None, raising=False)
    clip_vit._transformers_module.cache_clear()
    network = tiny.clip_network(tiny.CLIP_32)
    with pytest.raises(UserError, match=r"clip_towers: expected transformers 4\.57"):
        with_towers(network, "transformers")


def test_other_families_have_own_towers_alone() -> None:
    network = tiny.clip_network(tiny.SIGLIP)
    assert with_towers(network, "own") is network
    with pytest.raises(UserError, match="clip_towers: expected own for a SiglipConfig"):
        with_towers(network, "transformers")


def test_recomputed_blocks_have_the_same_gradient() -> None:
    network = tiny.clip_network(tiny.CLIP_32)
    lean = network.replace(config=dataclasses.replace(network.config, remat=True))
    image = tiny.image(2, 32)

    @jax.jit
    def gradient(network: Any, image: jax.Array) -> jax.Array:
        return jax.grad(lambda x: clip.encode_image(network, x).sum())(image)

    np.testing.assert_allclose(
        gradient(lean, image), gradient(network, image), atol=1e-6
    )
