"""styleclip-invert: files, resuming, aligned faces, refusals."""

import functools
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from convert import __main__ as convert
from styleclip_jax import loading, losses, places
from styleclip_jax.batch import journal
from styleclip_jax.cli import invert
from styleclip_jax.editing import inverter
from styleclip_jax.errors import UserError
from styleclip_jax.io import checkpoints
from styleclip_jax.methods import encoding, inversion, optimization
from styleclip_jax.models import e4e
from styleclip_jax.photos import align, finding
from styleclip_jax.photos import crops as photo_crops
from tests import golden_data, programs, tiny

# The program.


@pytest.fixture(scope="module")
def models(
    models: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Flags that name tiny networks on disk."""
    folder = tmp_path_factory.mktemp("models") / "encoder"
    return models | {"encoder": tiny.write(folder, "e4e", tiny.encoder(scale=0.3))}


def flags_of(models: dict[str, str]) -> dict[str, Any]:
    """Flags of each run."""
    return {
        "generator": models["generator"],
        "clip": models["clip"],
        "align": False,
        "w_steps": 2,
        "refine_steps": 3,
        "batch_size": 1,
        "images": "npy",
        "grid": 3,
    }


def start(models: dict[str, str], **options: Any) -> int:
    """Runs the program and returns its exit code."""
    argv = ["program"]
    for name, value in (flags_of(models) | options).items():
        argv += [] if value is None else [f"--{name}={value}"]
    return programs.run(invert, argv)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Six square photos, one of them grey, and three that are of no use."""
    folder = tmp_path_factory.mktemp("photos")
    for i in range(6):
        values = np.random.default_rng(i).integers(0, 256, (4, 4, 3), np.uint8)
        size = (20 + i, 20 + i)
        image = Image.fromarray(values).resize(size, Image.Resampling.BICUBIC)
        (image.convert("L") if i == 1 else image).save(folder / f"face{i}.png")
    Image.new("RGB", (30, 20)).save(folder / "a_wide.png")
    Image.new("RGB", (5, 5)).save(folder / "b_tiny.png")
    (folder / "c_broken.jpg").write_text("no picture")
    return folder


@pytest.fixture(scope="module")
def finished(
    models: dict[str, str],
    folder: pathlib.Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> pathlib.Path:
    """The folder of a run over all of them."""
    outdir = tmp_path_factory.mktemp("out")
    assert start(models, photos=folder, outdir=outdir) == 1
    return outdir


@pytest.mark.slow
def test_program_writes_everything_that_it_promises(
    folder: pathlib.Path, finished: pathlib.Path
) -> None:
    w_plus = np.load(finished / "w_plus.npy")
    assert w_plus.shape == (6, 4, 12)
    metrics = [json.loads(line) for line in (finished / "metrics.jsonl").open()]
    files = [str(folder / f"face{i}.png") for i in range(6)]
    assert [line["file"] for line in metrics] == files
    faces = json.loads((finished / "aligned.json").read_text())["faces"]
    assert [face["file"] for face in faces] == files
    corners = np.array([(0, 0), (0, 23), (23, 23), (23, 0)]) - 0.5
    np.testing.assert_array_equal(faces[3]["quad"], corners)
    image = tiny.render(w_plus)
    for i, line in enumerate(metrics):
        found = np.load(finished / "images" / f"{i:06d}.npy")
        np.testing.assert_allclose(found, image[i], atol=1e-5)
        photo = Image.open(files[i]).convert("RGB")
        target = np.asarray(photo.resize((8, 8), Image.Resampling.LANCZOS), float)
        levels = np.clip(np.rint((found + 1) * 127.5), 0, 255)
        np.testing.assert_allclose(
            line["levels"], np.abs(levels - target).mean(), rtol=1e-6
        )
        assert {"index", "pixel", "clip", "l2", "total"} <= line.keys()


@pytest.mark.slow
def test_unusable_photos_are_listed_at_the_end_each_time(
    models: dict[str, str],
    folder: pathlib.Path,
    finished: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert start(models, photos=folder, outdir=finished) == 1
    out = capsys.readouterr().out
    assert "6 of 6 faces are done" in out
    assert f"sheet: {finished / 'grid.png'}" in out
    end = out.splitlines()[-3:]
    for name, reason in (
        ("a_wide.png", "expected a square crop without align, found 30×20 pixels"),
        ("b_tiny.png", "found 5×5"),
        ("c_broken.jpg", "not a readable photo"),
    ):
        found = [line for line in end if line.startswith(f"skipped: {folder / name}: ")]
        assert len(found) == 1, out
        assert reason in found[0]


@pytest.mark.slow
def test_killed_run_goes_on_where_it_stopped(
    models: dict[str, str],
    folder: pathlib.Path,
    finished: pathlib.Path,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Killed(BaseException):
        pass

    append, died = journal.Journal.append, []

    def die_after_writing(*arguments: Any, **latent: Any) -> None:
        if not died:
            append(*arguments, **latent)
        if latent:
            died.append(True)
            raise Killed

    options = {"photos": folder, "outdir": tmp_path / "out"}
    monkeypatch.setattr(journal.Journal, "append", die_after_writing)
    with pytest.raises(Killed):
        start(models, **options)
    monkeypatch.setattr(journal.Journal, "append", append)
    # Faces are not looked for again.
    monkeypatch.setattr(finding.Finder, "find", None)
    assert start(models, **options) == 1
    assert "4 of 6 faces are done" in capsys.readouterr().out
    for name in ("w_plus.npy", "images/000005.npy", "grid.png", "aligned.json"):
        a, b = (folder / name for folder in (tmp_path / "out", finished))
        assert a.read_bytes() == b.read_bytes(), name


@pytest.mark.slow
def test_two_processes_and_a_list_of_photos_end_the_same(
    models: dict[str, str],
    folder: pathlib.Path,
    finished: pathlib.Path,
    tmp_path: pathlib.Path,
) -> None:
    faces = [str(folder / f"face{i}.png") for i in range(6)]
    (tmp_path / "photos.txt").write_text("\n".join(faces))
    options = flags_of(models) | {"photos": tmp_path / "photos.txt"}
    options |= {"outdir": tmp_path / "out"}
    printed = programs.run_in_two(
        lambda shared: programs.launch(
            "invert", options | shared, tmp_path / "cache", devices=4
        )
    )
    assert "which this one makes 3 of 6 faces" in printed[0]
    found, expected = (programs.hashes(x) for x in (tmp_path / "out", finished))
    # The other run has skipped some photos.
    assert found.pop("aligned.json") != expected.pop("aligned.json")
    assert found == expected


@pytest.mark.slow
def test_other_flags_and_other_photos_are_refused(
    models: dict[str, str],
    folder: pathlib.Path,
    finished: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert start(models, photos=folder, outdir=finished, l2_lambda=0.5) == 2
    assert "--l2_lambda=0.02, found 0.5" in capsys.readouterr().err
    path = folder / "face0.png"
    content = path.read_bytes()
    Image.new("RGB", (20, 20)).save(path)
    assert start(models, photos=folder, outdir=finished) == 2
    assert "with photos=" in capsys.readouterr().err
    path.write_bytes(content)


def inverted() -> optimization.Result:
    """The inversion of four photos, in few steps."""
    networks = losses.Networks(tiny.generator(), tiny.clip_network())
    config = inversion.InversionConfig(w_steps=1, refine_steps=1)
    run = functools.partial(inversion.invert, config=config)
    photos = tiny.render(tiny.w_plus(4))
    return jax.jit(jax.vmap(run, in_axes=(None, 0)))(networks, photos)


@pytest.mark.slow
def test_faces_whose_loss_is_not_finite_are_named(
    models: dict[str, str],
    folder: pathlib.Path,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    broken = inverted()._replace(failed_at=np.array([-1, 7, -1, -1]))
    broken = broken._replace(latent=broken.latent.at[3].set(jnp.nan))
    monkeypatch.setattr(inverter, "inverter", lambda *_: lambda crops, report: broken)
    photos = ",".join(str(folder / f"face{i}.png") for i in range(4))
    assert start(models, photos=photos, outdir=tmp_path / "out") == 1
    out = capsys.readouterr().out
    for i, step in ((1, 7), (3, 0)):
        line = f"failed: face {i} of {folder / f'face{i}.png'}, it was not finite"
        assert f"{line} or out of reach of the generator at step {step}\n" in out
    assert "failed: 2 of 4 faces" in out
    lines = (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()
    assert ["failed_at" in json.loads(x) for x in lines] == [False, True, False, True]


def landmarks(scale: float, x: float, y: float) -> np.ndarray:
    """A face [68, 2] whose eyes and mouth lie at known places."""
    points = np.zeros((68, 2))
    points[36:42], points[42:48] = (-1, -0.5), (1, -0.5)
    points[48], points[54] = (-0.7, 1), (0.7, 1)
    return scale * points + (x, y)


@pytest.mark.slow
def test_faces_are_cropped_by_their_landmarks(
    models: dict[str, str],
    folder: pathlib.Path,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    values = np.random.default_rng(9).integers(0, 256, (6, 9, 3), np.uint8)
    group = tmp_path / "group.png"
    Image.fromarray(values).resize((90, 60)).save(group)
    small, large = landmarks(5, 20, 30), landmarks(9, 55, 30)
    faces = {
        "group.png": [small.tolist(), large.tolist()],
        "face0.png": landmarks(5, 500, 30).tolist(),
    }
    path = tmp_path / "landmarks.json"
    path.write_text(json.dumps(faces))
    code = start(
        models,
        photos=f"{group},{folder / 'face0.png'},{folder / 'face1.png'}",
        outdir=tmp_path / "out",
        landmarks=path,
        align=True,
        encoder=models["encoder"],
        refine_steps=0,
    )
    assert code == 1
    out = capsys.readouterr().out
    assert f"skipped: {folder / 'face0.png'}: landmarks: expected a face" in out
    assert f"{folder / 'face1.png'}: expected a face, found none in the landm" in out
    document = json.loads((tmp_path / "out" / "aligned.json").read_text())
    (face,) = document["faces"]
    assert face["file"] == str(group)
    np.testing.assert_allclose(face["quad"], align.quad(large))

    # Without refinement the latent is the encoder's of its own crop.
    photo = np.asarray(Image.open(group))
    crop = align.crop(photo, align.quad(large), 16, supersampling=1)
    network = loading.load_encoder(models["encoder"], tiny.GENERATOR)
    expected = jax.jit(e4e.encode)(network, crop[None] / np.float32(127.5) - 1)
    found = np.load(tmp_path / "out" / "w_plus.npy")
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.slow
def test_the_encoders_own_generator_is_the_default(
    models: dict[str, str], tmp_path: pathlib.Path
) -> None:
    (tmp_path / loading.DECODER).mkdir()
    for named, expected in (
        ({}, places.find("generator")),
        ({"encoder": models["encoder"]}, places.find("generator")),
        ({"encoder": tmp_path}, tmp_path / loading.DECODER),
        ({"encoder": tmp_path, "generator": "mine"}, pathlib.Path("mine")),
    ):
        found = loading.Models.of(**named).with_decoder()
        assert found.generator_directory == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"photos": None}, "expected photos"),
        ({"photos": "absent.png"}, "absent.png"),
        ({"photos": "wide.png"}, "--photos: expected faces, found none in 1 photos"),
        ({"generator": "absent"}, "absent"),
        ({"encoder": "absent"}, "absent"),
        ({"encoder": "large"}, "expected one to W+ of [4, 12], as the generator of 8²"),
        ({"id_lambda": 0.5}, "--identity"),
        ({"w_steps": 0, "refine_steps": 0}, "--refine_steps"),
        ({"refine_steps": -1}, "--refine_steps"),
        ({"encoder_iterations": 0}, "--encoder_iterations"),
        ({"encoder_iterations": 2}, "--encoder_iterations: expected 1 or none without"),
        ({"learning_rate": "nan"}, "--learning_rate"),
        ({"landmarks": "wide.png"}, "--landmarks: expected --align"),
        ({"landmarks": "absent.json", "align": True}, "absent.json"),
        ({"align": True}, "no detector"),
        ({"outdir": "full"}, "--outdir"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_bad_input_gets_one_line_and_leaves_nothing(
    models: dict[str, str],
    folder: pathlib.Path,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: dict[str, Any],
    expected: str,
) -> None:
    def detect(photo: np.ndarray) -> list[np.ndarray]:
        raise UserError("no detector")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(align, "detect", detect)
    Image.new("RGB", (30, 20)).save("wide.png")
    pathlib.Path("full").mkdir()
    pathlib.Path("full/thesis.txt").write_text("years of work")
    config = e4e.E4eConfig(
        num_blocks=(1, 1, 1), widths=(1, 1, 1), reduction=1, w_dim=1, num_rows=1
    )
    checkpoints.save_network(
        "large",
        kind="e4e",
        params={n: np.zeros(s) for n, s in e4e.param_shapes(config).items()},
        config=config,
        source={},
    )
    before = sorted(tmp_path.rglob("*"))
    defaults = {"photos": folder / "face0.png", "outdir": "out"}
    assert start(models, **(defaults | options)) == 2
    # Bars of photos that were looked at go before.
    lines = capsys.readouterr().err.strip().split("\n")
    (message,) = [line for line in lines if "photo/s" not in line]
    assert message.startswith("error: ")
    assert expected in message
    assert sorted(tmp_path.rglob("*")) == before


# Encoders of several passes.


def test_passes_of_the_encoder_are_those_of_its_file_or_of_the_flag(
    models: dict[str, str], folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    network = tiny.encoder(tiny.RESTYLE)
    restyle = tiny.write(tmp_path / "restyle", "e4e", network)
    photo = np.asarray(Image.open(folder / "face0.png").convert("RGB"))
    cut = photo_crops.cut(photo, None, resolution=8, encoded_size=16)
    passes = encoding.refinements(tiny.generator(), network, cut.encoded[None])
    for count, (flag, expected) in enumerate(zip((1, None), passes, strict=False)):
        options = {"encoder": restyle, "encoder_iterations": flag}
        options |= {"photos": folder / "face0.png", "refine_steps": 0, "grid": 0}
        outdir = tmp_path / str(count)
        assert start(models, outdir=outdir, images="none", **options) == 0
        found = np.load(outdir / "w_plus.npy")
        np.testing.assert_allclose(found, expected, atol=1e-5)


# Encoders of photos that are not square.

CARS = golden_data.ROOT / "wrapped" / "e4e_cars"


@pytest.fixture(scope="module")
def cars(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """An encoder of cars and its generator."""
    folder = tmp_path_factory.mktemp("cars") / "e4e"
    argv = ["convert", str(CARS / "e4e_cars_encode.pt"), f"--output={folder}"]
    assert convert.main(argv) == 0
    return folder


@pytest.mark.slow
def test_cars_are_encoded_as_officially_whatever_their_shape(
    models: dict[str, str], cars: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    flags = {"clip": models["clip"], "generator": cars / "generator", "encoder": cars}
    argv = [f"--{name}={value}" for name, value in flags.items()]
    argv += [f"--photos={CARS / 'car.png'}", "--noalign", "--refine_steps=0"]
    argv += [f"--outdir={tmp_path}", "--images=none", "--grid=0"]
    assert programs.run(invert, ["program", *argv]) == 0
    expected = np.load(CARS / "expected.npz")["w_plus"]
    np.testing.assert_allclose(np.load(tmp_path / "w_plus.npy"), expected, atol=1e-4)
    (face,) = json.loads((tmp_path / "aligned.json").read_text())["faces"]
    _, height = Image.open(CARS / "car.png").size
    # The generator's square has bars above and below, which are cropped.
    top, bottom = np.array(face["quad"])[:2, 1] + 0.5
    np.testing.assert_allclose((top, bottom), (0, height))
    assert loading.load_generator(cars / "generator").config.image_shape == (24, 32)


def test_cars_are_not_aligned(
    models: dict[str, str],
    cars: pathlib.Path,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = {"clip": models["clip"], "generator": cars / "generator", "encoder": cars}
    argv = [f"--{name}={value}" for name, value in flags.items()]
    argv += [f"--photos={CARS / 'car.png'}", f"--outdir={tmp_path / 'out'}"]
    assert programs.run(invert, ["program", *argv]) == 2
    assert "expected --noalign with an encoder of whole" in capsys.readouterr().err


def test_target_of_a_wide_photo_has_black_bars() -> None:
    photo = np.full((30, 40, 3), 255, np.uint8)
    cut = photo_crops.cut(photo, None, resolution=32, encoded_size=(12, 16))
    assert cut.encoded.shape == (12, 16, 3)
    assert cut.encoded.min() == 1
    np.testing.assert_array_equal(cut.target[4:28], 1)
    np.testing.assert_array_equal(np.delete(cut.target, np.s_[4:28], 0), -1)
