"""What does ADA's resampling of an image cost on a CPU, beside its formula in torch?

  taskset -c 0 python -m benchmarks.augmentation

One core, float32, the pipeline bgc's geometry at p = 0.6. The peer goes the way of the
official code, with torch's own operations: padding by what the batch needs, zeros
inserted and filtered by depthwise convolutions, `grid_sample`. It must give our images
before it is timed. Milliseconds of CPU time per image, medians of alternating turns.
"""

import math
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from absl import app, flags

from benchmarks import machine
from styleclip_jax.methods import augmentation
from styleclip_jax.ops import warping
from styleclip_jax.settings.augmentation import PIPELINES

RESOLUTIONS = flags.DEFINE_list("resolutions", ["32", "128", "256"], "Sides of images.")
TURNS = flags.DEFINE_integer("turns", 5, "Turns of which the median is taken.")

_BATCH = 8
_PROBABILITY = 0.6


def _filtered(image: torch.Tensor, taps: torch.Tensor, stride: int) -> torch.Tensor:
    """Images [B, C, H, W] filtered along both axes, at every so many pixels."""
    channels = image.shape[1]
    for shape, step in (((1, -1), (1, stride)), ((-1, 1), (stride, 1))):
        kernel = taps.reshape(1, 1, *shape).repeat(channels, 1, 1, 1)
        image = F.conv2d(image, kernel, stride=step, groups=channels)
    return image


def _peer(image: torch.Tensor, pullback: torch.Tensor) -> torch.Tensor:
    """`warping.warp` of square images [B, C, H, H] in torch."""
    taps = torch.as_tensor(warping._FILTER, dtype=torch.float32)
    batch, channels, size, _ = image.shape
    half = (size - 1) / 2
    corners = torch.tensor([[x, y, 1] for x in (-half, half) for y in (-half, half)])
    reach = (pullback @ corners.T).abs().max().item() - half + 6
    margin = min(max(math.ceil(reach), 0), size - 1)
    padded = F.pad(image, [margin] * 4, mode="reflect")
    side = 2 * padded.shape[-1]
    zeros = F.pad(padded[:, :, :, None, :, None], [0, 1, 0, 0, 0, 1])
    zeros = F.pad(zeros.reshape(batch, channels, side, side), [6, 5, 6, 5])
    halves = _filtered(zeros, 2 * taps.flip(0), 1)
    # Normalised coordinates run from -1 to 1 over the canvas, and over the samples.
    count = 2 * (size + 6)
    linear, shift = pullback[:, :, :2], pullback[:, :, 2]
    shift = 2 * shift + linear.sum(2) / 2 - 0.5
    theta = torch.cat([linear * count / side, 2 * shift[..., None] / side], dim=2)
    grid = F.affine_grid(theta, [batch, channels, count, count], align_corners=False)
    samples = F.grid_sample(halves, grid, padding_mode="zeros", align_corners=False)
    return _filtered(samples[:, :, 1:-1, 1:-1], taps, 2)


def _milliseconds(functions: list[Callable[[], object]]) -> list[float]:
    """Median CPU time of each function per image, in alternating turns."""
    taken: list[list[float]] = [[] for _ in functions]
    for turn in range(TURNS.value + 1):
        for function, times in zip(functions, taken, strict=True):
            began = time.process_time()
            jax.block_until_ready(function())
            if turn:
                times.append(1000 * (time.process_time() - began) / _BATCH)
    return [statistics.median(times) for times in taken]


def _row(size: int) -> str:
    image = np.random.RandomState(0).uniform(-1, 1, (_BATCH, size, size, 3))
    image = image.astype(np.float32)
    draws = augmentation.draw(jax.random.key(0), _BATCH)
    change = augmentation._changes((size, size), _PROBABILITY, draws, PIPELINES["bgc"])
    pullback = augmentation._pullback(change)

    forward = jax.jit(warping.warp)
    gradient = jax.jit(
        jax.grad(lambda x, pullback: jnp.square(warping.warp(x, pullback)).sum())
    )
    torch_image = torch.tensor(np.moveaxis(image, -1, 1).copy(), requires_grad=True)
    torch_pullback = torch.tensor(np.asarray(pullback))

    def torch_forward() -> torch.Tensor:
        with torch.no_grad():
            return _peer(torch_image, torch_pullback)

    def torch_gradient() -> torch.Tensor:
        total = _peer(torch_image, torch_pullback).square().sum()
        return torch.autograd.grad(total, torch_image)[0]

    for ours, theirs in ((forward, torch_forward), (gradient, torch_gradient)):
        found = np.moveaxis(np.asarray(ours(image, pullback)), -1, 1)
        error = np.abs(found - theirs().numpy()).max()
        if error > 2e-3:
            raise SystemExit(f"{size}²: results are {error:.1g} apart")
    ours, theirs, ours_too, theirs_too = _milliseconds(
        [
            lambda: forward(image, pullback),
            torch_forward,
            lambda: gradient(image, pullback),
            torch_gradient,
        ]
    )
    return (
        f"| {size}² | {ours:.2f} | {theirs:.2f} | {theirs / ours:.1f} "
        f"| {ours_too:.2f} | {theirs_too:.2f} | {theirs_too / ours_too:.1f} |"
    )


def main(_: list[str]) -> None:
    """Prints a row per resolution."""
    torch.set_num_threads(1)
    print(
        f"{machine.cores()} cores of {machine.cpu()}, jax {jax.__version__}, torch "
        f"{torch.__version__}; others keep {machine.load():.2f} cores busy.\n"
    )
    print("| image | forward | torch | ratio | value and gradient | torch | ratio |")
    print("|---|---:|---:|---:|---:|---:|---:|", flush=True)
    for size in map(int, RESOLUTIONS.value):
        print(_row(size), flush=True)


if __name__ == "__main__":
    app.run(main)
