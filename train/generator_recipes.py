"""Recipes of generators' trainings: networks and numbers by resolution and batch."""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import optax

from styleclip_jax import loading, places
from styleclip_jax.errors import UserError
from styleclip_jax.io import checkpoints
from styleclip_jax.methods import gan_training
from styleclip_jax.models import discriminator, stylegan2
from styleclip_jax.models.discriminator import DiscriminatorConfig
from styleclip_jax.models.network import Network
from styleclip_jax.models.stylegan2 import GeneratorConfig
from styleclip_jax.settings.gan_training import GanTrainingConfig
from styleclip_jax.settings.generator_training import RecipeSettings

from .image_data import GROUP

# Resolutions that mixed precision has in bfloat16, and the bound on activations there.
_NUM_LOW, _CLAMP = 4, 256.0


class Recipe(NamedTuple):
    """Networks of a training with their first parameters, and its problem.

    Attributes:
      problem: what is trained for.
      generator: first parameters of the generator.
      discriminator: first parameters of the discriminator.
      about: lines for people.
    """

    problem: gan_training.Problem
    generator: Any
    discriminator: Any
    about: list[str]


class _Numbers(NamedTuple):
    """Numbers that depend on config.

    Attributes:
      base: product of channels and resolution, where channels are fewer than 512.
      num_mapping_layers: dense layers of the mapping.
      learning_rate, r1_gamma, ema_images, ema_ramp_up: of `GanTrainingConfig`.
    """

    base: int
    num_mapping_layers: int
    learning_rate: float
    r1_gamma: float
    ema_images: float
    ema_ramp_up: float | None


def default_batch_size(resolution: int, devices: int) -> int:
    """Images per step of config auto, over all devices."""
    each = min(max(4096 // resolution, 1), 32)
    return max(min(devices * each, 64), devices)


def make(
    settings: RecipeSettings,
    *,
    resolution: int,
    c_dim: int,
    batch_size: int,
    per_device: int,
    seed: int,
) -> Recipe:
    """Networks and problem of a training.

    Args:
      settings: what is asked for.
      resolution: width and height of the images.
      c_dim: number of classes, 0 for none.
      batch_size: images per step, over all devices.
      per_device: images per step of a device.
      seed: seed of the initial weights.

    Raises:
      UserError: a network to begin with is wrong, or does not fit the images.

    Source: train.py of stylegan2-ada-pytorch; run_training.py of stylegan2 for e and f.
    """
    numbers = numbers_of(settings.config, resolution, batch_size)
    keys = jax.random.split(jax.random.key(seed))
    generator, judge, about = _begin(settings, numbers, resolution, c_dim, keys)
    # Groups lie within a device.
    group = math.gcd(per_device, judge.config.group_size or per_device)
    judge = dataclasses.replace(judge, config=judge.config.replace(group_size=group))
    problem = gan_training.official(
        generator.config,
        judge.config,
        GanTrainingConfig(
            recipe=settings.recipe,
            learning_rate=_or(settings.learning_rate, numbers.learning_rate),
            r1_gamma=_or(settings.r1_gamma, numbers.r1_gamma),
            path_weight=settings.path_weight,
            r1_interval=settings.r1_interval,
            path_interval=settings.path_interval,
            style_mixing=settings.style_mixing,
            ema_images=numbers.ema_images,
            ema_ramp_up=numbers.ema_ramp_up,
        ),
    )
    if settings.freeze_layers:
        frozen = frozen_layers(judge.config, settings.freeze_layers)
        problem = problem._replace(
            discriminator_optimizer=_without(problem.discriminator_optimizer, frozen)
        )
        about.append(f"frozen: {', '.join(frozen)} of the discriminator")
    return Recipe(problem, generator.params, judge.params, about)


def frozen_layers(config: DiscriminatorConfig, count: int) -> list[str]:
    """First layers of a discriminator, as names of parameters: "b64/conv0".

    Source: freezed of stylegan2-ada-pytorch (FreezeD, https://arxiv.org/abs/2002.10964).

    Raises:
      UserError: it has fewer.
    """
    names = [f"b{config.resolution}/fromrgb"]
    for i in reversed(range(1, len(config.channels))):
        names += [f"b{4 << i}/{layer}" for layer in ("conv0", "conv1", "skip")]
    if count > len(names):
        raise UserError(
            f"freeze_layers: expected at most {len(names)} of this discriminator, "
            f"found {count}",
            field="freeze_layers",
        )
    return names[:count]


def numbers_of(config: str, resolution: int, batch_size: int) -> _Numbers:
    """Numbers of config auto, e or f."""
    if config != "auto":
        is_large = config == "f"
        base, gamma = (32768, 10.0) if is_large else (16384, 100.0)
        return _Numbers(base, 8, 0.002, gamma, 10_000.0, None)
    return _Numbers(
        base=32768 if resolution >= 512 else 16384,
        num_mapping_layers=2,
        learning_rate=0.002 if resolution >= 1024 else 0.0025,
        r1_gamma=0.0002 * resolution**2 / batch_size,
        ema_images=batch_size * 10_000 / 32,
        ema_ramp_up=0.05,
    )


def _or(given: float | None, default: float) -> float:
    return default if given is None else given


def _begin(
    settings: RecipeSettings,
    numbers: _Numbers,
    resolution: int,
    c_dim: int,
    keys: jax.Array,
) -> tuple[Network, Network, list[str]]:
    """Networks to begin with, and lines on them."""
    if settings.resume_from is not None:
        generator = loading.load_generator(settings.resume_from)
        config = generator.config
        if not isinstance(config, GeneratorConfig):
            kind = checkpoints.kind_of(places.find("generator", settings.resume_from))
            raise UserError(
                f"resume_from: expected a generator of kind stylegan2, which alone is "
                f"trained, found {kind} in {settings.resume_from}",
                field="resume_from",
            )
        config.expect_square("resume_from")
        if (config.resolution, config.c_dim) != (resolution, c_dim):
            raise UserError(
                f"resume_from: expected a generator of {resolution}² and {c_dim} "
                f"classes as the images have, found {config.resolution}² and "
                f"{config.c_dim}",
                field="resume_from",
                also=["data"],
            )
        where = places.find("generator", settings.resume_from)
        if (where / loading.DISCRIMINATOR).is_dir():
            judge = loading.load_discriminator(settings.resume_from)
            begun = "the generator and discriminator of"
        else:
            judge = _new_discriminator(config, keys[1])
            begun = "a new discriminator beside the generator of"
        about = [f"networks: {begun} {settings.resume_from}"]
    else:
        base = settings.channel_base or numbers.base
        channels = tuple(
            max(1, min(base // (4 << i), settings.channel_max))
            for i in range(resolution.bit_length() - 2)
        )
        config = GeneratorConfig(
            resolution=resolution,
            z_dim=settings.w_dim,
            w_dim=settings.w_dim,
            c_dim=c_dim,
            num_mapping_layers=settings.num_mapping_layers
            or numbers.num_mapping_layers,
            channels=channels,
            conv_clamp=_CLAMP if settings.mixed_precision else None,
        )
        generator = Network(_init(stylegan2.init, keys[0], config), config)
        judge = _new_discriminator(config, keys[1])
        about = [f"networks: new ones of config {settings.config}"]
    if settings.mixed_precision:
        generator, judge = _mixed(generator), _mixed(judge)
        about.append(f"bfloat16: from {_lowest(generator.config)}² on")
    return generator, judge, about


def _new_discriminator(config: GeneratorConfig, key: jax.Array) -> Network:
    """Discriminator as large as a generator."""
    own = DiscriminatorConfig(
        resolution=config.resolution,
        channels=config.channels,
        c_dim=config.c_dim,
        cmap_dim=config.channels[0],
        conv_clamp=config.conv_clamp,
        group_size=GROUP,
    )
    return Network(_init(discriminator.init, key, own), own)


def _init(init: Any, key: jax.Array, config: Any) -> Any:
    return jax.jit(init, static_argnums=1)(key, config)


def _lowest(config: Any) -> int:
    """Lowest resolution that mixed precision has in bfloat16."""
    return max(config.resolution >> (_NUM_LOW - 1), 8)


def _mixed(network: Network) -> Network:
    """Network whose highest resolutions are computed in bfloat16."""
    config = dataclasses.replace(
        network.config, dtype="bfloat16", low_precision_from=_lowest(network.config)
    )
    return dataclasses.replace(network, config=config)


def _without(
    optimizer: optax.GradientTransformation, frozen: list[str]
) -> optax.GradientTransformation:
    """An optimizer that leaves the parameters of some layers as they are."""

    def is_free(path: Any, _: Any) -> bool:
        name = "/".join(part.key for part in path)
        return not any(name.startswith(f"{layer}/") for layer in frozen)

    def free(params: Any) -> Any:
        return jax.tree.map_with_path(is_free, params)

    def stuck(params: Any) -> Any:
        return jax.tree.map(lambda x: not x, free(params))

    return optax.chain(
        optax.masked(optimizer, free), optax.masked(optax.set_to_zero(), stuck)
    )
