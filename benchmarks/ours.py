"""Our side of the comparison: each question as our programs do it."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
import optax

import convert.clip
import convert.discriminator
import convert.irse50
import convert.mapper
import convert.stylegan2
import convert.stylegan3
import styleclip_jax.io.torch_files
from benchmarks import limit, worker
from styleclip_jax import latents, losses
from styleclip_jax.cli import allocator
from styleclip_jax.io import clip_files
from styleclip_jax.methods import (
    channel_relevance,
    gan_draws,
    gan_training,
    mapper,
    mapper_training,
    optimization,
)
from styleclip_jax.models import (
    bpe,
    clip,
    discriminator,
    generators,
    irse50,
    param_trees,
    stylegan3,
)
from styleclip_jax.models.discriminator import DiscriminatorConfig
from styleclip_jax.models.network import Network
from styleclip_jax.ops import pixels
from styleclip_jax.settings.gan_training import GanTrainingConfig


def random_network(module: Any, config: Any) -> Network:
    """A network with parameters drawn by NumPy, which compiles nothing."""
    random = np.random.RandomState(0)
    flat = {
        name: random.randn(*shape) / max(1, np.prod(shape[:-1])) ** 0.5
        for name, shape in module.param_shapes(config).items()
    }
    # Variances, and mean squares.
    positive = ("/var", "/magnitude_ema")
    flat = {name: abs(x) if name.endswith(positive) else x for name, x in flat.items()}
    return _on_device(param_trees.unflatten(flat), config)


def read_network(
    path: pathlib.Path, conversion: Any, module: Any, config: Any, part: str = ""
) -> Network:
    """What the peer left, or a random network where there is no peer."""
    if not path.exists():
        return random_network(module, config)
    file = dataclasses.replace(styleclip_jax.io.torch_files.read(path), part=part)
    converted = conversion.convert(file)
    return _on_device(param_trees.unflatten(converted.tensors), converted.config)


def _on_device(tree: Any, config: Any) -> Network:
    return Network(jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree), config)


class Ours:
    """Networks, latents and text of one comparison."""

    def __init__(self, spec: worker.Spec) -> None:
        self.spec = spec
        self.folder = pathlib.Path(spec.folder)
        # The peer's generator, NVIDIA's or rosinality's.
        self._pickled = self.folder / "generator.pkl"
        self._saved = self.folder / "generator.pt"

    @functools.cached_property
    def generator(self) -> Network:
        config = limit.config_of(self.spec.question, self.spec.resolution)
        is_third = isinstance(config, stylegan3.GeneratorConfig)
        conversion = convert.stylegan3 if is_third else convert.stylegan2
        path = self._pickled if self._pickled.exists() else self._saved
        return read_network(path, conversion, generators, config)

    @functools.cached_property
    def discriminator(self) -> Network:
        """That of the generator's file."""
        generator = self.generator.config
        config = DiscriminatorConfig(generator.resolution, generator.channels)
        by_nvidia = self._pickled.exists()
        return read_network(
            self._pickled if by_nvidia else self._saved,
            convert.discriminator,
            discriminator,
            config,
            part="D" if by_nvidia else "d",
        )

    @functools.cached_property
    def clip(self) -> Network:
        path = self.folder / "clip.pt"
        return read_network(path, convert.clip, clip, clip.ClipConfig())

    @functools.cached_property
    def identity(self) -> Network:
        path = self.folder / "irse50.pt"
        return read_network(path, convert.irse50, irse50, irse50.IrseConfig())

    @functools.cached_property
    def mapper(self) -> Network:
        config = mapper.of_generator(self.generator.config)
        return read_network(self.folder / "mapper.pt", convert.mapper, mapper, config)

    def networks(self, *, identity: bool) -> losses.Networks:
        return losses.Networks(
            self.generator, self.clip, self.identity if identity else None
        )

    @functools.cached_property
    def w_plus(self) -> jax.Array:
        config = self.generator.config
        shape = (self.spec.batch, config.num_rows, config.w_dim)
        return jnp.asarray(worker.normal(shape))

    @functools.cached_property
    def styles(self) -> Any:
        plain = {"space": "w_plus", "truncation_psi": 1.0, "cutoff": None}
        return latents.convert(self.generator, self.w_plus, **plain, to="s")

    @functools.cached_property
    def text(self) -> jax.Array:
        bpe.write(bpe.OPENAI_MERGES, self.folder)
        names = (self.folder / name for name in clip_files.TOKENIZER_FILES)
        return clip.encode_prompts(self.clip, bpe.read(*names), [worker.PROMPT])[0]


def _repeat(turns: worker.Turns, function: Callable[..., Any], *inputs: Any) -> None:
    compiled = jax.jit(function)
    for _ in turns:
        turns.result = jax.block_until_ready(compiled(*inputs))


def _gradient(function: Callable[..., jax.Array]) -> Callable[..., Any]:
    """Of the mean square of f(network, x) by x."""
    return jax.grad(lambda network, x: jnp.mean(function(network, x) ** 2), argnums=1)


def synthesis(ours: Ours, turns: worker.Turns, *, gradient: bool = False) -> None:
    function = generators.synthesize
    wanted = _gradient(function) if gradient else function
    _repeat(turns, wanted, ours.generator, ours.w_plus)


def optimization_step(
    ours: Ours, turns: worker.Turns, *, identity: bool = False
) -> None:
    config = optimization.OptimizationConfig(
        id_lambda=worker.ID_LAMBDA if identity else 0.0
    )
    compiled = optimization.compiled(optimization.official(config), sharding=None)
    networks = ours.networks(identity=identity)
    source = np.array(ours.w_plus)
    state = compiled.start(networks, ours.w_plus, ours.text)
    for _ in turns:
        state = jax.block_until_ready(compiled.step(networks, state))
        # The official script takes one.
        turns.result = (state.latent - source)[:1]


def mapper_step(ours: Ours, turns: worker.Turns) -> None:
    config, latent = ours.mapper.config, ours.w_plus
    problem = mapper_training.official(config, mapper_training.TrainingConfig())
    networks = ours.networks(identity=True)
    # Its slow weights are its fast ones at first, and a buffer is donated once.
    state = jax.tree.map(
        jnp.copy, mapper_training.start(ours.mapper.params, problem=problem)
    )

    @functools.partial(jax.jit, donate_argnums=1)
    def step(networks: Any, state: Any, latent: Any, text: Any) -> Any:
        source = mapper_training.describe(networks, latent, problem=problem)
        return mapper_training.train_step(
            networks, state, source, text, problem=problem
        )

    for _ in turns:
        state, _ = jax.block_until_ready(step(networks, state, latent, ours.text))
        moments = optax.tree.get(state.optimizer, "mu")
        turns.result = np.concatenate(
            [
                moments[level][f"fc{layer}"]["bias"]
                for level in ("coarse", "medium", "fine")
                for layer in range(4)
            ]
        )


def gan_training_steps(
    ours: Ours, turns: worker.Turns, *, recipe: str = "nvidia"
) -> None:
    """As many steps as have each regularization; draws are those of the peer."""
    generator, batch = ours.generator, ours.spec.batch
    config = generator.config
    judge = ours.discriminator
    problem = gan_training.official(
        config,
        judge.config,
        GanTrainingConfig(
            recipe=recipe,
            learning_rate=worker.GAN_RATE,
            r1_gamma=worker.GAN_GAMMA,
            r1_interval=worker.GAN_R1_EVERY,
            path_weight=worker.GAN_PATH_WEIGHT,
            path_interval=worker.GAN_PATHS_EVERY,
            ema_images=worker.GAN_EMA_IMAGES,
        ),
    )
    state = gan_training.start(generator.params, judge.params, problem=problem)
    # A buffer is donated once.
    state = jax.tree.map(jnp.copy, state)
    count = gan_training.path_batch(batch, problem=problem)

    def nhwc(count: int) -> jax.Array:
        shape = (count, 3, config.resolution, config.resolution)
        return jnp.asarray(worker.normal(shape)).transpose(0, 2, 3, 1)

    def fakes(count: int) -> gan_draws.Fakes:
        noise = {k: jnp.zeros((count, *v)) for k, v in config.noise_shapes.items()}
        z = jnp.asarray(worker.normal((batch, config.z_dim)))[:count]
        return gan_draws.Fakes(z, None, jnp.asarray(config.num_rows), noise)

    reals = gan_draws.Reals(nhwc(batch))
    batches = {
        gan_training.GENERATOR: (fakes(batch),),
        gan_training.PATHS: (fakes(count), nhwc(count)),
        gan_training.DISCRIMINATOR: (reals, fakes(batch)),
        gan_training.R1: (reals,),
    }

    @functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
    def step(phases: tuple[str, ...], state: Any, batches: Any) -> Any:
        for name in phases:
            phase = gan_training.PHASES[name]
            state, _ = phase(state, *batches[name], problem=problem)
        return gan_training.average(state, batch, problem=problem)

    def compared(params: Any) -> np.ndarray:
        flat = param_trees.flatten(params)
        names = [name.replace(".", "/") for name in worker.GAN_COMPARED]
        return np.concatenate([flat[name] for name in names])

    before = compared(judge.params)
    for _ in turns:
        for index in range(worker.GAN_STEPS):
            phases = gan_training.schedule(index, problem=problem)
            state = step(phases, state, batches)
        latest = jax.block_until_ready(state.discriminator)
        turns.result = compared(latest) - before


def apply_mapper(ours: Ours, turns: worker.Turns) -> None:
    def edit(generator: Network, network: Network, latent: jax.Array) -> jax.Array:
        return generators.synthesize(generator, mapper.edit(network, latent))

    _repeat(turns, edit, ours.generator, ours.mapper, ours.w_plus)


def apply_direction(ours: Ours, turns: worker.Turns) -> None:
    def edit(generator: Network, styles: Any) -> jax.Array:
        moved = jax.tree.map(
            lambda s: s + worker.ALPHA * worker.direction(s.shape), styles
        )
        image = generators.synthesize_styles(generator, moved)
        return pixels.to_uint8(image, rounding="torch")

    _repeat(turns, edit, ours.generator, ours.styles)


def relevance(ours: Ours, turns: worker.Turns) -> None:
    """One channel of a layer, exactly, with what the layer's channels share."""
    networks = ours.networks(identity=False)
    config = channel_relevance.RelevanceConfig(restore=True)
    layer, num_channels = worker.RELEVANCE_LAYER, sum(s.shape[1] for s in ours.styles)
    prepared = jax.jit(
        functools.partial(
            channel_relevance.prepare, layer=layer, layers=(layer,), config=config
        )
    )(networks, ours.styles, jnp.zeros(num_channels))
    function = functools.partial(
        channel_relevance.channel_features, layer=layer, config=config
    )
    mean, std = jnp.zeros(num_channels), jnp.ones(num_channels)
    _repeat(turns, function, networks, prepared, mean, std, jnp.arange(1))


def clip_image(ours: Ours, turns: worker.Turns, *, gradient: bool = False) -> None:
    network = ours.clip
    wanted = _gradient(clip.encode_image) if gradient else clip.encode_image
    size = network.config.image_size
    image = jnp.asarray(worker.normal((ours.spec.batch, size, size, 3)))
    _repeat(turns, wanted, network, image)


def face(ours: Ours, turns: worker.Turns, *, gradient: bool = False) -> None:
    network = ours.identity

    def total(network: Network, image: jax.Array) -> jax.Array:
        # Not the mean square, which is constant: features have length 1.
        return jnp.sum(irse50.embed(network, image)[:, 0])

    wanted = jax.grad(total, argnums=1) if gradient else irse50.embed
    size = network.config.input_size
    image = jnp.asarray(worker.normal((ours.spec.batch, size, size, 3)))
    _repeat(turns, wanted, network, image)


def matmul(ours: Ours, turns: worker.Turns) -> None:
    """The machine's limit."""
    x = jnp.asarray(worker.normal((worker.MATMUL_SIZE,) * 2))
    _repeat(turns, lambda a, b: jnp.dot(a, b, precision="highest"), x, x)


QUESTIONS: dict[str, Callable[[Ours, worker.Turns], None]] = {
    "matmul": matmul,
    "synthesis": synthesis,
    "synthesis_gradient": functools.partial(synthesis, gradient=True),
    "stylegan3_t": synthesis,
    "stylegan3_t_gradient": functools.partial(synthesis, gradient=True),
    "stylegan3_r": synthesis,
    "stylegan3_r_gradient": functools.partial(synthesis, gradient=True),
    "optimization": optimization_step,
    "optimization_identity": functools.partial(optimization_step, identity=True),
    "mapper": mapper_step,
    "training": gan_training_steps,
    "training_narrow": gan_training_steps,
    "training_rosinality": functools.partial(gan_training_steps, recipe="rosinality"),
    "apply_mapper": apply_mapper,
    "apply_direction": apply_direction,
    "relevance": relevance,
    "clip_forward": clip_image,
    "clip_gradient": functools.partial(clip_image, gradient=True),
    "irse50_forward": face,
    "irse50_gradient": functools.partial(face, gradient=True),
}


def main() -> None:
    """Answers one question."""
    spec = worker.read_spec()
    turns = worker.Turns(jax=jax.__version__, jaxlib=jaxlib.__version__)
    allocator.keep_freed_memory()
    turns.items = 1 if spec.question == "matmul" else spec.batch
    QUESTIONS[spec.question](Ours(spec), turns)


if __name__ == "__main__":
    main()
