"""Directions of an expression: its files and channels, read for a generator."""

import functools
import pathlib
import re
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from styleclip_jax.editing import direction_expressions, estimation
from styleclip_jax.editing.direction_expressions import Channel, File, Terms
from styleclip_jax.editing.loaded import Loaded
from styleclip_jax.errors import UserError
from styleclip_jax.io import direction_files, direction_formats, files
from styleclip_jax.methods import global_directions, latent_directions
from styleclip_jax.methods.global_directions import Direction

# Sign in a name, which may have been meant as an operator.
_SIGN = re.compile(r".[+-].")


class Source(NamedTuple):
    """Direction of an expression.

    Attributes:
      direction: direction Δs.
      title: the expression, with short names of its files.
      inputs: hash of each file.
      notes: lines on what its files and channels were taken for.
    """

    direction: Direction
    title: str
    inputs: dict[str, str]
    notes: list[str]


def read(loaded: Loaded, terms: Terms) -> Source:
    """Reads all that an expression names, and works it out.

    Args:
      loaded: loaded networks.
      terms: terms of the expression, as `direction_expressions.parse` has them.

    Raises:
      UserError: a file is missing, broken, of another generator, or leaves open which
        direction is meant; or a channel or row does not exist.
    """
    config = loaded.generator.config
    deviations = functools.cache(lambda: _deviations(loaded))
    parts, inputs, notes = [], {}, []
    for term in terms:
        source = term.source
        rows = direction_expressions.rows_of(term, config.num_rows)
        if isinstance(source, Channel):
            part, note = _of_channel(loaded, source, deviations)
        else:
            part, note = _of_file(loaded, source)
            inputs[f"direction {source.path}"] = files.hash_file(source.path)
        if term.rows:
            layout = config.style_layout
            layers = [i for i, layer in enumerate(layout) if layer.row in rows]
            part = global_directions.mask(part, layers)
        # A factor beyond float32 becomes infinite, which is said below.
        with np.errstate(over="ignore"):
            parts.append(term.factor * part)
        notes.append(note)
    direction = sum(parts[1:], parts[0])
    if not bool(jnp.isfinite(direction.delta).all()):
        raise UserError(
            "direction: its values are not finite, expected smaller factors",
            field="direction",
        )
    title = direction_expressions.describe(terms)
    return Source(direction, title, inputs, list(dict.fromkeys(notes)))


def _of_file(loaded: Loaded, file: File) -> tuple[Direction, str]:
    """Direction of a file of ours or of other tools, with a note on it."""
    config = loaded.generator.config
    if not pathlib.Path(file.path).exists() and _SIGN.search(file.path):
        raise UserError(
            f"{file.path}: no such file; a sign between two files stands alone, as in "
            "'a.npy - b.npy'"
        )
    if not file.choices and direction_files.is_ours(file.path):
        saved, about = direction_files.read_direction(
            file.path,
            layout=config.style_layout,
            generator=loaded.models.generator_origin(),
        )
        notes = ", ".join(f"{name} {value}" for name, value in about.items())
        note = f"{file.path}{', saved with ' if notes else ''}{notes}"
        return Direction(jnp.asarray(saved), config.style_layout), note
    delta, kind = direction_formats.read(file.path, config, file.choices)
    note = f"{file.path}{''.join(f'[{x}]' for x in file.choices)}, {kind}"
    if delta.ndim == 1:
        return Direction(jnp.asarray(delta), config.style_layout), note
    return latent_directions.to_direction(loaded.generator, jnp.asarray(delta)), note


def _of_channel(
    loaded: Loaded, channel: Channel, deviations: Callable[[], np.ndarray]
) -> tuple[Direction, str]:
    """Step of one standard deviation of a channel, with a note on it."""
    layout = loaded.generator.config.style_layout
    names = [layer.name for layer in layout]
    known = {str(i): i for i in range(len(layout))} | {
        name: i for i, name in enumerate(names)
    }
    if channel.layer not in known:
        raise UserError(
            f"channel {channel}: expected a layer from 0 to {len(layout) - 1} or one "
            f"of {', '.join(names)}, found {channel.layer}"
        )
    layer = known[channel.layer]
    if channel.number >= layout[layer].channels:
        raise UserError(
            f"channel {channel}: expected 0 to {layout[layer].channels - 1} in "
            f"{names[layer]}, found {channel.number}"
        )
    place = sum(x.channels for x in layout[:layer]) + channel.number
    step = float(deviations()[place])
    delta = jnp.zeros(sum(x.channels for x in layout)).at[place].set(step)
    note = f"channel {channel.number} of {names[layer]}, standard deviation {step:.3g}"
    return Direction(delta, layout), note


def _deviations(loaded: Loaded) -> np.ndarray:
    """Deviation [S] of each channel, as directions of texts on the spot have it."""
    return estimation.draw_samples(
        loaded.generator, estimation.configure(1), loaded.mesh, label=loaded.label
    ).std
