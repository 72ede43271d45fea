"""Speed on a device: products, synthesis, layers, steps, CLIP, runs into files."""

import dataclasses
import functools
import itertools
import math
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks import limit
from benchmarks.accelerator import kernels, setting, timing
from benchmarks.accelerator.run import Item, Values
from benchmarks.accelerator.setting import World
from styleclip_jax import batch, losses, parallel
from styleclip_jax.editing.session import Session
from styleclip_jax.methods import global_directions, mapper_training, optimization
from styleclip_jax.models import clip, irse50, stylegan2
from styleclip_jax.models.network import Network
from styleclip_jax.ops import upsampling

# A divisor of the steps of an optimization.
_STEPS_PER_CALL = 10
# Examples of a mapper's step, of CLIP, and of the other networks.
_BATCH = 8
_NUM_KERNELS = 10
_TRACED_STEPS = 3


def device(world: World) -> Iterator[Item]:
    """Device, products of matrices, and the bandwidth of its memory."""
    found, size = jax.local_devices()[0], world.size.matrix

    def facts() -> Values:
        versions = f"jax {jax.__version__}, {found.client.platform_version}"
        limit_ = (found.memory_stats() or {}).get("bytes_limit", 0) / 1e9
        note = f"{found.device_kind}, {jax.device_count()} of them, {limit_:.0f} GB"
        return {"note": f"{note}; {versions}", "kind": found.device_kind}

    def product(kind: str) -> Values:
        lowered = kind == "bfloat16"
        x = jax.random.normal(jax.random.key(0), (size, size))
        x = x.astype(kind) if lowered else x
        precision = None if lowered else lax.Precision(kind)
        dot = functools.partial(jnp.dot, precision=precision)
        values = timing.measure(dot, x, x)
        values["operations"] = 2.0 * size**3
        rate = world.measured[kind] = values["operations"] / values["seconds"]
        values["note"] = f"{rate / 1e12:.4g} TFLOP/s"
        return values | world.of_rate(values, kind)

    def copy() -> Values:
        x = jnp.zeros(world.size.copied)
        values = timing.measure(lambda x: x + 1, x)
        world.bandwidth = 2 * x.nbytes / values["seconds"]
        return values | {"note": f"{world.bandwidth / 1e9:.4g} GB/s"}

    yield Item("device", facts)
    for kind in ("highest", "high", "default", "bfloat16"):
        yield Item(f"product {size}³, {kind}", functools.partial(product, kind))
    yield Item(f"copy of {world.size.copied / 2**20:g} million numbers", copy)


def synthesis(world: World) -> Iterator[Item]:
    """Images in every way, with the error of the first one."""
    exact: list[np.ndarray] = []

    def measure(name: str, config: Any, count: int) -> Values:
        network, w_plus = world.generator.replace(config=config), world.w_plus(count)
        program = timing.compiled(stylegan2.synthesize, network, w_plus)
        first = np.asarray(program.call(network, w_plus)[0])
        if not exact:
            exact.append(first)
        values = timing.measure(program, network, w_plus)
        values["error"] = float(np.abs(first - exact[0]).max() / np.abs(exact[0]).max())
        values |= world.of_rate(values, setting.product(name))
        rate, bandwidth = world.rate(name), world.bytes_per_second()
        if rate and bandwidth:
            least = limit.synthesis_seconds(
                config,
                count,
                rate=rate,
                bandwidth=bandwidth,
                num_bytes=jnp.dtype(config.dtype).itemsize,
            )
            values["of_roofline"] = least / values["seconds"]
        return _per_item(values, count)

    ways = setting.ways(world.size.ways, world.size.generator)
    for counts in (world.size.batches[:2], world.size.batches[2:]):
        for name, config in ways.items():
            for count in counts:
                one = functools.partial(measure, name, config, count)
                yield Item(f"images, {name}, batch {count}", one)


def layers(world: World) -> Iterator[Item]:
    """One upsampling convolution in each form, its value and both gradients."""
    channels = world.size.generator.channels
    forms = {
        name.removeprefix("upsample_"): function
        for name, function in vars(upsampling).items()
        if name.startswith("upsample_conv3x3")
    }

    def value(form: Any, precision: str) -> Callable[..., jax.Array]:
        return lambda x, kernel, weight: form(x, kernel, precision)

    def gradient(form: Any, precision: str, argument: int) -> Callable[..., jax.Array]:
        """Of a weighted sum by one argument, the other being frozen as in an edit."""

        def found(x: jax.Array, kernel: jax.Array, weight: jax.Array) -> jax.Array:
            inputs = [x, kernel]

            def result(varied: jax.Array) -> jax.Array:
                inputs[argument] = varied
                return form(*inputs, precision)

            return jax.vjp(result, inputs[argument])[1](weight)[0]

        return found

    def measure(function: Any, way: str, resolution: int) -> Values:
        index = resolution.bit_length() - 3
        before, features = channels[index - 1 : index + 1]
        shapes = (
            (_BATCH, resolution // 2, resolution // 2, before),
            (3, 3, before, features),
            (_BATCH, resolution, resolution, features),
        )
        dtype = way if way == "bfloat16" else "float32"
        inputs = [
            jax.random.normal(jax.random.key(i), shape).astype(dtype)
            for i, shape in enumerate(shapes)
        ]
        values = timing.measure(function, *inputs)
        return _per_item(values | world.of_rate(values, way), _BATCH)

    for way in world.size.gradient_ways:
        precision = "default" if way == "bfloat16" else way
        for resolution in world.size.resolutions:
            for name, form in forms.items():
                functions = {
                    "value": value(form, precision),
                    "gradient of x": gradient(form, precision, 0),
                    "gradient of the kernel": gradient(form, precision, 1),
                }
                for what, function in functions.items():
                    yield Item(
                        f"{name} {resolution}², {what}, {way}",
                        functools.partial(measure, function, way, resolution),
                    )


def steps(world: World) -> Iterator[Item]:
    """Steps of an optimization: batches, ways to compute, memory, calls."""
    ways = setting.ways(world.size.gradient_ways, world.size.generator)
    few, *more = dict.fromkeys(world.size.step_batches)
    some = more[0] if more else few

    def item(
        name: str,
        count: int,
        *,
        remat: bool = False,
        stride: int = 1,
        id_lambda: float = 0.0,
    ) -> Item:
        config = dataclasses.replace(ways[name], remat=remat)
        settings = optimization.OptimizationConfig(id_lambda=id_lambda)

        def measure() -> Values:
            step = _step(world, config, settings, count, stride)
            inputs = _inputs(world, config, settings, count)
            values = timing.measure(step, *inputs, carry=1)
            # XLA counts a loop once.
            values["operations"] *= stride
            values |= world.of_rate(values, setting.product(name))
            return _per_item(values, count * stride)

        options = [
            *(["remat"] if remat else []),
            *([f"{stride} per call"] if stride > 1 else []),
            *(["identity"] if id_lambda else []),
        ]
        return Item(", ".join(["step", name, f"batch {count}", *options]), measure)

    yield item(setting.EXACT, few)
    for name in ways:
        if some != few or name != setting.EXACT:
            yield item(name, some)
    yield item(setting.EXACT, few, stride=_STEPS_PER_CALL)
    for count in more[1:]:
        yield item(setting.EXACT, count)
    yield item(setting.EXACT, (more or [few])[-1], remat=True)
    yield item(setting.EXACT, few, id_lambda=0.005)


@functools.cache
def _step(
    world: World,
    config: stylegan2.GeneratorConfig,
    settings: optimization.OptimizationConfig,
    count: int,
    stride: int,
) -> timing.Program:
    """Compiled step of an optimization, once for each, since it takes a while."""
    problem = optimization.official(settings)
    parts = optimization.compiled(problem, sharding=None, stride=stride)
    return timing.compiled(parts.step, *_inputs(world, config, settings, count))


def _inputs(
    world: World,
    config: stylegan2.GeneratorConfig,
    settings: optimization.OptimizationConfig,
    count: int,
) -> tuple[losses.Networks, Any]:
    """Networks, and a state before a step.

    Nobody looks at the source here, and a program that describes it would compile for a
    while: zeros take its place.
    """
    networks = world.networks(config, identity=settings.id_lambda > 0)
    start = functools.partial(
        optimization.start, problem=optimization.official(settings)
    )
    over_batch = jax.vmap(start, (None, 0, None))
    latent = world.w_plus(count)
    shapes = jax.eval_shape(over_batch, networks, latent, world.text)
    state = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    text = jnp.broadcast_to(world.text, state.text.shape)
    alive = jnp.full_like(state.failed_at, -1)
    # A copy, since a step uses its state up.
    return networks, state._replace(latent=jnp.copy(latent), text=text, failed_at=alive)


def towers(world: World) -> Iterator[Item]:
    """CLIP and the identity network on images, with the gradient of the image."""

    def total(encode: Any, network: Network, image: jax.Array) -> jax.Array:
        return jnp.sum(encode(network, image)[:, 0])

    def measure(
        encode: Any,
        field: str,
        config: Any,
        name: str,
        count: int,
        size: int,
        gradient: bool,
    ) -> Values:
        network = getattr(world, field).replace(config=config)
        image = jax.random.normal(jax.random.key(0), (count, size, size, 3))
        function = encode
        if gradient:
            function = jax.grad(functools.partial(total, encode), argnums=1)
        values = timing.measure(function, network, image)
        return _per_item(values | world.of_rate(values, setting.product(name)), count)

    networks = (
        ("CLIP", clip.encode_image, "clip", world.size.clip.image_size),
        ("identity", irse50.embed, "identity", world.size.identity.input_size),
    )
    for count in dict.fromkeys(min(_BATCH, x) for x in world.size.batches):
        for what, encode, field, size in networks:
            ways = setting.ways(world.size.gradient_ways, getattr(world.size, field))
            for (name, config), gradient in itertools.product(
                ways.items(), (False, True)
            ):
                one = functools.partial(
                    measure, encode, field, config, name, count, size, gradient
                )
                yield Item(
                    f"{what}{' gradient' * gradient}, {name}, batch {count}", one
                )


def mapper_steps(world: World) -> Iterator[Item]:
    """Steps of a mapper's training, with the identity network."""

    def measure(name: str, config: Any, count: int) -> Values:
        training = mapper_training.TrainingConfig()
        problem = mapper_training.official(world.mapper.config, training)
        start = mapper_training.start(world.mapper.params, problem=problem)
        # Its slow weights are its fast ones at first, and a buffer is donated once.
        state = jax.tree.map(jnp.copy, start)

        @functools.partial(jax.jit, donate_argnums=1)
        def step(networks: Any, state: Any, latent: Any, text: Any) -> Any:
            source = mapper_training.describe(networks, latent, problem=problem)
            return mapper_training.train_step(
                networks, state, source, text, problem=problem
            )[0]

        networks = world.networks(config, identity=True)
        inputs = (networks, state, world.w_plus(count), world.text)
        values = timing.measure(step, *inputs, carry=1)
        return _per_item(values | world.of_rate(values, setting.product(name)), count)

    count = min(_BATCH, max(world.size.batches))
    ways = setting.ways(world.size.gradient_ways, world.size.generator)
    for name, config in ways.items():
        title = f"mapper step, {name}, batch {count}"
        yield Item(title, functools.partial(measure, name, config, count))


def runs(world: World) -> Iterator[Item]:
    """Directions into files, of the embedded generator and of the large one."""
    small, large = Session(), Session()

    def direction(session: Session) -> global_directions.Direction:
        layout = session.generator.config.style_layout
        count = sum(layer.channels for layer in layout)
        delta = 0.1 * jax.random.normal(jax.random.key(0), (count,))
        return global_directions.Direction(delta, layout)

    def go(session: Session, count: int, images: str, **options: Any) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            return batch.run(
                session,
                direction(session),
                seeds=f"0-{count - 1}",
                outdir=pathlib.Path(folder) / "run",
                images=images,
                grid=0,
                **options,
            )

    def measure(session: Session, count: int, images: str) -> Values:
        if session is large:
            session.generator = parallel.replicate(world.generator, session.mesh)
        first = go(session, count, images)
        done = go(session, count, images)
        if not done.succeeded:
            raise RuntimeError(f"expected all edits, found {done.failures}")
        each = done.seconds / count
        note = f"{1 / each:.4g} per second, {done.size} per device at a time"
        compiling = max(0.0, first.seconds - done.seconds)
        return {"seconds": each, "compile_seconds": compiling, "note": note}

    def filled(**options: Any) -> Values:
        devices = jax.local_device_count()
        count = 2 * devices
        size = go(small, count, "none", **options).size
        busy = min(devices, math.ceil(count / size))
        note = f"{busy} of {devices} devices have work with {count} latents"
        values: Values = {"devices": devices, "busy": busy, "note": note}
        # Only a batch that is chosen for the devices promises work for all.
        wrong = bool(options) and busy < devices
        return values | ({"error_text": note} if wrong else {})

    def automatic() -> Values:
        started = time.monotonic()
        done = go(small, world.size.edits, "none", batch_size="auto")
        found = time.monotonic() - started - done.seconds
        note = f"{done.size} per device, found in {found:.1f} s"
        return {"seconds": done.seconds / done.made, "size": done.size, "note": note}

    edits, large_edits = world.size.edits, world.size.large_edits
    for images in ("none", "jpg"):
        what = f"{edits} embedded edits, {images}"
        yield Item(what, functools.partial(measure, small, edits, images))
    yield Item("devices filled, auto", functools.partial(filled, batch_size="auto"))
    yield Item("devices filled, default batch", filled)
    yield Item("batch size auto", automatic)
    for images in ("jpg", "png"):
        what = f"{large_edits} edits of {world.size.generator.resolution}², {images}"
        yield Item(what, functools.partial(measure, large, large_edits, images))


def longest_kernels(world: World, outdir: pathlib.Path) -> Iterator[Item]:
    """Longest kernels of a step of an optimization."""

    def measure() -> dict[str, Values]:
        settings = optimization.OptimizationConfig()
        config, count = world.size.generator, world.size.step_batches[0]
        step = _step(world, config, settings, count, 1)
        networks, state = _inputs(world, config, settings, count)
        state = jax.block_until_ready(step.call(networks, state))
        folder = outdir / "trace"
        with jax.profiler.trace(str(folder)):
            for _ in range(_TRACED_STEPS):
                state = jax.block_until_ready(step.call(networks, state))
        try:
            total, found = kernels.longest(folder, _NUM_KERNELS)
        except ValueError as error:
            # Profilers write what they can on a machine.
            return {"trace": {"note": f"skipped: {error}"}}
        return {
            f"{place}: {name}": {
                "seconds": microseconds / _TRACED_STEPS / 1e6,
                "note": f"{microseconds / total:.1%} of the kernels of a step",
            }
            for place, (name, microseconds) in enumerate(found, 1)
        }

    yield Item("kernel", measure)


def _per_item(values: Values, count: int) -> Values:
    """Values of one item of a batch; of the batch as batch_seconds."""
    seconds = values["seconds"]
    return values | {"seconds": seconds / count, "batch_seconds": seconds}
