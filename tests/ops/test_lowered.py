"""Programs lowered for accelerators: what must not be in them.

Lowering needs no device and no memory, so that layers have the shapes of 256², where
the forms of convolutions change.
"""

import functools
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks import programs
from styleclip_jax import parallel
from styleclip_jax.methods import gan_draws, gan_training
from styleclip_jax.models import discriminator, generators, stylegan2
from styleclip_jax.models.discriminator import DiscriminatorConfig
from styleclip_jax.ops import upsampling
from styleclip_jax.settings.gan_training import GanTrainingConfig
from tests import tiny

pytestmark = pytest.mark.slow

PLATFORMS = ("cuda", "tpu")


def lower(traced: Any, *platforms: str) -> str:
    """Program for a platform, or with the forms of several side by side."""
    return traced.lower(lowering_platforms=platforms).as_text(debug_info=True)


@functools.cache
def traced(name: str) -> Any:
    """A program of the main works, its batch over the simulated devices."""
    networks = programs.networks_of(tiny.GENERATOR_256, tiny.CLIP, tiny.IDENTITY)
    program = programs.PROGRAMS[name](networks, 4)
    mesh = parallel.make_mesh()
    shared = place(program.shared, NamedSharding(mesh, PartitionSpec()))
    batch = place(program.batch, parallel.over_batch(mesh))
    return jax.jit(program.function).trace(*shared, batch)


def place(tree: Any, sharding: Any) -> Any:
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
    )


def dilated(text: str) -> list[str]:
    """Where in the code convolutions have zeros between the pixels of their input."""
    found = re.findall(
        r"stablehlo.convolution.*lhs_dilate = \[(?!1, 1\]).*loc\((#loc\d*)\)$",
        text,
        re.MULTILINE,
    )
    names = re.findall(r'^(#loc\d*) = loc\("([^"]*)"', text, re.MULTILINE)
    return [dict(names)[location] for location in found]


def neighbours(text: str) -> list[str]:
    """Transposes whose result a convolution reads, or which read that of one."""
    found = []
    for function in text.split("func.func "):
        convolutions = re.findall(
            r"(%\S+) = stablehlo.convolution\((%\S+), (%\S+)\)", function
        )
        transposes = re.findall(r"(%\S+) = stablehlo.transpose (%\S+), (.*)", function)
        results = {result for result, _, _ in convolutions}
        read = {name for _, *operands in convolutions for name in operands}
        found += [x for new, old, x in transposes if new in read or old in results]
    return found


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("name", programs.PROGRAMS)
def test_main_works_suit_accelerators(name: str, platform: str) -> None:
    text = lower(traced(name), platform)
    assert text.count("stablehlo.convolution") >= 20
    assert "f64" not in text
    # Resized images of three channels are what the first convolutions see.
    assert [x for x in neighbours(text) if "x3xf32>" not in x] == []
    assert not re.search(r"all_gather|all_reduce|all_to_all|collective_permute", text)
    # The gradient of a strided convolution, as cuDNN and TPUs have it: the image that
    # the identity network sees is the one thing that needs it.
    assert [x for x in dilated(text) if "_Module.feature_maps/body" not in x] == []


def _upsample(precision: str) -> Callable[..., jax.Array]:
    return lambda x, kernel: upsampling.upsample_conv3x3(x, kernel, precision)


def _forward(precision: str) -> Callable[..., Any]:
    return lambda *inputs: jax.jvp(_upsample(precision), inputs, inputs)


def _reverse(precision: str) -> Callable[..., Any]:
    def pull(x: jax.Array, kernel: jax.Array) -> Any:
        y, back = jax.vjp(_upsample(precision), x, kernel)
        return back(y)

    return pull


@pytest.mark.parametrize("precision", ["highest", "default"])
@pytest.mark.parametrize("derivative", [_forward, _reverse])
def test_derivatives_of_upsampling_have_no_zeros_between_pixels(
    derivative: Callable[[str], Any], precision: str
) -> None:
    shapes = programs.shape_of(1, 128, 128, 8), programs.shape_of(3, 3, 8, 4)
    program = jax.jit(derivative(precision)).trace(*shapes)
    # On CPUs the quicker gradient by the images is the transpose of one with zeros.
    assert bool(dilated(lower(program, "cpu"))) == (derivative is _forward)
    for platform in PLATFORMS:
        assert dilated(lower(program, platform)) == []


@pytest.mark.parametrize(
    ("precision", "names"), [("highest", ("paths", "r1")), ("high", ("paths",))]
)
def test_phases_of_a_training_have_no_zeros_between_pixels(
    precision: str, names: tuple[str, ...]
) -> None:
    """Second derivatives of R1 and path lengths, which have all forms of the first.

    Products of fewer passes have another form in the generator alone.
    """
    config = tiny.GENERATOR_256.replace(precision=precision)
    judge = DiscriminatorConfig(256, config.channels, precision=precision)
    problem = gan_training.official(config, judge, GanTrainingConfig())

    def batches() -> tuple[Any, ...]:
        keys = jax.random.split(jax.random.key(0), 3)
        networks = stylegan2.init(keys[0], config), discriminator.init(keys[1], judge)
        fakes = gan_draws.draw_fakes(keys[2], config, 4, style_mixing=0.9)
        image = jnp.zeros((4, 256, 256, 3))
        return gan_training.start(*networks, problem=problem), fakes, image

    state, fakes, image = jax.eval_shape(batches)
    phases: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
        "paths": (gan_training.regularize_generator, (fakes, image)),
        "r1": (gan_training.regularize_discriminator, (gan_draws.Reals(image),)),
    }
    for phase, batch in map(phases.__getitem__, names):
        step = functools.partial(phase, problem=problem)
        text = lower(jax.jit(step).trace(state, *batch), *PLATFORMS)
        assert text.count("stablehlo.convolution") >= 2 * 20
        assert dilated(text) == []
        assert "f64" not in text


def test_upsampling_in_few_passes_is_one_convolution() -> None:
    shapes = programs.shape_of(1, 64, 64, 64), programs.shape_of(3, 3, 64, 32)
    for precision, count in (("highest", 4), ("high", 1), ("default", 1)):
        program = jax.jit(_upsample(precision)).trace(*shapes)
        text = lower(program, "tpu")
        assert text.count("stablehlo.convolution") == count
        assert neighbours(text) == []


def test_filters_of_stylegan3_have_no_zeros_between_pixels() -> None:
    config = tiny.STYLEGAN3
    network = tiny.generator(config)

    def loss(w_plus: jax.Array) -> jax.Array:
        return jnp.sum(generators.synthesize(network, w_plus) ** 2)

    w_plus = programs.shape_of(2, config.num_rows, config.w_dim)
    program = jax.jit(jax.grad(loss)).trace(w_plus)
    for platform in PLATFORMS:
        text = lower(program, platform)
        # 3×3 convolutions and their gradients by the images alone.
        assert text.count("stablehlo.convolution") <= 2 * len(config.channels)
        assert dilated(text) == []
        assert "f64" not in text
