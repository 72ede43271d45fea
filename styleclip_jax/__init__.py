"""StyleCLIP in JAX: text-driven editing of StyleGAN2 images.

  import styleclip_jax as sc

  session = sc.load()
  faces = session.sample(seeds=range(4))
  edit = session.optimize(faces, "a smiling face", steps=80, l2_lambda=0.0045)
  edit.save("outputs/smile")

Names below are imported when they are first used, so that this module is imported at
once.
"""

import importlib
from typing import TYPE_CHECKING, Any

from styleclip_jax.version import __version__

if TYPE_CHECKING:
    from styleclip_jax import (
        batch,
        evaluation,
        latents,
        losses,
        methods,
        models,
        parallel,
        photos,
        spaces,
    )
    from styleclip_jax.editing.faces import Edit, Faces
    from styleclip_jax.editing.opening import load
    from styleclip_jax.editing.session import Session
    from styleclip_jax.errors import UserError
    from styleclip_jax.loading import (
        load_clip,
        load_encoder,
        load_generator,
        load_identity,
        load_mapper,
    )
    from styleclip_jax.losses import Networks
    from styleclip_jax.methods.global_directions import Direction
    from styleclip_jax.models.network import Network

# Loaders of single networks.
_LOADERS = (
    *("load_clip", "load_encoder", "load_generator", "load_identity"),
    "load_mapper",
)
# Modules that the names are in; a module of the same name stands for itself.
_HOMES = {
    "load": "editing.opening",
    "Session": "editing.session",
    "Faces": "editing.faces",
    "Edit": "editing.faces",
    "Direction": "methods.global_directions",
    "Network": "models.network",
    "Networks": "losses",
    "UserError": "errors",
    **dict.fromkeys(_LOADERS, "loading"),
}
_MODULES = (
    *("batch", "evaluation", "latents", "losses", "methods", "models"),
    *("parallel", "photos", "spaces"),
)

__all__ = [
    "Direction",
    "Edit",
    "Faces",
    "Network",
    "Networks",
    "Session",
    "UserError",
    "__version__",
    "batch",
    "evaluation",
    "latents",
    "load",
    "load_clip",
    "load_encoder",
    "load_generator",
    "load_identity",
    "load_mapper",
    "losses",
    "methods",
    "models",
    "parallel",
    "photos",
    "spaces",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"styleclip_jax.{name}")
    if name in _HOMES:
        module = importlib.import_module(f"styleclip_jax.{_HOMES[name]}")
        return getattr(module, name)
    raise AttributeError(f"module 'styleclip_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
