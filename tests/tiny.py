"""Randomly initialised networks, as small as they can be and keep every part."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from styleclip_jax.io import checkpoints, clip_files
from styleclip_jax.methods import delta, mapper
from styleclip_jax.models import (
    bpe,
    clip,
    discriminator,
    e4e,
    generators,
    inception,
    irse50,
    param_trees,
    stylegan2,
    stylegan3,
    vgg16,
)
from styleclip_jax.models.network import Network
from styleclip_jax.ops import norms

GENERATOR = stylegan2.GeneratorConfig(
    resolution=8, z_dim=8, w_dim=12, channels=(10, 8), num_mapping_layers=2
)
# Of images of 8×4, as StyleGAN-Human's are of 1024×512.
TALL = dataclasses.replace(GENERATOR, base=(4, 2))
STYLEGAN3 = stylegan3.GeneratorConfig(
    resolution=16,
    z_dim=8,
    w_dim=12,
    channels=(6, 5, 4),
    radial=True,
    kernel_size=3,
)
# From 256² on, convolutions and their gradients have other forms.
GENERATOR_256 = stylegan2.GeneratorConfig(
    resolution=256,
    z_dim=8,
    w_dim=8,
    num_mapping_layers=1,
    channels=(8, 8, 8, 8, 8, 8, 4),
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
# With images of 32², and a vocabulary of the first NUM_MERGES merges of OpenAI's.
NUM_MERGES = 500
CLIP_32 = clip.ClipConfig(
    image_size=32,
    patch_size=16,
    vision_width=16,
    vision_layers=1,
    vision_heads=2,
    vision_mlp_width=32,
    vocab_size=bpe.NUM_TOKENS_BESIDE_MERGES + NUM_MERGES,
    context_length=16,
    eos_token_id=bpe.NUM_TOKENS_BESIDE_MERGES + NUM_MERGES - 1,
    text_width=16,
    text_layers=1,
    text_heads=2,
    text_mlp_width=32,
    embed_dim=8,
)
# The image has a border that no patch sees.
SIGLIP = clip.SiglipConfig(
    image_size=9,
    patch_size=4,
    vision_width=16,
    vision_layers=1,
    vision_heads=2,
    vision_mlp_width=16,
    vocab_size=20,
    context_length=6,
    text_width=8,
    text_layers=1,
    text_heads=2,
    text_mlp_width=16,
)
RESNET_CLIP = clip.ResnetClipConfig(
    image_size=32,
    vision_width=2,
    vision_layers=(1, 1, 1, 1),
    vision_heads=2,
    vocab_size=CLIP.vocab_size,
    context_length=12,
    eos_token_id=CLIP.eos_token_id,
    text_width=16,
    text_layers=1,
    text_heads=2,
    text_mlp_width=16,
    embed_dim=8,
)
IDENTITY = irse50.IrseConfig(
    num_blocks=(1, 1), widths=(6, 8), embed_dim=5, input_size=12, reduction=3
)
VGG16 = vgg16.Vgg16Config(widths=(8, 8, 8, 8, 8), dense=(8, 9))
INCEPTION = inception.InceptionConfig(width=2, num_classes=5)
# For the generator above.
ENCODER = e4e.E4eConfig(
    num_blocks=(1, 1, 1),
    widths=(6, 8, 10),
    reduction=3,
    w_dim=GENERATOR.w_dim,
    num_rows=GENERATOR.num_rows,
    input_size=16,
)
# One that sees its latent's image, too.
RESTYLE = dataclasses.replace(ENCODER, pyramid=False, in_channels=6, iterations=2)
_synthesize = jax.jit(generators.synthesize)


@functools.cache
def discriminator_network() -> Network:
    """A discriminator of 8², in whose batches no image depends on another."""
    config = discriminator.DiscriminatorConfig(8, (10, 8), group_size=1)
    init = jax.jit(discriminator.init, static_argnums=1)
    return Network(init(jax.random.key(0), config), config)


@functools.cache
def generator(config: generators.GeneratorConfig = GENERATOR) -> Network:
    """A generator whose noise and average latent matter.

    Drawn by numpy: compiling the official initialisation takes half a minute.
    """

    def draw(name: str, shape: tuple[int, ...], normal: np.ndarray) -> np.ndarray:
        if name.startswith("mapping/fc") and name.endswith("kernel"):
            return 100 * normal
        if name.endswith("affine/bias"):
            return 1 + 0.2 * normal
        if name.endswith("magnitude_ema"):
            return 1 + 0.2 * np.abs(normal)
        if name.endswith("transform"):
            return np.eye(3)
        small = ("bias", "noise_strength", "w_avg")
        return 0.2 * normal if name.endswith(small) else normal

    return Network(_draw(generators.param_shapes(config), draw), config)


@functools.cache
def clip_network(config: Any = CLIP) -> Network:
    """A CLIP with weights large enough that its features differ."""

    def draw(name: str, shape: tuple[int, ...], normal: np.ndarray) -> np.ndarray:
        if name == "logit_scale":
            return np.full(shape, np.log(100.0))
        if name.endswith(("scale", "var")):
            return 1 + 0.1 * normal
        fan_in = int(np.prod(shape[:-1]))
        return normal / fan_in**0.5 if name.endswith("kernel") else 0.2 * normal

    return Network(_draw(clip.param_shapes(config), draw), config)


@functools.cache
def identity_network(config: irse50.IrseConfig = IDENTITY) -> Network:
    """A face network whose statistics matter."""
    return Network(_uniform(irse50.param_shapes(config), 0.5), config)


@functools.cache
def vgg16_network(config: vgg16.Vgg16Config = VGG16) -> Network:
    """A VGG16 with all parts."""
    return Network(_uniform(vgg16.param_shapes(config), 0.5), config)


@functools.cache
def inception_network(config: inception.InceptionConfig = INCEPTION) -> Network:
    """An Inception-v3 whose statistics matter."""
    return Network(_uniform(inception.param_shapes(config), 0.5), config)


@functools.cache
def encoder(config: e4e.E4eConfig = ENCODER, scale: float = 0.5) -> Network:
    """An encoder of photos whose average latent matters."""
    return Network(_uniform(e4e.param_shapes(config), scale), config)


def write(folder: pathlib.Path, kind: str, network: Network) -> str:
    """Writes the model directory of a network, and returns its path."""
    params, config = network.params, network.config
    checkpoints.save_network(folder, kind=kind, params=params, config=config, source={})
    return str(folder)


def save(
    folder: pathlib.Path,
    clip_network: clip.Clip,
    config: stylegan2.GeneratorConfig = GENERATOR,
) -> dict[str, str]:
    """Writes a generator and a CLIP with a tokenizer; the flags that name them."""
    network = generator(config)
    checkpoints.save_network(
        folder / "generator",
        kind="stylegan2",
        params=network.params,
        config=network.config,
        source={"note": "random"},
    )
    clip_files.save(clip_network, folder / "clip")
    bpe.write(bpe.OPENAI_MERGES, folder / "clip", 100)
    return {name: str(folder / name) for name in ("generator", "clip")}


def mapper_network(config: mapper.MapperConfig) -> Network:
    """A mapper whose biases matter."""
    shapes = mapper.param_shapes(config)
    return Network(_draw(shapes, lambda name, shape, normal: 100 * normal), config)


def delta_network(config: delta.DeltaConfig) -> Network:
    """A delta network whose steps are not zero."""

    def draw(name: str, shape: tuple[int, ...], normal: np.ndarray) -> np.ndarray:
        if name == "std":
            return 1 + 0.1 * normal
        return normal / shape[0] ** 0.5 if name.endswith("kernel") else 0.3 * normal

    return Network(_draw(delta.param_shapes(config), draw), config)


def _draw(
    shapes: Mapping[str, tuple[int, ...]],
    draw: Callable[[str, tuple[int, ...], np.ndarray], np.ndarray],
) -> dict[str, Any]:
    random = np.random.RandomState(0)
    flat = {
        name: draw(name, shape, random.randn(*shape))
        for name, shape in sorted(shapes.items())
    }
    return _on_device(flat)


def _uniform(shapes: Mapping[str, tuple[int, ...]], scale: float) -> dict[str, Any]:
    """Kernels of both signs, all else positive, as variances are."""
    random = np.random.default_rng(0)
    flat = {
        name: random.uniform(-scale if name.endswith("kernel") else 0.1, scale, shape)
        for name, shape in shapes.items()
    }
    return _on_device(flat)


def _on_device(flat: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Parameters in float32, without a program for each shape, as jnp.asarray has."""
    return jax.device_put(param_trees.unflatten(jax.tree.map(np.float32, dict(flat))))


def normal(seed: int, *shape: int) -> jax.Array:
    """Normally distributed numbers, by numpy: jax compiles each shape for a second."""
    random = np.random.default_rng(seed)
    return jax.device_put(random.standard_normal(shape, np.float32))


def text_features(count: int, config: clip.ClipConfig = CLIP) -> jax.Array:
    """Normalised random text features [count, E]."""
    return norms.unit(normal(3, count, config.embed_dim))


def w_plus(count: int, config: generators.GeneratorConfig = GENERATOR) -> jax.Array:
    """Random W+ latents [count, L, D]."""
    return normal(4, count, config.num_rows, config.w_dim)


def render(latent: jax.Array) -> jax.Array:
    """Images of W+ latents by the generator."""
    return _synthesize(generator(), latent)


def image(count: int, size: int) -> jax.Array:
    """Random images [count, size, size, 3] inside [-1, 1]."""
    return jnp.tanh(normal(5, count, size, size, 3))
