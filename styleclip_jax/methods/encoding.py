"""Encoding of photos: one pass of an encoder, or ReStyle's refinement in several.

ReStyle (Alaluf et al. 2021) looks at what it has: with E the encoder, G the generator
and m the average latent,

  w₀ = m,   w_{t+1} = w_t + E(photo, G(w_t)).
"""

import functools
import itertools
from collections.abc import Iterator

import jax
import numpy as np

from styleclip_jax import spaces
from styleclip_jax.models import e4e, generators
from styleclip_jax.ops import resampling

_encode = jax.jit(e4e.encode)
_refine = jax.jit(e4e.refine)


def encode(
    generator: generators.Generator,
    encoder: e4e.Encoder,
    photo: spaces.Image,
    *,
    iterations: int | None = None,
) -> spaces.WPlus:
    """Latents [B, L, D] of photos.

    Args:
      generator: the generator that the latents are for.
      encoder: the encoder.
      photo: [B, *input_shape, 3] in [-1, 1].
      iterations: number of passes; that of the encoder's configuration if absent.

    Raises:
      ValueError: the photos do not fit the encoder, or there is no such number.
    """
    count = encoder.config.iterations if iterations is None else iterations
    if count < 1 or (count > 1 and not encoder.config.refines):
        raise ValueError(f"iterations: found {count}, which this encoder cannot take")
    passes = refinements(generator, encoder, photo)
    return next(itertools.islice(passes, count - 1, None))


def refinements(
    generator: generators.Generator, encoder: e4e.Encoder, photo: spaces.Image
) -> Iterator[spaces.WPlus]:
    """Latents [B, L, D] of photos after one pass, two, …; see `encode`.

    An encoder that does not refine takes one.
    """
    if not encoder.config.refines:
        yield _encode(encoder, photo)
        return
    w_plus = e4e.average(encoder)[None]
    while True:
        image = look(generator, w_plus, encoder.config.input_shape)
        w_plus = _refine(encoder, photo, image, w_plus)
        yield w_plus


@functools.partial(jax.jit, static_argnames="shape")
def look(
    generator: generators.Generator, w_plus: spaces.WPlus, shape: tuple[int, int]
) -> spaces.Image:
    """Images [B, height, width, 3] of latents, of the shape that an encoder sees.

    Of images that are higher the rows in the middle count: the others are the bars
    above and below the pictures that a generator of squares learned from, such as cars.

    Source: `run_on_batch` and `face_pool` of restyle-encoder.
    """
    image = generators.synthesize(generator, w_plus)
    height, width = image.shape[1:3]
    shown = min(height, width * shape[0] // shape[1])
    bar = (height - shown) // 2
    rows = resampling.pool_matrix(shown, shape[0]).astype(np.float32)
    columns = resampling.pool_matrix(width, shape[1]).astype(np.float32)
    precision = generator.config.precision
    return resampling.resize(image[:, bar : bar + shown], rows, columns, precision)
