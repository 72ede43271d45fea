"""Run that trains latent mappers, one for each prompt."""

import dataclasses
import pathlib
from typing import Any

import jax
import numpy as np

from styleclip_jax import loading, losses
from styleclip_jax.editing.prompts import Prompts
from styleclip_jax.methods import mapper, mapper_training
from styleclip_jax.methods.mapper_training import TrainingConfig
from styleclip_jax.models import clip, generators
from styleclip_jax.progress import Listener
from styleclip_jax.settings.mappers import ArchitectureSettings

from . import latent_data, training
from .trainer import Task, Trainer
from .training import Request
from .training_files import Folder, Results

# Name of the program in run.json, which is older than the console script.
_PROGRAM = "train.mapper"


@dataclasses.dataclass(frozen=True)
class Architecture(ArchitectureSettings):
    """Architecture of the mappers, by its settings and a generator."""

    def configure(self, generator: generators.GeneratorConfig) -> mapper.MapperConfig:
        """The configuration for a generator.

        Raises:
          UserError: a setting does not fit it.
        """
        settings = dataclasses.asdict(self)
        if self.levels is None:
            del settings["levels"]
        return mapper.of_generator(generator, **settings)


@dataclasses.dataclass(frozen=True)
class MapperRequest(Request):
    """Training of mappers that is asked for.

    Attributes:
      prompts: texts, of which each gets a mapper.
      architecture: of the mappers.
      training: objective and optimizer; without an identity network its weight is 0.
    """

    prompts: Prompts
    architecture: Architecture
    training: TrainingConfig


def train(request: MapperRequest, listener: Listener) -> list[str]:
    """Trains mappers from the last checkpoint on, into the folder of the run.

    Args:
      request: what to train.
      listener: is told how far it is.

    Returns:
      A line for each mapper whose loss was not finite, which ends the run; none when
      all steps are done.

    Raises:
      UserError: something does not fit, or the folder is of another run.
    """
    request, devices, notes = training.fill_devices(request, _PROGRAM)
    models, config = request.models, request.run
    generator = models.load_generator()
    clip_network, tokenizer = models.load_clip()
    names = ["generator", "clip"]
    identity = None
    if request.training.id_lambda:
        identity = models.load_identity(generator.config)
        names.append("identity")
    architecture = request.architecture.configure(generator.config)
    problem = mapper_training.official(architecture, request.training)
    data, convert = training.open_data(request, generator.config, architecture.space)
    texts = request.prompts.texts
    text = clip.encode_prompts(clip_network, tokenizer, texts)
    inputs = training.hash_inputs(request, *names) | request.prompts.inputs
    about = _describe(request, problem, data, generator.config)
    training.begin(request, _PROGRAM, inputs, about + notes, listener)

    def save(
        path: pathlib.Path, index: int, params: Any, about: dict[str, float]
    ) -> None:
        loading.save_mapper(
            path,
            params,
            architecture,
            prompt=texts[index],
            generator=inputs["generator"],
            clip=inputs["clip"],
            training=about,
        )

    results = Results("mapper", texts, ["original", *texts], save)
    folder = Folder(request.workdir, results, config.batch_size, listener)
    networks = losses.Networks(generator, clip_network, identity)
    trainer = Trainer(task_of(networks, text, problem), data, convert, devices)
    return training.run(trainer, folder, config, listener)


def task_of(
    networks: losses.Networks, text: jax.Array, problem: mapper_training.Problem
) -> Task:
    """Training of a mapper for each text.

    All start from the same weights, so that a mapper becomes the same whether others
    are trained beside it or not.

    Args:
      networks: generator, CLIP and identity.
      text: [M, E] normalised CLIP features of the prompts.
      problem: architecture, objective and optimizer.
    """

    def start(key: jax.Array) -> Any:
        init = jax.jit(mapper.init, static_argnums=1)
        state = mapper_training.start(init(key, problem.config), problem=problem)
        return jax.tree.map(lambda x: np.stack([np.asarray(x)] * len(text)), state)

    def edit(networks: Any, text: Any, params: Any, latent: Any) -> list[Any]:
        def one(index: int) -> Any:
            own = jax.tree.map(lambda x: x[index], params)
            return mapper.edit(mapper.Mapper(own, problem.config), latent)

        return [latent, *map(one, range(len(text)))]

    def step(
        networks: Any, text: Any, state: Any, latent: Any, axis_name: str
    ) -> tuple[Any, Any]:
        return mapper_training.train_together(
            networks, state, latent, text, problem=problem, axis_name=axis_name
        )

    def evaluate(
        networks: Any, text: Any, params: Any, latent: Any, axis_name: str
    ) -> Any:
        return mapper_training.evaluate_together(
            networks, params, latent, text, problem=problem, axis_name=axis_name
        )

    return Task(networks, text, start, step, evaluate, edit, problem.space)


def _describe(
    request: MapperRequest,
    problem: mapper_training.Problem,
    data: latent_data.Data,
    generator: generators.GeneratorConfig,
) -> list[str]:
    """Lines on what is trained."""
    config = problem.config
    parts = ", ".join(config.levels) if config.space == "w_plus" else "style vectors"
    terms = ", ".join(f"{weight:g} {n}" for n, (weight, _) in problem.objective.items())
    lines = [
        *training.describe(request, data, generator, config.space),
        f"mapper: {parts}",
        f"objective: {terms}",
        f"prompts: {'; '.join(request.prompts.texts)}",
    ]
    equal_rows = data.space in ("z", "w")
    if config.space == "w_plus" and config.normalize_over == "rows" and equal_rows:
        lines.append(
            "note: all rows of these latents are equal, and normalised over rows they "
            "keep their signs alone; --normalize_over=features keeps the rest"
        )
    return lines
