"""Measuring of sets of edits: every metric of `metrics`, and the judge's verdict."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from styleclip_jax import latents, parallel, spaces
from styleclip_jax.errors import UserError
from styleclip_jax.evaluation import edit_sets, generator_metrics, metrics
from styleclip_jax.models import clip, clip_input, irse50, lpips
from styleclip_jax.models.network import Network
from styleclip_jax.ops import moments
from styleclip_jax.toy import attributes, judge

# Largest number of steps, or of features, that are compared with each other in pairs.
MAX_PAIRED = 1024

_NAN = float("nan")

# Stages that the judge looks at: sources, edits, and random steps as long as these.
_STAGES = ("before", "after", "random")


@dataclasses.dataclass(frozen=True)
class Target:
    """Target of a set of edits, a value of an attribute in the embedded world.

    Attributes:
      attribute: one of `attributes.ATTRIBUTES`.
      value: one of the attribute's values.
    """

    attribute: str
    value: str

    def __str__(self) -> str:
        return f"{self.attribute}:{self.value}"

    @property
    def index(self) -> int:
        """Index of the value among those of its attribute."""
        return attributes.index(self.attribute, self.value)


def parse_target(text: str) -> Target | None:
    """Parses a target such as "hair_color:blonde"; None for an empty text.

    Raises:
      UserError: there is no such attribute or value.
    """
    if not text.strip():
        return None
    attribute, _, value = text.strip().partition(":")
    if attribute not in attributes.ATTRIBUTES:
        raise UserError(
            f"target: expected ATTRIBUTE:VALUE with one of "
            f"{', '.join(attributes.ATTRIBUTES)}, found {text!r}",
            field="target",
        )
    if value not in attributes.ATTRIBUTES[attribute]:
        raise UserError(
            f"target: expected {attribute}: with one of "
            f"{', '.join(attributes.ATTRIBUTES[attribute])}, found {value!r}",
            field="target",
        )
    return Target(attribute, value)


class Instruments(NamedTuple):
    """Instruments: the networks that measure; None where there is none.

    Attributes:
      clip: CLIP, which scores texts.
      identity: identity network, which recognises faces.
      judge: judge, which names attributes.
      lpips: VGG16 of LPIPS, which sees changes.
      outside: [H, W] weights of the pixels that edits should leave alone.
    """

    clip: Network | None = None
    identity: Network | None = None
    judge: Network | None = None
    lpips: Network | None = None
    outside: Any = None


class Texts(NamedTuple):
    """Normalised CLIP features of texts.

    Attributes:
      pair: [2, E] neutral and target text.
      others: [P, 2, E] pairs that the edit should leave alone.
      labels: [C, E] classes for zero-shot classification.
    """

    pair: jax.Array
    others: jax.Array
    labels: jax.Array


class Summary(NamedTuple):
    """Summary of a metric over a set, with a 95 % bootstrap interval of the mean.

    Attributes:
      mean, std: mean and deviation, NaN where they are not defined.
      n: number of edits, or of steps that were compared in pairs.
      low, high: ends of the interval, NaN where it is not defined.
    """

    mean: float
    std: float
    n: int
    low: float
    high: float


def measure(
    edits: edit_sets.EditSet,
    generator: Network,
    instruments: Instruments,
    texts: Texts | None,
    target: Target | None,
    *,
    mesh: jax.sharding.Mesh,
    batch_size: int,
    seed: int,
    report: Callable[[int], None],
) -> dict[str, Summary]:
    """Metrics of a set of edits: every one that the instruments allow.

    Args:
      edits: set of edits.
      generator: generator that the edits were made with.
      instruments: networks; the judge is used if there is a target.
      texts: features of the prompt and other texts; needed with a CLIP.
      target: target that the judge looks for.
      mesh: devices to spread batches over.
      batch_size: number of edits at a time, rounded up to a multiple of the devices.
      seed: seed of the control and the bootstrap.
      report: is called with the number of edits that are done.

    Returns:
      Summary of each metric by its name.
    """
    layout = generator.config.style_layout
    original, edited = edits.load(edits.rows[:MAX_PAIRED])
    delta = edited - original
    control = functools.partial(
        random_step, mask=edit_sets.moved(delta, layout), seed=seed
    )
    parts = []
    generator, instruments = parallel.replicate((generator, instruments), mesh)
    size = parallel.round_up(min(batch_size, len(edits.rows)), mesh.size)
    for start in range(0, len(edits.rows), size):
        rows = edits.rows[start : start + size]
        # The last batch is padded by repeating rows, so that one program does for all.
        stages = _load(edits, np.resize(rows, size), control, target)
        batch = parallel.shard(stages, mesh)
        found = _measure_batch(batch, edits.space, generator, instruments, target)
        parts.append(_first(found, len(rows)))
        report(len(rows))
    found = jax.tree.map(lambda *x: np.concatenate(x), *parts)
    values: dict[str, np.ndarray] = found["values"]
    before, after = found["features"][:2]
    if instruments.clip is not None and texts is not None:
        values |= _score(instruments.clip, before["clip"], after["clip"], texts)
    if instruments.identity is not None:
        identity = metrics.identity_similarity(before["identity"], after["identity"])
        values["identity_similarity"] = np.asarray(identity)
    if target is not None:
        values |= _judge(target, [x["judge"] for x in found["features"]])
    summaries = summarize(values, seed) | _consistency(delta)
    if target is not None:
        summaries |= _distances([x["judge_features"] for x in found["features"]])
    return summaries


def _first(tree: Any, count: int) -> Any:
    """First examples of each array, on the host."""
    return jax.tree.map(lambda x: np.asarray(x)[:count], tree)


def summarize(values: dict[str, np.ndarray], seed: int) -> dict[str, Summary]:
    """Summary of each metric, and of the ratios that follow from them."""
    values = {name: np.asarray(x, np.float32) for name, x in values.items()}
    stacked = np.stack(list(values.values()), axis=1)
    key = jax.random.key(seed)
    low, high = np.asarray(metrics.bootstrap_interval(key, stacked))
    summaries = {
        name: Summary(
            float(stacked[:, i].mean()),
            float(stacked[:, i].std(ddof=1)) if len(stacked) > 1 else _NAN,
            len(stacked),
            float(low[i]),
            float(high[i]),
        )
        for i, name in enumerate(values)
    }
    for name, gain, change in (
        ("disentanglement", "target_gain", "change_elsewhere"),
        ("judge_disentanglement", "judge_gain", "judge_change"),
    ):
        if gain in values and change in values:
            pair = (values[gain], values[change])
            summaries[name] = _summarize_ratio(key, pair)
    return summaries


def _ratio(pair: tuple[jax.Array, jax.Array]) -> jax.Array:
    return metrics.disentanglement(*pair)


def _summarize_ratio(key: jax.Array, pair: tuple[np.ndarray, np.ndarray]) -> Summary:
    """Summary of a ratio of means, which single edits do not have."""
    low, high = metrics.bootstrap_interval(key, pair, statistic=_ratio)
    mean = metrics.disentanglement(*map(jnp.asarray, pair))
    return Summary(float(mean), _NAN, len(pair[0]), float(low), float(high))


def _consistency(delta: np.ndarray) -> dict[str, Summary]:
    """Consistency of the first steps; without interval, since pairs share steps."""
    if len(delta) < 2:
        return {}
    found = _direction_consistency(delta.reshape(len(delta), -1))
    return {
        "direction_consistency": Summary(
            float(found.mean), float(found.std), len(delta), _NAN, _NAN
        )
    }


def _distances(features: Sequence[np.ndarray]) -> dict[str, Summary]:
    """Distances of edits, and of random steps, from the sources as distributions.

    Without intervals: drawing examples twice makes both distances larger.
    """
    before, *others = features
    if len(before) < 2:
        return {}

    def gaussian(feature: np.ndarray) -> moments.Gaussian:
        return moments.FeatureStatistics.of(feature).gaussian

    found = {}
    for name, after in zip(("", "_random"), others, strict=True):
        frechet = generator_metrics.frechet_distance(gaussian(after), gaussian(before))
        first = slice(MAX_PAIRED)
        kernel = generator_metrics.paired_kernel_distance(after[first], before[first])
        found[f"fd_judge{name}"] = Summary(frechet, _NAN, len(before), _NAN, _NAN)
        count = len(before[first])
        found[f"kd_judge{name}"] = Summary(kernel, _NAN, count, _NAN, _NAN)
    return found


_direction_consistency = jax.jit(metrics.direction_consistency)


def _load(
    edits: edit_sets.EditSet,
    rows: np.ndarray,
    control: Callable[..., np.ndarray],
    target: Target | None,
) -> list[np.ndarray]:
    """Latents before and after the edits, and for a target after random steps."""
    original, edited = edits.load(rows)
    if target is None:
        return [original, edited]
    return [original, edited, original + control(edited - original, rows)]


def _measure_batch(
    stages: Sequence[jax.Array],
    space: str,
    generator: Network,
    instruments: Instruments,
    target: Target | None,
) -> dict[str, Any]:
    """Features of the images of a batch, and metrics of its latents and pixels."""
    if target is None:
        instruments = instruments._replace(judge=None)
    images = [_render(generator, latent, space) for latent in stages]
    values = _compare(*stages[:2], *images[:2])
    if instruments.lpips is not None:
        values |= _perceive(instruments.lpips, instruments.outside, *images[:2])
    if target is not None:
        values |= _check(target, images)
    return {
        "values": values,
        "features": [_look(instruments, image) for image in images],
    }


def random_step(
    delta: np.ndarray, rows: np.ndarray, *, mask: np.ndarray, seed: int
) -> np.ndarray:
    """Random steps as long as those of the edits, in the rows that these move."""
    noise = np.stack(
        [
            np.random.default_rng((seed, int(row))).standard_normal(mask.shape)
            for row in rows
        ]
    )
    noise *= mask
    axes = tuple(range(1, delta.ndim))
    length = np.sqrt(np.sum(noise**2, axis=axes, keepdims=True))
    wanted = np.sqrt(np.sum(np.square(delta), axis=axes, keepdims=True))
    return (noise * (wanted / np.maximum(length, 1e-12))).astype(np.float32)


def _render(generator: Network, latent: jax.Array, space: str) -> jax.Array:
    """Images as they are shown, [B, H, W, 3] in [-1, 1]."""
    found: Any = latent
    if space == "s":
        found = spaces.unflatten_styles(latent, generator.config.style_layout)
    return jnp.clip(latents.render(generator, found), -1, 1)


@jax.jit
def _look(instruments: Instruments, image: jax.Array) -> dict[str, Any]:
    """Features of images by each network, and the judge's answers."""
    found: dict[str, Any] = {}
    if (network := instruments.clip) is not None:
        found["clip"] = encode_images(network, image)
    if (network := instruments.identity) is not None:
        found["identity"] = irse50.features(network, image)
    if (network := instruments.judge) is not None:
        found["judge"] = judge.predict(network, image)
        found["judge_features"] = judge.features(network, image)
    return found


def encode_images(network: clip.Clip, image: jax.Array) -> jax.Array:
    """CLIP features [B, E] of images in [-1, 1], preprocessed as CLIP was trained."""
    return clip.encode_image(network, clip_input.preprocess_clip(network, image))


@jax.jit
def _compare(
    original: jax.Array, edited: jax.Array, before: jax.Array, after: jax.Array
) -> dict[str, jax.Array]:
    """Metrics of latents and of pixels."""
    found = {
        "pixel_l1": metrics.pixel_l1(before, after),
        "pixel_l2": metrics.pixel_l2(before, after),
        "latent_distance": metrics.latent_distance(original, edited),
    }
    if metrics.num_scales(*before.shape[1:3]):
        found["ms_ssim"] = metrics.ms_ssim(before, after)
    return found


@jax.jit
def _perceive(
    network: Network, outside: jax.Array | None, before: jax.Array, after: jax.Array
) -> dict[str, jax.Array]:
    """LPIPS of whole images, and outside of the mask if there is one."""
    found = {"lpips": lpips.distance(network, before, after)}
    if outside is not None:
        found["lpips_outside"] = lpips.distance(network, before, after, outside)
    return found


@jax.jit
def _score(
    network: Network, before: jax.Array, after: jax.Array, texts: Texts
) -> dict[str, jax.Array]:
    """Metrics of CLIP features."""
    neutral, prompt = texts.pair
    gain = functools.partial(metrics.zero_shot_gain, network, before, after)
    found = {
        "clip_score_before": metrics.clip_score(before, prompt),
        "clip_score": metrics.clip_score(after, prompt),
        "directional_similarity": metrics.directional_similarity(
            before, after, neutral, prompt
        ),
        "target_gain": gain(texts.pair),
    }
    if len(texts.others):
        changes = jnp.abs(jax.vmap(gain)(texts.others))
        found["change_elsewhere"] = jnp.mean(changes, axis=0)
    for stage, feature in (("before", before), ("after", after)):
        for i, share in enumerate(metrics.zero_shot(network, feature, texts.labels).T):
            found[f"label{i}_{stage}"] = share
    return found


def _check(target: Target, images: Sequence[jax.Array]) -> dict[str, np.ndarray]:
    """Verdict of a check on pixels, 0 or 1, where there is one for the target."""
    check = judge.CHECKS.get((target.attribute, target.value))
    if check is None:
        return {}
    return {
        f"check_{stage}": np.array([check(x) for x in np.asarray(image)], np.float32)
        for stage, image in zip(_STAGES, images, strict=True)
    }


def _judge(
    target: Target, found: Sequence[dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Verdict of the judge on sources, edits and random steps."""
    values = {
        f"judge_{stage}": (x[target.attribute] == target.index).astype(np.float32)
        for stage, x in zip(_STAGES, found, strict=True)
    }
    before, after, random = found
    values["kept"] = judge.kept(before, after, target.attribute)
    values["kept_random"] = judge.kept(before, random, target.attribute)
    values["judge_gain"] = values["judge_after"] - values["judge_before"]
    values["judge_change"] = 1 - values["kept"]
    return values
