"""Randomly initialised networks, as small as they can be and keep every part."""

import functools

import jax
import jax.numpy as jnp

from styleclip_jax.models import clip, stylegan2
from styleclip_jax.models.network import Network

GENERATOR = stylegan2.GeneratorConfig(
    resolution=16, z_dim=8, w_dim=12, channels=(10, 8, 6), num_mapping_layers=2
)
CLIP = clip.ClipConfig(
    image_size=8,
    patch_size=4,
    vision_width=16,
    vision_layers=1,
    vision_heads=2,
    vision_mlp_width=16,
    vocab_size=514 + 100,
    context_length=12,
    eos_token_id=514 + 99,
    text_width=16,
    text_layers=1,
    text_heads=2,
    text_mlp_width=16,
    embed_dim=8,
)


@functools.cache
def generator(config: stylegan2.GeneratorConfig = GENERATOR) -> Network:
    """A generator whose noise and average latent matter."""
    params = stylegan2.init(jax.random.key(1), config)

    def perturb(path: tuple, leaf: jax.Array) -> jax.Array:
        name = path[-1].key
        if name in ("noise_strength", "w_avg", "bias"):
            seed = hash_of(jax.tree_util.keystr(path))
            return leaf + 0.2 * jax.random.normal(jax.random.key(seed), leaf.shape)
        return leaf

    return Network(jax.tree_util.tree_map_with_path(perturb, params), config)


@functools.cache
def clip_network(config: clip.ClipConfig = CLIP) -> Network:
    """A CLIP with weights large enough that its features differ."""
    params = clip.init(jax.random.key(2), config)
    return Network(jax.tree.map(lambda x: 4 * x if x.ndim > 1 else x, params), config)


def text_features(count: int, config: clip.ClipConfig = CLIP) -> jax.Array:
    """Normalised random text features [count, E]."""
    return clip.normalize(
        jax.random.normal(jax.random.key(3), (count, config.embed_dim))
    )


def w_plus(count: int, config: stylegan2.GeneratorConfig = GENERATOR) -> jax.Array:
    """Random W+ latents [count, L, D]."""
    shape = (count, config.num_rows, config.w_dim)
    return jax.random.normal(jax.random.key(4), shape)


def image(count: int, size: int) -> jax.Array:
    """Random images [count, size, size, 3] inside [-1, 1]."""
    shape = (count, size, size, 3)
    return jnp.tanh(jax.random.normal(jax.random.key(5), shape))


def hash_of(text: str) -> int:
    """A number of a text, the same in every process."""
    return sum((i + 1) * ord(c) for i, c in enumerate(text))
