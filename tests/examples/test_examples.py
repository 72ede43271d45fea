"""The examples do what they say, with tiny networks."""

import ast
import functools
import importlib
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from examples import (
    directional_loss,
    image_target,
    masked_edit,
    several_clips,
    style_direction,
)
from styleclip_jax import loading, losses
from styleclip_jax.methods import optimization
from styleclip_jax.models import stylegan2
from tests import programs, tiny

EXAMPLES = sorted(
    path
    for path in (programs.REPOSITORY / "examples").glob("*.py")
    if path.stem != "__init__"
)
CONFIG = optimization.OptimizationConfig(steps=20, learning_rate=0.1, l2_lambda=0.0)
BATCH = 2


def test_five_variants_are_described() -> None:
    text = (programs.REPOSITORY / "docs" / "variants.md").read_text()
    assert len(EXAMPLES) == 5
    for path in EXAMPLES:
        assert f"python -m examples.{path.stem}" in text
        assert f"../examples/{path.name}" in text


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_short_and_use_public_names(path: pathlib.Path) -> None:
    source = path.read_text()
    assert len(source.splitlines()) < 60
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr != "_replace":
            assert not node.attr.startswith("_"), node.attr
    assert callable(importlib.import_module(f"examples.{path.stem}").main)


def test_directional_loss_turns_the_step(networks: losses.Networks) -> None:
    text, neutral = tiny.text_features(2)
    result = directional_loss.edit(
        networks, tiny.w_plus(BATCH), text, neutral, CONFIG, weight=10.0
    )
    history = result.history["directional"]
    # Nothing has moved before the first step, and nothing is without a number.
    np.testing.assert_allclose(history[:, 0], 1, atol=1e-4)
    assert np.isfinite(result.history["total"]).all()
    assert (result.terms["directional"] < history[:, 0] - 0.1).all()


def test_several_clips_have_equal_say(models: dict[str, str]) -> None:
    generator, one = tiny.generator(), tiny.clip_network()
    other = one.replace(params=jax.tree.map(lambda x: x * 1.3, one.params))
    _, words = loading.load_clip(models["clip"])
    clips = [(one, words), (other, words)]
    result = several_clips.edit(generator, clips, tiny.w_plus(BATCH), "a cat", CONFIG)
    assert (result.terms["total"] < result.history["total"][:, 0]).all()
    # The loss is the mean of what each of them says.
    text = tiny.text_features(2)

    @jax.jit
    def distances(one: Any, other: Any) -> tuple[jax.Array, ...]:
        edit = losses.Edit(result.image, result.latent, result.source, text[0])
        return (
            several_clips.mean_clip_distance(
                losses.Networks(generator, (one, other)),
                edit._replace(text=jnp.concatenate(text)),
            ),
            losses.clip_distance(losses.Networks(generator, one), edit),
            losses.clip_distance(
                losses.Networks(generator, other), edit._replace(text=text[1])
            ),
        )

    both, *alone = distances(one, other)
    assert np.abs(alone[0] - alone[1]).max() > 1e-4
    np.testing.assert_allclose(both, (alone[0] + alone[1]) / 2, atol=1e-6)


def test_image_target_is_approached(networks: losses.Networks) -> None:
    target = tiny.image(1, 8)[0]
    result = image_target.edit(networks, tiny.w_plus(BATCH), target, CONFIG)
    assert (result.terms["clip"] < result.history["clip"][:, 0] - 0.01).all()

    # The target is as near to itself as can be.
    @jax.jit
    def distance_to_itself(networks: losses.Networks) -> jax.Array:
        feature = image_target.encode(networks.clip, target[None])
        edit: Any = losses.Edit(target[None], None, None, feature)
        return losses.clip_distance(networks, edit)

    np.testing.assert_allclose(distance_to_itself(networks), 0, atol=1e-4)


def test_masked_edit_leaves_the_rest_alone(networks: losses.Networks) -> None:
    mask = jnp.zeros((8, 8, 1)).at[:3].set(1)
    text = tiny.text_features(1)[0]
    result, pasted = masked_edit.edit(
        networks, tiny.w_plus(BATCH), text, mask, CONFIG, weight=20.0
    )
    change = np.square(result.image - result.source.image).mean(axis=(0, 2, 3))
    assert change[:3].mean() > 2 * change[3:].mean()
    np.testing.assert_allclose(
        result.terms["outside"].mean(), change[3:].sum() / 8, rtol=1e-4
    )
    np.testing.assert_array_equal(pasted[:, 3:], result.source.image[:, 3:])
    np.testing.assert_array_equal(pasted[:, :3], result.image[:, :3])
    assert np.abs(pasted - result.source.image).max() > 0.01


def test_style_direction_moves_coarse_layers_alone(networks: losses.Networks) -> None:
    generator = networks.generator
    to_styles = functools.partial(stylegan2.to_styles, config=generator.config)
    styles = jax.jit(to_styles)(generator.params, tiny.w_plus(BATCH))
    direction, history = style_direction.learn(
        networks, styles, tiny.text_features(1)[0], resolution=4, steps=8
    )
    assert history[-1] < history[0] - 0.01
    ends = np.cumsum([layer.channels for layer in generator.config.style_layout])[:-1]
    for layer, part in zip(
        generator.config.style_layout, np.split(direction.delta, ends), strict=True
    ):
        moves = layer.resolution == 4 and not layer.is_torgb
        assert np.any(part != 0) == moves, layer.name
