"""Programs as users run them, in this process."""

from typing import Any

import pytest
from absl import flags

from styleclip_jax.cli import program


def forget(values: flags.FlagValues) -> None:
    """Gives all flags their defaults again, before others are parsed."""
    values.unparse_flags()
    for name in values:
        values[name].unparse()


def run(module: Any, argv: list[str]) -> int:
    """Exit code of a program; argv begins with its name."""
    forget(module.VALUES)
    with pytest.raises(SystemExit) as stop:
        program.run(module.main, module.VALUES, argv)
    return stop.value.code
