"""Where a program's latents come from: seeds or a file."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from styleclip_jax import spaces
from styleclip_jax.cli.flags import parse_seeds
from styleclip_jax.errors import UserError
from styleclip_jax.io import latents
from styleclip_jax.models import stylegan2
from styleclip_jax.models.network import Network


@dataclasses.dataclass(frozen=True)
class Source:
    """The latents that a program works on.

    Attributes:
      space: one of `io.latents.SPACES`.
      origins: where each latent comes from: its seed, or its row in the file.
      array: what the file holds, [N, …]; None for z of seeds.
      layout: of S.
      z_dim: length of z.
      truncation_psi: applied to z and w, never to W+ and S.
      truncation_cutoff: number of leading rows to truncate, None for all.
    """

    space: str
    origins: Sequence[int]
    array: np.ndarray | None
    layout: tuple[spaces.StyleLayer, ...]
    z_dim: int
    truncation_psi: float = 1.0
    truncation_cutoff: int | None = None

    def __len__(self) -> int:
        return len(self.origins)

    def origin(self, row: int) -> dict[str, int]:
        """Where a latent comes from: {"seed": 3} or {"row": 3}."""
        return {"seed" if self.array is None else "row": self.origins[row]}

    def load(self, rows: np.ndarray) -> Any:
        """Some latents as float32 in memory, S as a tuple of style vectors."""
        if self.array is None:
            seeds = (self.origins[row] for row in rows)
            return np.stack([seeded_z(seed, self.z_dim) for seed in seeds])
        found: Any = latents.take(self.array, rows)
        if self.space == "s":
            return spaces.unflatten_styles(found, self.layout)
        return found


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
) -> Source:
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
        found = latents.read(values.latents, dimensions(config), space)
        rows = range(len(found.array))
        return Source(found.space, rows, found.array, **shared)
    seeds = parse_seeds(default_seeds if values.seeds is None else values.seeds)
    return Source("z", seeds, None, **shared)


def seeded_z(seed: int, z_dim: int) -> np.ndarray:
    """z [D] of a seed, the same as in stylegan2-ada-pytorch's `generate.py`."""
    return np.random.RandomState(seed).randn(z_dim).astype(np.float32)


def dimensions(config: stylegan2.GeneratorConfig) -> latents.Dimensions:
    """What the latents of a generator look like."""
    return latents.Dimensions(
        config.resolution, config.z_dim, config.w_dim, config.style_layout
    )


def pack(latent: Any) -> jax.Array:
    """Latents as files hold them: W+ as it is, S flat."""
    return spaces.flatten_styles(latent) if isinstance(latent, tuple) else latent


@functools.partial(jax.jit, static_argnames=("space", "cutoff", "to"))
def convert(
    generator: Network,
    batch: Any,
    *,
    space: str,
    truncation_psi: float,
    cutoff: int | None,
    to: str,
    label: jax.Array | None = None,
) -> Any:
    """A batch from the space of the source to "w_plus" or "s".

    W+ and S stay as they are, z and w are truncated on the way. `label` [c_dim] is the
    class of all.
    """
    params, config = generator.params, generator.config
    if space == "z":
        if label is not None:
            label = jnp.broadcast_to(label, (len(batch), *label.shape))
        batch = stylegan2.map_latents(params, batch, label, config=config)
    if space in ("z", "w"):
        w_plus = spaces.broadcast_w(batch, config.num_rows)
        w_avg = params["mapping"]["w_avg"]
        batch = spaces.truncate(w_plus, w_avg, truncation_psi, cutoff)
    if to == "s" and space != "s":
        batch = stylegan2.to_styles(params, batch, config=config)
    return batch


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
