"""styleclip-metrics: FID, precision and recall, path length of a generator.

  styleclip-metrics
  styleclip-metrics --generator=models/ffhq --data=ffhq.zip \\
    --features=models/inception,models/vgg16 --metrics=fid50k,ppl2_wend,pr50k3
  styleclip-metrics --generator=models/mine --data=photos --num_samples=5000

The first measures the embedded generator against drawn faces, by the features of the
embedded judge. docs/metrics.md says what each metric is, and what the networks are
converted from.

Files under --outdir: metrics.md (a table for people), metrics.json and run.json. The
same command resumes an interrupted run. Several processes can share a run, as with
styleclip-edit. Exit code 1 says that some images are not finite.
"""

from absl import flags

from styleclip_jax.cli import processes, program
from styleclip_jax.settings.generator_metrics import MetricsSettings
from styleclip_jax.settings.networks import GENERATOR_FIELDS, ModelSettings

_MODELS = (*GENERATOR_FIELDS, "class_")

VALUES = flags.FlagValues()
program.define(ModelSettings, VALUES, _MODELS)
program.define(MetricsSettings, VALUES)
processes.define(VALUES)
program.define_profile(VALUES)

# Flags that do not decide the results.
_NEUTRAL = ("outdir", "batch_size", "keep_features", "data_cache", *processes.FLAGS)


def main(values: flags.FlagValues) -> int:
    """Computes the metrics that are not computed yet, and prints the table."""
    request = program.build(MetricsSettings, values)

    import jax

    from styleclip_jax.cli import profiling
    from styleclip_jax.evaluation import generator_tables
    from styleclip_jax.loading import Models

    processes.connect(values)
    done = generator_tables.carry_out(
        request,
        program.build(Models, values, _MODELS),
        settings=program.settings(values, _NEUTRAL),
        listener=profiling.listener(values, shown=jax.process_index() == 0),
    )
    for path in done.paths:
        if path.suffix == ".md":
            print(path.read_text(encoding="utf-8"))
    for path in done.paths:
        print(f"written: {path}")
    return 0 if done.succeeded else program.EXIT_FAILED_ITEMS


def entry() -> None:
    """Console script of styleclip-metrics."""
    program.run(main, VALUES)


if __name__ == "__main__":
    entry()
