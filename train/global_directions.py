"""styleclip-measure-directions: channel relevance of a generator.

  styleclip-measure-directions --output=exact.safetensors
  styleclip-measure-directions --output=fast.safetensors --method=jacobian \\
    --compare=exact.safetensors

Without --generator and --clip it works on the embedded models. For a file that is there
already it prints the report again, with --compare beside another one. Results on the
way are kept in a folder beside the output, so that the same command goes on after an
interruption; the folder goes when the output is there. Several processes
(--coordinator_address, --num_processes, --process_id; the same command and the same
folder in each) share the channels of the exact method.
"""

from absl import flags

from styleclip_jax.cli import processes, program
from styleclip_jax.settings.measures import MeasureSettings, RelevanceConfig
from styleclip_jax.settings.networks import (
    CLIP_FIELDS,
    GENERATOR_FIELDS,
    ModelSettings,
)

_MODELS = (*GENERATOR_FIELDS, "remat", *CLIP_FIELDS, "class_", "templates")

VALUES = flags.FlagValues()
# A table that is kept is worth exact products on every device.
program.define(ModelSettings, VALUES, _MODELS, precision="highest")
program.define(MeasureSettings, VALUES)
program.define(RelevanceConfig, VALUES)
processes.define(VALUES)
program.define_profile(VALUES)


def main(values: flags.FlagValues) -> None:
    """Measures what is not measured yet, writes it and reports."""
    relevance = program.build(RelevanceConfig, values)

    import jax

    from styleclip_jax.cli import profiling
    from styleclip_jax.loading import Models

    from . import relevance_file

    request = relevance_file.Request(
        models=program.build(Models, values, _MODELS),
        relevance=relevance,
        config=program.build(relevance_file.MeasureConfig, values),
    )
    processes.connect(values)
    relevance_file.measure(
        request, profiling.listener(values, shown=jax.process_index() == 0)
    )


def entry() -> None:
    """The console script."""
    program.run(main, VALUES)


if __name__ == "__main__":
    entry()
