"""Programs on a StyleGAN3: each of them runs, and places images where it can."""

import pathlib
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from styleclip_jax import loading
from styleclip_jax.app import rooms, steps
from styleclip_jax.cli import edit, evaluate, find_directions, generate, invert, metrics
from styleclip_jax.editing.session import Session
from styleclip_jax.io import checkpoints
from styleclip_jax.methods import mapper
from styleclip_jax.models import generators
from tests import programs, tiny
from tests.programs import Program
from train import delta as train_delta
from train import global_directions as measure
from train import mapper as train_mapper

NETWORK = tiny.generator(tiny.STYLEGAN3)


@pytest.fixture(scope="module")
def models(
    models: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """The tiny networks, with a StyleGAN3 in the generator's place."""
    folder = tmp_path_factory.mktemp("stylegan3") / "generator"
    return models | {"generator": tiny.write(folder, "stylegan3", NETWORK)}


def write(path: pathlib.Path, text: str) -> pathlib.Path:
    """The file, with a text in it."""
    path.write_text(text)
    return path


def pictures(folder: pathlib.Path) -> np.ndarray:
    return np.stack([np.load(x) for x in sorted((folder / "images").glob("*.npy"))])


def test_generated_images_are_placed_as_asked(run: Program, tmp_path: Any) -> None:
    options = {"seeds": "0-1", "images": "npy", "rotate": 25, "translate": "0.1,-0.2"}
    code, out, err = run(generate, **options)
    assert code == 0, err
    assert "16², 5 rows of W+" in out
    w_plus = np.load(tmp_path / "out" / "w_plus.npy")
    place = generators.placing(25.0, (0.1, -0.2))
    synthesize = jax.jit(generators.synthesize)
    expected = synthesize(NETWORK, w_plus, transform=place)
    np.testing.assert_allclose(pictures(tmp_path / "out"), expected, atol=1e-5)
    upright = synthesize(NETWORK, w_plus, transform=np.eye(3))
    assert np.abs(upright - expected).max() > 1e-2


def test_a_film_passes_places_evenly(run: Program, tmp_path: Any) -> None:
    code, _, err = run(
        generate,
        seeds="3,3",
        interpolate="w",
        frames=2,
        rotate="0,90",
        images="npy",
    )
    assert code == 0, err
    found = pictures(tmp_path / "out")
    assert len(found) == 4
    w_plus = np.load(tmp_path / "out" / "w_plus.npy")
    synthesize = jax.jit(generators.synthesize)
    for frame, angle in enumerate((0, 30, 60, 90)):
        place = generators.placing(float(angle))
        expected = synthesize(NETWORK, w_plus[frame : frame + 1], transform=place)
        np.testing.assert_allclose(found[frame], expected[0], atol=1e-5)
    assert (tmp_path / "out" / "film.gif").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"rotate": "0,90"}, "--rotate: expected one place of all images"),
        ({"translate": "0.1"}, "--translate: expected finite pairs of numbers"),
        ({"rotate": "nan"}, "--rotate: expected numbers, found 'nan'"),
    ],
)
def test_wrong_places_are_refused(
    run: Program, tmp_path: Any, flags: Any, message: str
) -> None:
    code, _, err = run(generate, **flags)
    assert code == 2
    assert message in err
    assert not (tmp_path / "out").exists()


def changes(folder: pathlib.Path) -> np.ndarray:
    """Steps of the edits of a run, [N, F]."""
    both = []
    for name in ("original", "edited"):
        (path,) = folder.glob(f"{name}.np*")
        found = np.load(path)
        both.append(found["styles"] if path.suffix == ".npz" else found)
    return (both[1] - both[0]).reshape(len(both[0]), -1)


@pytest.fixture(scope="module")
def relevance(
    models: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> pathlib.Path:
    """Exact relevance that the program has measured, from cached prefixes."""
    folder = tmp_path_factory.mktemp("relevance")
    flags = models | {
        "output": str(folder / "relevance.safetensors"),
        "num_samples": "2",
        "num_statistics": "8",
        "batch_size": "2",
    }
    argv = ["measure", *(f"--{name}={value}" for name, value in flags.items())]
    assert programs.run(measure, argv) == 0
    return folder / "relevance.safetensors"


def trained(
    program: Any, models: dict[str, str], workdir: pathlib.Path, **flags: Any
) -> pathlib.Path:
    """Folder of the best network of a short training."""
    flags |= models | {"workdir": workdir, "train_steps": 2}
    flags |= {"batch_size": 4, "num_validation": 4}
    argv = ["train", *(f"--{name}={value}" for name, value in flags.items())]
    assert programs.run(program, argv) == 0
    return workdir / "best"


METHODS: dict[str, dict[str, Any]] = {
    "optimization in W+": {"space": "w_plus"},
    "optimization in S": {"space": "s"},
    "direction of a file": {"method": "direction", "beta": 0.01, "alpha": 2},
    "direction to first order": {
        "method": "direction",
        "num_channels": 5,
        "num_samples": 2,
    },
    "stylemc": {"method": "stylemc", "steps": 2},
    "essence": {"method": "essence", "steps": 2, "prompt": None, "num_samples": 2},
    "delta": {"method": "delta", "strength": 2},
    "mapper in W+": {"method": "mapper"},
    "mapper in S": {"method": "mapper"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_each_method_edits(
    run: Program,
    models: dict[str, str],
    relevance: pathlib.Path,
    tmp_path: pathlib.Path,
    name: str,
) -> None:
    flags: dict[str, Any] = {"seeds": "0-1", "images": "npy", **METHODS[name]}
    if flags.get("method") in ("direction", "mapper", "delta"):
        flags["steps"] = None
    if flags.get("method") in ("direction", "delta"):
        flags |= {"neutral": "dog"}
        flags |= {"templates": write(tmp_path / "templates.txt", "a {}\n")}
    if name == "direction of a file":
        flags["directions"] = relevance
    if name == "delta":
        flags["delta"] = trained(train_delta, models, tmp_path / "delta", width=8)
    if name == "essence":
        np.save(tmp_path / "w_plus.npy", tiny.w_plus(1, NETWORK.config))
        flags["target"] = f"{tmp_path / 'w_plus.npy'}:0"
    if flags.get("method") == "mapper":
        space = "s" if name.endswith(" S") else "w_plus"
        config = mapper.of_generator(NETWORK.config, space=space, num_layers=1)
        loading.save_mapper(
            tmp_path / "mapper",
            tiny.mapper_network(config).params,
            config,
            prompt="a cat",
            generator=checkpoints.fingerprint(models["generator"]),
            clip="tiny",
            training={},
        )
        flags |= {"prompt": None, "mapper": tmp_path / "mapper", "strength": 0.01}
    code, _, err = run(edit, **flags)
    assert code == 0, err
    found = changes(tmp_path / "out")
    assert np.abs(found).max() > 1e-4
    if found.shape[1] < NETWORK.config.num_rows * NETWORK.config.w_dim:
        # In S an edit leaves the place of the image, and all but delta the colours.
        assert np.abs(found[:, :4]).max() == 0
        assert name == "delta" or np.abs(found[:, -4:]).max() == 0
    assert np.isfinite(pictures(tmp_path / "out")).all()


@pytest.mark.slow
def test_directions_of_the_affine_layers_are_found(
    run: Program, models: dict[str, str], tmp_path: pathlib.Path
) -> None:
    code, _, err = run(
        find_directions,
        clip=models["clip"],
        texts=write(tmp_path / "texts.txt", "cat\ndog\n"),
        templates=write(tmp_path / "templates.txt", "a {}\n"),
        seeds="0-1",
        num_components=2,
        layers="b16",
    )
    assert code == 0, err
    found = sorted((tmp_path / "out").glob("*.safetensors"))
    assert len(found) == 2


@pytest.mark.slow
def test_photos_are_inverted_by_optimization(
    models: dict[str, str], tmp_path: pathlib.Path
) -> None:
    values = np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)
    Image.fromarray(values).save(tmp_path / "face.png")
    flags = {
        "generator": models["generator"],
        "clip": models["clip"],
        "photos": tmp_path / "face.png",
        "outdir": tmp_path / "out",
        "align": False,
        "w_steps": 1,
        "refine_steps": 2,
        "batch_size": 1,
    }
    argv = ["invert", *(f"--{name}={value}" for name, value in flags.items())]
    assert programs.run(invert, argv) == 0
    w_plus = np.load(tmp_path / "out" / "w_plus.npy")
    assert w_plus.shape == (1, NETWORK.config.num_rows, NETWORK.config.w_dim)


@pytest.mark.slow
def test_edits_are_evaluated_and_exported(
    run: Program,
    models: dict[str, str],
    relevance: pathlib.Path,
    tmp_path: pathlib.Path,
) -> None:
    flags = {
        "method": "direction",
        "steps": None,
        "directions": relevance,
        "templates": write(tmp_path / "templates.txt", "a {}\n"),
        "neutral": "dog",
        "beta": 0.01,
        "alpha": 2,
        "seeds": "0-1",
        "images": "npy",
    }
    assert run(edit, **flags)[0] == 0
    code, _, err = run(
        edit, **flags, export=tmp_path / "edit.jax", outdir=tmp_path / "no"
    )
    assert code == 0, err
    assert (tmp_path / "edit.jax").stat().st_size > 1000
    argv = ["evaluate", f"--edits={tmp_path / 'out'}", f"--clip={models['clip']}"]
    argv += [f"--generator={models['generator']}", f"--outdir={tmp_path / 'measured'}"]
    assert programs.run(evaluate, argv) == 0
    assert (tmp_path / "measured" / "edits.json").exists()


@pytest.mark.slow
def test_a_mapper_is_trained_in_s(
    models: dict[str, str], tmp_path: pathlib.Path
) -> None:
    flags = {"prompt": "a cat", "space": "s"}
    assert trained(train_mapper, models, tmp_path / "mappers", **flags)


@pytest.mark.slow
def test_the_app_draws_and_moves_a_face(
    models: dict[str, str], relevance: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    templates = write(tmp_path / "templates.txt", "a {}\n")
    names = loading.Models(**models, templates=str(templates))
    session = Session(names, devices=jax.local_devices()[:1])
    table, _ = loading.read_relevance(
        relevance, names, session.generator, loading.load_clip(models["clip"])[0]
    )
    room = rooms.Room(session=session, mappers={}, relevance=table)
    face = rooms.draw(room, 3, 0.7)
    texts = ("dog", "cat")
    found = steps.measure(room, *texts, lambda count: None)
    step = steps.direct(room, face.latent, texts, found, steps.beta_for(found, 3))
    moved = room.render(steps.moved(step, 5.0))
    assert moved.shape[-3:] == (16, 16, 3)
    assert not np.array_equal(moved, room.render(face.latent))


@pytest.mark.slow
def test_metrics_are_measured(tmp_path: pathlib.Path) -> None:
    config = NETWORK.config.replace(resolution=64)
    flags = {
        "generator": tiny.write(
            tmp_path / "generator", "stylegan3", tiny.generator(config)
        ),
        "outdir": tmp_path / "out",
        "data_cache": tmp_path / "cache",
        "num_samples": 8,
        "metrics": "fd_judge",
    }
    argv = ["metrics", *(f"--{name}={value}" for name, value in flags.items())]
    assert programs.run(metrics, argv) == 0
    assert (tmp_path / "out" / "metrics.json").exists()
