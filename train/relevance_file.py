"""File of channel relevance: measured where it is missing, and reported."""

import dataclasses
import pathlib
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from styleclip_jax import computation, loading, losses, parallel, spaces
from styleclip_jax.batch import run_folder
from styleclip_jax.editing import estimation
from styleclip_jax.errors import UserError
from styleclip_jax.io import direction_files, files, text_files
from styleclip_jax.loading import Models
from styleclip_jax.methods import global_directions
from styleclip_jax.methods.channel_relevance import RelevanceConfig
from styleclip_jax.models.clip import members
from styleclip_jax.progress import Listener
from styleclip_jax.settings.measures import MeasureSettings

from . import relevance_run

_OVERLAPS = (20, 100)
_QUANTILES = (0.05, 0.25, 0.5)


@dataclasses.dataclass(frozen=True)
class MeasureConfig(MeasureSettings):
    """File to write, and the comparison with another one, which are read."""

    def __post_init__(self) -> None:
        if not self.output or pathlib.Path(self.output).suffix != ".safetensors":
            raise UserError(
                f"output: expected a .safetensors file, found {self.output!r}",
                field="output",
            )
        for pair in self.pairs:
            if not all(_split(pair)):
                raise UserError(
                    f"pairs: expected neutral:prompt, found {pair!r}", field="pairs"
                )


@dataclasses.dataclass(frozen=True)
class Request:
    """Measurement that is asked for.

    Attributes:
      models: networks, and templates of the pairs.
      relevance: how relevance is measured.
      config: file to write, and the comparison.
    """

    models: Models
    relevance: RelevanceConfig
    config: MeasureConfig

    @property
    def settings(self) -> dict[str, Any]:
        """Settings that decide the result."""
        settings = dataclasses.asdict(self.relevance) | {"class": self.models.class_}
        return settings | self.models.record()

    @property
    def output(self) -> pathlib.Path:
        """File to write."""
        return pathlib.Path(self.config.output or "")

    @property
    def partial(self) -> pathlib.Path:
        """Folder of results on the way to it."""
        return self.output.with_name(f"{self.output.name}.partial")


class Comparison(NamedTuple):
    """Relevance of another file, and texts to compare at.

    Attributes:
      relevance: of the file.
      texts: {name of a pair: its text direction [E]}.
    """

    relevance: global_directions.Relevance
    texts: dict[str, jax.Array]


def measure(request: Request, listener: Listener) -> None:
    """Writes the relevance of a generator's channels, if it is not there, and reports.

    Args:
      request: what to measure.
      listener: is told how far it is, and the report.

    Raises:
      UserError: something does not fit, or the file is of another run.
    """
    models, method = request.models, request.relevance.method
    if method != "exact" and jax.process_count() > 1:
        raise UserError(
            f"method: {method} takes one process, found {jax.process_count()}",
            field="method",
        )
    generator = models.load_generator()
    clip, tokenizer = models.load_clip()
    networks = losses.Networks(generator, clip)
    layout = generator.config.style_layout
    layers = global_directions.select_layers(layout, request.relevance.layers)
    sizes = " and ".join(
        f"{m.config.image_size}²"
        f"{computation.describe_type(models.clip_dtype, m.config.dtype)}"
        for m in members(clip)
    )
    listener.tell(
        f"generator: {models.generator_origin()}, "
        f"{generator.config.size_text}"
        f"{computation.describe_type(models.dtype, generator.config.dtype)}\n"
        f"clip: {models.clip_origin()}, {sizes}\n"
        f"layers: {len(layers)} with {_num_channels(networks, layers)} channels"
    )
    # Read before hours of work, so that a wrong setting says so at once.
    label = models.one_hot_label(generator.config)
    comparison = None
    if request.config.compare is not None:
        relevance, _ = loading.read_relevance(
            request.config.compare, models, generator, clip
        )
        texts = _text_directions(request, clip, tokenizer)
        comparison = Comparison(relevance, texts)
    if not parallel.agree(request.output.exists() and not request.partial.exists()):
        with run_folder.only_run(request.partial, listener.tell, field="output"):
            # Another run may have written it meanwhile, or a killed one before its end.
            if not parallel.agree(request.output.exists()):
                _write(request, networks, label, layers, listener)
            elif jax.process_index() == 0:
                _open_work(request, listener).remove()
    if jax.process_index() != 0:
        return
    found, about = loading.read_relevance(request.output, models, generator, clip)
    changed = run_folder.difference(about.get("settings", {}), request.settings)
    if changed:
        name, change = changed
        raise UserError(
            f"output: {request.output} is of a run with {name}={change}; use another "
            "name",
            field="output",
            also=[name],
        )
    lines = _describe(about)
    if comparison is not None:
        lines += _describe_agreement(found, comparison)
    for line in (*lines, f"relevance: {request.output}"):
        listener.tell(line)


def _write(
    request: Request,
    networks: losses.Networks,
    label: jax.Array | None,
    layers: tuple[int, ...],
    listener: Listener,
) -> None:
    """Measures what an interrupted run has left to do, and writes the file."""
    config, output = request.relevance, request.output
    mesh = parallel.make_mesh(jax.local_devices())
    with parallel.first_alone():
        work = _open_work(request, listener)
        samples = _draw(networks, config, mesh, label, work, listener)
    started = time.monotonic()
    measured = relevance_run.measure(
        networks,
        samples,
        config,
        layers,
        mesh=mesh,
        batch_size=request.config.batch_size,
        work=work,
        listener=listener,
    )
    listener.tell(f"measured in {time.monotonic() - started:.1f} s")
    if jax.process_index() != 0:
        return
    about = {"settings": request.settings}
    about |= _summarize(measured, networks, config, layers)
    direction_files.write_relevance(
        output,
        direction_files.RelevanceFile(
            measured.rows, samples.mean, samples.std, layers, about
        ),
        layout=networks.generator.config.style_layout,
        **_origins(request),
    )
    work.remove()


def _open_work(request: Request, listener: Listener) -> relevance_run.Work:
    """Results on the way of the same run, if it was interrupted.

    Raises:
      UserError: they are of another run, or not in the folder of process 0.
    """
    if jax.process_index() and not (request.partial / files.RECORD).exists():
        raise UserError(
            f"output: expected {request.partial} of process 0, found none; all "
            "processes need one folder",
            field="output",
        )
    record = {"settings": request.settings} | _origins(request)
    return relevance_run.Work(request.partial, record, listener.tell)


def _origins(request: Request) -> dict[str, direction_files.Origin]:
    models = request.models
    return {"generator": models.generator_origin(), "clip": models.clip_origin()}


def _draw(
    networks: losses.Networks,
    config: RelevanceConfig,
    mesh: jax.sharding.Mesh,
    label: jax.Array | None,
    work: relevance_run.Work,
    listener: Listener,
) -> estimation.Samples:
    """Samples and statistics, kept for a run that goes on."""
    generator = networks.generator
    layout = generator.config.style_layout
    channels = sum(layer.channels for layer in layout)
    shapes = dict.fromkeys(("mean", "std"), (channels,))
    kept = work.load("samples", {"styles": (config.num_samples, channels), **shapes})
    if kept is None:
        quicker = "fewer num_statistics"
        with listener.long_bar(config.num_statistics, "sample", quicker) as report:
            samples = estimation.draw_samples(
                generator, config, mesh, label=label, report=report
            )
        flat = np.asarray(spaces.flatten_styles(samples.styles))
        kept = {"styles": flat, "mean": samples.mean, "std": samples.std}
        work.save("samples", kept)
    styles = spaces.unflatten_styles(jnp.asarray(kept["styles"]), layout)
    return estimation.Samples(styles, kept["mean"], kept["std"])


def _summarize(
    measured: relevance_run.Measured,
    networks: losses.Networks,
    config: RelevanceConfig,
    layers: tuple[int, ...],
) -> dict[str, Any]:
    """Cost and convergence, for the file."""
    count, embed_dim = measured.rows.shape
    if config.method == "exact":
        cost = {"images": 2 * count * config.num_samples}
    else:
        passes = min(embed_dim, _num_channels(networks, layers))
        cost = {"derivative_passes": passes * config.num_samples}
    steps = zip(
        relevance_run.checkpoints_of(config.num_samples),
        measured.convergence,
        strict=True,
    )
    summary: dict[str, Any] = {
        "cost": cost,
        "quantiles": list(_QUANTILES),
        "convergence": {str(n): _quantiles(cosines) for n, cosines in steps},
    }
    if config.clip_resolution:
        summary["lower_resolution"] = _quantiles(measured.lower)
    return summary


def _quantiles(values: np.ndarray) -> list[float]:
    return [round(float(x), 4) for x in np.quantile(values, _QUANTILES)]


def _describe(about: dict[str, Any]) -> list[str]:
    """Lines on the convergence of a file."""
    names = _join_percent(about["quantiles"])
    lines = [
        f"cosine to the final relevance, by samples; quantiles {names} of channels:"
    ]
    for count, values in sorted(about["convergence"].items(), key=lambda x: int(x[0])):
        lines.append(f"  {count:>5}  {_join(values)}")
    if "lower_resolution" in about:
        values = _join(about["lower_resolution"])
        lines.append(f"cosine of the lower resolution to the whole image: {values}")
    return lines


def _describe_agreement(
    found: global_directions.Relevance, comparison: Comparison
) -> list[str]:
    """Lines on how far two files agree, by channel and by text."""
    expected = comparison.relevance
    layers = sorted({*found.layers} & {*expected.layers})
    common = global_directions.channels_of(found.layout, layers)
    cosines = np.sum(np.asarray(found.table * expected.table), axis=1)[common]
    if not cosines.size:
        raise UserError(
            "compare: the two files have no layer in common", field="compare"
        )
    lines = [
        f"agreement over {common.sum()} channels",
        f"  cosine of relevance, quantiles {_join_percent(_QUANTILES)}: "
        f"{_join(_quantiles(cosines))}",
    ]
    counts = [n for n in _OVERLAPS if n <= common.sum()] or [int(common.sum())]
    for name, text in comparison.texts.items():
        ours, theirs = (
            global_directions.relevance_for(x, text) for x in (found, expected)
        )
        scores = [global_directions.agreement(ours, theirs, n) for n in counts]
        overlaps = "  ".join(
            f"top {n} {100 * score.overlap:.0f} %"
            for n, score in zip(counts, scores, strict=True)
        )
        lines.append(
            f"  {name}: rank correlation {scores[0].rank_correlation:.3f}, {overlaps}"
        )
    return lines


def _join(values: Any) -> str:
    return "  ".join(f"{value:.3f}" for value in values)


def _join_percent(quantiles: Any) -> str:
    return ", ".join(f"{100 * quantile:g} %" for quantile in quantiles)


def _text_directions(
    request: Request, clip: Any, tokenizer: Any
) -> dict[str, jax.Array]:
    """Text direction of each pair, by its name."""
    templates = loading.load_templates(request.models.templates)
    found = {}
    for neutral, prompt in map(_split, request.config.pairs):
        try:
            found[f"{neutral} → {prompt}"] = global_directions.text_direction(
                clip, tokenizer, neutral, prompt, templates
            )
        except UserError as error:
            raise UserError(f"pairs: {error}", field="pairs") from None
    return found


def _num_channels(networks: losses.Networks, layers: tuple[int, ...]) -> int:
    layout = networks.generator.config.style_layout
    return sum(layout[i].channels for i in layers)


def _split(pair: str) -> tuple[str, str]:
    """Neutral text and prompt of a pair; one of them is empty if it is none."""
    neutral, _, prompt = pair.partition(":")
    return text_files.clean(neutral), text_files.clean(prompt)
