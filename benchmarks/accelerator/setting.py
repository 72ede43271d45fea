"""Setting of the measurements on an accelerator: sizes, random networks, rates."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import limit
from benchmarks.accelerator import cards
from styleclip_jax import losses
from styleclip_jax.methods import mapper
from styleclip_jax.models import clip, irse50, param_trees, stylegan2
from styleclip_jax.models.network import Network
from styleclip_jax.ops import norms

EXACT = "highest"
# Name and fields of each way to compute a network, the most telling ones first.
WAYS: dict[str, dict[str, Any]] = {
    EXACT: {},
    "high": {"precision": "high"},
    "bfloat16": {"dtype": "bfloat16"},
    "bfloat16 above": {"dtype": "bfloat16", "low_precision_from": None},
    "default": {"precision": "default"},
}
# Resolutions that "bfloat16 above" lowers, from the highest: as many as NVIDIA does.
_LOWERED = 4


class Size(NamedTuple):
    """Size of everything.

    Attributes:
      generator, clip, identity: configurations of the networks.
      matrix: width of the matrices of the products.
      copied: numbers that the copy moves.
      batches: examples at a time, in the order to measure.
      step_batches: the same for steps of an optimization.
      resolutions: results of the upsampling layers.
      edits: number of edits of the embedded generator.
      large_edits: number of edits of the large one.
      ways: ways to compute, of WAYS.
      gradient_ways: those of all but images, which compile for longer.
      golden: number of golden results to compare.
      faces: number of faces to compare in levels of 8 bits.
      bits: configuration of the generator whose bits are compared.
    """

    generator: stylegan2.GeneratorConfig
    clip: clip.ClipConfig
    identity: irse50.IrseConfig
    matrix: int
    copied: int
    batches: tuple[int, ...]
    step_batches: tuple[int, ...]
    resolutions: tuple[int, ...]
    edits: int
    large_edits: int
    ways: tuple[str, ...]
    gradient_ways: tuple[str, ...]
    golden: int
    faces: int
    bits: stylegan2.GeneratorConfig


FULL = Size(
    generator=stylegan2.GeneratorConfig(),
    clip=clip.ClipConfig(),
    identity=irse50.IrseConfig(),
    matrix=8192,
    copied=2**29,
    batches=(1, 8, 32),
    step_batches=(1, 8, 16),
    resolutions=(64, 256, 1024),
    edits=2000,
    large_edits=64,
    ways=tuple(WAYS),
    gradient_ways=(EXACT, "high", "bfloat16"),
    golden=6,
    faces=16,
    bits=limit.config_f(256),
)
_TOY_GENERATOR = stylegan2.GeneratorConfig(
    resolution=8, z_dim=8, w_dim=8, channels=(8, 8), num_mapping_layers=1
)
TOY = Size(
    generator=_TOY_GENERATOR,
    clip=clip.ClipConfig(
        image_size=16,
        patch_size=8,
        vision_width=16,
        vision_layers=1,
        vision_heads=2,
        vision_mlp_width=16,
        embed_dim=8,
    ),
    identity=irse50.IrseConfig(
        num_blocks=(1, 1), widths=(6, 8), embed_dim=5, input_size=12, reduction=3
    ),
    matrix=64,
    copied=2**12,
    batches=(1,),
    step_batches=(1,),
    resolutions=(8,),
    edits=4,
    large_edits=2,
    ways=(EXACT, "bfloat16"),
    gradient_ways=(EXACT,),
    golden=1,
    faces=2,
    bits=_TOY_GENERATOR,
)


def ways(names: Sequence[str], config: Any) -> dict[str, Any]:
    """Configurations of a network by the ways to compute it, those that it has."""
    known = {field.name for field in dataclasses.fields(config)}
    found = {}
    for name in names:
        fields = WAYS[name]
        if fields.keys() <= known:
            if "low_precision_from" in fields:
                fields = fields | {
                    "low_precision_from": max(4, config.resolution >> (_LOWERED - 1))
                }
            found[name] = dataclasses.replace(config, **fields)
    return found


def product(way: str) -> str:
    """Kind of the products of a way to compute, as cards know their rates."""
    return way.split()[0]


class World:
    """Networks with random weights on the device, and what is known of it.

    Attributes:
      size: size of everything.
      measured: rates that were measured: operations per second by kind of product.
      bandwidth: bytes per second that a copy has reached, None before it is measured.
    """

    def __init__(self, size: Size) -> None:
        self.size = size
        self.measured: dict[str, float] = {}
        self.bandwidth: float | None = None

    @functools.cached_property
    def generator(self) -> Network:
        return _random_network(stylegan2, self.size.generator, _generator_numbers)

    @functools.cached_property
    def clip(self) -> Network:
        """CLIP that looks at images alone."""
        return _random_network(clip, self.size.clip, _numbers, without="text")

    @functools.cached_property
    def mapper(self) -> Network:
        config = mapper.of_generator(self.size.generator)
        return _random_network(mapper, config, _equalized_numbers)

    @functools.cached_property
    def identity(self) -> Network:
        return _random_network(irse50, self.size.identity, _numbers)

    def networks(
        self, config: stylegan2.GeneratorConfig, *, identity: bool = False
    ) -> losses.Networks:
        """Networks of a loss, the generator computed in a way of one's choice."""
        return losses.Networks(
            self.generator.replace(config=config),
            self.clip,
            self.identity if identity else None,
        )

    def w_plus(self, count: int) -> jax.Array:
        """Latents [B, L, D]; those of a larger batch begin with a smaller one's."""
        config = self.size.generator
        most = max(*self.size.batches, *self.size.step_batches, count)
        shape = (most, config.num_rows, config.w_dim)
        return jax.random.normal(jax.random.key(1), shape)[:count]

    @functools.cached_property
    def text(self) -> jax.Array:
        """Feature [E] of a text."""
        return norms.unit(
            jax.random.normal(jax.random.key(2), (self.size.clip.embed_dim,))
        )

    @functools.cached_property
    def _card(self) -> cards.Rates | None:
        return cards.RATES.get(jax.local_devices()[0].device_kind)

    def rate(self, kind: str) -> float | None:
        """Operations per second of a kind of product: published, or else measured."""
        return (self._card.products if self._card else self.measured).get(kind)

    def bytes_per_second(self) -> float | None:
        """Bandwidth of the memory: published, or else measured."""
        return self._card.bandwidth if self._card else self.bandwidth

    def of_rate(self, values: dict[str, Any], kind: str) -> dict[str, float]:
        """Share of the rate that a measurement reaches; empty if it is not known."""
        rate = self.rate(kind)
        if not rate or not values["operations"]:
            return {}
        return {"of_rate": values["operations"] / values["seconds"] / rate}


def _random_network(
    module: Any,
    config: Any,
    numbers: Callable[[str, tuple[int, ...], jax.Array], jax.Array],
    without: str | None = None,
) -> Network:
    """A network drawn on the device by one small program."""
    shapes = {
        name: shape
        for name, shape in module.param_shapes(config).items()
        if without is None or not name.startswith(without)
    }
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes.values()])

    @jax.jit
    def draw(key: jax.Array) -> dict[str, jax.Array]:
        normal = jax.random.normal(key, (int(ends[-1]),))
        parts = jnp.split(normal, ends[:-1])
        return {
            name: numbers(name, shape, part.reshape(shape))
            for (name, shape), part in zip(shapes.items(), parts, strict=True)
        }

    return Network(param_trees.unflatten(draw(jax.random.key(0))), config)


def _equalized_numbers(
    name: str, shape: tuple[int, ...], normal: jax.Array
) -> jax.Array:
    """Numbers of layers that have their learning rate, a hundredth, as a factor."""
    return 100 * normal


def _generator_numbers(
    name: str, shape: tuple[int, ...], normal: jax.Array
) -> jax.Array:
    """Numbers as of a trained generator: noise and biases have a part in the image."""
    if name.startswith("mapping/fc") and name.endswith("kernel"):
        return _equalized_numbers(name, shape, normal)
    if name.endswith("affine/bias"):
        return 1 + 0.2 * normal
    small = name.endswith(("bias", "noise_strength", "w_avg"))
    return 0.2 * normal if small else normal


def _numbers(name: str, shape: tuple[int, ...], normal: jax.Array) -> jax.Array:
    """Numbers that keep the size of what goes through."""
    if name.endswith(("scale", "var")):
        return 1 + 0.1 * normal
    if name.endswith("kernel"):
        return normal / np.sqrt(np.prod(shape[:-1]))
    return 0.2 * normal
