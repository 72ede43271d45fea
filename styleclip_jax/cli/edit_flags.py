"""The flags of styleclip-edit's methods: which there are, and what they say."""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import flags

from styleclip_jax.cli import program
from styleclip_jax.errors import UserError
from styleclip_jax.io import files
from styleclip_jax.methods.optimization import OptimizationConfig

AUTO = "auto"

# Prompts that are printed.
_NUM_SHOWN = 8


def define(values: flags.FlagValues) -> None:
    """Defines the flags of all methods."""
    program.define(OptimizationConfig, values)
    define_string = functools.partial(flags.DEFINE_string, flag_values=values)
    define_string("method", "optimization", f"How to edit: {', '.join(_OWN_FLAGS)}.")
    define_string("prompt", None, "Text to edit towards.")
    define_string(
        "prompts_file", None, "File of prompts, one a line; every latent gets each."
    )
    define_string(
        "clip",
        None,
        "CLIP by directory or hub name (openai/clip-vit-base-patch32); the embedded "
        "one if absent.",
    )
    define_string(
        "identity",
        None,
        "Model directory of a face recognition network, for --id_lambda; the embedded "
        "one if absent, for the embedded generator.",
    )
    flags.DEFINE_list(
        "mapper",
        None,
        "Model directory of a mapper, or several with commas between.",
        flag_values=values,
    )
    flags.DEFINE_float(
        "strength",
        None,
        "Factor of a mapper's step, any number; that of its training if absent.",
        flag_values=values,
    )
    flags.DEFINE_list(
        "levels",
        None,
        "Levels that a mapper may move, of coarse, medium and fine; all if absent.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "num_samples",
        16,
        "Samples that relevance is estimated from without --directions.",
        lower_bound=1,
        flag_values=values,
    )
    define_string("neutral", "a face", "Text that a direction leads away from.")
    define_string(
        "directions",
        None,
        "File of channel relevance (train.global_directions makes it); if absent, "
        "relevance for the prompt is estimated on the spot.",
    )
    define_string(
        "saved_direction",
        None,
        "File of one direction, as the app saves it, in place of texts.",
    )
    flags.DEFINE_list(
        "alpha",
        ["4"],
        "Strength of a direction, one or several with commas between.",
        flag_values=values,
    )
    flags.DEFINE_list(
        "beta",
        [AUTO],
        "Least relevance of a channel, one or several; or auto, the largest of 0.10 "
        "to 0.29 that keeps more than 20 channels.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "num_channels",
        None,
        "Number of channels instead of --beta.",
        lower_bound=1,
        flag_values=values,
    )
    define_string(
        "templates",
        None,
        "File of templates with {} for a direction's texts; the official ones if "
        "absent.",
    )


# Flags of directions that are made of texts, beside the prompts and the CLIP.
_TEXT_FLAGS = (
    "neutral",
    "directions",
    "num_samples",
    "beta",
    "num_channels",
    "templates",
)
OF_MEASURED = ("prompt", "prompts_file", "clip", *_TEXT_FLAGS)

# Flags that only one method reads.
_OWN_FLAGS = {
    "optimization": (
        "identity",
        *(
            field.name
            for field in dataclasses.fields(OptimizationConfig)
            if field.name != "film_frames"
        ),
    ),
    "mapper": ("mapper", "strength", "levels"),
    "direction": ("alpha", "saved_direction", *_TEXT_FLAGS),
}


def check(values: flags.FlagValues) -> None:
    """Raises a UserError for flags of another method."""
    method = values.method
    for other, names in _OWN_FLAGS.items():
        given = [name for name in names if other != method and values[name].present]
        if given:
            raise UserError(
                f"--{given[0]}: is a flag of --method={other}, found with {method}"
            )


def number(values: flags.FlagValues, name: str, text: str) -> float:
    """A flag's text as a finite number."""
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not np.isfinite(number):
        raise UserError(f"--{name}: expected numbers, found {text!r}")
    return number


def text(values: flags.FlagValues, name: str) -> str:
    """A flag's text without blanks around it."""
    found = values[name].value
    text = (found or "").strip()
    if not text:
        raise UserError(f"--{name}: expected a text, found {found!r}")
    return text


def prompts(values: flags.FlagValues) -> list[str]:
    """The texts of --prompt or --prompts_file.

    Raises:
      UserError: there is neither or both, or one is empty, broken or twice there.
    """
    path = values.prompts_file
    if path is None:
        return [text(values, "prompt")]
    if values.prompt is not None:
        raise UserError("--prompt and --prompts_file: expected one, found both")
    try:
        lines = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: expected a text file of prompts ({error})") from None
    prompts = [line.strip() for line in lines if line.strip()]
    twice = [prompt for prompt in prompts if prompts.count(prompt) > 1]
    if twice or not prompts:
        found = f"{twice[0]!r} twice" if twice else "none"
        raise UserError(
            f"{path}: expected different prompts, one a line, found {found}"
        )
    return prompts


def by_prompt(
    values: flags.FlagValues,
    prompts: Sequence[str],
    settings: Sequence[Sequence[dict[str, Any]]],
) -> list[dict[str, Any]]:
    """Settings of each prompt one after the other, named where a file has them."""
    named = values.prompts_file is not None
    return [
        {"prompt": prompt} | setting if named else setting
        for prompt, group in zip(prompts, settings, strict=True)
        for setting in group
    ]


def prompts_input(values: flags.FlagValues) -> dict[str, str]:
    """Hash of --prompts_file."""
    path = values.prompts_file
    return {} if path is None else {"prompts_file": files.hash_file(path)}


def title(prompts: Sequence[str]) -> str:
    """What an edit with these prompts leads to."""
    return prompts[0] if len(prompts) == 1 else f"{len(prompts)} prompts"


def shorten(lines: Sequence[str], start: str) -> list[str]:
    """The first lines, and how many more there are."""
    more = len(lines) - _NUM_SHOWN
    shown = [start + line for line in lines[:_NUM_SHOWN]]
    return [*shown, f"{start}{more} more"] if more > 0 else shown
