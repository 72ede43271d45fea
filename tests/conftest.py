"""Simulated devices and tiny networks for all tests."""

import os

# Before JAX starts: four devices, so that sharding can be tested anywhere.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest

from styleclip_jax import losses
from tests import tiny


@pytest.fixture(scope="session")
def networks() -> losses.Networks:
    """A generator of 16² and a CLIP of 8², randomly initialised."""
    return losses.Networks(tiny.generator(), tiny.clip_network())


@pytest.fixture
def key() -> jax.Array:
    return jax.random.key(0)
