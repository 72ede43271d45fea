"""Report of a generator's metrics: a table for people and one for programs."""

import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from styleclip_jax.evaluation import generator_attributes
from styleclip_jax.evaluation.generator_plans import JUDGE, Plan
from styleclip_jax.io import tables
from styleclip_jax.loading import Models


def write(
    plan: Plan,
    models: Models,
    outdir: pathlib.Path,
    found: Sequence[Mapping[str, float]],
) -> list[pathlib.Path]:
    """Writes metrics.json and metrics.md.

    Args:
      plan: plan of the metrics.
      models: whose generator was measured.
      outdir: folder for the files.
      found: values of each repeat by their names.

    Returns:
      The files.
    """
    rows = [*_rows(plan, found)]
    means = {name: float(np.mean([one[name] for one in found])) for name in found[0]}
    shares = [x for n in plan.metrics for x in generator_attributes.rows(n, means)]
    notes = [*_notes(plan)]
    about = {
        "generator": models.generator_name,
        "data": None if plan.data is None else plan.data.name,
        "seed": plan.request.seed,
        "repeats": plan.request.repeats,
        "metrics": rows,
        "notes": notes,
    }
    if shares:
        about["attributes"] = [row._asdict() for row in shares]
    columns = ["metric", "value", "deviation", "samples", "images of the data"]
    cells = [
        [
            row["metric"],
            tables.digits(row["mean"]),
            "" if row["std"] is None else f"{row['std']:.2g}",
            f"{row['samples']:,}",
            f"{row['reals']:,}" if row["reals"] else "",
        ]
        for row in rows
    ]
    title = f"Generator: {about['generator']}" + (
        f"; data: {about['data']}" if about["data"] else ""
    )
    parts = [f"# {title}", tables.markdown(columns, cells)]
    if shares:
        parts.append(tables.markdown(*_shares_table(shares)))
    text = "\n\n".join([*parts, *notes])
    return [
        tables.write_json(outdir / "metrics.json", about),
        tables.write_text(outdir / "metrics.md", text.rstrip() + "\n"),
    ]


def _rows(plan: Plan, found: Sequence[Mapping[str, float]]) -> Iterator[dict[str, Any]]:
    """Rows of the table: a value of a metric, its mean and deviation over repeats."""
    for name, metric in plan.metrics.items():
        for part in (x for x in found[0] if x == name or _is_part(x, name)):
            values = [one[part] for one in found]
            yield {
                "metric": part,
                "mean": float(np.mean(values)),
                "std": float(np.std(values, ddof=1)) if len(values) > 1 else None,
                "values": values,
                "samples": plan.request.samples_of(metric),
                "reals": plan.reals_of(metric),
                "network": metric.network,
            }


def _is_part(value: str, metric: str) -> bool:
    """Whether a value is one of several of a metric."""
    return value.removeprefix(f"{metric}_") in ("precision", "recall", "mean", "std")


def _shares_table(
    shares: Sequence[generator_attributes.Row],
) -> tuple[list[str], list[list[str]]]:
    """Columns and cells of the table of attributes."""
    columns = ["attribute", "value", "share of samples", "share of the data"]
    cells = [
        [row.attribute, row.value, f"{row.samples:.1%}", f"{row.data:.1%}"]
        for row in shares
    ]
    return columns, cells


def _notes(plan: Plan) -> Iterator[str]:
    """Lines on how to read the table."""
    if JUDGE in plan.networks:
        yield (
            "These are by the features of the embedded judge, a small network that "
            "knows drawn faces: they compare with each other alone."
        )
    if any(x.measure == "attributes" for x in plan.metrics.values()):
        yield (
            "attributes is the part of the data's shares that samples have too, a mean "
            "over attributes: 1 if each value is as frequent as in the data."
        )
    if any(plan.request.samples_of(x) != x.samples for x in plan.metrics.values()):
        yield (
            "The number of samples is another than that of the official metrics, and "
            "values of different numbers do not compare."
        )
