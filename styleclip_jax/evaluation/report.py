"""Report of an evaluation: tables for people and programs, and the frontier."""

import math
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from styleclip_jax.evaluation.measuring import Summary
from styleclip_jax.io import images, plots, tables
from styleclip_jax.methods import mapper

# Columns of the two tables of edits: the caption of each metric.
_METRICS = {
    "clip_score_before": "CLIP score before",
    "clip_score": "CLIP score",
    "directional_similarity": "directional similarity",
    "target_gain": "target gain",
    "change_elsewhere": "change elsewhere",
    "disentanglement": "disentanglement",
    "identity_similarity": "identity",
    "pixel_l1": "L1",
    "pixel_l2": "L2",
    "ms_ssim": "MS-SSIM",
    "lpips": "LPIPS",
    "lpips_outside": "LPIPS outside",
    "latent_distance": "latent distance",
    "direction_consistency": "direction consistency",
}
_JUDGE = {
    "judge_before": "judge before",
    "judge_after": "after",
    "judge_random": "random",
    "check_before": "check before",
    "check_after": "after",
    "check_random": "random",
    "kept": "kept",
    "kept_random": "random",
    "judge_disentanglement": "disentanglement",
    "fd_judge": "FD",
    "fd_judge_random": "random",
    "kd_judge": "KD",
    "kd_judge_random": "random",
}
_CSV = (
    *("edits", "method", "prompt", "strength", "target", "metric"),
    *Summary._fields,
)


class Row(NamedTuple):
    """Row of the table: one set of edits, measured.

    Attributes:
      about: entries on the set: its folder, method, prompt and the like.
      metrics: summaries of the metrics by their names.
    """

    about: dict[str, Any]
    metrics: dict[str, Summary]


def markdown(rows: Sequence[Row], labels: Sequence[str]) -> str:
    """Tables in Markdown for people, with notes on how to read them.

    Args:
      rows: measured sets of edits.
      labels: texts of zero-shot classification.
    """
    renamed = [_name_labels(row, labels) for row in rows]
    sections = [
        "# Edits\n",
        _table(rows, _METRICS, ("prompt", "strength", *_scorer(rows))),
        *([_judge_table(rows)] if any(row.about["target"] for row in rows) else []),
        *([_label_table(renamed, labels)] if labels else []),
        "".join(f"- {note}\n" for note in _notes(rows)),
    ]
    return "\n".join(sections)


def write(
    outdir: pathlib.Path, rows: Sequence[Row], labels: Sequence[str]
) -> list[pathlib.Path]:
    """Writes edits.md, .json, .csv and, with an identity network, frontier.png."""
    renamed = [_name_labels(row, labels) for row in rows]
    document = {
        "rows": [
            row.about | {"metrics": {n: s._asdict() for n, s in row.metrics.items()}}
            for row in renamed
        ],
        "notes": _notes(rows),
    }
    lines = [
        row.about | {"metric": name} | summary._asdict()
        for row in renamed
        for name, summary in row.metrics.items()
    ]
    paths = [
        tables.write_text(outdir / "edits.md", markdown(rows, labels)),
        tables.write_json(outdir / "edits.json", document),
        tables.write_csv(outdir / "edits.csv", _CSV, lines),
    ]
    curves, gain = _frontier(rows)
    if curves:
        plot = plots.draw(curves, x_label="identity similarity", y_label=gain)
        paths.append(images.save_sheet(outdir / "frontier.png", plot))
    return paths


def write_similarity(
    outdir: pathlib.Path,
    prompts: Sequence[str],
    directories: Sequence[str],
    count: int,
    similarity: mapper.Similarity,
) -> list[pathlib.Path]:
    """Writes mapper_similarity.md and .json."""
    zipped = zip(prompts, similarity.mean, similarity.std, strict=True)
    first = [[prompt, f"{mean:.3f}", f"{std:.3f}"] for prompt, mean, std in zipped]
    text = (
        f"# Similarity of mapper steps\n\nCosine between the steps M(w) at two of "
        f"{count} latents, over all {count * (count - 1) // 2} pairs.\n\n"
        + tables.markdown(["prompt", "mean", "std"], first)
    )
    if len(prompts) > 1:
        second = [
            [prompt, *(f"{value:.3f}" for value in values)]
            for prompt, values in zip(prompts, similarity.between, strict=True)
        ]
        text += (
            "\nCosine between the steps of two mappers at the same latent, mean over "
            "latents.\n\n" + tables.markdown(["", *prompts], second)
        )
    document = {
        "num_latents": count,
        "mappers": [
            {"prompt": p, "mapper": d, "mean": float(m), "std": float(s)}
            for p, d, m, s in zip(
                prompts, directories, similarity.mean, similarity.std, strict=True
            )
        ],
        "between": similarity.between.tolist(),
    }
    return [
        tables.write_text(outdir / "mapper_similarity.md", text),
        tables.write_json(outdir / "mapper_similarity.json", document),
    ]


def write_zero_shot(
    outdir: pathlib.Path,
    paths: Sequence[pathlib.Path],
    labels: Sequence[str],
    shares: np.ndarray,
) -> list[pathlib.Path]:
    """Writes zero_shot.md (per label) and zero_shot.jsonl (per image).

    Args:
      outdir: folder to write into.
      paths: [N] images.
      labels: [C] texts.
      shares: [N, C] probabilities.
    """
    best = shares.argmax(axis=1)
    lines = [
        tables.json_line(
            {
                "image": str(path),
                "label": labels[index],
                "probabilities": dict(zip(labels, map(float, row), strict=True)),
            }
        )
        for path, index, row in zip(paths, best, shares, strict=True)
    ]
    rows = [
        [label, int((best == i).sum()), f"{shares[:, i].mean():.3f}"]
        for i, label in enumerate(labels)
    ]
    table = tables.markdown(["label", "images", "mean probability"], rows)
    return [
        tables.write_text(outdir / "zero_shot.md", "# Zero-shot labels\n\n" + table),
        tables.write_text(outdir / "zero_shot.jsonl", "".join(lines)),
    ]


def _name_labels(row: Row, labels: Sequence[str]) -> Row:
    """Row with the texts of the labels in the names of its metrics."""
    named = {
        f"label{i}_{stage}": f"{stage}: {label}"
        for i, label in enumerate(labels)
        for stage in ("before", "after")
    }
    found = {named.get(name, name): s for name, s in row.metrics.items()}
    return Row(row.about, found)


def _table(
    rows: Sequence[Row],
    columns: dict[str, str],
    about: Sequence[str],
    *,
    deviation: bool = True,
) -> str:
    """Table of the metrics that some row has."""
    shown = [name for name in columns if any(name in row.metrics for row in rows)]
    body = [
        [
            *(row.about[name] or "" for name in ("edits", "method", *about)),
            next(iter(row.metrics.values())).n,
            *(_format(row.metrics.get(name), deviation) for name in shown),
        ]
        for row in rows
    ]
    header = ["edits", "method", *about, "n", *(columns[name] for name in shown)]
    return tables.markdown(header, body)


def _judge_table(rows: Sequence[Row]) -> str:
    # The judge says the same beside every CLIP.
    first = {_set_of(row): row for row in reversed(rows)}
    judged = [row for row in reversed(first.values()) if row.about["target"]]
    return (
        "## By the judge\n\nShare with the target, by the judge and by a check on "
        "pixels; share of other attributes kept; each beside random steps of equal "
        "length in the same rows. Disentanglement: gain in the target over other "
        "attributes changed. FD and KD: Fréchet and kernel distance of the edits from "
        "their originals, by the judge's features; few edits n make FD larger.\n\n"
        + _table(judged, _JUDGE, ("target", "strength"), deviation=False)
    )


def _label_table(rows: Sequence[Row], labels: Sequence[str]) -> str:
    columns = {
        f"{stage}: {label}": f"{label} {stage}"
        for label in labels
        for stage in ("before", "after")
    }
    return "## Zero-shot probabilities\n\n" + _table(
        rows, columns, ("prompt", "strength", *_scorer(rows))
    )


def _scorer(rows: Sequence[Row]) -> tuple[str, ...]:
    """Column of the CLIP that scores, where a set of edits has several."""
    return ("clip",) if len(set(map(_set_of, rows))) < len(rows) else ()


def _set_of(row: Row) -> tuple[str, ...]:
    """What tells the row's set of edits from others."""
    names = ("edits", "method", "prompt", "strength", "setting", "target")
    return tuple(str(row.about[name]) for name in names)


def _format(summary: Summary | None, deviation: bool) -> str:
    """Cell of a summary: mean ± deviation [interval], as far as there are any."""
    if summary is None:
        return ""
    text = _number(summary.mean)
    if deviation and math.isfinite(summary.std):
        text += f" ± {_number(summary.std)}"
    if not math.isnan(summary.low):
        text += f" [{_number(summary.low)}, {_number(summary.high)}]"
    return text


def _number(value: float) -> str:
    if math.isnan(value):
        return "n/a"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def _notes(rows: Sequence[Row]) -> list[str]:
    """Notes on how to read the numbers."""
    notes = [
        "Mean ± deviation over edits [95 % bootstrap interval of the mean, "
        "1,000 draws]; pixels in [-1, 1].",
    ]
    abouts = [row.about for row in rows]
    optimized = [a for a in abouts if a["clip_was_optimized"]]
    if optimized:
        notes.append(
            f"CLIP metrics of {len(optimized)} of {len(rows)} rows are by the CLIP "
            "that was optimised, which flatters them; eval_clip names another one."
        )
    if any(a["clip"] and a["clip_was_optimized"] is None for a in abouts):
        notes.append("Some rows do not say which CLIP was optimised.")
    if any(a["clip"] is None for a in abouts):
        notes.append(
            "Rows without CLIP metrics have no prompt, or no CLIP; clip names one."
        )
    if any(a["identity_was_optimized"] for a in abouts):
        notes.append("Identity is by the network that was optimised.")
    if any("identity_similarity" not in row.metrics for row in rows):
        notes.append("Without an identity network some rows have no identity.")
    if any("lpips_outside" in row.metrics for row in rows):
        notes.append("LPIPS outside is that of pixels that the mask leaves black.")
    failed = sum(a["failed"] for a in abouts)
    if failed:
        notes.append(f"{failed} edits that are not finite are left out.")
    if len({a["space"] for a in abouts}) > 1:
        notes.append("Latent distances in W+ and in S do not compare.")
    return notes


def _frontier(rows: Sequence[Row]) -> tuple[list[plots.Curve], str]:
    """Curves of target gain against identity, and the caption of the gain.

    Sets of one strength and several prompts are one point: their mean. The points of a
    curve are in order of the length of the edits, backward ones first.
    """
    gain, caption = "target_gain", "target gain, by CLIP"
    if all("judge_gain" in row.metrics for row in rows):
        gain, caption = "judge_gain", "target gain, by the judge"
    series: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        if {gain, "identity_similarity"} <= row.metrics.keys():
            by_strength = series.setdefault(row.about["series"], {})
            by_strength.setdefault(row.about["strength"], []).append(row)
    curves = []
    for name, by_strength in series.items():
        ordered = sorted(by_strength.values(), key=_length)
        curves.append(plots.Curve(name, [_point(sets, gain) for sets in ordered]))
    return curves, caption


def _point(rows: Sequence[Row], gain: str) -> plots.Point:
    x, y = ("identity_similarity", gain)
    return plots.Point(
        _mean(rows, x),
        _mean(rows, y),
        rows[0].about["strength"],
        _interval(rows, x),
        _interval(rows, y),
    )


def _length(rows: Sequence[Row]) -> float:
    """Length of the edits, negative for those against the direction."""
    backward = rows[0].about["setting"].get("alpha", 0) < 0
    return (-1 if backward else 1) * _mean(rows, "latent_distance")


def _mean(rows: Sequence[Row], name: str) -> float:
    return float(np.mean([row.metrics[name].mean for row in rows]))


def _interval(rows: Sequence[Row], name: str) -> tuple[float, float] | None:
    """Interval of a point that is one set; None for several."""
    if len(rows) > 1:
        return None
    summary = rows[0].metrics[name]
    return summary.low, summary.high
