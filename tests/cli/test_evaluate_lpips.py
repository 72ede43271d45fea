"""LPIPS of edits by styleclip-evaluate: whole, outside of a mask, and refusals."""

import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from styleclip_jax import latents
from styleclip_jax.cli import evaluate
from styleclip_jax.io import checkpoints
from styleclip_jax.models import lpips, stylegan2, vgg16
from styleclip_jax.models.network import Network
from tests import programs, tiny
from tests.cli.edit_folders import write_edits

CONFIG = vgg16.Vgg16Config(widths=(3, 4, 4, 5, 5), dense=())
SIZE = 16
GENERATOR = tiny.GENERATOR.replace(resolution=SIZE, channels=(4, 4, 4))


def save(folder: pathlib.Path, kind: str, network: Network) -> Network:
    tiny.write(folder, kind, network)
    return network


def make_vgg16(folder: pathlib.Path, config: vgg16.Vgg16Config = CONFIG) -> Network:
    network = Network(vgg16.init(jax.random.key(0), config), config)
    return save(folder, "vgg16", network)


def make_edits(folder: pathlib.Path, config: stylegan2.GeneratorConfig) -> str:
    """Three edits in W+, and their generator beside them."""
    generator = folder.with_name(f"generator-{folder.name}")
    save(generator, "stylegan2", tiny.generator(config))
    w_plus = np.array(tiny.w_plus(3, config))
    return write_edits(
        folder,
        w_plus,
        w_plus + 0.3 * np.array(tiny.normal(8, *w_plus.shape)),
        [{}] * 3,
        generator=str(generator),
        clip_name=None,
        method="optimization",
    )


def call(**options: Any) -> int:
    argv = [f"--{name}={value}" for name, value in options.items()]
    return programs.run(evaluate, ["styleclip-evaluate", *argv])


def test_lpips_is_that_of_the_images_and_of_their_part(tmp_path) -> None:
    network = make_vgg16(tmp_path / "vgg16")
    edits = make_edits(tmp_path / "edits", GENERATOR)
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[: SIZE // 2] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    out, plain = tmp_path / "out", tmp_path / "plain"
    options = {"lpips": tmp_path / "vgg16", "mask": tmp_path / "mask.png"}
    assert call(edits=edits, outdir=out, **options) == 0
    (row,) = json.loads((out / "edits.json").read_text())["rows"]
    w_plus = [np.load(f"{edits}/{name}.npy") for name in ("original", "edited")]
    generator = tiny.generator(GENERATOR)
    before, after = (jnp.clip(latents.render(generator, w), -1, 1) for w in w_plus)
    for name, weights in (("lpips", None), ("lpips_outside", 1 - mask / 255)):
        expected = lpips.distance(network, before, after, weights)
        found = row["metrics"][name]
        assert found["mean"] == pytest.approx(float(expected.mean()), rel=1e-4)
        assert found["low"] <= found["mean"] <= found["high"]
    assert row["metrics"]["lpips"]["mean"] != row["metrics"]["lpips_outside"]["mean"]
    inputs = json.loads((out / "run.json").read_text())["inputs"]
    assert inputs["lpips"] == checkpoints.fingerprint(tmp_path / "vgg16")
    assert len(inputs["mask"]) == 64
    table = (out / "edits.md").read_text()
    assert "| LPIPS | LPIPS outside |" in table
    # What else is measured does not depend on it.
    assert call(edits=edits, outdir=plain) == 0
    (other,) = json.loads((plain / "edits.json").read_text())["rows"]
    assert other["metrics"].keys() == row["metrics"].keys() - {"lpips", "lpips_outside"}
    for name, summary in other["metrics"].items():
        assert row["metrics"][name]["mean"] == pytest.approx(summary["mean"], rel=1e-5)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"mask": "small.png"}, "--mask: expected --lpips"),
        ({"lpips": "absent"}, "absent"),
        ({"lpips": "bare"}, "--lpips: expected a VGG16 with the weights of LPIPS"),
        ({"lpips": "vgg16", "mask": "small.png"}, "expected a picture of 16×16"),
        ({"lpips": "vgg16", "mask": "white.png"}, "expected a part that is not white"),
        ({"lpips": "vgg16", "mask": "none.png"}, "none.png"),
        ({"lpips": "vgg16", "edits": "small"}, "expected images of 16² or more"),
    ],
    ids=lambda value: "-".join(value.values()) if isinstance(value, dict) else "",
)
def test_bad_input_gets_one_line(
    tmp_path, monkeypatch, capsys, options, expected
) -> None:
    monkeypatch.chdir(tmp_path)
    make_vgg16(pathlib.Path("vgg16"))
    make_vgg16(pathlib.Path("bare"), CONFIG.replace(lpips=False))
    make_edits(pathlib.Path("edits"), GENERATOR)
    make_edits(pathlib.Path("small"), tiny.GENERATOR)
    for name, size in (("small", 8), ("white", SIZE)):
        Image.new("L", (size, size), 255).save(f"{name}.png")
    assert call(**{"edits": "edits"} | options) == 2
    message = capsys.readouterr().err.strip()
    assert "\n" not in message
    assert expected in message
