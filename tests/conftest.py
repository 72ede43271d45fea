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


def pytest_configure(config: pytest.Config) -> None:
    """Keeps compiled programs: many tests run the same one, each in its own jit."""
    if hasattr(config, "cache"):
        cache = config.cache.mkdir("jax")
        jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


@pytest.fixture(scope="session")
def networks() -> losses.Networks:
    """A generator of 8² and a CLIP of 8², randomly initialised."""
    return losses.Networks(tiny.generator(), tiny.clip_network())


@pytest.fixture
def key() -> jax.Array:
    return jax.random.key(0)
