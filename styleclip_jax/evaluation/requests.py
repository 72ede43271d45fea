"""Requests for evaluations: all that one run of styleclip-evaluate needs."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from styleclip_jax.batch import run_folder
from styleclip_jax.batch.source import SourceRequest
from styleclip_jax.errors import UserError
from styleclip_jax.evaluation import classification, mappers, planning, report, table
from styleclip_jax.io import files, latent_files, text_files
from styleclip_jax.loading import Models
from styleclip_jax.progress import Listener, ignore

PROGRAM = "styleclip-evaluate"
TABLES = ("edits", "mapper_similarity")


@dataclasses.dataclass(frozen=True)
class EvaluationRequest:
    """Request for the tables of an evaluation.

    Attributes:
      edits: Folders of styleclip-edit, with commas between.
      target: Target that the judge looks for, as ATTRIBUTE:VALUE (hair_color:blonde);
        for drawn faces alone, such as the embedded generator's. One for all, for each
        folder, or for each prompt of each folder in order; an empty one asks for
        nothing.
      tables: Tables to make, of edits, mapper_similarity; edits if absent.
      mapper: Model directories of the mappers in the table mapper_similarity.
      eval_clip: CLIPs that score edits one after the other, a row each, in place of
        clip; best ones that no edit was made with.
      neutral: Text that edits lead away from; that of the edits, or "a face", if
        absent.
      pairs: File of pairs of texts, one a line with a | between, whose probabilities
        an edit should leave alone; for the disentanglement.
      zero_shot: File of texts, one a line, for zero-shot classification of images, or
        of originals and edits.
      images: Images, or folders of images, that are classified by zero_shot.
      outdir: Folder for the results.
      batch_size: Number of edits or images at a time, rounded up to a multiple of
        the devices.
      seed: Seed of the bootstrap and of the judge's random steps.
    """

    edits: tuple[str, ...] = ()
    target: tuple[str, ...] = ()
    tables: tuple[str, ...] | None = None
    mapper: tuple[str, ...] = ()
    eval_clip: tuple[str, ...] = ()
    neutral: str | None = None
    pairs: str | None = None
    zero_shot: str | None = None
    images: tuple[str, ...] = ()
    outdir: str = "outputs/evaluate"
    batch_size: int = dataclasses.field(default=16, metadata={"lower_bound": 1})
    seed: int = dataclasses.field(default=0, metadata={"lower_bound": 0})

    def __post_init__(self) -> None:
        wanted, tables = self.wanted, ", ".join(TABLES)
        if set(wanted) - set(TABLES) or self.tables == ():
            raise UserError(
                f"tables: expected some of {tables}, "
                f"found {','.join(wanted) or 'none'}",
                field="tables",
            )
        if "edits" in wanted and not self.edits:
            raise UserError(
                "edits: expected folders of styleclip-edit, found none", field="edits"
            )
        if "mapper_similarity" in wanted and not self.mapper:
            raise UserError(
                "mapper: expected mappers for their similarity, found none",
                field="mapper",
            )
        if self.images and self.zero_shot is None:
            raise UserError(
                "images: expected zero_shot with texts to classify them by",
                field="images",
                also=["zero_shot"],
            )

    @property
    def wanted(self) -> tuple[str, ...]:
        """Tables to make."""
        if self.tables is not None:
            return self.tables
        return ("edits",) if self.edits or not self.images else ()


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
    named = {
        "pairs": request.pairs,
        "zero_shot": request.zero_shot,
        "latents": source.latents,
    }
    for name, path in named.items():
        if path is not None:
            inputs[name] = latent_files.hash_source(path)
    return inputs
