"""The paper's tables as Markdown."""

import functools
import os
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from examples.paper.setup import (
    Setup,
    direction_config,
    optimization,
    text_relevance,
    threshold,
)
from styleclip_jax import latents, loading
from styleclip_jax.batch.editor import Editor
from styleclip_jax.editing import directing
from styleclip_jax.editing.prompts import Prompts
from styleclip_jax.evaluation import generator_tables
from styleclip_jax.io import tables
from styleclip_jax.loading import Models
from styleclip_jax.losses import Networks
from styleclip_jax.methods import global_directions, mapper, mapper_training
from styleclip_jax.methods.mapper_training import State
from styleclip_jax.progress import BARS
from styleclip_jax.settings.generator_metrics import MetricsSettings

# Runs of a short edit, and training steps, of which the median counts.
_NUM_RUNS = 5
# The official script's.
_MAPPER_STEPS, _MAPPER_BATCH = 50_000, 2


def table1(setup: Setup) -> str:
    """Seconds of each method on this device, once everything is compiled."""
    content, session = setup.content, setup.session
    prompt, face = content.weighted[0], setup.face(0)
    mapping = setup.mappers.get(prompt.text) or _untrained(setup)
    relevance, beta = text_relevance(setup, prompt.text), threshold(setup, prompt.text)
    moving = session.moving(
        global_directions.make_direction(relevance, beta), content.alpha
    )

    def one_edit(editor: Editor, runs: int = _NUM_RUNS) -> str:
        return _describe(_median(lambda: session.edit(face, editor), runs))

    step = _training_step(setup, mapping)
    rows = [
        [
            "optimization",
            "none",
            "none",
            one_edit(optimization(setup, prompt), runs=1),
            "yes",
            "W+",
        ],
        [
            "mapper",
            "none",
            f"{_describe(_MAPPER_STEPS * step)} ({_describe(step)} a step)",
            one_edit(mapping),
            "yes",
            {"w_plus": "W+", "s": "S"}[mapping.space],
        ],
        [
            "direction",
            _preprocessing(setup, prompt.text),
            "none",
            one_edit(moving),
            "no",
            "S",
        ],
    ]
    columns = [
        *("method", "preprocessing", "training for a prompt", "one edit"),
        *("the step depends on the image", "space"),
    ]
    size = session.generator.config.resolution
    return (
        f"# Seconds per edit\n\nMeasured on {describe_device()}: one image of {size}² "
        f"at a time, compiled. Optimization of {content.steps} steps; a mapper's "
        f"training extrapolated from a step of {_MAPPER_BATCH} latents to "
        f"{_MAPPER_STEPS:,} steps.\n\n" + tables.markdown(columns, rows)
    )


def stylegan2_table(setup: Setup) -> str:
    """Table 1 of StyleGAN2: FID, path length, precision and recall of generators.

    By the embedded judge its counterparts, which compare with each other alone.
    """
    content, rows = setup.content, []
    names = content.generators or (setup.models.generator,)
    for index, name in enumerate(names):
        data = content.data * (len(names) if len(content.data) == 1 else 1)
        settings = MetricsSettings(
            data=data[index] if data else None,
            features=content.features,
            num_samples=content.num_samples,
            repeats=content.repeats,
            outdir=str(pathlib.Path(setup.outdir) / "stylegan2" / str(index)),
        )
        models = Models.of(generator=name)
        done = generator_tables.carry_out(settings, models, settings={}, listener=BARS)
        if not done.succeeded:
            raise ValueError(f"{name}: some images are not finite")
        rows.append((models.generator_name, done.values))
    columns = list(dict.fromkeys(key for _, values in rows for key in values))
    return tables.markdown(
        ["generator", *columns],
        [
            [name, *(tables.digits(values[key]) for key in columns)]
            for name, values in rows
        ],
    )


def table2(setup: Setup) -> str:
    """How much the steps of each mapper depend on the face."""
    count = len(setup.faces)
    if not setup.mappers or count < 2:
        missing = "mappers" if not setup.mappers else "at least two faces"
        return f"# Similarity of mapper steps\n\nNeeds {missing}.\n"
    rows = []
    for text, editor in setup.mappers.items():
        edit = setup.session.edit(setup.faces, editor)
        step = jax.tree.map(np.subtract, edit.after.latent, edit.before.latent)
        found = mapper.similarity(latents.flatten(step)[None])
        rows.append([text, f"{found.mean[0]:.3f}", f"{found.std[0]:.3f}"])
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
    config = direction_config(setup)
    if config.directions is not None:
        return "from a file"
    found = directing.relevances(setup.session.loaded, Prompts((text, text)), config)
    # The first one draws the samples and compiles.
    seconds = [_seconds_of(functools.partial(next, found)) for _ in range(2)]
    return f"{_describe(seconds[1])} for a prompt ({config.num_samples} samples)"


def _untrained(setup: Setup) -> Editor:
    """A mapper that takes as long as a trained one."""
    session = setup.session
    config = mapper.of_generator(session.generator.config)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "untrained"
        loading.save_mapper(
            path,
            mapper.init(jax.random.key(0), config),
            config,
            prompt="",
            **session.models.fingerprints("generator", "clip"),
            training={},
        )
        return session.mapping(path)


def _training_step(setup: Setup, editor: Editor) -> float:
    """Seconds of a step of training."""
    network, session = editor.freeze().weights, setup.session
    training = mapper_training.TrainingConfig(id_lambda=0)
    problem = mapper_training.official(network.config, training)
    (text,) = session.encode(setup.content.weighted[0].text)
    latent = setup.faces.latent
    if editor.space == "s":
        latent = session.to_styles(setup.faces)
    rows = np.arange(_MAPPER_BATCH) % len(setup.faces)
    latent = jax.tree.map(lambda x: jnp.asarray(x[rows]), latent)

    @jax.jit
    def step(networks: Networks, state: State, latent: Any) -> tuple[State, object]:
        source = mapper_training.describe(networks, latent, problem=problem)
        return mapper_training.train_step(
            networks, state, source, text, problem=problem
        )

    state = mapper_training.start(network.params, problem=problem)
    return _median(functools.partial(step, session.networks(), state, latent))


def _median(function: Callable[[], object], runs: int = _NUM_RUNS) -> float:
    """Median seconds after a first run, which compiles."""
    _, *seconds = (_seconds_of(function) for _ in range(1 + runs))
    return statistics.median(seconds)


def _seconds_of(function: Callable[[], object]) -> float:
    """Seconds until a result is there."""
    started = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - started


def _describe(value: float) -> str:
    """Such as 12 ms, 3.4 s, 5.6 min, 7.8 h."""
    for limit, factor, unit in ((1, 1000, "ms"), (120, 1, "s"), (7200, 1 / 60, "min")):
        if value < limit:
            return f"{value * factor:#.3g}".removesuffix(".") + f" {unit}"
    return f"{value / 3600:#.3g}".removesuffix(".") + " h"
