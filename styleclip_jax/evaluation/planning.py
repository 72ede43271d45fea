"""Plans of an evaluation: which networks measure which edits, by which texts."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from styleclip_jax import loading, places
from styleclip_jax.errors import UserError
from styleclip_jax.evaluation import edit_sets, measuring
from styleclip_jax.evaluation.edit_sets import EditSet
from styleclip_jax.io import checkpoints, images, text_files
from styleclip_jax.loading import Models
from styleclip_jax.models import clip, vgg16
from styleclip_jax.models.generators import GeneratorConfig
from styleclip_jax.models.network import Network
from styleclip_jax.toy import judge

# Neutral text of edits that do not record one.
_NEUTRAL = "a face"


@dataclasses.dataclass(frozen=True)
class Question:
    """Question of an evaluation: edits, and what is to be measured of them.

    Attributes:
      edits: folders of styleclip-edit.
      target: targets that the judge looks for, as ATTRIBUTE:VALUE; one for all, for
        each folder, or for each prompt of each folder in order. An empty one asks for
        nothing.
      models: generator of the edits where it is now, CLIP that scores, and network
        that recognises faces; those of the edits if absent.
      neutral: text that edits lead away from; that of the edits if absent.
      pairs: pairs of texts that edits should leave alone.
      labels: texts for zero-shot classification.
      eval_clip: CLIPs that score one after the other, in place of the models'.
      lpips: model directory of a VGG16 with the weights of LPIPS, None for none.
      mask: picture whose white part edits may change, for LPIPS outside of it.
    """

    edits: tuple[str, ...]
    target: tuple[str, ...] = ()
    models: Models = dataclasses.field(default_factory=Models)
    neutral: str | None = None
    pairs: tuple[tuple[str, str], ...] = ()
    labels: tuple[str, ...] = ()
    eval_clip: tuple[str, ...] = ()
    lpips: str | None = None
    mask: str | None = None


class Plan(NamedTuple):
    """Plan of one row of the table, before it is measured.

    Attributes:
      edits: set of edits to measure.
      target: target that the judge looks for, None for none.
      generator: generator of the edits.
      clip: CLIP that scores, None for none.
      texts: texts that the CLIP scores by, None without one.
      identity: network that recognises faces, None for none.
      lpips: VGG16 of LPIPS, None for none.
      outside: [H, W] weights of the pixels that edits should leave alone, None where no
        mask says it.
      about: entries of the row beside its metrics.
    """

    edits: EditSet
    target: measuring.Target | None
    generator: Network
    clip: Network | None
    texts: measuring.Texts | None
    identity: Network | None
    lpips: Network | None
    outside: np.ndarray | None
    about: dict[str, Any]


def plan(question: Question) -> list[Plan]:
    """Plans the rows of a table; all is read now, so that errors come before work.

    Raises:
      UserError: a folder, a network or a text is wrong.
    """
    models = question.models
    folders = [edit_sets.read(directory) for directory in question.edits]
    targets = targets_of(question.target, folders)
    load_clip = functools.cache(Models.load_clip)
    load_identity = functools.cache(Models.load_identity)

    @functools.cache
    def load_generator(index: int) -> Network:
        return edit_sets.load_generator(folders[index][0], models)

    perceptual = None
    if question.lpips is not None:
        perceptual = models.of_other(loading.load_vgg16(question.lpips))
        if not perceptual.config.lpips:
            raise UserError(
                f"lpips: expected a VGG16 with the weights of LPIPS, found none in "
                f"{question.lpips}",
                field="lpips",
            )
    plans: list[Plan] = []
    wanted = iter(targets)
    for index, sets in enumerate(folders):
        generator = load_generator(index)
        for edits in sets:
            target = next(wanted)
            size = generator.config.image_size
            if target is not None and size != judge.JudgeConfig().resolution:
                raise UserError(
                    f"target: the judge knows drawn faces of "
                    f"{judge.JudgeConfig().resolution}², {edits.directory} has images "
                    f"of {generator.config.size_text}",
                    field="target",
                )
            outside = None
            if perceptual is not None:
                outside = _outside(question.mask, edits, generator.config)
            has_identity = models.identity or _is_embedded(edits)
            identity = None
            if has_identity:
                identity = load_identity(models, generator.config)
            for scorer in _scorers(question, edits):
                about = _describe(question, edits, scorer)
                about["target"] = target and str(target)
                network, texts = None, None
                if about["clip"] is not None:
                    network, words = load_clip(scorer)
                    pair = (about["neutral"], about["prompt"])
                    texts = _encode(network, words, pair, question)
                instruments = (network, texts, identity, perceptual, outside)
                plans.append(Plan(edits, target, generator, *instruments, about))
    return plans


def targets_of(
    texts: Sequence[str], folders: Sequence[Sequence[EditSet]]
) -> list[measuring.Target | None]:
    """Target of each set, of all folders one after the other."""
    found = [measuring.parse_target(text) for text in texts] or [None]
    folder_of = [i for i, sets in enumerate(folders) for _ in sets]
    prompts = [(i, edits.goal) for i, sets in enumerate(folders) for edits in sets]
    in_order = list(dict.fromkeys(prompts))
    if len(found) == 1:
        return found * len(prompts)
    if len(found) == len(folders):
        return [found[i] for i in folder_of]
    if len(found) == len(in_order):
        return [found[in_order.index(prompt)] for prompt in prompts]
    raise UserError(
        f"target: expected one, {len(folders)} for the folders or {len(in_order)} "
        f"for their prompts, found {len(found)}",
        field="target",
    )


def _outside(
    mask: str | None, edits: EditSet, generator: GeneratorConfig
) -> np.ndarray | None:
    """Weights [H, W] of the pixels outside of a mask, None without one.

    Raises:
      UserError: images are too small for LPIPS, or the mask is no picture of their
        size with some part that is not white.
    """
    least = 1 << (len(vgg16.STAGES) - 1)
    shape, size = generator.image_shape, generator.size_text
    if min(shape) < least:
        raise UserError(
            f"lpips: expected images of {least}² or more, {edits.directory} has images "
            f"of {size}",
            field="lpips",
        )
    if mask is None:
        return None
    picture = images.read(mask)
    if picture.shape[:2] != shape:
        height, width = picture.shape[:2]
        raise UserError(
            f"{mask}: expected a picture of {shape[1]}×{shape[0]}, as those of "
            f"{edits.directory}, found {width}×{height}",
            field="mask",
        )
    outside = 1 - picture.mean(axis=2, dtype=np.float32) / 255
    if not outside.any():
        raise UserError(f"{mask}: expected a part that is not white", field="mask")
    return outside


def _is_embedded(edits: EditSet) -> bool:
    """Whether the edits are of the embedded generator."""
    embedded = checkpoints.fingerprint(places.find("generator"))
    return edits.record["inputs"].get("generator") == embedded


def _scorers(question: Question, edits: EditSet) -> list[Models]:
    """CLIPs that score a set, each for a row of its own."""
    models = question.models
    if question.eval_clip:
        return [
            dataclasses.replace(models, clip=name, clip_weights=None)
            for name in question.eval_clip
        ]
    if models.clip is not None:
        return [models]
    recorded = edits.record["flags"]
    weights = models.clip_weights or recorded.get("clip_weights")
    return [
        dataclasses.replace(
            models,
            clip=recorded.get("clip"),
            clip_weights=weights and tuple(map(float, weights)),
        )
    ]


def _describe(question: Question, edits: EditSet, scorer: Models) -> dict[str, Any]:
    """Entries of a row, such as whether its judges were also its teachers."""
    recorded, inputs = edits.record["flags"], edits.record["inputs"]
    clip_name = scorer.clip
    # A mapper does not name its CLIP, and the embedded one has seen drawn faces alone.
    unknown = edits.method == "mapper" and not _is_embedded(edits)
    neutral = question.neutral and text_files.require("neutral", question.neutral)
    has_clip = edits.prompt is not None and not (unknown and clip_name is None)
    about: dict[str, Any] = {
        "edits": str(edits.directory),
        "method": edits.method,
        "prompt": edits.prompt,
        "neutral": neutral or recorded.get("neutral") or _NEUTRAL,
        "strength": edits.strength,
        "series": edits.series,
        "setting": edits.setting,
        "space": edits.space,
        "failed": edits.num_failed,
        "clip": (clip_name or "embedded") if has_clip else None,
        "clip_was_optimized": None,
        "identity_was_optimized": None,
    }
    optimized = edits.optimized_clip
    if has_clip and optimized is not None:
        found = loading.clip_identity(clip_name)
        about["clip_was_optimized"] = bool(
            set(optimized.split(",")) & set(found.split(","))
        )
    if "identity" in inputs:
        found = question.models.fingerprints("identity")["identity"]
        about["identity_was_optimized"] = inputs["identity"] == found
    return about


def _encode(
    network: clip.Clip,
    words: clip.Tokenizer,
    pair: tuple[str, str],
    question: Question,
) -> measuring.Texts:
    """CLIP features of all texts, encoded at once."""
    others, labels = question.pairs, question.labels
    texts = [*pair, *(text for other in others for text in other), *labels]
    features = clip.encode_prompts(network, words, texts)
    stop = 2 + 2 * len(others)
    return measuring.Texts(
        features[:2],
        features[2:stop].reshape(len(others), 2, features.shape[-1]),
        features[stop:],
    )
