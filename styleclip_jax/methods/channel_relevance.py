"""Relevance of channels: where in CLIP's space each channel of S moves the images.

With E(s) the normalised CLIP feature of the image of styles s, a channel c has

  Δi_c = unit(mean_n unit(d_nc)),   unit(x) = x / |x|,

over samples s_n, where d_nc is what c does to sample n. Exactly (paper, section 6),

  d_nc = E(s_n with s_nc = μ_c + kσ_c) − E(s_n with s_nc = μ_c − kσ_c),

at two images per channel and sample. To first order d_nc is a multiple of ∂E/∂s_nc,
which one vector-Jacobian product gives for all channels and one direction of CLIP's
space at once. Directions are made of relevance in `global_directions`.
"""

import functools
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from styleclip_jax import losses, spaces
from styleclip_jax.models import clip, clip_input, generators
from styleclip_jax.ops import norms, pixels, products
from styleclip_jax.settings.measures import RelevanceConfig


class Statistics(NamedTuple):
    """Mean and spread of every channel of S, gathered batch by batch.

    Attributes:
      seen: [] number of samples.
      mean: [S] flat.
      squares: [S] sum of squared distances to the mean.
    """

    seen: jax.Array
    mean: jax.Array
    squares: jax.Array

    @property
    def std(self) -> jax.Array:
        """[S] population standard deviation."""
        return jnp.sqrt(self.squares / self.seen)


@flax.struct.dataclass
class Pullback:
    """Derivative of the features E of samples, as passes back from it.

    Attributes:
      pull: ([B, E] cotangent) → a tuple of one cotangent of the styles.
      count: number of samples, B.
    """

    pull: Any
    count: int = flax.struct.field(pytree_node=False)


def no_statistics(num_channels: int) -> Statistics:
    """Statistics of no samples."""
    zeros = jnp.zeros(num_channels, jnp.float32)
    return Statistics(jnp.zeros((), jnp.float32), zeros, zeros)


def update_statistics(
    statistics: Statistics, flat: jax.Array, weight: jax.Array
) -> Statistics:
    """Statistics with one more batch (Chan et al. 1979).

    With n samples so far and m new ones, whose mean is δ away,

      mean ← mean + δ·m/(n + m),   squares ← squares + squares_new + δ²·n·m/(n + m).

    Args:
      statistics: so far.
      flat: [B, S] flat style vectors.
      weight: [B], 1 for samples and 0 for padding.
    """
    n, m = statistics.seen, jnp.sum(weight)
    total_of = functools.partial(jnp.matmul, weight, precision=products.EXACT)
    mean = total_of(flat) / jnp.maximum(m, 1)
    squares = total_of(jnp.square(flat - mean))
    delta = mean - statistics.mean
    total = jnp.maximum(n + m, 1)
    return Statistics(
        n + m,
        statistics.mean + delta * (m / total),
        statistics.squares + squares + delta**2 * (n * m / total),
    )


class Prepared(NamedTuple):
    """Samples up to the layer whose channels are measured.

    Attributes:
      styles: tuple of [B, C], earlier layers at their mean if they stay there.
      activations: those after the layers before; None at the first layer.
    """

    styles: spaces.Styles
    activations: generators.Activations | None


def prepare(
    networks: losses.Networks,
    styles: spaces.Styles,
    mean: jax.Array,
    *,
    layer: int,
    layers: tuple[int, ...],
    config: RelevanceConfig,
) -> Prepared:
    """Samples up to a layer: what all its channels share, computed once.

    Args:
      networks: the generator is used.
      styles: tuple of [B, C], the samples.
      mean: [S] of every channel.
      layer: index of the layer in the layout.
      layers: indices of all layers that are measured, in order.
      config: settings of the measurement.
    """
    generator = networks.generator
    means = spaces.unflatten_styles(mean, generator.config.style_layout)
    # Parity: see `restore`.
    stay = () if config.restore else [i for i in layers if i < layer]
    styles = tuple(
        jnp.broadcast_to(means[i], style.shape) if i in stay else style
        for i, style in enumerate(styles)
    )
    if layer == 0:
        return Prepared(styles, None)
    activations = generators.synthesize_layers(generator, styles, stop=layer)
    return Prepared(styles, activations)


def channel_features(
    networks: losses.Networks,
    prepared: Prepared,
    mean: jax.Array,
    std: jax.Array,
    channels: jax.Array,
    *,
    layer: int,
    config: RelevanceConfig,
) -> jax.Array:
    """CLIP features of samples with one channel at either end.

    Args:
      networks: generator and CLIP.
      prepared: the samples before the layer; with no activations, everything is
        computed from the start.
      mean: [S] of every channel.
      std: [S] of every channel.
      channels: [K] integers, channels of the layer.
      layer: index of the layer in the layout.
      config: settings of the measurement.

    Returns:
      [K, B, 2, E] features, not normalised; first that of mean − strength · std.

    Source: global_torch/SingleChannel.py.
    """
    generator = networks.generator
    layout = generator.config.style_layout
    means, stds = (spaces.unflatten_styles(jnp.asarray(x), layout) for x in (mean, std))
    styles, activations = prepared
    own, count = styles[layer], len(styles[layer])
    both = jax.tree.map(lambda x: jnp.concatenate([x, x]), prepared)

    def of_channel(channel: jax.Array) -> jax.Array:
        base = own
        if not config.restore:
            done = jnp.arange(own.shape[1]) < channel
            base = jnp.where(done, means[layer], own)
        shift = config.strength * stds[layer][channel]
        ends = jnp.concatenate(
            [
                base.at[:, channel].set(means[layer][channel] + sign * shift)
                for sign in (-1, 1)
            ]
        )
        made = generators.synthesize_layers(
            generator,
            (*both.styles[:layer], ends, *both.styles[layer + 1 :]),
            both.activations,
            start=0 if activations is None else layer,
            stop=last_layer(layout, layer, config.clip_resolution),
        )
        assert made.rgb is not None
        image = generator.config.show(made.rgb)
        feature = _encode(networks.clip, image, config.rounding)
        return jnp.moveaxis(feature.reshape(2, count, -1), 0, 1)

    return jax.vmap(of_channel)(channels)


def last_layer(
    layout: tuple[spaces.StyleLayer, ...], layer: int, clip_resolution: int
) -> int | None:
    """Index after the toRGB layer whose image CLIP sees; None for the whole image."""
    if not clip_resolution:
        return None
    size = max(clip_resolution, layout[layer].resolution)
    images = [i for i, x in enumerate(layout) if x.is_torgb and x.resolution <= size]
    return 1 + images[-1] if images else None


def differences(features: jax.Array) -> jax.Array:
    """Unit vectors [..., E] from the first to the second of features [..., 2, E].

    A channel that does nothing gives zeros (the official code divides by zero).
    """
    ends = norms.unit_by_rsqrt(features)
    return norms.unit_by_rsqrt(ends[..., 1, :] - ends[..., 0, :])


def combine(differences: jax.Array) -> jax.Array:
    """Relevance [C, E] of unit differences [C, N, E] of N samples.

    Source: `GetFs` of the official code.
    """
    return norms.unit_by_rsqrt(jnp.mean(differences, axis=-2))


def jacobian_rows(
    networks: losses.Networks, styles: spaces.Styles, basis: jax.Array
) -> jax.Array:
    """Derivatives of E(s) along some directions, for all channels: K backward passes.

    Args:
      networks: generator and CLIP.
      styles: tuple of [B, C].
      basis: [K, E] directions of CLIP's space, such as one text direction.

    Returns:
      [B, S, K]: ⟨basis_k, ∂E(s)/∂s_c⟩.
    """
    return pull_rows(pullback(networks, styles), basis)


def pullback(networks: losses.Networks, styles: spaces.Styles) -> Pullback:
    """Derivative of E at styles, tuple of [B, C], ready for passes back from it.

    It is a pytree of what the passes share, so that `jit` returns it and takes it.
    """
    _, pull = jax.vjp(lambda s: _image_feature(networks, s), styles)
    return Pullback(pull, len(styles[0]))


def pull_rows(pullback: Pullback, basis: jax.Array) -> jax.Array:
    """`jacobian_rows` of a derivative: [B, S, K] of directions [K, E]."""

    def row(direction: jax.Array) -> jax.Array:
        # Samples do not touch each other: one pass serves all of them.
        shape = (pullback.count, len(direction))
        (gradient,) = pullback.pull(jnp.broadcast_to(direction, shape))
        return spaces.flatten_styles(gradient)

    return jax.vmap(row, out_axes=-1)(basis)


def jacobian_columns(
    networks: losses.Networks, styles: spaces.Styles, channels: jax.Array
) -> jax.Array:
    """Derivatives of E(s) by some channels, all coordinates: K forward passes.

    Args:
      networks: generator and CLIP.
      styles: tuple of [B, C].
      channels: [K] flat indices into S.

    Returns:
      [B, K, E]: ∂E(s)/∂s_c.
    """
    layout = networks.generator.config.style_layout
    flat = spaces.flatten_styles(styles)
    _, push = jax.linearize(
        lambda x: _image_feature(networks, spaces.unflatten_styles(x, layout)), flat
    )

    def column(channel: jax.Array) -> jax.Array:
        return push(jnp.zeros_like(flat).at[:, channel].set(1))

    return jax.vmap(column, out_axes=1)(channels)


def probe_basis(text: jax.Array, key: jax.Array, num_probes: int) -> jax.Array:
    """Basis whose coordinates tell how far a vector points along one direction.

    How far d points along t is ⟨t, d⟩ / |d|. The first needs one row of the Jacobian,
    the length all E. But of the part of d across t, K random orthogonal directions v_k
    catch K/(E − 1) of the squared length on average:

      |d|² ≈ ⟨t, d⟩² + (E − 1)/K · Σ_k ⟨v_k, d⟩².

    So in coordinates along t and sqrt((E − 1)/K)·v_k lengths are about right, and
    exactly so at K = E − 1.

    Args:
      text: [E] unit vector t.
      key: PRNG key of the probes.
      num_probes: K, from 1 to E − 1.

    Returns:
      [1 + K, E].

    Raises:
      ValueError: num_probes is out of range.
    """
    size = len(text)
    if not 1 <= num_probes < size:
        raise ValueError(f"num_probes must be from 1 to {size - 1}, found {num_probes}")
    random = jax.random.normal(key, (num_probes, size))
    orthonormal, _ = jnp.linalg.qr(jnp.concatenate([text[None], random]).T)
    # QR leaves the sign of its first column open.
    scale = ((size - 1) / num_probes) ** 0.5
    return jnp.concatenate([text[None], scale * orthonormal.T[1:]])


def _image_feature(networks: losses.Networks, styles: spaces.Styles) -> jax.Array:
    """Feature E(s), [B, E], differentiable."""
    generator = networks.generator
    image = generators.synthesize_styles(generator, styles)
    return norms.unit_by_rsqrt(_encode(networks.clip, image, "none"))


def _encode(network: clip.Clip, image: jax.Array, rounding: Any) -> jax.Array:
    """CLIP features [B, E] of images, preprocessed as CLIP was trained."""
    if rounding == "none":
        image = clip_input.preprocess_clip(network, image)
    else:
        image = clip_input.preprocess_clip_uint8(
            network, pixels.to_uint8(image, rounding=rounding)
        )
    return clip.encode_image(network, image)
