"""Latent spaces: layout of S, flattening, truncation."""

import jax.numpy as jnp
import numpy as np
import pytest

from styleclip_jax import latents, spaces
from styleclip_jax.models import stylegan2
from tests import tiny

FULL = stylegan2.GeneratorConfig()


def test_official_style_space_at_1024() -> None:
    layout = FULL.style_layout
    assert FULL.num_rows == 18
    assert len(layout) == 26
    assert sum(layer.channels for layer in layout) == 9088
    convolutions = [layer for layer in layout if not layer.is_torgb]
    assert len(convolutions) == 17
    assert sum(layer.channels for layer in convolutions) == 6048
    assert [i for i, x in enumerate(layout) if x.is_torgb] == list(range(1, 26, 3))
    assert [layer.row for layer in layout[:8]] == [0, 1, 1, 2, 3, 3, 4, 5]
    assert layout[-1].row == 17


def test_styles_survive_flattening() -> None:
    styles = tuple(
        tiny.normal(i, 2, layer.channels)
        for i, layer in enumerate(tiny.GENERATOR.style_layout)
    )
    flat = spaces.flatten_styles(styles)
    again = spaces.unflatten_styles(flat, tiny.GENERATOR.style_layout)
    for style, other in zip(styles, again, strict=True):
        np.testing.assert_array_equal(style, other)
    with pytest.raises(ValueError, match="channels in all"):
        spaces.unflatten_styles(flat[:, :-1], tiny.GENERATOR.style_layout)


def test_truncation_cutoff_leaves_later_rows() -> None:
    w_plus, w_avg = tiny.w_plus(2), jnp.arange(12.0)
    truncated = spaces.truncate(w_plus, w_avg, 0.0, cutoff=2)
    np.testing.assert_allclose(truncated[:, :2], jnp.broadcast_to(w_avg, (2, 2, 12)))
    np.testing.assert_array_equal(truncated[:, 2:], w_plus[:, 2:])
    np.testing.assert_allclose(spaces.truncate(w_plus, w_avg, 1.0), w_plus, atol=1e-5)


def test_number_of_rows() -> None:
    assert [spaces.num_rows(r) for r in (16, 64, 256, 512, 1024)] == [6, 10, 14, 16, 18]


def test_latents_of_seeds_do_not_depend_on_those_beside_them() -> None:
    # Of an odd number of normal values the generator keeps one for the next call.
    seeds = (7, 7, 2**32 - 1, 0)
    expected = [np.random.RandomState(seed).randn(5) for seed in seeds]
    found = latents.seeded_batch(seeds, 5)
    np.testing.assert_array_equal(found, np.array(expected, np.float32))
    np.testing.assert_array_equal(latents.seeded_z(7, 5), found[0])
