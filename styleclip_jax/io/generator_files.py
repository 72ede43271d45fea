"""Model directories of generators: which architecture each is of."""

from types import ModuleType
from typing import Any

from styleclip_jax.io import checkpoints, files
from styleclip_jax.models import stylegan2
from styleclip_jax.models.generators import Generator, GeneratorConfig

# Architectures by the kind that model directories name. Beyond this table nothing
# knows which of them a generator has.
MODULES: dict[str, ModuleType] = {"stylegan2": stylegan2}


def load(directory: files.Path) -> Generator:
    """A generator from its model directory.

    Raises:
      UserError: the directory holds no valid generator.
    """
    kind, module = _module_of(directory)
    return checkpoints.load_network(
        directory,
        kind=kind,
        config_type=module.GeneratorConfig,
        param_shapes=module.param_shapes,
    )


def read_config(directory: files.Path) -> GeneratorConfig:
    """Configuration of the generator of a model directory.

    Raises:
      UserError: the directory holds no valid generator.
    """
    kind, module = _module_of(directory)
    config: Any = checkpoints.read_config(directory, kind, module.GeneratorConfig)
    return config


def _module_of(directory: files.Path) -> tuple[str, ModuleType]:
    """Kind of a directory and its module; the first ones where it is of no kind."""
    kind = str(checkpoints.kind_of(directory))
    kind = kind if kind in MODULES else next(iter(MODULES))
    return kind, MODULES[kind]
