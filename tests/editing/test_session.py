"""Session: the front door gives what the programs give."""

import json
import pathlib
import subprocess
import sys
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

import styleclip_jax as sc
from styleclip_jax import latents
from styleclip_jax.cli import edit, generate
from styleclip_jax.editing import applying
from styleclip_jax.errors import UserError
from styleclip_jax.models import stylegan2
from tests import golden_data, programs, tiny


@pytest.fixture(scope="module")
def names(
    models: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """The tiny networks, and templates that their CLIP has room for."""
    templates = tmp_path_factory.mktemp("templates") / "templates.txt"
    templates.write_text("a {}\n")
    return models | {"templates": str(templates)}


@pytest.fixture(scope="module")
def session(names: dict[str, str]) -> sc.Session:
    return sc.load(**names, quiet=True)


@pytest.fixture(scope="module")
def faces(session: sc.Session) -> sc.Faces:
    return session.sample(seeds=range(3))


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, styleclip_jax\n"
        "heavy = {'jax', 'flax', 'transformers', 'gradio', 'scipy', 'PIL', 'absl'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert {'load', 'Session', 'batch', 'evaluation'} <= set(dir(styleclip_jax))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_name_of_the_front_door_is_there() -> None:
    for name in sc.__all__:
        assert getattr(sc, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        _ = sc.absent


def test_samples_are_those_of_the_program(
    session: sc.Session, models: dict[str, str], tmp_path: pathlib.Path
) -> None:
    faces = session.sample(seeds="3,5", truncation_psi=0.6)
    argv = [f"--generator={models['generator']}", "--seeds=3,5", "--truncation_psi=0.6"]
    argv += [f"--outdir={tmp_path / 'out'}", "--images=npy"]
    assert programs.run(generate, ["styleclip-generate", *argv]) == 0
    np.testing.assert_array_equal(
        np.load(tmp_path / "out" / "w_plus.npy"), faces.latent
    )
    image = np.load(tmp_path / "out" / "images" / "000001.npy")
    np.testing.assert_allclose(faces.images[1], image, atol=1e-5)
    assert faces.names == ("seed 3", "seed 5")


@pytest.mark.slow
def test_a_saved_edit_is_what_the_program_writes(
    session: sc.Session,
    faces: sc.Faces,
    models: dict[str, str],
    tmp_path: pathlib.Path,
) -> None:
    settings: dict[str, Any] = {"steps": 3, "l2_lambda": 0.01, "film_frames": 2}
    made = session.optimize(faces, "a cat", **settings)
    made.save(tmp_path / "saved")
    flags = {"prompt": "a cat", "seeds": "0-2", **settings, **models}
    argv = [f"--{name}={value}" for name, value in flags.items()]
    outdir = tmp_path / "run"
    assert programs.run(edit, ["styleclip-edit", *argv, f"--outdir={outdir}"]) == 0
    assert programs.hashes(tmp_path / "saved") == programs.hashes(outdir)
    saved, run = (
        json.loads((folder / "run.json").read_text())
        for folder in (tmp_path / "saved", outdir)
    )
    assert saved["program"] == run["program"]
    assert saved["inputs"] == run["inputs"]
    given = {n: x for n, x in saved["flags"].items() if n in settings or n == "method"}
    assert given == {name: run["flags"][name] for name in given}


def test_directions_are_values(session: sc.Session, faces: sc.Faces) -> None:
    direction = session.direction("a cat", neutral="a dog", num_samples=2)
    moved = session.move(faces, direction * 2 - direction, alpha=3)
    styles = np.asarray(latents.pack(session.to_styles(faces)))
    expected = styles + 3 * np.asarray(direction.delta)
    np.testing.assert_allclose(moved.latents, expected, atol=1e-5)
    assert moved.images.shape == (3, 8, 8, 3)
    with pytest.raises(UserError, match="in s, expected w_plus"):
        session.optimize(moved.after, "a cat", steps=1)


@pytest.mark.parametrize(
    ("count", "shapes"), [(1, [4]), (5, [4, 4]), (8, [8]), (33, [32, 32])]
)
def test_devices_share_few_faces(
    session: sc.Session, count: int, shapes: list[int]
) -> None:
    found, rows = [], np.arange(float(count))

    def double(batch: Any, rows: Any) -> Any:
        found.append(batch.shape[0])
        return 2 * batch

    result = applying.in_batches(session.mesh, rows, double)
    np.testing.assert_array_equal(result, 2 * rows)
    assert found == shapes


@pytest.mark.slow
def test_three_devices_estimate_the_same_direction(session: sc.Session) -> None:
    three = sc.Session(session.models, devices=jax.devices()[:3])
    a, b = (x.direction("a cat", num_samples=4).delta for x in (session, three))
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


def test_a_saved_direction_is_read_again(
    session: sc.Session, tmp_path: pathlib.Path
) -> None:
    direction = session.direction("a cat", neutral="a dog", num_samples=2)
    session.save_direction(direction, tmp_path / "d.safetensors", texts="dog to cat")
    found = session.read_direction(tmp_path / "d.safetensors")
    np.testing.assert_array_equal(found.delta, direction.delta)


def test_a_batch_run_goes_on_and_is_measured(
    session: sc.Session, faces: sc.Faces, tmp_path: pathlib.Path
) -> None:
    np.save(tmp_path / "many.npy", faces.latents)
    direction = session.direction("a cat", neutral="a dog", num_samples=2) * 3
    for _ in range(2):
        done = sc.batch.run(
            session,
            direction,
            tmp_path / "many.npy",
            outdir=tmp_path / "out",
            prompt="a cat",
            batch_size="auto",
        )
        assert done.complete
        assert done.succeeded
    found = np.load(tmp_path / "out" / "edited.npz")["styles"]
    expected = session.move(faces, direction).latents
    np.testing.assert_allclose(found, expected, atol=1e-6)
    with pytest.raises(UserError, match=r"outdir: .* is of a run with"):
        sc.batch.run(
            session, direction, seeds="0-3", outdir=tmp_path / "out", prompt="a cat"
        )
    table = sc.evaluation.measure(tmp_path / "out", quiet=True)
    assert "| a cat | alpha 1 | 3 |" in table.to_markdown()
    assert {path.name for path in table.write(tmp_path / "table")} == {
        "edits.md",
        "edits.json",
        "edits.csv",
    }


@pytest.mark.slow
def test_several_prompts_are_edits_side_by_side(
    session: sc.Session, faces: sc.Faces, tmp_path: pathlib.Path
) -> None:
    both = session.optimize(faces, ["a cat", "a dog"], steps=2)
    assert both.settings == [{"prompt": "a cat"}, {"prompt": "a dog"}]
    one = session.optimize(faces, "a dog", steps=2)
    np.testing.assert_allclose(both.latents[1::2], one.latents, atol=1e-5)
    assert both.after.names[:2] == ("seed 0", "seed 0")
    both.save(tmp_path / "both")
    lines = (tmp_path / "both" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["prompt"] for line in lines[:2]] == ["a cat", "a dog"]


def test_latents_of_files_and_arrays_are_read(
    session: sc.Session, faces: sc.Faces, tmp_path: pathlib.Path
) -> None:
    np.save(tmp_path / "w_plus.npy", faces.latents)
    for found in (session.read(tmp_path / "w_plus.npy"), session.read(faces.latents)):
        np.testing.assert_array_equal(found.latent, faces.latent)
        assert found.names == ("row 0", "row 1", "row 2")
    flat = latents.pack(session.to_styles(faces))
    assert session.read(np.asarray(flat)).space == "s"
    with pytest.raises(UserError, match="latents: expected"):
        session.read(np.zeros((2, 3), np.float32))


@pytest.mark.slow
def test_photos_become_faces(session: sc.Session, tmp_path: pathlib.Path) -> None:
    Image.fromarray(np.full((32, 32, 3), 120, np.uint8)).save(tmp_path / "me.png")
    few: dict[str, Any] = {"align": False, "w_steps": 2, "refine_steps": 2}
    faces = session.invert(tmp_path / "me.png", **few)
    assert faces.names == ("me",)
    assert faces.images.shape == (1, 8, 8, 3)
    tuning = {"tune_steps": 30, "tune_rate": 3e-3, "tune_lpips_lambda": 0}
    tuned = session.invert(tmp_path / "me.png", **few, **tuning)
    np.testing.assert_array_equal(tuned.latent, faces.latent)
    grey = np.float32(2 * 120 / 255 - 1)
    before, after = (np.abs(x.images - grey).mean() for x in (faces, tuned))
    assert after < 0.7 * before
    with pytest.raises(UserError, match="no such photo"):
        session.invert(tmp_path / "absent.png")


def test_faces_and_edits_show_themselves(session: sc.Session, faces: sc.Faces) -> None:
    made = session.move(
        faces, session.direction("a cat", neutral="a dog", num_samples=2)
    )
    for shown in (faces, made):
        assert shown._repr_png_().startswith(b"\x89PNG")
    assert len(faces[1:]) == 2
    np.testing.assert_array_equal(faces[-1].latent, faces.latent[-1:])


def test_what_is_named_is_read_at_once(models: dict[str, str]) -> None:
    with pytest.raises(UserError, match="absent"):
        sc.load(generator="absent")
    with pytest.raises(UserError, match="absent"):
        sc.load(**models | {"clip": "./absent"})
    with pytest.raises(UserError, match="not class-conditional") as error:
        sc.load(**models, class_=1)
    assert error.value.field == "class"
    assert isinstance(error.value, ValueError)


@pytest.mark.slow
def test_directions_of_a_class_conditional_generator_are_estimated(
    names: dict[str, str], tmp_path: pathlib.Path
) -> None:
    config = stylegan2.GeneratorConfig(
        resolution=8, z_dim=8, w_dim=12, c_dim=3, channels=(10, 8), num_mapping_layers=2
    )
    folder = tmp_path / "generator"
    generator = tiny.write(folder, "stylegan2", tiny.generator(config))
    flags = names | {"generator": generator, "class": "1"}
    flags |= {"method": "direction", "prompt": "cat", "neutral": "dog"}
    argv = [f"--{name}={value}" for name, value in flags.items()]
    argv += [
        "--beta=0",
        "--num_samples=2",
        "--seeds=0-1",
        f"--outdir={tmp_path / 'out'}",
    ]
    assert programs.run(edit, ["styleclip-edit", *argv]) == 0
    assert (tmp_path / "out" / "edited.npz").is_file()


@pytest.mark.slow
def test_networks_are_values_of_jax(session: sc.Session, faces: sc.Faces) -> None:
    gradient = jax.jit(
        jax.grad(lambda network: stylegan2.synthesize(network, faces.latent).sum())
    )(session.generator)
    assert isinstance(gradient, sc.Network)
    assert jax.tree.structure(gradient) == jax.tree.structure(session.generator)


@pytest.mark.slow
def test_edits_and_measures_take_a_siglip(
    names: dict[str, str], tmp_path: pathlib.Path
) -> None:
    folder = str(golden_data.ROOT / "siglip" / "siglip2_fixed")
    session = sc.load(**names | {"clip": folder}, quiet=True)
    faces = session.sample(seeds=range(2))
    edit = session.optimize(faces, "a cat", steps=5, learning_rate=0.05, l2_lambda=0)
    assert np.all(edit.terms["clip"] < edit.history["clip"][:, 0])
    edit.save(tmp_path / "optimized")
    table = sc.evaluation.measure(tmp_path / "optimized", quiet=True)
    assert "| a cat |" in table.to_markdown()
