"""Golden data: inputs and the official code's outputs, with stated tolerances."""

import functools
import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

ROOT = pathlib.Path(__file__).parent / "golden"
# Compiles in as many pieces as XLA does by itself, which conftest.py forbids: they
# decide how sums are rounded, and some comparisons have no room for another way.
jit = functools.partial(
    jax.jit, compiler_options={"xla_cpu_parallel_codegen_split_count": 32}
)


class Case:
    """One folder of golden data.

    `meta.json` gives each array's tolerances: a largest absolute error, or for float
    arrays a relative L2 error, since a gradient near a kink of the activation may
    differ in single entries.
    """

    def __init__(self, name: str) -> None:
        self.folder = ROOT / name
        self.meta: dict[str, Any] = json.loads((self.folder / "meta.json").read_text())
        with np.load(self.folder / "io.npz") as arrays:
            self.arrays = dict(arrays)

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def check(
        self,
        name: str,
        found: Any,
        layout: Callable[[np.ndarray], np.ndarray] = np.asarray,
    ) -> None:
        """Fails unless `found` is what the official code gave, within tolerance.

        Args:
          name: name of the array.
          found: array to compare.
          layout: from the official layout to that of `found`.
        """
        expected = layout(self.arrays[name])
        found = np.asarray(found).reshape(expected.shape)
        about = self.meta["arrays"][name]
        error = np.abs(found - expected).max()
        length = max(np.linalg.norm(expected), np.finfo(np.float32).tiny)
        relative = np.linalg.norm(found - expected) / length
        close = error <= about["suggested_atol"]
        close |= relative <= about.get("suggested_rel_l2", 0)
        assert close, (
            f"{name}: largest error {error:.3g}, allowed "
            f"{about['suggested_atol']:.3g}, relative {relative:.3g}"
        )


def assert_near(found: Any, expected: Any, relative: float = 2e-5) -> None:
    """Fails unless the largest error is a small part of the largest value."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= relative * np.abs(expected).max()


def to_nhwc(image: np.ndarray) -> np.ndarray:
    """[B, C, H, W] to [B, H, W, C]."""
    return np.moveaxis(image, 1, -1)


def to_nchw(image: Any) -> np.ndarray:
    """[B, H, W, C] to [B, C, H, W]."""
    return np.moveaxis(np.asarray(image), -1, 1)
