"""Schedule of the cutoffs of StyleGAN3: sizes, rates and filters of its layers."""

import functools
from typing import Any, NamedTuple

import numpy as np

from styleclip_jax.ops import filtering


class Layer(NamedTuple):
    """Layer after the input, as the schedule of cutoffs gives it.

    Attributes:
      name: name in the parameter tree, such as "b16/conv0" by the rate of the result.
      inputs, outputs: channels.
      in_size, size: width and height of the canvas before and after it.
      in_rate, rate: samples per width of the image, likewise.
      cutoff: frequency that its result is filtered to.
      filters: filters around its activation, None for toRGB.
    """

    name: str
    inputs: int
    outputs: int
    in_size: int
    size: int
    in_rate: int
    rate: int
    cutoff: float
    filters: filtering.Filters | None


@functools.cache
def layers(config: Any) -> tuple[Layer, ...]:
    """Layers after the input of a `stylegan3.GeneratorConfig`.

    Cutoffs grow geometrically, and are constant at the end.

    Layer i of N, with K critical ones, filters its result to the cutoff

      c_i = c_0 · (c_N / c_0)^min(i / (N − K), 1),   c_N = resolution / 2,

    and stops from a frequency of such a schedule on.

    Source: Karras et al. 2021, section 3.2 and appendix C.
    """
    count, shown = len(config.channels), config.resolution
    exponent = np.minimum(np.arange(count + 1) / (count - config.num_critical), 1)
    last = shown / 2

    def schedule(first: float, last: float) -> np.ndarray:
        return first * (last / first) ** exponent

    cutoff = schedule(config.first_cutoff, last)
    stop = schedule(config.first_stopband, last * config.last_stopband_rel)
    rate = np.exp2(np.ceil(np.log2(np.minimum(2 * stop, shown)))).astype(int)
    # Half of the width of each transition.
    half = np.maximum(stop, rate / 2) - cutoff
    size = rate + 2 * config.margin
    size[-2:] = shown
    channels = (*config.channels, 3)

    def layer(i: int) -> Layer:
        before, is_torgb = max(i - 1, 0), i == count
        in_rate, out_rate = int(rate[before]), int(rate[i])
        filters = None
        if not is_torgb:
            between = max(in_rate, out_rate) * config.upsampling
            up, down = between // in_rate, between // out_rate
            taps = [config.filter_size * factor for factor in (up, down)]
            # What is left of the upsampled pixels goes down to the size wanted; the
            # convolution has put kernel_size − 1 pixels around them.
            total = (size[i] - 1) * down + 1 + sum(taps) - 2
            total -= (size[before] + config.kernel_size - 1) * up
            low = (total + up) // 2
            filters = filtering.Filters(
                up=up,
                down=down,
                up_taps=filtering.lowpass(
                    taps[0], cutoff[before], 2 * half[before], between
                ),
                down_taps=filtering.lowpass(
                    taps[1],
                    cutoff[i],
                    2 * half[i],
                    between,
                    radial=config.radial and i < count - config.num_critical,
                ),
                padding=(int(low), int(total - low)),
                size=int(size[i]),
            )
        return Layer(
            name=f"b{out_rate}/torgb" if is_torgb else f"b{out_rate}/conv{i}",
            inputs=channels[before],
            outputs=channels[i],
            in_size=int(size[before]),
            size=int(size[i]),
            in_rate=in_rate,
            rate=out_rate,
            cutoff=float(cutoff[i]),
            filters=filters,
        )

    return tuple(map(layer, range(count + 1)))
