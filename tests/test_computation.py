"""Settings of the computation reach the networks, and the records of runs."""

import dataclasses
import json
import pathlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from styleclip_jax import computation, loading, parallel
from styleclip_jax.batch import run_folder
from styleclip_jax.cli import edit, generate, program
from styleclip_jax.computation import Computation
from styleclip_jax.errors import UserError
from styleclip_jax.loading import Models
from styleclip_jax.methods import mapper
from styleclip_jax.models import clip
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
    assert models.load_identity(tiny.GENERATOR).config.precision == "high"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"dtype": "bfloat16", "low_precision_from": 100},
            "low_precision_from must be a resolution of this network, a power of two "
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


@pytest.mark.parametrize(("quick", "dtype"), [(True, "bfloat16"), (False, "float32")])
def test_auto_takes_the_quicker_type_and_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, quick: bool, dtype: str
) -> None:
    monkeypatch.setattr(computation, "is_quick_with_bfloat16", lambda: quick)
    asked = {"dtype": "auto", "clip_dtype": "auto", "low_precision_from": 8}
    names = tiny.save(tmp_path, tiny.clip_network())
    models = Models.of(**names, computed=asked)
    generator, (network, _) = models.load_generator(), models.load_clip()
    assert (generator.config.dtype, network.config.dtype) == (dtype, dtype)
    for line in (
        models.describe_generator(generator.config),
        models.describe_clip(network),
    ):
        assert line.endswith(f", in {dtype}, the quicker type here")
    recorded = {"dtype": dtype, "clip_dtype": dtype, "low_precision_from": 8}
    found = models.record()
    assert {n: found[n] for n in recorded} == (
        recorded if quick else dict.fromkeys(recorded)
    )


def test_a_type_that_is_no_quicker_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(computation, "is_quick_with_bfloat16", lambda: False)
    models = Models(dtype="bfloat16")
    line = models.describe_generator(models.of_generator(tiny.generator()).config)
    assert line.endswith(", in bfloat16, which is no quicker here")


@pytest.mark.parametrize(
    ("platform", "capability", "quick"),
    [
        ("gpu", "9.0", True),
        ("gpu", "7.5", False),
        ("gpu", "gfx90a", True),
        ("tpu", "", True),
    ],
)
def test_accelerators_are_quick_with_bfloat16_but_for_old_cards(
    monkeypatch: pytest.MonkeyPatch, platform: str, capability: str, quick: bool
) -> None:
    device = types.SimpleNamespace(platform=platform, compute_capability=capability)
    monkeypatch.setattr(computation.jax, "local_devices", lambda: [device])
    assert computation.is_quick_with_bfloat16() == quick


def test_kernels_of_a_clip_have_the_type_of_its_products() -> None:
    network = tiny.clip_network()
    size = network.config.image_size
    image = jax.random.normal(jax.random.key(0), (2, size, size, 3))
    rounded = Computation(clip_dtype="bfloat16").of_clip(network)
    in_call = dataclasses.replace(network, config=rounded.config)
    np.testing.assert_array_equal(
        clip.encode_image(rounded, image), clip.encode_image(in_call, image)
    )
    projection = rounded.params["visual_projection"]["kernel"]
    assert projection.dtype == jnp.bfloat16


def test_computation_is_no_property_of_a_model_directory(tmp_path) -> None:
    networks = tiny.save(tmp_path, tiny.clip_network())
    config = json.loads((tmp_path / "generator" / "config.json").read_text())["config"]
    assert not {"precision", "low_precision_from"} & config.keys()
    assert loading.load_generator(networks["generator"]).config == tiny.GENERATOR
    assert run_folder.difference({}, Models(precision="highest").record()) is None
