"""styleclip-train-delta: train one network that edits by any prompt.

  styleclip-train-delta --workdir=outputs/delta --train_steps=800
  styleclip-edit --method=delta --delta=outputs/delta/best --prompt="a smiling face"

It learns from pictures of random latents, or of a file of them by --latents, and reads
no text. Writes under --workdir: best and last, a network each for styleclip-edit
--method=delta; metrics.jsonl; sheets/, latents held out, others, and edits towards
them; checkpoints/, from which the same command goes on after an interruption; and
run.json. Several processes: the same command in each, with --coordinator_address,
--num_processes and --process_id. Exit code 1 says that a loss was not finite.
"""

import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags

from styleclip_jax import latents, losses
from styleclip_jax.cli import processes, profiling, program
from styleclip_jax.errors import UserError
from styleclip_jax.io import checkpoints
from styleclip_jax.loading import CLIP_FIELDS, GENERATOR_FIELDS, Models
from styleclip_jax.methods import delta, delta_training
from styleclip_jax.methods.delta_training import TrainingConfig
from styleclip_jax.ops import norms
from styleclip_jax.progress import Listener

from . import training
from .latent_data import DataRequest
from .trainer import Task, Trainer
from .training import NEUTRAL_FIELDS, Request, RunConfig
from .training_files import Folder, Results

# Name of the program in run.json.
_PROGRAM = "styleclip-train-delta"
# Latents that the mean and the deviation of a network's input come from.
_NUM_SAMPLES = 1024


@dataclasses.dataclass(frozen=True)
class DeltaRunConfig(RunConfig):
    """Length and rhythm of the training of a delta network.

    Attributes:
      seed: of the initial weights, of pairs, noise, shuffling and sampled latents.
    """

    train_steps: int = 2000
    batch_size: int = 32
    val_interval: int = 200
    image_interval: int = 400
    save_interval: int = 200


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Architecture of the network; the generator gives the rest of it.

    Attributes:
      space: Space to edit in.
      width: Length of the hidden features.
      num_layers: Number of dense layers.
    """

    space: str = dataclasses.field(
        default=delta.DeltaConfig.space, metadata={"choices": latents.SPACES}
    )
    width: int = delta.DeltaConfig.width
    num_layers: int = delta.DeltaConfig.num_layers


@dataclasses.dataclass(frozen=True)
class DeltaRequest(Request):
    """Training of a delta network that is asked for.

    Attributes:
      architecture: of the network.
      training: noise, pairs and optimizer.
    """

    architecture: Architecture
    training: TrainingConfig


_MODELS = (*GENERATOR_FIELDS, *CLIP_FIELDS, "class_")
# Flags that say where, how long and how often, not what.
_NEUTRAL_FLAGS = ("workdir", *NEUTRAL_FIELDS, *processes.FLAGS)

VALUES = flags.FlagValues()
program.define(Models, VALUES, _MODELS)
program.define(DataRequest, VALUES)
program.define(Architecture, VALUES)
program.define(TrainingConfig, VALUES)
program.define(DeltaRunConfig, VALUES)
flags.DEFINE_string(
    "workdir", "outputs/delta", "Folder for the run.", flag_values=VALUES
)
processes.define(VALUES)
profiling.define(VALUES)


def main(values: flags.FlagValues) -> int:
    """Trains from the last checkpoint on."""
    request = DeltaRequest(
        models=program.build(Models, values, _MODELS),
        data=program.build(DataRequest, values),
        run=program.build(DeltaRunConfig, values),
        workdir=pathlib.Path(values.workdir),
        settings=program.settings(values, _NEUTRAL_FLAGS),
        architecture=program.build(Architecture, values),
        training=program.build(TrainingConfig, values),
    )
    return training.carry_out(values, request, train)


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


def entry() -> None:
    """The console script."""
    program.run(main, VALUES)


if __name__ == "__main__":
    entry()
