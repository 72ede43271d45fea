"""styleclip-generate: latents, images, sheets."""

import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from styleclip_jax.batch.arrangements import ArrangementRequest
from styleclip_jax.cli import generate, program
from styleclip_jax.computation import Computation
from styleclip_jax.models import stylegan2
from styleclip_jax.ops import pixels
from tests import tiny, torch_format
from tests.programs import Program


def test_generate_writes_latents_images_and_sheet(run: Program, tmp_path) -> None:
    code, out, _ = run(generate, seeds="0-4", images="npy", batch_size=4)
    assert code == 0
    folder = tmp_path / "out"
    w_plus = np.load(folder / "w_plus.npy")
    assert w_plus.shape == (5, 4, 12)
    assert str(folder / "grid.png") in out
    # Rendering the latents gives the same images, whatever the batch.
    code, *_ = run(
        generate,
        latents=folder / "w_plus.npy",
        images="npy",
        outdir=tmp_path / "again",
        batch_size=8,
    )
    assert code == 0
    for name in (f"{i:06d}.npy" for i in range(5)):
        a = np.load(folder / "images" / name)
        assert a.dtype == np.float32
        b = np.load(tmp_path / "again" / "images" / name)
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_names_of_latents_stand_in_metrics(run: Program, tmp_path) -> None:
    w_plus = np.array(tiny.w_plus(2))
    content = dict(zip(("one.jpg", "très.jpg"), w_plus[:, None], strict=True))
    path = torch_format.save_object(tmp_path / "latents.pt", content)
    code, out, _ = run(generate, latents=path, images="none")
    assert code == 0
    assert "latents: 2 in w_plus" in out
    lines = [json.loads(x) for x in (tmp_path / "out/metrics.jsonl").open()]
    assert [(x["row"], x["name"]) for x in lines] == [(0, "one.jpg"), (1, "très.jpg")]
    np.testing.assert_array_equal(np.load(tmp_path / "out/w_plus.npy"), w_plus)


def test_seeds_are_those_of_stylegan2_ada(run: Program, tmp_path) -> None:
    run(generate, seeds="7", truncation_psi=1, images="none", grid=0)
    z = np.random.RandomState(7).randn(1, 8).astype(np.float32)
    network = tiny.generator()
    expected = stylegan2.map_latents(network, z)
    found = np.load(tmp_path / "out" / "w_plus.npy")[0]
    np.testing.assert_allclose(found, np.tile(expected, (4, 1)), atol=1e-5)


@pytest.mark.parametrize(
    ("image_format", "suffix"), [("tar", "png"), ("tar-jpg", "jpg")]
)
def test_shards_have_the_bytes_of_the_files(
    run: Program, tmp_path, image_format, suffix
) -> None:
    for kind in (image_format, suffix):
        code, *_ = run(generate, seeds="3-5", images=kind, outdir=tmp_path / kind)
        assert code == 0
    with tarfile.open(tmp_path / image_format / "images/000000.tar") as tar:
        members = {x.name: tar.extractfile(x).read() for x in tar.getmembers()}
    files = (tmp_path / suffix / "images").iterdir()
    assert members.keys() == {
        f"{index:06d}.{kind}" for index in range(3) for kind in (suffix, "json")
    }
    assert all(members[path.name] == path.read_bytes() for path in files)
    assert json.loads(members["000001.json"]) == {"index": 1, "seed": 4}


@pytest.mark.parametrize("image_format", ["tiff", "tar.png"])
def test_unknown_format_of_images_is_refused(
    run: Program, tmp_path, image_format
) -> None:
    code, _, err = run(generate, seeds="0", images=image_format)
    assert code == 2
    assert err.count("\n") == 1
    assert "--images" in err
    assert "tar-jpg" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("image_format", ["png", "jpg"])
def test_image_files_are_the_images(run: Program, tmp_path, image_format) -> None:
    run(generate, seeds="0", images=image_format)
    picture = Image.open(tmp_path / "out" / "images" / f"000000.{image_format}")
    network = tiny.generator()
    w_plus = np.load(tmp_path / "out" / "w_plus.npy")
    expected = stylegan2.synthesize(network, w_plus)
    error = np.abs(
        np.asarray(picture, int) - pixels.to_uint8(np.asarray(expected)[0]).astype(int)
    )
    # JPEG is not exact.
    assert error.mean() <= (0.01 if image_format == "png" else 20)
    assert picture.size == (8, 8)


def test_runs_from_before_the_settings_go_on(run: Program, tmp_path) -> None:
    asked = {"seeds": "0-1", "images": "none", "grid": 0}
    assert run(generate, **asked)[0] == 0
    path = tmp_path / "out" / "run.json"
    record = json.loads(path.read_text())
    for later in (Computation, ArrangementRequest):
        for name in later.__dataclass_fields__:
            assert record["flags"].pop(name) is None
    path.write_text(json.dumps(record))
    assert run(generate, **asked)[0] == 0
    code, _, error = run(generate, **asked, dtype="bfloat16")
    assert code == program.EXIT_USER_ERROR
    assert "dtype=None, found bfloat16" in error


def test_embedded_models_are_named_so(run: Program) -> None:
    code, out, _ = run(generate, generator=None, seeds="0", images="none", grid=0)
    assert code == 0
    assert out.startswith("generator: embedded, 64², ")
    assert "assets" not in out
