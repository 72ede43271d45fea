"""Perceptual path length: how much images change along a path through latents."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from styleclip_jax import spaces
from styleclip_jax.models import generators
from styleclip_jax.models.generators import Generator, GeneratorConfig
from styleclip_jax.models.network import Network
from styleclip_jax.settings.measures import PathLengthConfig

# Images in [0, 255] to features whose squared distance is that of the images.
Features = Callable[[spaces.Image], spaces.Feature]
Label = Float[Array, "batch classes"]
Noise = Float[Array, "height width"]


class Draws(NamedTuple):
    """Random draws of a batch of paths.

    Attributes:
      start, end: [B, z_dim] latents z at the ends of the paths.
      position: [B] in [0, 1) place of each step in its path; used by sampling full.
      noise: [r, r] noise of each convolution by its name, such as "b8/conv0": one for
        the whole batch.
    """

    start: spaces.Z
    end: spaces.Z
    position: spaces.PerExample
    noise: dict[str, Noise]


def draw(key: jax.Array, config: GeneratorConfig, *, batch_size: int) -> Draws:
    """Draws of a batch of paths from a PRNG key: z and noise normal, places uniform."""
    start, end, position, noise = jax.random.split(key, 4)
    shape = (batch_size, config.z_dim)
    shapes = config.noise_shapes
    keys = jax.random.split(noise, len(shapes))
    return Draws(
        jax.random.normal(start, shape),
        jax.random.normal(end, shape),
        jax.random.uniform(position, (batch_size,)),
        {
            name: jax.random.normal(key, shape)
            for key, (name, shape) in zip(keys, shapes.items(), strict=True)
        },
    )


def path_length_distances(
    generator: Generator,
    features: Features,
    draws: Draws,
    label: Label | None = None,
    *,
    config: PathLengthConfig | None = None,
) -> spaces.PerExample:
    """Squared perceptual distance of a small step over its squared length, [B].

    Both ends of a step are images of the same noise, without truncation. They are
    computed in float32, whatever the generator's type and precision: at the official
    step of 1e-4 rounding of float32 shows by up to 0.3 %.

    Args:
      generator: the generator.
      features: function of images [2 B, h, w, 3] in [0, 255], not clipped, that gives
        [2 B, n]; LPIPS officially.
      draws: random draws.
      label: [B, c_dim] classes of a class-conditional generator.
      config: settings; those of official ppl2_wend if absent.

    Source: Karras et al. 2019, section 4.1, and 2020, appendix D (noise);
    perceptual_path_length.py of stylegan2-ada-pytorch.
    """
    config = PathLengthConfig() if config is None else config
    generator = _prepare(generator, draws.noise)
    # Both ends side by side, which stay on one device.
    w = jnp.stack(_steps(generator, draws, label, config), axis=1)
    w_plus = spaces.broadcast_w(w.reshape(-1, w.shape[-1]), generator.config.num_rows)
    seen = features(_show(generators.synthesize(generator, w_plus), config))
    before, after = jnp.unstack(seen.reshape(len(w), 2, -1), axis=1)
    return jnp.sum(jnp.square(before - after), axis=1) / config.epsilon**2


def filtered_mean(distance: np.ndarray) -> float:
    """Path length: mean of the distances [N] without the extremes.

    Those below the 1st percentile, rounded down to one of them, and above the 99th,
    rounded up, are left out.

    Raises:
      ValueError: there are none, or some are not finite.
    """
    distance = np.asarray(distance, np.float64)
    if not distance.size or not np.isfinite(distance).all():
        raise ValueError("expected finite distances, found none or some that are not")
    low = np.percentile(distance, 1, method="lower")
    high = np.percentile(distance, 99, method="higher")
    return float(distance[(distance >= low) & (distance <= high)].mean())


def _prepare(generator: Generator, noise: dict[str, Any]) -> Generator:
    """Generator in exact float32 with other noise stored."""
    exact = generator.config.replace(
        dtype="float32", low_precision_from=None, precision="highest"
    )
    return generators.with_noise(Network(generator.params, exact), noise)


def _steps(
    generator: Generator, draws: Draws, label: Any, config: PathLengthConfig
) -> list[spaces.W]:
    """w at both ends of each step, two of [B, w_dim]."""

    def to_w(z: jax.Array) -> jax.Array:
        return generators.map_latents(generator, z, label)

    start = jnp.where(config.sampling == "full", draws.position, 0)
    places = [x[:, None] for x in (start, start + config.epsilon)]
    if config.space == "z":
        return [to_w(_slerp(draws.start, draws.end, t)) for t in places]
    first, last = to_w(draws.start), to_w(draws.end)
    return [first + (last - first) * t for t in places]


def _slerp(a: jax.Array, b: jax.Array, t: jax.Array) -> jax.Array:
    """Unit vector at t of the arc from the direction of a to that of b."""
    a, b = (x / jnp.linalg.norm(x, axis=-1, keepdims=True) for x in (a, b))
    cosine = jnp.sum(a * b, axis=-1, keepdims=True)
    angle = t * jnp.arccos(cosine)
    across = b - cosine * a
    across /= jnp.linalg.norm(across, axis=-1, keepdims=True)
    return a * jnp.cos(angle) + across * jnp.sin(angle)


def _show(image: spaces.Image, config: PathLengthConfig) -> spaces.Image:
    """Images as the features see them: cut, averaged down, and in [0, 255]."""
    size = image.shape[1]
    # Parity: the number of pixels averaged is that of the image before the cut.
    factor = max(1, size // config.largest)
    if config.crop:
        high, wide = (n // 8 for n in image.shape[1:3])
        image = image[:, 3 * high : 7 * high, 2 * wide : 6 * wide]
    if factor > 1:
        batch, height, width, colors = image.shape
        shape = (batch, height // factor, factor, width // factor, factor, colors)
        image = image.reshape(shape).mean(axis=(2, 4))
    return (image + 1) * 127.5
