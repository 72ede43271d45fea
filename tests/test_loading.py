"""Loading of models and templates: what is refused."""

import pathlib

import pytest

import styleclip_jax as sc
from styleclip_jax import loading
from styleclip_jax.errors import UserError
from styleclip_jax.io import checkpoints
from styleclip_jax.methods import mapper
from tests import tiny


def test_templates_are_refused(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "templates.txt"
    path.write_text("a {}\n\na photo of {}.\n")
    assert loading.load_templates(path) == ["a {}", "a photo of {}."]
    for content, found in (("", "none"), ("a {}\nno place\n", "'no place'")):
        path.write_text(content)
        with pytest.raises(UserError, match=f"templates.txt: .* found {found}"):
            loading.load_templates(path)
    with pytest.raises(UserError, match="nowhere"):
        loading.load_templates(tmp_path / "nowhere")


def test_mappers_are_loaded_as_other_networks(
    models: dict[str, str], tmp_path: pathlib.Path
) -> None:
    generator = sc.load_generator(models["generator"])
    config = mapper.of_generator(generator.config, space="w_plus", num_layers=1)
    network = tiny.mapper_network(config)
    loading.save_mapper(
        tmp_path / "m",
        network.params,
        config,
        prompt="a cat",
        generator=checkpoints.fingerprint(models["generator"]),
        clip="",
        training={},
    )
    found = sc.load_mapper(tmp_path / "m", models["generator"])
    assert found.config == config
    # The embedded generator is another one.
    with pytest.raises(UserError, match="m: "):
        sc.load_mapper(tmp_path / "m")
