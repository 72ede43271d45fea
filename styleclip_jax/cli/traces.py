"""Store of traced programs: files in the folder of the compilation cache."""

import contextlib
import functools
import hashlib
import importlib.metadata
import os
import pathlib
import platform

import jax

from styleclip_jax import traced
from styleclip_jax.errors import UserError
from styleclip_jax.io import files
from styleclip_jax.ops import products

# Environment variable that has each run trace its programs if set to 0.
SWITCH = "STYLECLIP_KEEP_TRACED"

_PACKAGES = ("jax", "jaxlib", "numpy", "ml_dtypes", "flax", "optax")


class Folder:
    """Store of programs in a folder, a file each that begins with its hash."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder

    @functools.cached_property
    def about(self) -> str:
        """Versions of packages, what the CPU has, a hash of this package's sources."""
        digest, root = hashlib.sha256(), pathlib.Path(traced.__file__).parent
        for path in sorted(root.rglob("*.py")):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(root)} {len(content)}\n".encode())
            digest.update(content)
        versions = [f"{x} {importlib.metadata.version(x)}" for x in _PACKAGES]
        cpu = f"bfloat16 {products.cpu_multiplies_bfloat16()}"
        return f"{platform.python_version()} {versions} {cpu} {digest.hexdigest()}"

    def read(self, key: str) -> bytes | None:
        try:
            found = (self._folder / key).read_bytes()
        except OSError:
            return None
        digest, _, content = found.partition(b"\n")
        return content if digest == _hash(content) else None

    def write(self, key: str, content: bytes) -> None:
        # Where nothing can be kept, as on a full disk, the next run traces again.
        with contextlib.suppress(UserError, OSError):
            files.write_bytes(
                self._folder / key, _hash(content) + b"\n" + content, make_folder=True
            )


def folder() -> Folder | None:
    """Store beside the compiled programs; None where these are not kept in a folder."""
    names = ("jax_enable_compilation_cache", "jax_compilation_cache_dir")
    kept, found = (getattr(jax.config, name, None) for name in names)
    if not kept or not found or "://" in found or os.environ.get(SWITCH) == "0":
        return None
    return Folder(pathlib.Path(found) / "traced")


def _hash(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()
