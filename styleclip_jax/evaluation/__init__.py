"""Evaluation of edits: `measure` gives the table of metrics of folders of edits."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from styleclip_jax.evaluation.table import Table, measure

__all__ = ["Table", "measure"]


def __getattr__(name: str) -> Any:
    # The import is late: modules of this package import each other through it.
    if name in __all__:
        return getattr(importlib.import_module("styleclip_jax.evaluation.table"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
