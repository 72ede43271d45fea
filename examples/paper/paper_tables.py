"""The paper's tables as Markdown."""

import functools
import os
import pathlib
import statistics
from collections.abc import Callable

import jax
import jax.numpy as jnp

from examples.paper.setup import (
    ESTIMATE,
    Setup,
    direct,
    estimate,
    map_latent,
    optimize,
    render,
    text_relevance,
    threshold,
    timed,
)
from styleclip_jax import losses
from styleclip_jax.io import tables
from styleclip_jax.methods import global_directions, mapper, mapper_training
from styleclip_jax.models import clip
from styleclip_jax.models.network import Network

# Runs of a short edit, and training steps, of which the median counts.
_NUM_RUNS = 5
# The official script's.
_MAPPER_STEPS, _MAPPER_BATCH = 50_000, 2


def table1(setup: Setup) -> str:
    """Seconds of each method on this device, once everything is compiled."""
    prompt = setup.prompts[0]
    network = setup.mappers.get(prompt.text) or _untrained(setup)
    beta = threshold(setup, prompt.text)

    def mapped() -> jax.Array:
        return render(setup, map_latent(setup, 0, network))

    def directed() -> jax.Array:
        edited = direct(setup, 0, prompt.text, beta, setup.alpha)
        return render(setup, edited)

    optimized = _median(lambda: optimize(setup, 0, prompt), runs=1)
    step = _training_step(setup, network)
    space = {"w_plus": "W+", "s": "S"}[network.config.space]
    rows = [
        ["optimization", "none", "none", _seconds(optimized), "yes", "W+"],
        [
            "mapper",
            "none",
            f"{_seconds(_MAPPER_STEPS * step)} ({_seconds(step)} a step)",
            _seconds(_median(mapped)),
            "yes",
            space,
        ],
        [
            "direction",
            _preprocessing(setup, prompt.text),
            "none",
            _seconds(_median(directed)),
            "no",
            "S",
        ],
    ]
    columns = [
        *("method", "preprocessing", "training for a prompt", "one edit"),
        *("the step depends on the image", "space"),
    ]
    size = setup.networks.generator.config.resolution
    return (
        f"# Seconds per edit\n\nMeasured on {describe_device()}: one image of {size}² "
        f"at a time, compiled. Optimization of {setup.steps} steps; a mapper's "
        f"training extrapolated from a step of {_MAPPER_BATCH} latents to "
        f"{_MAPPER_STEPS:,} steps.\n\n" + tables.markdown(columns, rows)
    )


def table2(setup: Setup) -> str:
    """How much the steps of each mapper depend on the face."""
    if not setup.mappers or len(setup.w_plus) < 2:
        missing = "mappers" if not setup.mappers else "at least two faces"
        return f"# Similarity of mapper steps\n\nNeeds {missing}.\n"
    rows = []
    for text, network in setup.mappers.items():
        steps = [
            mapper.flatten(
                jax.tree.map(
                    jnp.subtract,
                    map_latent(setup, i, network),
                    setup.styles(i) if network.config.space == "s" else setup.face(i),
                )
            )
            for i in range(len(setup.w_plus))
        ]
        found = mapper.similarity(jnp.concatenate(steps)[None])
        rows.append([text, f"{found.mean[0]:.3f}", f"{found.std[0]:.3f}"])
    count = len(setup.w_plus)
    return (
        "# Similarity of mapper steps\n\nCosine between a mapper's steps at two of "
        f"{count} faces, over all {count * (count - 1) // 2} pairs.\n\n"
        + tables.markdown(["prompt", "mean", "std"], rows)
    )


def describe_device() -> str:
    """The first device by name, and how many there are."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        return f"{device.device_kind} (one of {jax.device_count()})"
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [x.partition(":")[2].strip() for x in lines if x.startswith("model name")]
    cores = os.cpu_count()
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    return f"{names[0] if names else 'a CPU'} ({cores} core{'s' * (cores != 1)})"


def _preprocessing(setup: Setup, text: str) -> str:
    if setup.relevance is not None:
        return "from a file"
    direction = global_directions.text_direction(
        setup.networks.clip, setup.tokenizer, setup.neutral, text, setup.templates
    )
    text_relevance(setup, text)  # compiles
    seconds = _median(lambda: estimate(setup, direction), runs=1)
    return f"{_seconds(seconds)} for a prompt ({ESTIMATE.num_samples} samples)"


def _untrained(setup: Setup) -> Network:
    """A mapper that takes as long as a trained one."""
    config = mapper.of_generator(setup.networks.generator.config)
    return Network(mapper.init(jax.random.key(0), config), config)


def _training_step(setup: Setup, network: Network) -> float:
    """Seconds of a step of training."""
    training = mapper_training.TrainingConfig(id_lambda=0)
    problem = mapper_training.official(network.config, training)
    state = mapper_training.start(network.params, problem=problem)
    faces = range(_MAPPER_BATCH)
    part = setup.styles if network.config.space == "s" else setup.face
    latents = jax.tree.map(lambda *x: jnp.concatenate(x), *map(part, faces))
    text = clip.encode_prompts(
        setup.networks.clip, setup.tokenizer, [setup.prompts[0].text]
    )[0]
    networks = losses.Networks(setup.networks.generator, setup.networks.clip)

    @jax.jit
    def step(state: mapper_training.State) -> tuple[mapper_training.State, object]:
        source = mapper_training.describe(networks, latents, problem=problem)
        return mapper_training.train_step(
            networks, state, source, text, problem=problem
        )

    return _median(functools.partial(step, state))


def _median(function: Callable[[], object], runs: int = _NUM_RUNS) -> float:
    """Median seconds after a first run, which compiles."""
    jax.block_until_ready(function())
    return statistics.median(timed(function)[0] for _ in range(runs))


def _seconds(value: float) -> str:
    """Such as 12 ms, 3.4 s, 5.6 min, 7.8 h."""
    for limit, factor, unit in ((1, 1000, "ms"), (120, 1, "s"), (7200, 1 / 60, "min")):
        if value < limit:
            return f"{value * factor:#.3g}".removesuffix(".") + f" {unit}"
    return f"{value / 3600:#.3g}".removesuffix(".") + " h"
