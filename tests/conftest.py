"""Simulated devices and tiny networks for all tests."""

import ctypes
import gc
import os

# Before JAX starts: four devices, so that sharding can be tested anywhere, and code as
# LLVM first has it, since compiling a program takes longer than all that it computes.
# In one piece each: the pieces are for cores, and other workers have those.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=4"
    + " --xla_backend_optimization_level=0"
    + " --xla_cpu_parallel_codegen_split_count=1"
    + " --xla_backend_extra_options=xla_cpu_disable_new_fusion_emitters"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tests replace functions, which no key of a kept program says.
os.environ.setdefault("STYLECLIP_KEEP_TRACED", "0")
# As the programs do it: with one thread XLA computes convolutions in another way.
os.environ["NPROC"] = str(max(2, os.cpu_count() or 1))

# Servers of tests are on this machine, and gradio's would hear of every page.
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "localhost,127.0.0.1"
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest

from styleclip_jax import losses
from styleclip_jax.io import clip_files
from styleclip_jax.models import bpe, clip
from styleclip_jax.toy import attributes
from tests import fuzzing, golden_data, golden_networks, tiny
from tests.toy import faces as toy_faces

# Bytes from which on a worker lets go of what it compiled.
_MUCH = 2 << 30


def pytest_configure(config: pytest.Config) -> None:
    """Keeps compiled programs: many tests run the same one, some as processes."""
    # Tracing makes many objects, of which few are garbage.
    gc.set_threshold(5_000)
    settings: dict[str, object] = {"jax_persistent_cache_min_compile_time_secs": 0.2}
    if hasattr(config, "cache"):
        settings["jax_compilation_cache_dir"] = str(config.cache.mkdir("jax"))
    for name, value in settings.items():
        jax.config.update(name, value)
        os.environ[name.upper()] = str(value)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Trainings come first: what comes last, workers share, and each sets it up."""
    items.sort(key=lambda item: "train" not in item.path.parts)


@pytest.fixture(scope="module", autouse=True)
def memory() -> Iterator[None]:
    """Gives memory back after a module: thousands of programs would fill gigabytes.

    Not after each, since modules share programs. glibc keeps what is freed until asked.
    """
    yield
    if fuzzing.resident() > _MUCH:
        jax.clear_caches()
        ctypes.CDLL(None).malloc_trim(0)


@pytest.fixture(scope="session")
def networks() -> losses.Networks:
    """A generator of 8² and a CLIP of 8², randomly initialised."""
    return losses.Networks(tiny.generator(), tiny.clip_network())


@pytest.fixture(scope="session")
def models(
    networks: losses.Networks, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Flags that name these networks on disk."""
    return tiny.save(tmp_path_factory.mktemp("models"), networks.clip)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> bpe.Tokenizer:
    """The tokenizer of OpenAI's whole vocabulary."""
    folder = tmp_path_factory.mktemp("tokenizer")
    bpe.write(bpe.OPENAI_MERGES, folder)
    return bpe.read(*(folder / name for name in clip_files.TOKENIZER_FILES))


@pytest.fixture(scope="session")
def golden() -> dict[str, np.ndarray]:
    """What OpenAI's code computes with the CLIP of `golden_clip`."""
    with np.load(golden_data.ROOT / "clip_vit" / "io.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def golden_clip() -> clip.Clip:
    """A small CLIP, converted from OpenAI's format."""
    return golden_networks.openai_clip()


@pytest.fixture(scope="session")
def flax_clip_model() -> Any:
    """transformers' FlaxCLIPModel, for comparisons; a skip from transformers 5 on.

    The extra dev has transformers 4, so `make test` skips none of them.
    """
    import transformers

    if int(transformers.__version__.split(".")[0]) >= 5:
        pytest.skip("transformers 5 has no FlaxCLIPModel; `make test` compares with it")
    return transformers.FlaxCLIPModel


@pytest.fixture(scope="session")
def faces() -> list[attributes.Face]:
    """300 drawn faces."""
    return toy_faces.sample()
