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

# Name in records of the height that is shown of images between bars.
SHOWN = "generator_crop_height"


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


def untold(directory: files.Path) -> dict[str, str]:
    """What decides the images of a generator beside its weights, by name for a record.

    Of those between bars it is the height that is shown; nothing of others.

    Raises:
      UserError: the directory holds no valid generator.
    """
    shown = getattr(read_config(directory), "crop_height", None)
    return {} if shown is None else {SHOWN: str(shown)}


def _kind_of(directory: files.Path) -> tuple[str, type[GeneratorConfig]]:
    """Kind of a directory and its configuration; the first one's if it has none."""
    kind = str(checkpoints.kind_of(directory))
    kind = kind if kind in CONFIGS else next(iter(CONFIGS))
    return kind, CONFIGS[kind]
