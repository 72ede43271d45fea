"""styleclip-invert: photos → latents whose images they are.

  styleclip-invert --photos=me.jpg,holiday/ --encoder=models/e4e --refine_steps=100
  styleclip-invert --photos=crops/ --noalign

With --encoder, the optimization in W+ goes on from what the encoder finds; without, it
starts at the average latent and first goes through W. Faces are cropped as in FFHQ;
with --noalign the photos are such crops already.

Writes under --outdir: w_plus.npy, images/ (what the latents show), metrics.jsonl (a
line per face: file, each loss term, seconds, and as "levels" the mean absolute error
of 8-bit pixels), aligned.json (the corners of each face's square in its photo),
grid.png and run.json.
Started again with the same flags, it goes on where it stopped. Exit code 1 says that
some photos could not be inverted; they are listed at the end.
"""

import functools
import hashlib
import math
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from absl import flags

from styleclip_jax import loading, losses, parallel, progress
from styleclip_jax.batch import journal
from styleclip_jax.batch.journal import Journal
from styleclip_jax.cli import program
from styleclip_jax.errors import UserError
from styleclip_jax.io import checkpoints, files, images
from styleclip_jax.methods import inversion, optimization
from styleclip_jax.models import e4e, stylegan2
from styleclip_jax.models.network import Network
from styleclip_jax.photos import crops, pasting, photo_files

VALUES = flags.FlagValues()
journal.define(VALUES, outdir="outputs/invert", grid=8)
flags.DEFINE_integer(
    "batch_size", 8, "Photos at a time.", lower_bound=1, flag_values=VALUES
)
program.define(inversion.InversionConfig, VALUES)
flags.DEFINE_list(
    "photos", [], "Photos and folders of photos, with commas.", flag_values=VALUES
)
flags.DEFINE_string(
    "encoder",
    None,
    "Model directory of an e4e or pSp encoder to start from.",
    flag_values=VALUES,
)
flags.DEFINE_string(
    "generator",
    None,
    "Model directory; the encoder's own if absent, or else the embedded one.",
    flag_values=VALUES,
)
flags.DEFINE_string(
    "clip",
    None,
    "CLIP by directory or hub name (openai/clip-vit-base-patch32); the embedded one "
    "if absent.",
    flag_values=VALUES,
)
flags.DEFINE_string(
    "identity",
    None,
    "Model directory of a face recognition network, for --id_lambda.",
    flag_values=VALUES,
)
flags.DEFINE_bool(
    "align",
    True,
    "Find faces and crop them as in FFHQ; with --noalign photos are square crops.",
    flag_values=VALUES,
)
flags.DEFINE_bool(
    "all_faces", False, "All faces of a photo, not the largest.", flag_values=VALUES
)
flags.DEFINE_string(
    "landmarks",
    None,
    "File of 68 landmarks per face by name of the photo (.json, .npz); without it a "
    "detector finds them.",
    flag_values=VALUES,
)

# Letters of a file's name on the sheet.
_MAX_LABEL = 16


# Inverts a batch of faces and reports the steps that it has taken.
Inverter = Callable[[crops.Crops, progress.Report], optimization.Result]


def main(values: flags.FlagValues) -> int:
    """Inverts every face that is not done yet."""
    config = program.build(inversion.InversionConfig, values)
    paths = photo_files.find(values.photos)
    encoder = None if values.encoder is None else loading.load_encoder(values.encoder)
    directory = _generator_directory(values)
    networks = losses.Networks(
        loading.load_generator(directory),
        loading.load_clip(values.clip)[0],
        _load_identity(values, config),
    )
    steps = _count_steps(config, networks.generator, encoder)
    outdir, faces, skipped = _open(values, paths, _inputs(values, directory, paths))
    resolution = networks.generator.config.resolution
    print(
        f"generator: {directory}, {resolution}²\n"
        f"encoder: {values.encoder or 'none'}\n"
        f"clip: {values.clip or 'embedded'}, {networks.clip.config.image_size}²\n"
        f"photos: {len(paths)}, {len(faces)} faces"
    )
    mesh = parallel.make_mesh()
    networks, encoder = parallel.replicate((networks, encoder), mesh)
    invert = inverter(networks, encoder, config, parallel.over_batch(mesh))
    crop = functools.partial(
        photo_crops.crop,
        resolution=resolution,
        encoded_size=encoder and encoder.config.input_size,
        is_aligned=not values.align,
    )
    config_of = networks.generator.config
    journal = Journal(outdir, len(faces), "w_plus", config_of, ["w_plus"])
    todo = np.flatnonzero(~journal.done).tolist()
    if len(todo) < len(faces):
        print(f"resumed: {len(faces) - len(todo)} of {len(faces)} faces are done")
    with progress.bar(len(todo) * steps, "step") as bar:
        for rows, size in _batches(todo, values.batch_size, mesh.size):
            started = time.monotonic()
            crops = crop([faces[row] for row in rows])
            batch = parallel.shard(parallel.pad(crops, size), mesh)
            report = functools.partial(_advance, bar, len(rows))
            result = _to_host(invert(batch, report), len(rows))
            seconds = (time.monotonic() - started) / len(rows)
            if values.images != "none":
                _write_images(outdir, rows, result.image, values.images)
            lines = _lines(faces, rows, crops.target, result, seconds)
            journal.append(rows, lines, w_plus=result.latent)
    journal.finish()
    if values.grid:
        target = crop(faces[: values.grid]).target
        print(f"sheet: {_write_sheet(journal, networks.generator, faces, target)}")
    print(f"latents: {journal.paths['w_plus']}")
    return _report_failures(journal, skipped)


def _batches(
    todo: list[int], batch_size: int, devices: int
) -> Iterator[tuple[list[int], int]]:
    """Rows of each batch, and the size that all batches are padded to."""
    size = math.ceil(min(batch_size, len(todo)) / devices) * devices
    for start in range(0, len(todo), max(size, 1)):
        yield todo[start : start + size], size


def _advance(progress: Any, faces: int, steps: int) -> None:
    """Reports steps that a batch of faces has taken."""
    progress.update(faces * steps)


def _to_host(result: optimization.Result, count: int) -> Any:
    """The result as NumPy arrays, without the padding of the batch."""
    return jax.tree.map(lambda x: np.asarray(x)[:count], result)


def _generator_directory(values: flags.FlagValues) -> pathlib.Path:
    if values.generator is None and values.encoder is not None:
        decoder = pathlib.Path(values.encoder) / loading.DECODER
        if decoder.is_dir():
            return decoder
    return loading.generator_directory(values.generator)


def _load_identity(
    values: flags.FlagValues, config: inversion.InversionConfig
) -> Network | None:
    if values.identity is not None:
        return loading.load_identity(values.identity)
    if config.id_lambda:
        raise UserError(
            f"--id_lambda: {config.id_lambda} needs a face recognition network, "
            "expected --identity with it"
        )
    return None


def _count_steps(
    config: inversion.InversionConfig, generator: Network, encoder: Network | None
) -> int:
    """Steps per face; checks that encoder and generator fit."""
    if encoder is None:
        steps = config.w_steps + config.refine_steps
        if not steps:
            raise UserError(
                "--refine_steps: expected steps where no --encoder is given, found 0 "
                "and --w_steps=0"
            )
        return steps
    check_encoder(encoder, generator)
    return config.refine_steps


def check_encoder(encoder: Network, generator: Network) -> None:
    """Raises a UserError unless the encoder's latents are those of the generator."""
    expected = [generator.config.num_rows, generator.config.w_dim]
    found = [encoder.config.num_rows, encoder.config.w_dim]
    if found != expected:
        raise UserError(
            f"--encoder: expected one to W+ of {expected}, as the generator of "
            f"{generator.config.resolution}² has it, found {found}"
        )


def _inputs(
    values: flags.FlagValues, generator: pathlib.Path, paths: list[pathlib.Path]
) -> dict[str, str]:
    """Hashes of what the run reads; a CLIP from the hub goes by its name."""
    inputs = {"generator": checkpoints.fingerprint(generator)}
    inputs["clip"] = loading.clip_fingerprint(values.clip) or values.clip
    for name in ("encoder", "identity"):
        folder = values[name].value
        if folder is not None:
            inputs[name] = checkpoints.fingerprint(folder)
    if values.landmarks is not None:
        inputs["landmarks"] = files.hash_file(values.landmarks)
    hashes = "".join(map(_hash_photo, paths))
    inputs["photos"] = hashlib.sha256(hashes.encode()).hexdigest()
    return inputs


def _hash_photo(path: pathlib.Path) -> str:
    try:
        return files.hash_file(path)
    except UserError as error:
        # It will be skipped and listed.
        return str(error)


def _open(
    values: flags.FlagValues, paths: list[pathlib.Path], inputs: dict[str, str]
) -> tuple[pathlib.Path, list[dict[str, Any]], list[str]]:
    """The folder of the run, its faces, and why photos were skipped.

    A face has the keys "file" and "quad", the corners of its square. A run that goes on
    has the same photos, so that faces need not be found again.
    """
    path = pathlib.Path(values.outdir) / pasting.RECORD
    found = None
    if not path.exists():
        found = crops.find(
            paths,
            is_aligned=not values.align,
            landmarks_file=values.landmarks,
            all_faces=values.all_faces,
        )
    outdir = journal.begin("styleclip-invert", values, inputs)
    if found is not None:
        files.write_json(path, found)
    document = files.read_json(path)
    return outdir, document["faces"], document["skipped"]


def inverter(
    networks: losses.Networks,
    encoder: Network | None,
    config: inversion.InversionConfig,
    sharding: jax.sharding.NamedSharding,
) -> Inverter:
    """Inversion of batches of faces, which reports its steps.

    Args:
      networks: generator and CLIP, and the identity network where it has a weight.
      encoder: gives the start; None for the average latent, and W before W+.
      config: how.
      sharding: of a batch.
    """
    first, second = inversion.phases(config)
    in_w, in_w_plus = (
        optimization.compiled(problem, sharding=sharding) for problem in (first, second)
    )

    def over_batch(function: Any, problem: Any, *axes: int | None) -> Any:
        one = functools.partial(function, problem=problem)
        return jax.jit(jax.vmap(one, in_axes=axes), out_shardings=sharding)

    start_in_w = over_batch(inversion.start, first, None, 0, None)
    widen = over_batch(inversion.widen, second, None, 0)
    start = over_batch(inversion.start, second, None, 0, 0)
    encode = None
    if encoder is not None:
        encode = jax.jit(e4e.encode, out_shardings=sharding)

    def invert(crops: crops.Crops, report: progress.Report) -> optimization.Result:
        if encoder is None or encode is None:
            average = inversion.average(networks.generator)
            state = start_in_w(networks, crops.target, average)
            state = progress.take_steps(in_w.step, networks, state, first.steps, report)
            state = widen(networks, state)
        else:
            w_plus = encode(encoder, crops.encoded)
            state = start(networks, crops.target, w_plus)
        state = progress.take_steps(
            in_w_plus.step, networks, state, second.steps, report
        )
        return in_w_plus.finish(networks, state)

    return invert


def _write_images(
    outdir: pathlib.Path, rows: list[int], image: np.ndarray, image_format: str
) -> None:
    for row, picture in zip(rows, image, strict=True):
        images.write(outdir / "images" / f"{row:06d}.{image_format}", picture)


def _lines(
    faces: list[dict[str, Any]],
    rows: list[int],
    target: np.ndarray,
    result: Any,
    seconds: float,
) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl."""
    lines = []
    for i, row in enumerate(rows):
        failed_at = int(result.failed_at[i])
        if failed_at < 0 and not np.isfinite(result.latent[i]).all():
            # An encoder's latent, which no step has looked at.
            failed_at = 0
        outcome: dict[str, Any] = {"failed_at": failed_at}
        if failed_at < 0:
            outcome = {name: float(value[i]) for name, value in result.terms.items()}
            outcome["levels"] = _levels(result.image[i], target[i])
        lines.append(
            {"index": row, "file": faces[row]["file"]}
            | outcome
            | {"seconds": round(seconds, 3)}
        )
    return lines


def _levels(image: np.ndarray, target: np.ndarray) -> float:
    """Mean absolute difference of two images as 8-bit images, from 0 to 255."""
    a, b = (images.to_uint8(x).astype(int) for x in (image, target))
    return float(np.abs(a - b).mean())


def _write_sheet(
    journal: journal.Journal,
    generator: Network,
    faces: list[dict[str, Any]],
    target: np.ndarray,
) -> pathlib.Path:
    """Sheet of the first faces and their inversions, from the files of the run."""
    render = jax.jit(stylegan2.synthesize)
    image = render(generator, journal.read("w_plus", len(target)))
    labels = [pathlib.Path(face["file"]).stem[:_MAX_LABEL] for face in faces]
    sheet = images.grid(
        [target, np.asarray(image)],
        row_labels=["photo", "inversion"],
        column_labels=labels[: len(target)],
    )
    return images.save_sheet(journal.outdir / "grid.png", sheet)


def _report_failures(journal: journal.Journal, skipped: list[str]) -> int:
    lines = list(journal.lines())
    failed = [
        f"{line['file']}: the loss was not finite at step {line['failed_at']}"
        for line in lines
        if "failed_at" in line
    ]
    levels = [line["levels"] for line in lines if "levels" in line]
    if levels:
        print(f"mean absolute error: {np.mean(levels):.2f} of 255 levels")
    for line in failed:
        print(f"failed: {line}")
    for line in skipped:
        print(f"skipped: {line}")
    return program.EXIT_FAILED_ITEMS if failed or skipped else 0


def entry() -> None:
    """The console script."""
    program.run(main, VALUES)


if __name__ == "__main__":
    entry()
