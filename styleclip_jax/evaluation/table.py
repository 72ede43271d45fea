"""Table of measured edits: one call from folders of edits to Markdown, JSON and CSV."""

import dataclasses
import pathlib
from collections.abc import Sequence

import jax

from styleclip_jax import parallel
from styleclip_jax.evaluation import measuring, planning, report
from styleclip_jax.evaluation.planning import Plan, Question
from styleclip_jax.io import files
from styleclip_jax.loading import Models
from styleclip_jax.progress import BARS, SILENT, Listener
from styleclip_jax.toy import judge


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """Table of metrics of edits, a row for each folder, prompt and strength.

    Attributes:
      rows: rows, each a set of edits with its metrics.
      labels: texts of zero-shot classification.
    """

    rows: Sequence[report.Row]
    labels: Sequence[str] = ()

    def to_markdown(self) -> str:
        """Table in Markdown for people, with notes on how to read it."""
        return report.markdown(self.rows, self.labels)

    def write(self, outdir: files.Path) -> list[pathlib.Path]:
        """Writes edits.md, .json, .csv and, with an identity network, frontier.png."""
        return report.write(pathlib.Path(outdir), self.rows, self.labels)

    def _repr_markdown_(self) -> str:
        return self.to_markdown()


def measure(
    edits: files.Path | Sequence[files.Path],
    *,
    target: str | Sequence[str] = (),
    generator: files.Path | None = None,
    clip: files.Path | Sequence[files.Path] | None = None,
    eval_clip: files.Path | Sequence[files.Path] = (),
    identity: files.Path | None = None,
    neutral: str | None = None,
    pairs: Sequence[tuple[str, str]] = (),
    labels: Sequence[str] = (),
    lpips: files.Path | None = None,
    mask: files.Path | None = None,
    batch_size: int = 16,
    seed: int = 0,
    quiet: bool = False,
) -> Table:
    """Measures edits in folders, as styleclip-evaluate does.

    Args:
      edits: folders of styleclip-edit, `batch.run` or `Edit.save`.
      target: target that the judge looks for, such as "mouth:smile", for drawn faces
        alone; one for all, for each folder, or for each prompt of each folder in order.
      generator: directory of the edits' generator now; the recorded one if absent.
      clip: CLIP that scores, or several that count as one; that of the edits if
        absent.
      eval_clip: CLIPs that score one after the other in place of it, a row each; best
        ones that no edit was made with.
      identity: model directory of a face recognition network; the embedded one if
        absent, for the embedded generator.
      neutral: text that edits lead away from; that of the edits, or "a face".
      pairs: pairs of texts whose probabilities an edit should leave alone.
      labels: texts to classify originals and edits by.
      lpips: model directory of a VGG16 with the weights of LPIPS.
      mask: picture of the images' size whose white part edits may change; LPIPS is
        measured outside of it as well.
      batch_size: number of edits at a time.
      seed: seed of the bootstrap and of the judge's random steps.
      quiet: whether to show no progress bar.

    Returns:
      Table with a row for each folder, prompt and strength.

    Raises:
      UserError: a folder, a network or a text is wrong.
    """
    targets = (target,) if isinstance(target, str) else tuple(target)
    question = Question(
        edits=tuple(map(str, files.several(edits))),
        target=targets,
        models=Models.of(generator=generator, clip=clip, identity=identity),
        neutral=neutral,
        pairs=tuple(pairs),
        labels=tuple(labels),
        eval_clip=tuple(map(str, files.several(eval_clip))),
        lpips=None if lpips is None else str(lpips),
        mask=None if mask is None else str(mask),
    )
    return answer(
        planning.plan(question),
        labels,
        batch_size=batch_size,
        seed=seed,
        listener=SILENT if quiet else BARS,
    )


def answer(
    plans: Sequence[Plan],
    labels: Sequence[str],
    *,
    batch_size: int,
    seed: int,
    listener: Listener,
) -> Table:
    """Table of planned rows, measured one after the other.

    Args:
      plans: plans, one for each row.
      labels: texts of zero-shot classification.
      batch_size: number of edits at a time.
      seed: seed of the bootstrap and of the judge's random steps.
      listener: listener for the progress.
    """
    mesh = parallel.make_mesh(jax.local_devices())
    network = judge.load() if any(plan.target for plan in plans) else None
    total, rows = sum(len(plan.edits.rows) for plan in plans), []
    quicker = "fewer edits, or a smaller CLIP"
    with listener.long_bar(total, "edit", quicker) as progress:
        for plan in plans:
            found = measuring.measure(
                plan.edits,
                plan.generator,
                measuring.Instruments(
                    plan.clip, plan.identity, network, plan.lpips, plan.outside
                ),
                plan.texts,
                plan.target,
                mesh=mesh,
                batch_size=batch_size,
                seed=seed,
                report=progress,
            )
            rows.append(report.Row(plan.about, found))
    return Table(rows, labels)
