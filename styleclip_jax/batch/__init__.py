"""Runs over many latents, resumable: `run` edits latents into files."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from styleclip_jax.batch.edits import run

__all__ = ["run"]


def __getattr__(name: str) -> Any:
    # The import is late: modules of this package import each other through it.
    if name == "run":
        return importlib.import_module("styleclip_jax.batch.edits").run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
