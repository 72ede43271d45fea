"""styleclip-edit: edit latents by a text prompt.

  styleclip-edit --prompt="a person with purple hair" --seeds=0-15
  styleclip-edit --prompt="a smiling face" --latents=w_plus.npy --steps=40 --space=s
  styleclip-edit --method=mapper --mapper=models/purple_hair --strength=0.12
  styleclip-edit --method=direction --prompt="a smiling face" --alpha=-4,4

Files under --outdir: original.npy and edited.npy (.npz in S), images/, metrics.jsonl
(a line per edit), grid.png, films/ with --film_frames, pasted/ with --paste, and
run.json. With several --alpha and --beta, a latent has one row in original and edited
for every pair of them.

The same command resumes an interrupted run. Exit code 1 says that some latents could
not be edited; metrics.jsonl says which.
"""

import dataclasses

import jax
from absl import flags

from styleclip_jax.batch import edits, runs
from styleclip_jax.batch.source import SourceRequest
from styleclip_jax.cli import processes, profiling, program
from styleclip_jax.editing import prompts, requests
from styleclip_jax.editing.directing import DirectionConfig
from styleclip_jax.editing.editors import MappingConfig
from styleclip_jax.editing.export import ExportRequest
from styleclip_jax.editing.prompts import PromptRequest
from styleclip_jax.editing.requests import EditRequest
from styleclip_jax.errors import UserError
from styleclip_jax.loading import CLIP_FIELDS, GENERATOR_FIELDS, Models
from styleclip_jax.methods.optimization import OptimizationConfig

_MODELS = (
    *(*GENERATOR_FIELDS, "remat", *CLIP_FIELDS),
    *("identity", "class_", "templates"),
)
_EXTRAS = ("film_format", "paste")

VALUES = flags.FlagValues()
program.define(Models, VALUES, _MODELS)
program.define(SourceRequest, VALUES)
flags.DEFINE_string(
    "method",
    "optimization",
    f"How to edit: {', '.join(requests.METHODS)}.",
    flag_values=VALUES,
)
program.define(PromptRequest, VALUES)
program.define(OptimizationConfig, VALUES)
program.define(MappingConfig, VALUES)
program.define(DirectionConfig, VALUES)
program.define(runs.Output, VALUES, outdir="outputs/edit")
program.define(edits.Extras, VALUES, _EXTRAS)
program.define(ExportRequest, VALUES)
processes.define(VALUES)
profiling.define(VALUES)


def _fields(config: type) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(config))


# Flags that only one method reads.
_OWN_FLAGS = {
    "optimization": (
        "identity",
        *(name for name in _fields(OptimizationConfig) if name != "film_frames"),
    ),
    "mapper": _fields(MappingConfig),
    "direction": (*_fields(DirectionConfig), "templates"),
}
# Flags of directions that are made of texts.
_OF_TEXTS = (
    *("prompt", "prompts_file", *CLIP_FIELDS, "neutral", "directions"),
    *("num_samples", "beta", "num_channels", "templates"),
)
# Flags that do not decide the results: they say where and how fast.
_NEUTRAL = (
    "outdir",
    "batch_size",
    "png_level",
    *_fields(ExportRequest),
    *processes.FLAGS,
)


def main(values: flags.FlagValues) -> int:
    """Makes every edit that is missing."""
    request = _parse(values)
    processes.connect(values)
    listener = profiling.listener(values, shown=jax.process_index() == 0)
    done = requests.carry_out(request, listener)
    if done is None:
        return 0
    for line in done.failures:
        print(line)
    return 0 if done.succeeded else program.EXIT_FAILED_ITEMS


def _parse(values: flags.FlagValues) -> EditRequest:
    """Parses the flags into a request.

    Raises:
      UserError: a flag is wrong, of another method, or without use beside others.
    """
    output = program.build(runs.Output, values)
    method = values.method
    if method not in requests.METHODS:
        raise UserError(
            f"method: expected {', '.join(requests.METHODS)}, found {method!r}",
            field="method",
        )
    _check_flags(values)
    texts = None
    if method != "mapper" and values.saved_direction is None:
        texts = prompts.read(program.build(PromptRequest, values), tell=print)
    optimization = program.build(OptimizationConfig, values)
    return EditRequest(
        models=program.build(Models, values, _MODELS),
        source=program.build(SourceRequest, values),
        method=method,
        prompts=texts,
        optimization=optimization,
        mapping=program.build(MappingConfig, values),
        direction=program.build(DirectionConfig, values),
        output=output,
        extras=edits.Extras(optimization.film_frames, values.film_format, values.paste),
        export=program.build(ExportRequest, values),
        settings=program.settings(values, _NEUTRAL),
    )


def _check_flags(values: flags.FlagValues) -> None:
    """Refuses flags of another method, and flags without use beside others."""

    def refuse(name: str, why: str) -> None:
        if values[name].present:
            raise UserError(f"--{name}: {why}")

    method = values.method
    for other, names in _OWN_FLAGS.items():
        for name in names if other != method else ():
            refuse(name, f"is a flag of --method={other}, found with {method}")
    if method == "mapper":
        if not values.mapper:
            raise UserError("--method: mapper needs --mapper with a model directory")
        if values.prompts_file is not None:
            raise UserError(
                "--prompts_file: a mapper is for one prompt, expected several --mapper "
                "with commas between"
            )
    if values.saved_direction is not None:
        for name in _OF_TEXTS:
            refuse(name, "is of no use with --saved_direction")
    if values.directions is not None:
        refuse("num_samples", "is of no use with --directions")
    if values.num_channels is not None and values["beta"].present:
        raise UserError("--beta and --num_channels: expected one, found both")


def entry() -> None:
    """Console script of styleclip-edit."""
    program.run(main, VALUES)


if __name__ == "__main__":
    entry()
