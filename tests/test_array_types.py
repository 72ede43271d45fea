"""Types of arrays in signatures: they are those of what goes in and comes out."""

import inspect
import typing
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jaxtyping
import pytest

from styleclip_jax import blends, losses, spaces
from styleclip_jax.evaluation import path_length
from styleclip_jax.models import clip, clip_input, e4e, irse50, stylegan2
from styleclip_jax.ops import pixels
from tests import tiny


def calls() -> list[tuple[Callable[..., Any], tuple[Any, ...]]]:
    """Public functions with tiny arguments."""
    generator, network = tiny.generator(), tiny.clip_network()
    identity, encoder = tiny.identity_network(), tiny.encoder()
    w_plus = tiny.w_plus(2)
    styles = stylegan2.to_styles(generator, w_plus)
    image, seen = tiny.image(2, 16), tiny.image(2, 8)
    return [
        (spaces.broadcast_w, (w_plus[:, 0], 4)),
        (spaces.truncate, (w_plus, w_plus[0, 0], 0.7)),
        (spaces.flatten_styles, (styles,)),
        (blends.mix, (w_plus, w_plus[::-1], jnp.arange(4) < 2)),
        (blends.interpolate, (w_plus, jnp.float32(0.5))),
        (stylegan2.map_latents, (generator, tiny.normal(0, 2, 8))),
        (stylegan2.to_styles, (generator, w_plus)),
        (stylegan2.synthesize_styles, (generator, styles)),
        (stylegan2.synthesize, (generator, w_plus)),
        (clip.encode_image, (network, seen)),
        (clip.encode_text, (network, jnp.ones((2, 5), jnp.int32))),
        (clip_input.preprocess_styleclip, (network, image)),
        (clip_input.preprocess_clip, (network, image)),
        (clip_input.preprocess_clip_uint8, (network, pixels.to_uint8(image))),
        (irse50.features, (identity, image)),
        (e4e.encode, (encoder, tiny.image(2, encoder.config.input_size))),
        (
            path_length.path_length_distances,
            (
                generator,
                lambda image: image.reshape(len(image), -1),
                path_length.draw(jax.random.key(0), generator.config, batch_size=2),
            ),
        ),
        (losses.describe_source, (losses.Networks(generator, network), w_plus, seen)),
    ]


@pytest.mark.slow
def test_types_are_those_of_the_arrays() -> None:
    for function, arguments in calls():
        values = inspect.signature(function).bind(*arguments).arguments
        values["return"] = function(*arguments)
        hints = typing.get_type_hints(function)
        with jaxtyping.jaxtyped("context"):
            for name, value in values.items():
                _expect(f"{function.__name__} {name}", value, hints[name])


def _expect(name: str, value: Any, hint: Any) -> None:
    if typing.get_origin(hint) is tuple:
        for part in value:
            _expect(name, part, typing.get_args(hint)[0])
    elif isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray):
        assert isinstance(value, hint), f"{name}: {value.shape} is no {hint}"


def test_a_wrong_type_is_seen() -> None:
    with jaxtyping.jaxtyped("context"):
        assert not isinstance(jnp.zeros((2, 4, 4, 4)), spaces.Image)
        assert isinstance(jnp.zeros((2, 4)), spaces.Feature)
        assert not isinstance(jnp.zeros(3), spaces.PerExample)
