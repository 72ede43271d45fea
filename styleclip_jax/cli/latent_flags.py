"""Where a program's latents come from: seeds or a file."""

import re
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags

from styleclip_jax.batch.source import LatentSource
from styleclip_jax.errors import UserError
from styleclip_jax.io import latent_files
from styleclip_jax.models import stylegan2
from styleclip_jax.models.network import Network


def define(values: flags.FlagValues) -> None:
    """Defines the flags that `read` uses."""
    flags.DEFINE_string(
        "generator",
        None,
        "Model directory; the embedded one if absent.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "seeds",
        None,
        "Seeds of random latents, such as 0-15 or 1,5,8-11; drawn as "
        "in stylegan2-ada-pytorch.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "latents",
        None,
        "File of latents (.npy, .npz, .safetensors) instead of seeds.",
        flag_values=values,
    )
    flags.DEFINE_float(
        "truncation_psi",
        0.7,
        "Truncation of z and w: 1 is none, 0 the average.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "class", None, "Class, for class-conditional generators.", flag_values=values
    )
    flags.DEFINE_integer(
        "truncation_cutoff",
        None,
        "Number of leading rows to truncate; all of them if absent.",
        flag_values=values,
    )


def read(
    values: flags.FlagValues,
    generator: Network,
    *,
    default_seeds: str,
    space: str | None = None,
) -> LatentSource:
    """The latents that the flags name.

    Args:
      values: parsed flags.
      generator: that the latents are for.
      default_seeds: used without --seeds and --latents.
      space: says what space a file is in; None tells it by the shape.

    Raises:
      UserError: both flags given, a flag out of range, or a file that does not fit.
    """
    if values.seeds is not None and values.latents is not None:
        raise UserError("--seeds and --latents: expected one of them, found both")
    psi = values.truncation_psi
    if not -4 <= psi <= 4:
        raise UserError(f"--truncation_psi: expected -4 to 4, found {psi}")
    cutoff = values.truncation_cutoff
    if cutoff is not None and cutoff < 0:
        raise UserError(f"--truncation_cutoff: expected at least 0, found {cutoff}")
    config = generator.config
    shared: dict[str, Any] = {
        "layout": config.style_layout,
        "z_dim": config.z_dim,
        "truncation_psi": psi,
        "truncation_cutoff": cutoff,
    }
    if values.latents is not None:
        found = latent_files.read(
            values.latents, latent_files.dimensions(config), space
        )
        rows = range(len(found.array))
        return LatentSource(found.space, rows, found.array, **shared)
    seeds = parse_seeds(default_seeds if values.seeds is None else values.seeds)
    return LatentSource("z", seeds, None, **shared)


def one_hot_label(
    values: flags.FlagValues, config: stylegan2.GeneratorConfig
) -> jax.Array | None:
    """--class as a one-hot vector [c_dim], None for an unconditional generator.

    Raises:
      UserError: --class is missing, surplus or out of range.
    """
    index = values["class"].value
    if not config.c_dim:
        if index is not None:
            raise UserError("--class: this generator is not class-conditional")
        return None
    if index is None or not 0 <= index < config.c_dim:
        raise UserError(
            f"--class: expected 0 to {config.c_dim - 1} for this class-conditional "
            f"generator, found {index}"
        )
    return jnp.zeros(config.c_dim).at[index].set(1.0)


def parse_seeds(text: str) -> list[int]:
    """Seeds of "3", "0-15" or "1,5,8-11", in the order given.

    Raises:
      UserError: not such a list.
    """
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if match is None or (match[2] and int(match[2]) < int(match[1])):
            raise UserError(
                f"--seeds: expected numbers such as 0-15 or 1,5,8-11, found {text!r}"
            )
        seeds += range(int(match[1]), int(match[2] or match[1]) + 1)
    if max(seeds) >= 2**32:
        raise UserError(f"--seeds: expected seeds below 2^32, found {max(seeds)}")
    return seeds
