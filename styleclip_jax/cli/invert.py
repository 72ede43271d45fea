r"""styleclip-invert: invert photos, find the latents whose images they are.

  styleclip-invert --photos=me.jpg,holiday/ --encoder=models/e4e --refine_steps=100
  styleclip-invert --photos=crops/ --noalign
  styleclip-invert --photos=me.jpg --encoder=models/e4e --lpips=models/alexnet \
    --tune_steps=350
  styleclip-invert --photos=photos.txt --encoder=models/e4e --images=tar-jpg

With --encoder, the optimization in W+ starts at the encoder's latent. Without it, the
optimization starts at the average latent and first goes through W. Faces are cropped
as in FFHQ; with --noalign the photos are such crops already. With --tune_steps, the
generator is then tuned to each photo; styleclip-edit and styleclip-generate find what
has changed beside the latents, in tuned/. --objective=projector finds latents, and
noise, as NVIDIA's projector does.

Files under --outdir: w_plus.npy, images/ (of the latents), metrics.jsonl (a line per
face: file, each loss term, and as "levels" the mean absolute error of 8-bit pixels),
aligned.json (the corners of each face's square in its photo), grid.png and run.json.

The same command resumes an interrupted run. Several processes can share a run, as with
styleclip-edit. Exit code 1 says that some photos could not be inverted; they are listed
at the end.
"""

from absl import flags

from styleclip_jax.cli import processes, program
from styleclip_jax.errors import UserError
from styleclip_jax.settings import projection
from styleclip_jax.settings.networks import (
    CLIP_FIELDS,
    GENERATOR_FIELDS,
    ModelSettings,
)
from styleclip_jax.settings.output import Output
from styleclip_jax.settings.photos import InversionConfig, PhotoRequest
from styleclip_jax.settings.tuning import TuningConfig

_MODELS = (*GENERATOR_FIELDS, "remat", *CLIP_FIELDS, "identity", "encoder", "lpips")

VALUES = flags.FlagValues()
program.define(ModelSettings, VALUES, _MODELS)
program.define(PhotoRequest, VALUES)
program.define(InversionConfig, VALUES)
program.define(projection.ObjectiveSettings, VALUES)
program.define(projection.ProjectionConfig, VALUES, projection.FIELDS)
program.define(TuningConfig, VALUES)
program.define(Output, VALUES, outdir="outputs/invert")
processes.define(VALUES)
program.define_profile(VALUES)

# Flags that do not decide the results: they say where and how fast.
_NEUTRAL = ("outdir", "batch_size", "png_level", *processes.FLAGS)


def main(values: flags.FlagValues) -> int:
    """Inverts every face that is not done yet."""
    config = program.build(InversionConfig, values)
    projector = None
    if program.build(projection.ObjectiveSettings, values).objective == "projector":
        projector = program.build(projection.ProjectionConfig, values)
    else:
        _refuse_projector(values)

    import jax

    from styleclip_jax.cli import profiling
    from styleclip_jax.editing import inversions
    from styleclip_jax.loading import Models

    request = inversions.Request(
        models=program.build(Models, values, _MODELS),
        photos=program.build(PhotoRequest, values),
        config=config,
        output=program.build(Output, values),
        settings=program.settings(values, _NEUTRAL),
        tuning=program.build(TuningConfig, values),
        projection=projector,
    )
    processes.connect(values)
    done = inversions.carry_out(
        request, profiling.listener(values, shown=jax.process_index() == 0)
    )
    for line in done.failures:
        print(line)
    return 0 if done.succeeded else program.EXIT_FAILED_ITEMS


def _refuse_projector(values: flags.FlagValues) -> None:
    """Refuses flags of the projector without it."""
    for name in projection.FIELDS:
        if values[name].present:
            raise UserError(
                f"{name}: expected objective=projector with it, found pixel",
                field=name,
                also=["objective"],
            )


def entry() -> None:
    """Console script of styleclip-invert."""
    program.run(main, VALUES)


if __name__ == "__main__":
    entry()
