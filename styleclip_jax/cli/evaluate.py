"""styleclip-evaluate: measure edits, compare methods, classify images by text.

  styleclip-evaluate --edits=outputs/beard,outputs/direction
  styleclip-evaluate --edits=outputs/beard --target=facial_hair:beard
  styleclip-evaluate --tables=mapper_similarity --mapper=models/afro,models/bob
  styleclip-evaluate --images=photos --zero_shot=labels.txt

Files under --outdir: edits.md (tables for people), edits.json, edits.csv and
frontier.png (target gain against identity, a curve for each method). The tables have a
row for each folder of styleclip-edit, or for each prompt and strength in it. Mappers
give mapper_similarity.md and .json, images give zero_shot.md and zero_shot.jsonl.
"""

from absl import flags

from styleclip_jax.cli import program
from styleclip_jax.settings.latents import SourceSettings
from styleclip_jax.settings.measures import EvaluationRequest
from styleclip_jax.settings.networks import (
    CLIP_FIELDS,
    GENERATOR_FIELDS,
    ModelSettings,
)

_MODELS = (*GENERATOR_FIELDS, *CLIP_FIELDS, "identity", "class_")

VALUES = flags.FlagValues()
# Measures are exact on every device unless they are asked not to be.
program.define(ModelSettings, VALUES, _MODELS, precision="highest")
program.define(SourceSettings, VALUES)
program.define(EvaluationRequest, VALUES)
program.define_profile(VALUES)


def main(values: flags.FlagValues) -> int:
    """Makes the tables that are asked for."""
    request = program.build(EvaluationRequest, values)

    from styleclip_jax.batch.source import SourceRequest
    from styleclip_jax.cli import profiling
    from styleclip_jax.evaluation import requests
    from styleclip_jax.loading import Models

    written = requests.carry_out(
        request,
        program.build(Models, values, _MODELS),
        program.build(SourceRequest, values),
        settings=program.settings(values, ("outdir", "batch_size")),
        listener=profiling.listener(values),
    )
    for paths in written:
        for path in paths:
            if path.suffix == ".md":
                print(path.read_text(encoding="utf-8"))
        print("\n".join(f"written: {path}" for path in paths))
    return 0


def entry() -> None:
    """Console script of styleclip-evaluate."""
    program.run(main, VALUES)


if __name__ == "__main__":
    entry()
