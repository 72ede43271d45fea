"""What does lower precision change, in images and in edits?

  python -m benchmarks.precision
  python -m benchmarks.precision --checkpoints=FILE.pt,FILE.pkl
  python -m benchmarks.precision --edits

A CPU computes what an accelerator would round: factors of every product in float32 are
rounded as the device documents it for the precision that the program asks for
(`jax.lax.Precision`). Sums are kept in float32, as they are there. bfloat16 activations
need no emulation.

  device   default                 high                     highest
  gpu      TF32, 10 bits           TF32                     float32
  tpu      one pass of bfloat16    three passes             float32 (six passes)

Nothing is timed: a CPU is slower with all of it.
"""

import contextlib
import dataclasses
import pathlib
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from jax import lax
from jax.interpreters import mlir
from jaxlib.mlir.dialects import stablehlo

import styleclip_jax
from convert import stylegan2 as convert_stylegan2
from styleclip_jax import computation, latents, loading
from styleclip_jax.io import torch_files
from styleclip_jax.models import param_trees
from styleclip_jax.models.network import Network
from styleclip_jax.ops import convolutions, pixels, upsampling

CHECKPOINTS = flags.DEFINE_list(
    "checkpoints", [], "Official files of generators, beside the embedded one."
)
EDITS = flags.DEFINE_bool("edits", False, "Edit and judge instead of drawing.")
SEEDS = flags.DEFINE_integer("seeds", 8, "Number of faces.")
STEPS = flags.DEFINE_integer("steps", 80, "Steps of each edit.")

# Prompts, and what the judge looks for.
_PROMPTS = {
    "a smiling face": "mouth:smile",
    "a person with grey hair": "hair_color:grey",
}
_HIGHEST_FOUR = 3


class Setting(NamedTuple):
    """Setting of a row: a device to emulate, and how networks are computed on it."""

    name: str
    device: str
    precision: str = "highest"
    dtype: str = "float32"
    highest_four: bool = False
    clip_dtype: str = "float32"

    def computation(self, resolution: int) -> computation.Computation:
        """Computation of a generator of a resolution."""
        lowest = resolution >> _HIGHEST_FOUR if self.highest_four else None
        return computation.Computation(
            precision=self.precision,
            dtype=self.dtype,
            low_precision_from=lowest,
            clip_dtype=self.clip_dtype,
        )


SETTINGS = (
    Setting("TF32: high, default on a GPU", "gpu", "high"),
    Setting("three passes: high on a TPU", "tpu", "high"),
    Setting("one pass: default on a TPU", "tpu", "default"),
    Setting("bfloat16, four highest resolutions", "gpu", "high", "bfloat16", True),
    Setting("bfloat16", "gpu", "high", "bfloat16"),
    Setting("bfloat16, CLIP alone", "cpu", clip_dtype="bfloat16"),
    Setting("bfloat16, both", "gpu", "high", "bfloat16", clip_dtype="bfloat16"),
)
EXACT = Setting("float32", "cpu")

# Bits of the mantissas of factors, and whether what they lose is multiplied as well.
_ROUNDING = {
    ("gpu", lax.Precision.DEFAULT): (10, False),
    ("gpu", lax.Precision.HIGH): (10, False),
    ("tpu", lax.Precision.DEFAULT): (7, False),
    ("tpu", lax.Precision.HIGH): (7, True),
}


@contextlib.contextmanager
def emulated(device: str) -> Iterator[None]:
    """Compiles products for this CPU as a kind of device rounds them."""
    rules: Any = mlir._platform_specific_lowerings["cpu"]
    primitives = (lax.dot_general_p, lax.conv_general_dilated_p)
    originals = {primitive: rules[primitive] for primitive in primitives}
    by_platform, quick = upsampling._by_platform, convolutions._form_on_cpu
    for primitive, original in originals.items():
        rule = _rounded(original.rule, device)
        mlir.register_lowering(primitive, rule, platform="cpu")
    if device != "cpu":
        upsampling._by_platform = _as_elsewhere
        convolutions._form_on_cpu = lambda *_: convolutions.direct_conv3x3
    jax.clear_caches()
    try:
        yield
    finally:
        rules.update(originals)
        upsampling._by_platform, convolutions._form_on_cpu = by_platform, quick
        jax.clear_caches()


def _as_elsewhere(
    x: jax.Array, kernel: jax.Array, precision: str, **forms: Callable[..., jax.Array]
) -> jax.Array:
    """Form of a convolution for all devices but CPUs."""
    return forms["default"](x, kernel, precision)


def _rounded(original: Callable[..., Any], device: str) -> Callable[..., Any]:
    """Lowering of a product whose factors are rounded first."""

    def lower(ctx: Any, x: Any, y: Any, *, precision: Any, **params: Any) -> Any:
        asked = precision[0] if isinstance(precision, tuple) else precision
        rounding = _ROUNDING.get((device, asked or lax.Precision.DEFAULT))

        def multiply(x: Any, y: Any) -> Any:
            return original(ctx, x, y, precision=precision, **params)

        if rounding is None or any(a.dtype != jnp.float32 for a in ctx.avals_in):
            return multiply(x, y)
        bits, with_rest = rounding

        def round_off(x: Any) -> Any:
            exponent, mantissa = mlir.i32_attr(8), mlir.i32_attr(bits)
            return stablehlo.reduce_precision(x, exponent, mantissa)

        x_high, y_high = round_off(x), round_off(y)
        (total,) = multiply(x_high, y_high)
        if with_rest:
            x_low = round_off(stablehlo.subtract(x, x_high))
            y_low = round_off(stablehlo.subtract(y, y_high))
            for pair in ((x_high, y_low), (x_low, y_high)):
                total = stablehlo.add(total, *multiply(*pair))
        return [total]

    return lower


def _generators() -> dict[str, Network]:
    """Generators by name."""
    found = {"embedded": loading.load_generator()}
    for path in map(pathlib.Path, CHECKPOINTS.value):
        conversion = convert_stylegan2.convert(torch_files.read(path))
        params = param_trees.unflatten(conversion.tensors)
        params = jax.tree.map(jnp.asarray, params)
        found[f"{path.parent.name}/{path.name}"] = Network(params, conversion.config)
    return found


def _draw(generator: Network, setting: Setting) -> np.ndarray:
    """8-bit images of seeds."""
    config = generator.config
    network = setting.computation(config.resolution).of_generator(generator)
    z = latents.seeded_batch(range(SEEDS.value), config.z_dim)
    label = jnp.eye(config.c_dim)[0] if config.c_dim else None

    def draw(network: Network, z: jax.Array) -> jax.Array:
        w_plus = latents.convert(
            network,
            z,
            space="z",
            truncation_psi=0.7,
            cutoff=None,
            to="w_plus",
            label=label,
        )
        return latents.render(network, w_plus)

    with emulated(setting.device):
        drawn = np.asarray(jax.jit(draw)(network, jnp.asarray(z)))
    return pixels.to_uint8(drawn).astype(float)


def _compare_images() -> Iterator[str]:
    """Lines of the table of images."""
    generators = _generators()
    exact = {name: _draw(network, EXACT) for name, network in generators.items()}
    yield f"| 8-bit difference: mean, largest | {' | '.join(generators)} |"
    yield "|" + "---|" * (len(generators) + 1)
    for setting in SETTINGS:
        cells = []
        for name, network in generators.items():
            difference = np.abs(_draw(network, setting) - exact[name])
            cells.append(f"{difference.mean():.4f}, {difference.max():.0f}")
        yield f"| {setting.name} | {' | '.join(cells)} |"


def _compare_edits() -> Iterator[str]:
    """Lines of the table of edits."""
    yield f"| setting | {' | '.join(f'{p}: with it, others kept' for p in _PROMPTS)} |"
    yield "|" + "---|" * (len(_PROMPTS) + 1)
    for setting in (EXACT, *SETTINGS):
        resolution = loading.load_generator().config.resolution
        asked = dataclasses.asdict(setting.computation(resolution))
        cells = []
        with tempfile.TemporaryDirectory() as folder:
            for prompt, target in _PROMPTS.items():
                place = f"{folder}/{target}"
                with emulated(setting.device):
                    session = styleclip_jax.load(quiet=True, **asked)
                    faces = session.sample(range(SEEDS.value))
                    edit = session.optimize(
                        faces, prompt, steps=STEPS.value, l2_lambda=0.0045
                    )
                    edit.save(place)
                (row,) = styleclip_jax.evaluation.measure(
                    place, target=target, quiet=True
                ).rows
                found = (row.metrics[name].mean for name in ("judge_after", "kept"))
                cells.append(", ".join(f"{x:.2f}" for x in found))
        yield f"| {setting.name} | {' | '.join(cells)} |"


def main(_: list[str]) -> None:
    """Prints the table, line by line."""
    for line in _compare_edits() if EDITS.value else _compare_images():
        print(line, flush=True)


if __name__ == "__main__":
    app.run(main)
