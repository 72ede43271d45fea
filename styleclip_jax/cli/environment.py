"""Environment of a program: settings of JAX and XLA, threads, the cache."""

import hashlib
import importlib.metadata
import os
import pathlib
import platform

import jax

from styleclip_jax import places

# Flag of XLA that leaves kernels of GPUs out whose sums vary, and the choice of kernels
# by their time, which does too.
_EQUAL_BITS = "--xla_gpu_deterministic_ops=true"
# Compile time in seconds from which on a program is cached.
_MIN_COMPILE_TIME = 0.0
# Cache of XLA that is kept beside them: which kernels of a GPU were fastest.
_CHOSEN_KERNELS = "xla_gpu_per_fusion_autotune_cache_dir"

# Settings of JAX that networks are written for, whatever the environment says.
_SETTINGS = {
    "jax_enable_x64": False,
    "jax_numpy_rank_promotion": "allow",
    "jax_numpy_dtype_promotion": "standard",
}


def apply_settings() -> None:
    """Gives JAX the settings that networks are written for."""
    for name, value in _SETTINGS.items():
        jax.config.update(name, value)


def steady_threads() -> None:
    """Gives XLA two threads or more on a CPU.

    With one thread it computes convolutions in another way. With more, results do not
    depend on the number of threads, and so not on that of simulated devices.
    """
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    os.environ.setdefault("NPROC", str(max(2, count)))


def equal_bits() -> None:
    """Has GPUs compute the same bits in each run; called before their first use."""
    # XLA ends a process whose flags it does not know. Beside a plugin for GPUs it knows
    # theirs.
    plugins = importlib.metadata.entry_points(group="jax_plugins")
    if not any("cuda" in p.name or "rocm" in p.name for p in plugins):
        return
    found = os.environ.get("XLA_FLAGS", "")
    if _EQUAL_BITS in found.split():
        return
    os.environ["XLA_FLAGS"] = f"{found} {_EQUAL_BITS}".strip()


def keep_compiled(folder: str | None) -> None:
    """Turns the persistent compilation cache on, unless it is on or unwanted."""
    if folder == "none":
        jax.config.update("jax_enable_compilation_cache", False)
    chosen = getattr(jax.config, "jax_compilation_cache_dir", None)
    if folder == "none" or (folder is None and chosen):
        return
    if folder is None:
        folder = _default_cache()
        if folder is None:
            return
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _MIN_COMPILE_TIME)
    # Kernels that were chosen by their time lie beside the programs. It is JAX's
    # default, said here because a new choice may be of other bits.
    jax.config.update("jax_persistent_cache_enable_xla_caches", _CHOSEN_KERNELS)


def _default_cache() -> str | None:
    """Folder of compiled programs in the user's cache, None if it cannot be written."""
    cache = places.user_cache()
    if cache is None:
        return None
    # Programs for one kind of CPU may not run on another that sees the same folder.
    folder = cache / _describe_cpu()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        # It is read-only.
        return None
    return str(folder) if os.access(folder, os.W_OK) else None


def _describe_cpu() -> str:
    """Architecture of the CPU and a hash of its features, which set it apart."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = [platform.processor()]
    features = [x for x in lines if x.startswith(("flags", "Features"))] or lines
    digest = hashlib.sha256("".join(features[:1]).encode()).hexdigest()
    return f"{platform.machine()}-{digest[:8]}"
