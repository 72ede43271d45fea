r"""styleclip-edit: edit latents by a text prompt.

With the embedded models, as they stand here:

  styleclip-edit --prompt="a person with grey hair" --seeds=0-7 --steps=80 \
    --l2_lambda=0.0045
  styleclip-edit --method=direction --prompt="a smiling face" --alpha=auto
  styleclip-edit --method=direction --channel=2:4 --alpha=-4,4
  styleclip-edit --method=stylemc --prompt="a smiling face" --avoid="a beard=0.5"

With files of your own:

  styleclip-edit --prompt="a smiling face" --latents=w_plus.npy --space=s
  styleclip-edit --prompt="a smiling face" --latents=outputs/invert/w_plus.npy --paste
  styleclip-edit --prompt="a person with purple hair" --generator=models/ffhq \
    --clip=models/clip --identity=models/identity --id_lambda=0.005
  styleclip-edit --method=mapper --mapper=models/purple_hair --strength=0.12
  styleclip-edit --method=direction --direction="smile.safetensors - 0.5*age.npy"
  styleclip-edit --method=delta --delta=outputs/delta/best --prompt="a smiling face"
  styleclip-edit --method=essence --target=face.png
  styleclip-edit --prompt="a smiling face" --objective=directional,my_module:NAME=0.1
  styleclip-edit --method=my_module:NAME --prompt="a smiling face"

Files under --outdir: original.npy and edited.npy (.npz in S), images/, metrics.jsonl
(a line per edit), grid.png, films/ with --film_frames, pasted/ with --paste, and
run.json. With several --alpha and --beta, a latent has one row in original and edited
for every pair of them. Latents of styleclip-invert --tune_steps are edited through the
generators that were tuned to their photos.

The same command resumes an interrupted run. Exit code 1 says that some latents could
not be edited; metrics.jsonl says which.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from absl import flags

from styleclip_jax.cli import help_page, processes, program
from styleclip_jax.editing import prompts, registry
from styleclip_jax.editing.registry import Method
from styleclip_jax.errors import UserError
from styleclip_jax.settings.edits import PromptRequest
from styleclip_jax.settings.latents import SourceSettings, TunedSettings
from styleclip_jax.settings.networks import (
    CLIP_FIELDS,
    GENERATOR_FIELDS,
    ModelSettings,
)
from styleclip_jax.settings.output import ExportRequest, Extras, Output

if TYPE_CHECKING:
    from styleclip_jax.editing.requests import EditRequest

_MODELS = (
    *(*GENERATOR_FIELDS, "remat", *CLIP_FIELDS),
    *("identity", "class_", "templates"),
)
# Settings that a method may have, and that all runs do.
_COMMON = ("film_frames",)


def _define_method(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "method",
        "optimization",
        f"How to edit: {', '.join(registry.METHODS)}; or a registry.Method of your own "
        "module as module:NAME.",
        flag_values=values,
        module_name=help_page.EDIT,
    )


def _define(methods: Mapping[str, Method]) -> flags.FlagValues:
    """Flags of the program with these methods."""
    values = flags.FlagValues()
    program.define(ModelSettings, values, _MODELS)
    program.define(SourceSettings, values)
    program.define(TunedSettings, values)
    _define_method(values)
    program.define(PromptRequest, values)
    program.define(Output, values, outdir="outputs/edit")
    program.define(Extras, values)
    program.define(ExportRequest, values)
    processes.define(values)
    program.define_profile(values)
    configs = {name: method.config for name, method in methods.items()}
    program.define_shared(configs, values, _COMMON)
    return values


VALUES = _define(registry.METHODS)
# Flags that do not decide the results: they say where and how fast.
_NEUTRAL = (
    "outdir",
    "batch_size",
    "png_level",
    *("export", "export_weights", "save_direction"),
    *processes.FLAGS,
)


def extend(argv: Sequence[str]) -> flags.FlagValues | None:
    """Flags with those of a method of the user's own, if the command line names one.

    Modules of the current folder are found from then on, if a method or a term of an
    objective is the user's own.

    Raises:
      UserError: the module cannot be imported, or holds no such method.
    """
    values = flags.FlagValues()
    _define_method(values)
    flags.DEFINE_list("objective", None, "Names of terms.", flag_values=values)
    values.set_gnu_getopt(True)
    values(argv, known_only=True)
    names = [values.method, *(values.objective or ())]
    # As with python -m, but behind what is installed.
    if any(":" in name for name in names) and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    if ":" not in values.method:
        return None
    return _define(registry.METHODS | {values.method: registry.find(values.method)})


def main(values: flags.FlagValues) -> int:
    """Makes every edit that is missing."""
    request = _parse(values)

    import jax

    from styleclip_jax.cli import profiling
    from styleclip_jax.editing import requests

    processes.connect(values)
    listener = profiling.listener(values, shown=jax.process_index() == 0)
    done = requests.carry_out(request, listener)
    if done is None:
        return 0
    for line in done.failures:
        print(line)
    return 0 if done.succeeded else program.EXIT_FAILED_ITEMS


def _parse(values: flags.FlagValues) -> "EditRequest":
    """Parses the flags into a request.

    Raises:
      UserError: a flag is wrong, of another method, or without use beside others.
    """
    output = program.build(Output, values)
    extras = program.build(Extras, values)
    method = registry.find(values.method)
    unused = _refuse_others(values, method)
    config: Any = program.build(method.config, values)
    used = program.used(config)
    for name, why in method.surplus(config).items():
        if values[name].present:
            raise UserError(f"{name}: {why}", field=name, also=list(used))
    texts = None
    for name in ("also", "avoid"):
        if values[name].present and not method.texts(config):
            raise UserError(
                f"{name}: is of no use without a prompt, which {values.method} does "
                "not read",
                field=name,
            )
    if method.texts(config):
        texts = prompts.read(program.build(PromptRequest, values), tell=print)

    from styleclip_jax.batch import run_folder
    from styleclip_jax.batch.source import SourceRequest
    from styleclip_jax.editing.requests import EditRequest
    from styleclip_jax.loading import Models

    settings = program.settings(values, _NEUTRAL)
    # A flag that is not given may have no default, or one of its own by method.
    given = {name for name, value in settings.items() if value is not None}
    settings |= {n: x for n, x in used.items() if n in settings.keys() - given}
    return EditRequest(
        models=program.build(Models, values, _MODELS),
        source=program.build(SourceRequest, values),
        method=values.method,
        prompts=texts,
        config=config,
        output=output,
        extras=extras,
        export=program.build(ExportRequest, values),
        settings=settings | dict.fromkeys(unused, run_folder.UNUSED),
        tuned=program.build(TunedSettings, values).tuned,
    )


def _refuse_others(values: flags.FlagValues, method: Method) -> list[str]:
    """Refuses flags of other methods; names of those that these alone have."""
    owners: dict[str, list[str]] = {}
    for label, other in registry.METHODS.items():
        for name in other.flags:
            owners.setdefault(name, []).append(label)
    others = {n: x for n, x in owners.items() if n not in (*method.flags, *_COMMON)}
    for name, labels in others.items():
        if values[name].present:
            raise UserError(
                f"--{name}: is a flag of --method={' or '.join(labels)}, found with "
                f"{values.method}"
            )
    read = {name for other in registry.METHODS.values() for name in other.reads}
    return [name for name in others if name not in read]


def entry() -> None:
    """Console script of styleclip-edit."""
    program.run(main, VALUES, extend=extend)


if __name__ == "__main__":
    entry()
