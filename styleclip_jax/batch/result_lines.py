"""Lines of metrics.jsonl for people: names of results, and failures."""

from typing import Any

from styleclip_jax.batch.journal import Journal

# Number of failures that are named.
_NUM_SHOWN = 10


def name(line: dict[str, Any]) -> str:
    """Name of the latent that a line of metrics.jsonl is about, for people."""
    for key in ("name", "file"):
        if key in line:
            return str(line[key])
    return f"seed {line['seed']}" if "seed" in line else f"row {line.get('row', '?')}"


def describe_failures(journal: Journal, unit: str) -> list[str]:
    """Lines on the failures of a finished run: results that mean nothing.

    Args:
      journal: journal of the run.
      unit: name of a result, such as "edit".
    """
    failed = [line for line in journal.lines() if "failed_at" in line]
    lines = [
        f"failed: {unit} {line['index']} of {name(line)}, {_why_failed(line)}"
        for line in failed[:_NUM_SHOWN]
    ]
    if failed:
        lines.append(f"failed: {len(failed)} of {len(journal.done)} {unit}s")
    return lines


def _why_failed(line: dict[str, Any]) -> str:
    """Why a result has failed: what its line says, or what its step saw."""
    return line.get("error") or (
        "it was not finite or out of reach of the generator at step "
        f"{line['failed_at']}"
    )
