"""Run that trains a delta network."""

import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp

from styleclip_jax import losses
from styleclip_jax.errors import UserError
from styleclip_jax.io import checkpoints
from styleclip_jax.methods import delta, delta_training
from styleclip_jax.methods.delta_training import TrainingConfig
from styleclip_jax.ops import norms
from styleclip_jax.progress import Listener
from styleclip_jax.settings.deltas import Architecture

from . import training
from .trainer import Task, Trainer
from .training import Request
from .training_files import Folder, Results

# Name of the program in run.json.
_PROGRAM = "styleclip-train-delta"
# Latents that the mean and the deviation of a network's input come from.
_NUM_SAMPLES = 1024


@dataclasses.dataclass(frozen=True)
class DeltaRequest(Request):
    """Training of a delta network that is asked for.

    Attributes:
      architecture: of the network.
      training: noise, pairs and optimizer.
    """

    architecture: Architecture
    training: TrainingConfig


def train(request: DeltaRequest, listener: Listener) -> list[str]:
    """Trains a delta network from the last checkpoint on, into the folder of the run.

    Args:
      request: what to train.
      listener: is told how far it is.

    Returns:
      A line if the loss was not finite, which ends the run; none when all steps are
      done.

    Raises:
      UserError: something does not fit, or the folder is of another run.
    """
    request, devices, notes = training.fill_devices(request, _PROGRAM)
    models, config = request.models, request.run
    if config.batch_size < 2:
        raise UserError(
            f"batch_size: expected at least 2 latents to pair, found "
            f"{config.batch_size}",
            field="batch_size",
        )
    generator = models.load_generator()
    clip_network, _ = models.load_clip()
    architecture = delta.of_generator(
        generator.config,
        embed_dim=clip_network.config.embed_dim,
        **dataclasses.asdict(request.architecture),
    )
    problem = delta_training.official(architecture, request.training, config.seed)
    data, convert = training.open_data(request, generator.config, architecture.space)
    inputs = training.hash_inputs(request, "generator", "clip")
    about = [
        *training.describe(request, data, generator.config, architecture.space),
        f"network: {architecture.num_layers} layers, {architecture.width} wide",
    ]
    training.begin(request, _PROGRAM, inputs, about + notes, listener)

    def save(
        path: pathlib.Path, index: int, params: Any, about: dict[str, float]
    ) -> None:
        checkpoints.save_network(
            path,
            kind=delta.KIND,
            params=params,
            config=architecture,
            source={
                "generator": inputs["generator"],
                "clip": inputs["clip"],
                "training": about,
            },
            overwrite=True,
        )

    rows = ["original", "other", "towards it"]
    results = Results("delta network", [None], rows, save)
    folder = Folder(request.workdir, results, config.batch_size, listener)
    networks = losses.Networks(generator, clip_network)
    samples = convert(
        generator, jnp.asarray(data.samples(_NUM_SAMPLES)), space=data.space
    )
    task = task_of(networks, samples, problem)
    return training.run(Trainer(task, data, convert, devices), folder, config, listener)


def task_of(
    networks: losses.Networks, samples: Any, problem: delta_training.Problem
) -> Task:
    """Training of a delta network.

    Args:
      networks: generator and CLIP.
      samples: latents that the mean and the deviation of its input come from.
      problem: architecture, noise and optimizer.
    """

    # The trainer's networks are several, of which there is one here.
    def several(tree: Any) -> Any:
        return jax.tree.map(lambda x: x[None], tree)

    def alone(tree: Any) -> Any:
        return jax.tree.map(lambda x: x[0], tree)

    def start(key: jax.Array) -> Any:
        init = jax.jit(delta.init, static_argnums=1)
        params = delta.with_statistics(init(key, problem.config), samples)
        return several(delta_training.start(params, problem=problem))

    def step(
        networks: Any, context: None, state: Any, latent: Any, axis_name: str
    ) -> tuple[Any, Any]:
        return several(
            delta_training.train_step(
                networks, alone(state), latent, problem=problem, axis_name=axis_name
            )
        )

    def evaluate(
        networks: Any, context: None, params: Any, latent: Any, axis_name: str
    ) -> Any:
        return several(
            delta_training.evaluate(
                networks, alone(params), latent, problem=problem, axis_name=axis_name
            )
        )

    def edit(networks: Any, context: None, params: Any, latent: Any) -> list[Any]:
        network = delta.Delta(alone(params), problem.config)
        features = delta_training.describe(networks, latent, problem=problem).features
        direction = norms.unit(jnp.roll(features, -1, axis=0) - features)
        other = jax.tree.map(lambda x: jnp.roll(x, -1, axis=0), latent)
        return [latent, other, delta.edit(network, latent, direction)]

    return Task(networks, None, start, step, evaluate, edit, problem.space)
