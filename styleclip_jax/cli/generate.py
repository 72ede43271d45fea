"""styleclip-generate: sample images, or render latents.

  styleclip-generate --seeds=0-15 --truncation_psi=0.7
  styleclip-generate --latents=outputs/edit/edited.npy --images=npy
  styleclip-generate --rows=85,100 --cols=55,821 --styles=0-6
  styleclip-generate --truncation_sweep=-1,0,0.7,1 --seeds=0-3
  styleclip-generate --interpolate=w --seeds=0-7
  styleclip-generate --generator=models/ffhq3 --rotate=30 --translate=0.1,0

The third mixes the styles of each row and column, the fifth makes a film. The last is
for a StyleGAN3, which turns and moves its images itself; a film passes several places.

Files under --outdir: w_plus.npy (styles.npz for S), images/, metrics.jsonl (a line per
image), grid.png, film.gif or film.mp4, and run.json.

The same command resumes an interrupted run. Several processes can share a run, as with
styleclip-edit. Exit code 1 says that some images are not finite or could not be
written.
"""

from absl import flags

from styleclip_jax.cli import processes, program
from styleclip_jax.settings.latents import (
    ArrangementSettings,
    PictureRequest,
    SourceSettings,
    TunedSettings,
)
from styleclip_jax.settings.networks import GENERATOR_FIELDS, ModelSettings
from styleclip_jax.settings.output import Output

_MODELS = (*GENERATOR_FIELDS, "class_")

VALUES = flags.FlagValues()
program.define(ModelSettings, VALUES, _MODELS)
program.define(SourceSettings, VALUES)
program.define(TunedSettings, VALUES)
program.define(PictureRequest, VALUES)
program.define(ArrangementSettings, VALUES)
program.define(Output, VALUES, outdir="outputs/generate", grid=16)
processes.define(VALUES)
program.define_profile(VALUES)

# Flags that do not decide the results: they say where and how fast.
_NEUTRAL = ("outdir", "batch_size", "png_level", *processes.FLAGS)


def main(values: flags.FlagValues) -> int:
    """Renders every latent that is not rendered yet."""
    import jax

    from styleclip_jax.batch import pictures
    from styleclip_jax.batch.arrangements import ArrangementRequest
    from styleclip_jax.batch.source import SourceRequest
    from styleclip_jax.cli import profiling
    from styleclip_jax.loading import Models

    request = pictures.Request(
        models=program.build(Models, values, _MODELS),
        source=program.build(SourceRequest, values),
        picture=program.build(PictureRequest, values),
        arrangement=program.build(ArrangementRequest, values),
        output=program.build(Output, values),
        settings=program.settings(values, _NEUTRAL),
        tuned=program.build(TunedSettings, values).tuned,
    )
    processes.connect(values)
    done = pictures.carry_out(
        request, profiling.listener(values, shown=jax.process_index() == 0)
    )
    for line in done.failures:
        print(line)
    return 0 if done.succeeded else program.EXIT_FAILED_ITEMS


def entry() -> None:
    """Console script of styleclip-generate."""
    program.run(main, VALUES)


if __name__ == "__main__":
    entry()
