"""Model directories of generators: which architecture each is of."""

from styleclip_jax.io import checkpoints, files
from styleclip_jax.models import generators, stylegan2, stylegan3
from styleclip_jax.models.generators import Generator, GeneratorConfig

# Architectures by the kind that model directories name. Beyond this table nothing
# knows which of them a generator has.
CONFIGS: dict[str, type[GeneratorConfig]] = {
    "stylegan2": stylegan2.GeneratorConfig,
    "stylegan3": stylegan3.GeneratorConfig,
}


def load(directory: files.Path) -> Generator:
    """A generator from its model directory.

    Raises:
      UserError: the directory holds no valid generator.
    """
    kind, config_type = _kind_of(directory)
    return checkpoints.load_network(
        directory,
        kind=kind,
        config_type=config_type,
        param_shapes=generators.param_shapes,
    )


def read_config(directory: files.Path) -> GeneratorConfig:
    """Configuration of the generator of a model directory.

    Raises:
      UserError: the directory holds no valid generator.
    """
    return checkpoints.read_config(directory, *_kind_of(directory))


def _kind_of(directory: files.Path) -> tuple[str, type[GeneratorConfig]]:
    """Kind of a directory and its configuration; the first one's if it has none."""
    kind = str(checkpoints.kind_of(directory))
    kind = kind if kind in CONFIGS else next(iter(CONFIGS))
    return kind, CONFIGS[kind]
