"""Configurations: copies with other fields."""

import dataclasses
import importlib
import pkgutil

import pytest

import styleclip_jax
from styleclip_jax import checks
from styleclip_jax.errors import UserError
from styleclip_jax.methods.optimization import OptimizationConfig


def test_configurations_are_copied_with_other_fields() -> None:
    config = OptimizationConfig(steps=7)
    assert config.replace(l2_lambda=0.5) == OptimizationConfig(steps=7, l2_lambda=0.5)
    with pytest.raises(UserError, match="step: expected a field of OptimizationConfig"):
        config.replace(step=3)
    with pytest.raises(UserError, match="steps must be at least 1, found 0"):
        config.replace(steps=0)


def test_every_configuration_can_be_replaced() -> None:
    found = set()
    for info in pkgutil.walk_packages(styleclip_jax.__path__, "styleclip_jax."):
        # The page needs gradio, and programs are no configuration's home.
        if info.name.split(".")[1] in ("app", "cli", "train", "convert"):
            continue
        module = importlib.import_module(info.name)
        found |= {
            x
            for name, x in vars(module).items()
            if name.endswith("Config") and dataclasses.is_dataclass(x)
        }
    assert len(found) > 15
    assert [x for x in found if not issubclass(x, checks.Config)] == []
