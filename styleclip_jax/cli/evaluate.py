"""styleclip-evaluate: measure edits, compare methods, classify images by text.

  styleclip-evaluate --edits=outputs/beard,outputs/direction
  styleclip-evaluate --edits=outputs/beard --target=facial_hair:beard
  styleclip-evaluate --tables=mapper_similarity --mapper=models/afro,models/bob
  styleclip-evaluate --images=photos --zero_shot=labels.txt

Writes under --outdir, a row for each folder of styleclip-edit, or for each prompt and
strength in it: edits.md (tables for people), edits.json, edits.csv, and frontier.png,
target gain against identity, a curve for each method. Of mappers:
mapper_similarity.md and .json. Of images: zero_shot.md and zero_shot.jsonl.
"""

import functools
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from PIL import Image, UnidentifiedImageError

from styleclip_jax import latents, loading, progress
from styleclip_jax.batch import journal, source
from styleclip_jax.cli import latent_flags, program
from styleclip_jax.errors import UserError
from styleclip_jax.evaluation import edit_sets, measure, metrics, report
from styleclip_jax.io import checkpoints, files
from styleclip_jax.methods import mapper
from styleclip_jax.models import bpe, clip, clip_input
from styleclip_jax.models.network import Network
from styleclip_jax.toy import judge

TABLES = ("edits", "mapper_similarity")
_IMAGES = (".png", ".jpg", ".jpeg", ".webp")

VALUES = flags.FlagValues()
latent_flags.define(VALUES)
flags.DEFINE_list(
    "edits", [], "Folders of styleclip-edit, with commas between.", flag_values=VALUES
)
flags.DEFINE_list(
    "target",
    [],
    "For drawn faces, such as the embedded generator's: what the judge is to find, as "
    "ATTRIBUTE:VALUE (hair_color:blonde). One for all, for each folder, or for each "
    "prompt of each folder in order; an empty one asks for nothing.",
    flag_values=VALUES,
)
flags.DEFINE_list(
    "tables",
    None,
    f"What to make, of {', '.join(TABLES)}; edits if absent.",
    flag_values=VALUES,
)
flags.DEFINE_list(
    "mapper", [], "Mappers of --tables=mapper_similarity.", flag_values=VALUES
)
flags.DEFINE_string(
    "clip",
    None,
    "CLIP that scores, by directory or hub name; best one that no edit was made with. "
    "That of the edits if absent.",
    flag_values=VALUES,
)
flags.DEFINE_string(
    "identity",
    None,
    "Model directory of a face recognition network; the embedded one if absent, for "
    "the embedded generator.",
    flag_values=VALUES,
)
flags.DEFINE_string(
    "neutral",
    None,
    'Text that edits lead away from; that of the edits, or "a face", if absent.',
    flag_values=VALUES,
)
flags.DEFINE_string(
    "pairs",
    None,
    "File of pairs of texts, one a line with a | between, whose probabilities an edit "
    "should leave alone; for the disentanglement.",
    flag_values=VALUES,
)
flags.DEFINE_string(
    "zero_shot",
    None,
    "File of texts, one a line, to classify --images by, or originals and edits.",
    flag_values=VALUES,
)
flags.DEFINE_list(
    "images", [], "Images, or folders of them, for --zero_shot.", flag_values=VALUES
)
flags.DEFINE_string(
    "outdir", "outputs/evaluate", "Folder for the results.", flag_values=VALUES
)
flags.DEFINE_integer(
    "batch_size", 16, "Edits at a time.", lower_bound=1, flag_values=VALUES
)
flags.DEFINE_integer(
    "seed",
    0,
    "Seed of the bootstrap and of the judge's random steps.",
    lower_bound=0,
    flag_values=VALUES,
)


def main(values: flags.FlagValues) -> int:
    """Makes the tables that are asked for."""
    wanted = _wanted(values)
    labels = [] if values.zero_shot is None else _read_lines(values.zero_shot)
    others = [] if values.pairs is None else _read_pairs(values.pairs)
    plans = _plan(values, others, labels) if "edits" in wanted else []
    found_mappers = _load_mappers(values) if "mapper_similarity" in wanted else None
    paths = _find_images(values.images)
    outdir = journal.begin("styleclip-evaluate", values, _inputs(values))
    if plans:
        rows = _measure_all(values, plans)
        _print(report.write(outdir, rows, labels))
    if found_mappers:
        _print(_compare_mappers(values, outdir, found_mappers))
    if paths:
        _print(_classify(values, outdir, paths, labels))
    return 0


def _wanted(values: flags.FlagValues) -> list[str]:
    """The tables to make.

    Raises:
      UserError: unknown ones, none, or something that they need is missing.
    """
    wanted = values.tables
    if wanted is None:
        wanted = ["edits"] if values.edits or not values.images else []
    unknown = set(wanted) - set(TABLES)
    if unknown or values.tables == []:
        raise UserError(
            f"--tables: expected some of {', '.join(TABLES)}, "
            f"found {','.join(wanted) or 'none'}"
        )
    if "edits" in wanted and not values.edits:
        raise UserError("--edits: expected folders of styleclip-edit, found none")
    if "mapper_similarity" in wanted and not values.mapper:
        raise UserError("--mapper: expected mappers for their similarity, found none")
    if values.images and values.zero_shot is None:
        raise UserError("--images: expected --zero_shot with texts to classify them by")
    return wanted


def _inputs(values: flags.FlagValues) -> dict[str, str]:
    """Hashes of what is read."""
    inputs = {}
    for directory in values.edits:
        for edited in pathlib.Path(directory).glob("edited.np[yz]"):
            inputs[str(edited)] = files.hash_file(edited)
    for name in ("pairs", "zero_shot", "latents"):
        path = values[name].value
        if path is not None:
            inputs[name] = files.hash_file(str(path))
    return inputs


class _Plan(NamedTuple):
    """One row, before it is measured.

    Attributes:
      edits: what to measure.
      target: what the judge looks for.
      generator: of the edits.
      clip: CLIP that scores, None for none.
      texts: that it scores by.
      identity: network that recognises faces, None for none.
      about: what the row says beside its metrics.
    """

    edits: edit_sets.EditSet
    target: measure.Target | None
    generator: Network
    clip: Network | None
    texts: measure.Texts | None
    identity: Network | None
    about: dict[str, Any]


def _plan(
    values: flags.FlagValues,
    others: Sequence[tuple[str, str]],
    labels: Sequence[str],
) -> list[_Plan]:
    """Reads all that is needed, so that what is wrong is told before work starts."""
    folders = [edit_sets.read(directory) for directory in values.edits]
    targets = _targets(values, folders)
    load_clip = functools.cache(loading.load_clip)
    load_identity = functools.cache(loading.load_identity)

    @functools.cache
    def load_generator(index: int) -> Network:
        return edit_sets.load_generator(folders[index][0], values.generator)

    plans: list[_Plan] = []
    for index, sets in enumerate(folders):
        generator = load_generator(index)
        for edits in sets:
            target = targets[len(plans)]
            resolution = generator.config.resolution
            if target is not None and resolution != judge.JudgeConfig().resolution:
                raise UserError(
                    f"--target: the judge knows drawn faces of "
                    f"{judge.JudgeConfig().resolution}², {edits.directory} has images "
                    f"of {resolution}²"
                )
            has_identity = values.identity or _is_embedded(edits)
            about = _describe(values, edits) | {"target": target and str(target)}
            network, texts = None, None
            if about["clip"] is not None:
                network, words = load_clip(_clip_name(values, edits))
                pair = (about["neutral"], about["prompt"])
                texts = _encode(network, words, pair, others, labels)
            identity = load_identity(values.identity) if has_identity else None
            plans.append(
                _Plan(edits, target, generator, network, texts, identity, about)
            )
    return plans


def _targets(
    values: flags.FlagValues, folders: Sequence[Sequence[edit_sets.EditSet]]
) -> list[measure.Target | None]:
    """The target of each set, of all folders one after the other."""
    found = [measure.parse_target(text) for text in values.target] or [None]
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
        f"--target: expected one, {len(folders)} for the folders or {len(in_order)} "
        f"for their prompts, found {len(found)}"
    )


def _is_embedded(edits: edit_sets.EditSet) -> bool:
    """Whether the edits are of the embedded generator."""
    embedded = checkpoints.fingerprint(loading.generator_directory())
    return edits.record["inputs"].get("generator") == embedded


def _clip_name(values: flags.FlagValues, edits: edit_sets.EditSet) -> str | None:
    """Of the CLIP that scores, None for the embedded one."""
    return values.clip or edits.record["flags"].get("clip")


def _describe(values: flags.FlagValues, edits: edit_sets.EditSet) -> dict[str, Any]:
    """What a row says of itself, and whether its judges were also its teachers."""
    recorded, inputs = edits.record["flags"], edits.record["inputs"]
    clip_name = _clip_name(values, edits)
    # A mapper does not name its CLIP, and the embedded one has seen drawn faces alone.
    unknown = edits.method == "mapper" and not _is_embedded(edits)
    has_clip = edits.prompt is not None and not (unknown and clip_name is None)
    about: dict[str, Any] = {
        "edits": str(edits.directory),
        "method": edits.method,
        "prompt": edits.prompt,
        "neutral": values.neutral or recorded.get("neutral") or "a face",
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
        found = loading.clip_fingerprint(clip_name) or clip_name
        about["clip_was_optimized"] = optimized == found
    if "identity" in inputs:
        directory = loading.identity_directory(values.identity)
        found = checkpoints.fingerprint(directory)
        about["identity_was_optimized"] = inputs["identity"] == found
    return about


def _encode(
    network: Network,
    words: bpe.Tokenizer,
    pair: tuple[str, str],
    others: Sequence[tuple[str, str]],
    labels: Sequence[str],
) -> measure.Texts:
    """Features of all texts at once."""
    texts = [*pair, *(text for other in others for text in other), *labels]
    features = clip.encode_prompts(network, words, texts)
    stop = 2 + 2 * len(others)
    return measure.Texts(
        features[:2],
        features[2:stop].reshape(len(others), 2, features.shape[-1]),
        features[stop:],
    )


def _measure_all(values: flags.FlagValues, plans: Sequence[_Plan]) -> list[report.Row]:
    """The rows of the table."""
    network = None
    if any(plan.target for plan in plans):
        network = Network(*judge.load())
    total, rows = sum(len(plan.edits.rows) for plan in plans), []
    with progress.bar(total, "edit") as bar:
        for plan in plans:
            found = measure.measure(
                plan.edits,
                plan.generator,
                measure.Instruments(plan.clip, plan.identity, network),
                plan.texts,
                plan.target,
                batch_size=values.batch_size,
                seed=values.seed,
                report=bar.update,
            )
            rows.append(report.Row(plan.about, found))
    return rows


class _Mappers(NamedTuple):
    """Mappers to compare, and where."""

    generator: Network
    source: source.Source
    networks: list[Network]
    prompts: list[str]


def _load_mappers(values: flags.FlagValues) -> _Mappers:
    directory = loading.generator_directory(values.generator)
    generator = loading.load_generator(directory)
    networks = [
        loading.load_mapper(path, directory, generator.config) for path in values.mapper
    ]
    spaces = {network.config.space for network in networks}
    if len(spaces) > 1:
        raise UserError(f"--mapper: expected mappers of one space, found {spaces}")
    source = latent_flags.read(values, generator, default_seeds="0-63")
    if source.space == "s" and spaces != {"s"}:
        raise UserError(f"--latents: {values.latents} is in s, expected w_plus")
    if len(source) < 2:
        raise UserError(
            f"--seeds or --latents: expected at least 2 latents, found {len(source)}"
        )
    prompts = [loading.mapper_prompt(path) or str(path) for path in values.mapper]
    return _Mappers(generator, source, networks, prompts)


_step = jax.jit(lambda network, latent: mapper.flatten(mapper.apply(network, latent)))
_similarity = jax.jit(mapper.similarity)


def _compare_mappers(
    values: flags.FlagValues, outdir: pathlib.Path, found: _Mappers
) -> list[pathlib.Path]:
    """Table 2 of the paper: how much the steps of mappers depend on the latent."""
    source = found.source
    latent = latents.convert(
        found.generator,
        source.load(np.arange(len(source))),
        space=source.space,
        truncation_psi=source.truncation_psi,
        cutoff=source.truncation_cutoff,
        to=found.networks[0].config.space,
        label=latent_flags.one_hot_label(values, found.generator.config),
    )
    delta = jnp.stack([_step(network, latent) for network in found.networks])
    similarity = jax.tree.map(np.asarray, _similarity(delta))
    return report.write_similarity(
        outdir, found.prompts, list(map(str, values.mapper)), len(source), similarity
    )


_classify_batch = jax.jit(
    lambda network, image, text: metrics.zero_shot(
        network,
        clip.encode_image(network, image),
        text,
    )
)


def _classify(
    values: flags.FlagValues,
    outdir: pathlib.Path,
    paths: Sequence[pathlib.Path],
    labels: Sequence[str],
) -> list[pathlib.Path]:
    """Zero-shot classification of image files."""
    network, tokenizer = loading.load_clip(values.clip)
    text = clip.encode_prompts(network, tokenizer, labels)
    shares = []
    with progress.bar(len(paths), "image") as bar:
        for start in range(0, len(paths), values.batch_size):
            part = paths[start : start + values.batch_size]
            batch = np.concatenate([_prepare(path, network) for path in part])
            padded = np.resize(batch, (values.batch_size, *batch.shape[1:]))
            found = _classify_batch(network, padded, text)
            shares.append(np.asarray(found)[: len(part)])
            bar.update(len(part))
    return report.write_zero_shot(outdir, paths, labels, np.concatenate(shares))


def _prepare(path: pathlib.Path, network: clip.Clip) -> np.ndarray:
    """CLIP's input [1, S, S, 3] of an image file."""
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))[None]
    except (OSError, UnidentifiedImageError) as error:
        raise UserError(f"{path}: expected an image ({error})") from None
    return np.asarray(clip_input.preprocess_clip_uint8(network, jnp.asarray(pixels)))


def _find_images(names: Sequence[str]) -> list[pathlib.Path]:
    """Image files, those of folders in order of their names."""
    found: list[pathlib.Path] = []
    for path in map(pathlib.Path, names):
        if not path.exists():
            raise UserError(f"--images: {path}: no such file")
        inside = sorted(path.iterdir()) if path.is_dir() else [path]
        chosen = [p for p in inside if p.suffix.lower() in _IMAGES]
        if not chosen:
            raise UserError(f"--images: {path}: expected {', '.join(_IMAGES)}")
        found += chosen
    return found


def _read_lines(path: str) -> list[str]:
    try:
        lines = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: expected a text file ({error})") from None
    found = [line.strip() for line in lines if line.strip()]
    if len(found) < 2 or len(set(found)) < len(found):
        raise UserError(
            f"{path}: expected at least two texts, one a line and each once, found "
            f"{len(found)}"
        )
    return found


def _read_pairs(path: str) -> list[tuple[str, str]]:
    pairs = []
    for line in _read_lines(path):
        first, _, second = (part.strip() for part in line.partition("|"))
        if not first or not second:
            raise UserError(f"{path}: expected TEXT | TEXT, found {line!r}")
        pairs.append((first, second))
    return pairs


def _print(paths: Sequence[pathlib.Path]) -> None:
    for path in paths:
        if path.suffix == ".md":
            print(path.read_text(encoding="utf-8"))
    print("\n".join(f"written: {path}" for path in paths))


def entry() -> None:
    """The console script."""
    program.run(main, VALUES)


if __name__ == "__main__":
    entry()
