"""Choices of settings: each is in the table of what it stands for, and no other."""

from collections.abc import Collection

import pytest

from convert import kinds, settings
from styleclip_jax import blends, latents
from styleclip_jax.batch import arrangements
from styleclip_jax.io import films
from styleclip_jax.methods import mapper, mapper_training, optimization
from styleclip_jax.models import transformer
from styleclip_jax.settings import edits, mappers, networks, output
from styleclip_jax.settings import latents as sources


@pytest.mark.parametrize(
    ("choices", "table"),
    [
        (sources.EDIT_SPACES, latents.SPACES),
        (sources.CURVES, blends.CURVES),
        (output.FILM_FORMATS, films.FORMATS),
        (edits.PREPROCESSINGS, optimization.PREPROCESSINGS),
        (mappers.NORMS, mapper.NORMS),
        (mappers.OPTIMIZERS, mapper_training.OPTIMIZERS),
        (networks.ACTIVATIONS, transformer._ACTIVATIONS),
        (settings.KINDS, kinds.KINDS),
    ],
    ids=lambda found: ",".join(found),
)
def test_choices_are_the_keys_of_their_table(
    choices: Collection[str], table: Collection[str]
) -> None:
    assert list(choices) == list(table)


def test_settings_of_conversions_are_those_of_their_kinds() -> None:
    given = {n: x.settings for n, x in kinds.KINDS.items() if x.settings is not None}
    assert list(given) == list(settings.SETTINGS)
    for name, found in given.items():
        assert issubclass(found, settings.SETTINGS[name])


def test_films_have_the_spaces_of_settings() -> None:
    assert arrangements.FILM_SPACES is sources.FILM_SPACES
