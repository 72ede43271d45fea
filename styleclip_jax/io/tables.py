"""Tables as Markdown, CSV and JSON."""

import csv
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from styleclip_jax import documents
from styleclip_jax.io import files


def markdown(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Table in Markdown, numbers on the right."""
    numeric = [
        all(_starts_as_number(row[i]) for row in rows) for i in range(len(columns))
    ]
    lines = [
        columns,
        ["---:" if right else "---" for right in numeric],
        *([_escape(cell) for cell in row] for row in rows),
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def digits(value: float) -> str:
    """Number with four digits, as 145.0, 2.840 or 0.6890."""
    return f"{value:#.4g}".rstrip(".")


def write_text(path: files.Path, text: str) -> pathlib.Path:
    """Writes a text file whole."""
    with files.new_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return pathlib.Path(path)


def write_csv(
    path: files.Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]
) -> pathlib.Path:
    """Writes rows by their columns; what is None or not a number stays empty."""
    with (
        files.new_file(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([_or_empty(row.get(name)) for name in columns] for row in rows)
    return pathlib.Path(path)


def write_json(path: files.Path, value: Any) -> pathlib.Path:
    """Writes JSON in which numbers that are not finite are null."""
    files.write_json(path, value)
    return pathlib.Path(path)


def json_line(value: Any) -> str:
    """Line of a JSON lines file."""
    return documents.dump(value) + "\n"


def _or_empty(value: Any) -> Any:
    value = documents.finite(value)
    return "" if value is None else value


def _starts_as_number(cell: Any) -> bool:
    text = str(cell)
    return not text or text[0] in "-−0123456789" or text in ("n/a", "∞")


def _escape(cell: Any) -> str:
    return str(cell).replace("|", "\\|").replace("\n", " ")
