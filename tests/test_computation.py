"""Settings of the computation reach the networks, and the records of runs."""

import json
import pathlib

import pytest

from styleclip_jax import loading, parallel
from styleclip_jax.batch import run_folder
from styleclip_jax.cli import edit, generate, program
from styleclip_jax.computation import Computation
from styleclip_jax.errors import UserError
from styleclip_jax.loading import Models
from styleclip_jax.methods import mapper
from tests import tiny

LOW = {"precision": "high", "dtype": "bfloat16", "low_precision_from": 8}


@pytest.mark.parametrize(
    ("platform", "expected"),
    [("cpu", "highest"), ("gpu", "high"), ("cuda", "high"), ("tpu", "high")],
)
def test_default_precision_of_a_generator_is_that_of_the_device(
    monkeypatch: pytest.MonkeyPatch, platform: str, expected: str
) -> None:
    assert parallel.generator_precision(platform) == expected
    monkeypatch.setattr(parallel.jax, "default_backend", lambda: platform)
    found = Computation()
    assert found.of_generator(tiny.generator()).config.precision == expected
    assert found.of_other(tiny.identity_network()).config.precision == "highest"
    assert found.of_clip(tiny.clip_network()).config.precision == "highest"
    assert found.record()["precision"] == (None if platform == "cpu" else "high")


def test_settings_reach_the_networks(tmp_path: pathlib.Path) -> None:
    names = tiny.save(tmp_path, tiny.clip_network())
    clip_too = {"clip_precision": "high", "clip_dtype": "bfloat16", "remat": True}
    models = Models.of(**names, computed=LOW | clip_too)
    config = models.load_generator().config
    assert (config.precision, config.dtype) == ("high", "bfloat16")
    assert (config.low_precision_from, config.remat) == (8, True)
    joint = Models.of(
        clip=[names["clip"], names["clip"]], computed={"clip_dtype": "bfloat16"}
    )
    (network, _), (both, _) = models.load_clip(), joint.load_clip()
    found = network.config
    assert (found.precision, found.dtype, found.remat) == ("high", "bfloat16", True)
    assert [x.dtype for x in both.config.members] == ["bfloat16"] * 2
    for network in (
        tiny.identity_network(),
        tiny.encoder(),
        tiny.mapper_network(mapper.of_generator(tiny.GENERATOR)),
    ):
        assert models.of_other(network).config.precision == "high"
    assert models.load_identity().config.precision == "high"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"dtype": "bfloat16", "low_precision_from": 100},
            "low_precision_from must be a resolution of this generator, a power of two "
            "from 4 to 64, found 100",
        ),
        (
            {"low_precision_from": 16},
            "low_precision_from is for dtype bfloat16, found float32 with 16",
        ),
        ({"precision": "low"}, "precision must be one of highest, high"),
        ({"clip_precision": "low"}, "clip_precision must be one of highest, high"),
    ],
)
def test_what_has_no_sense_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Models(**changes).load_generator()


def test_flags_become_settings_of_the_computation() -> None:
    values = program.Values()
    program.define(Models, values)
    values(["program", "--precision=default", "--dtype=bfloat16", "--remat"])
    found = program.build(Models, values)
    assert (found.precision, found.dtype, found.remat) == ("default", "bfloat16", True)
    assert (found.low_precision_from, found.clip_precision) == (None, "highest")
    assert "remat" not in generate.VALUES
    for name in Computation.__dataclass_fields__:
        assert name in edit.VALUES, name


def test_computation_is_no_property_of_a_model_directory(tmp_path) -> None:
    networks = tiny.save(tmp_path, tiny.clip_network())
    config = json.loads((tmp_path / "generator" / "config.json").read_text())["config"]
    assert not {"precision", "low_precision_from"} & config.keys()
    assert loading.load_generator(networks["generator"]).config == tiny.GENERATOR
    assert run_folder.difference({}, Models(precision="highest").record()) is None
