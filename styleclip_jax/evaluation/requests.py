"""Requests for evaluations: all that one run of styleclip-evaluate needs."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from styleclip_jax import places
from styleclip_jax.batch import run_folder
from styleclip_jax.batch.source import SourceRequest
from styleclip_jax.errors import UserError
from styleclip_jax.evaluation import classification, mappers, planning, report, table
from styleclip_jax.io import checkpoints, files, latent_files, text_files
from styleclip_jax.loading import Models
from styleclip_jax.progress import Listener, ignore
from styleclip_jax.settings.measures import EvaluationRequest

PROGRAM = "styleclip-evaluate"


def carry_out(
    request: EvaluationRequest,
    models: Models,
    source: SourceRequest,
    *,
    settings: Mapping[str, Any],
    listener: Listener,
) -> list[list[pathlib.Path]]:
    """Makes the tables that are asked for.

    Args:
      request: tables to make, and their inputs.
      models: generator of the edits, CLIP that scores, and identity network.
      source: source of the latents at which mappers are compared.
      settings: all of this by the names of the flags, for run.json.
      listener: listener for the progress.

    Returns:
      Files written, a list for each table.

    Raises:
      UserError: something asked for is wrong or does not fit.
    """
    with run_folder.only_run(request.outdir, listener.tell):
        return _carry_out(request, models, source, settings, listener)


def _carry_out(
    request: EvaluationRequest,
    models: Models,
    source: SourceRequest,
    settings: Mapping[str, Any],
    listener: Listener,
) -> list[list[pathlib.Path]]:
    tell = listener.tell
    labels: tuple[str, ...] = ()
    others: tuple[tuple[str, str], ...] = ()
    if request.zero_shot:
        labels = tuple(read_labels(request.zero_shot, tell=tell))
    if request.pairs:
        others = tuple(read_pairs(request.pairs, tell=tell))
    plans = []
    if "edits" in request.wanted:
        question = planning.Question(
            request.edits,
            request.target,
            models,
            request.neutral,
            others,
            labels,
            request.eval_clip,
            request.lpips,
            request.mask,
        )
        plans = planning.plan(question)
    comparison = None
    if "mapper_similarity" in request.wanted:
        comparison = mappers.prepare(models, source, request.mapper)
    paths = classification.find_images(request.images)
    outdir = run_folder.begin(
        request.outdir,
        program=PROGRAM,
        settings={**settings, **models.record()},
        inputs=_inputs(request, source),
        tell=tell,
    )
    written = []
    if plans:
        made = table.answer(
            plans,
            labels,
            batch_size=request.batch_size,
            seed=request.seed,
            listener=listener,
        )
        written.append(made.write(outdir))
    if comparison is not None:
        written.append(
            report.write_similarity(
                outdir,
                comparison.prompts,
                comparison.directories,
                len(comparison.source),
                mappers.compare(comparison),
            )
        )
    if paths:
        shares = classification.classify(
            paths,
            labels,
            models=models,
            batch_size=request.batch_size,
            listener=listener,
        )
        written.append(report.write_zero_shot(outdir, paths, labels, shares))
    return written


def read_labels(path: files.Path, *, tell: Callable[[str], None] = ignore) -> list[str]:
    """Reads different texts from a file, one a line, at least two.

    Args:
      path: file of them; see `text_files.read_lines`.
      tell: is given a line if the file is in another encoding than UTF-8.

    Raises:
      UserError: there are fewer texts, or one stands there twice.
    """
    found = text_files.read_lines(path, "texts", tell=tell)
    if len(found) < 2:
        raise UserError(f"{path}: expected at least two texts, one a line, found 1")
    return found


def read_pairs(
    path: files.Path, *, tell: Callable[[str], None] = ignore
) -> list[tuple[str, str]]:
    """Reads pairs of texts from a file, TEXT | TEXT in each line.

    Args:
      path: file of them; see `text_files.read_lines`.
      tell: is given a line if the file is in another encoding than UTF-8.

    Raises:
      UserError: a line is no pair.
    """
    pairs = []
    for line in read_labels(path, tell=tell):
        first, _, second = map(text_files.clean, line.partition("|"))
        if not first or not second:
            raise UserError(f"{path}: expected TEXT | TEXT, found {line!r}")
        pairs.append((first, second))
    return pairs


def _inputs(request: EvaluationRequest, source: SourceRequest) -> dict[str, str]:
    """Hashes of the files that are read."""
    inputs = {}
    for directory in request.edits:
        for edited in pathlib.Path(directory).glob("edited.np[yz]"):
            inputs[str(edited)] = files.hash_file(edited)
    if request.lpips is not None:
        found = places.find("vgg16", request.lpips)
        inputs["lpips"] = checkpoints.fingerprint(found)
    named = {
        "mask": request.mask,
        "pairs": request.pairs,
        "zero_shot": request.zero_shot,
        "latents": source.latents,
    }
    for name, path in named.items():
        if path is not None:
            inputs[name] = latent_files.hash_source(path)
    return inputs
