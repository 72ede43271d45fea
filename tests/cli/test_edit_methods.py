"""styleclip-edit with mappers and directions, and pasting back into photos."""

import json
import pathlib
from typing import Any

import av
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from styleclip_jax import loading
from styleclip_jax.cli import edit
from styleclip_jax.io import checkpoints, direction_files
from styleclip_jax.methods import global_directions, mapper
from styleclip_jax.models import stylegan2
from styleclip_jax.models.network import Network
from styleclip_jax.photos import align
from tests import tiny
from tests.programs import Program
from tests.squares import square

# An edit that needs no text.
CHANNEL = {"method": "direction", "channel": "0:0", "alpha": "0.1", "prompt": None}
CHANNEL |= {"clip": None, "steps": None}
LAYOUT = tiny.GENERATOR.style_layout
MAPPER = mapper.MapperConfig(levels=("coarse",), w_dim=12, num_layers=1)


def _styles(path: pathlib.Path) -> np.ndarray:
    return np.load(path)["styles"]


def test_direction_makes_every_pair_of_strength_and_threshold(
    run: Program,
    models: dict[str, str],
    relevance: pathlib.Path,
    tmp_path: pathlib.Path,
) -> None:
    options: dict[str, Any] = {
        "method": "direction",
        "steps": None,
        "directions": relevance,
        "templates": tmp_path / "templates.txt",
        "neutral": "dog",
        "alpha": "-2,1.5",
        "beta": "0.05,0.1",
        "seeds": "0-2",
        "film_frames": 2,
        "film_format": "mp4",
    }
    code, out, _ = run(edit, **options)
    assert code == 0, out
    folder = tmp_path / "out"
    original, edited = (
        _styles(folder / f"{name}.npz") for name in ("original", "edited")
    )
    assert original.shape == edited.shape == (12, original.shape[1])
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
    pairs = [(0.05, -2), (0.05, 1.5), (0.1, -2), (0.1, 1.5)]
    assert [(line["beta"], line["alpha"]) for line in lines] == pairs * 3
    assert [line["seed"] for line in lines] == [i for i in range(3) for _ in pairs]
    # The same from the library.
    network, words = loading.load_clip(models["clip"])
    table, _ = loading.read_relevance(
        relevance, loading.Models(**models), tiny.generator(), network
    )
    text = global_directions.text_direction(
        network, words, "dog", "cat", ["a {}", "the {}"]
    )
    found = global_directions.relevance_for(table, text)
    for index, (beta, alpha) in enumerate(pairs):
        direction = global_directions.make_direction(found, beta)
        expected = original[index::4] + alpha * np.asarray(direction.delta)
        np.testing.assert_allclose(edited[index::4], expected, atol=1e-5)
    with av.open(str(folder / "films" / "000011.mp4")) as film:
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert len(frames) == 3
    picture = np.asarray(Image.open(folder / "images" / "000011.png"))
    # Colours are stored at half of the resolution.
    assert np.abs(picture.astype(int) - frames[-1]).mean() < 25
    # Nothing is left to do, and one threshold that is too large is refused.
    assert "3 of 3 latents are done" in run(edit, **options)[1]
    code, _, err = run(
        edit, **(options | {"beta": "0.05,0.99", "outdir": tmp_path / "other"})
    )
    assert code == 2
    assert "keeps 0 channels" in err
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_direction_needs_no_file(run: Program, tmp_path: pathlib.Path) -> None:
    (tmp_path / "templates.txt").write_text("a {}\n")
    code, out, _ = run(
        edit,
        method="direction",
        steps=None,
        templates=tmp_path / "templates.txt",
        neutral="dog",
        num_channels=5,
        num_samples=3,
        seeds="0",
    )
    assert code == 0
    assert "keeps 5" in out
    change = _styles(tmp_path / "out/edited.npz") - _styles(
        tmp_path / "out/original.npz"
    )
    assert np.count_nonzero(change) == 5


@pytest.mark.slow
def test_mapper_edits_as_the_library_does(
    run: Program,
    models: dict[str, str],
    tmp_path: pathlib.Path,
) -> None:
    network = tiny.mapper_network(MAPPER)
    loading.save_mapper(
        tmp_path / "mapper",
        network.params,
        MAPPER,
        prompt="a cat",
        generator=checkpoints.fingerprint(models["generator"]),
        clip="tiny",
        training={},
    )
    code, out, _ = run(
        edit,
        method="mapper",
        prompt=None,
        steps=None,
        mapper=tmp_path / "mapper",
        strength=0.01,
        seeds="0-2",
        images="npy",
    )
    assert code == 0
    assert "'a cat'" in out
    original, edited = (
        np.load(tmp_path / "out" / f"{name}.npy") for name in ("original", "edited")
    )
    expected = mapper.edit(
        Network(network.params, MAPPER), jnp.asarray(original), strength=0.01
    )
    assert np.abs(original - edited).max() > 1e-3
    np.testing.assert_allclose(edited, expected, atol=1e-5)
    generator = tiny.generator()
    wanted = stylegan2.synthesize(generator, edited)
    found = np.load(tmp_path / "out/images/000002.npy")
    np.testing.assert_allclose(found, wanted[2], atol=1e-4)


@pytest.fixture
def saved(models: dict[str, str], tmp_path: pathlib.Path) -> tuple[str, np.ndarray]:
    """A file of one random direction for the tiny generator, and the direction."""
    total = sum(layer.channels for layer in LAYOUT)
    delta = np.random.default_rng(0).normal(size=total).astype(np.float32)
    path = str(tmp_path / "direction.safetensors")
    origin = loading.Models(**models).generator_origin()
    about = {"alpha": 2}
    direction_files.write_direction(
        path, delta, layout=LAYOUT, generator=origin, about=about
    )
    return path, delta


def test_a_saved_direction_needs_no_text(
    run: Program,
    saved: tuple[str, np.ndarray],
    tmp_path: pathlib.Path,
) -> None:
    path, delta = saved
    options: dict[str, Any] = {
        "method": "direction",
        "steps": None,
        "prompt": None,
        "clip": None,
        "direction": path,
        "alpha": "-2,1.5",
        "seeds": "0-1",
    }
    code, out, _ = run(edit, **options)
    assert code == 0
    assert "saved with alpha 2" in out
    original, edited = (
        _styles(tmp_path / f"out/{name}.npz") for name in ("original", "edited")
    )
    alpha = np.array([-2, 1.5, -2, 1.5])[:, None]
    np.testing.assert_allclose(edited, original + alpha * delta, atol=1e-5)
    code, _, err = run(edit, **(options | {"prompt": "cat", "outdir": "other"}))
    assert (code, err.count("\n")) == (2, 1)
    assert "--prompt: is of no use with --direction" in err


def test_an_expression_moves_along_files_and_channels(
    run: Program,
    saved: tuple[str, np.ndarray],
    tmp_path: pathlib.Path,
) -> None:
    path, delta = saved
    step = np.random.default_rng(1).normal(size=(1, 12)).astype(np.float32)
    np.save(tmp_path / "age.npy", step)
    options: dict[str, Any] = {
        "method": "direction",
        **dict.fromkeys(("steps", "prompt", "clip")),
        "direction": f"'{path}' - 0.5*'{tmp_path}/age.npy'@1-2",
        "alpha": "2",
        "seeds": "0-1",
    }
    # The second run finds everything done.
    for _ in range(2):
        code, out, _ = run(edit, **options)
        assert code == 0
    assert "age.npy, in W, moves rows 0 to 3 of 4" in out
    moved = np.zeros((1, 4, 12), np.float32)
    moved[:, 1:3] = step
    generator = tiny.generator()
    ends = [
        np.concatenate(stylegan2.to_styles(generator, x), axis=1)
        for x in (moved, 0 * moved)
    ]
    original, edited = (
        _styles(tmp_path / f"out/{name}.npz") for name in ("original", "edited")
    )
    expected = original + 2 * (delta - 0.5 * (ends[0] - ends[1]))
    np.testing.assert_allclose(edited, expected, atol=1e-5)
    record = json.loads((tmp_path / "out/run.json").read_text())
    assert record["flags"]["direction"] == options["direction"]
    hashes = {f"direction {path}", f"direction {tmp_path}/age.npy"}
    assert {x for x in record["inputs"] if x.startswith("direction")} == hashes
    np.save(tmp_path / "age.npy", -step)
    code, _, err = run(edit, **options)
    assert (code, err.count("\n")) == (2, 1)
    assert "is of a run with direction " in err


def test_a_channel_moves_alone(run: Program, tmp_path: pathlib.Path) -> None:
    options: dict[str, Any] = {
        "method": "direction",
        **dict.fromkeys(("steps", "prompt", "clip")),
        "channel": "3:7",
        "alpha": "-2,2",
        "seeds": "0-1",
    }
    code, out, _ = run(edit, **options)
    assert code == 0
    assert "direction: channel 7 of b8/conv1, standard deviation" in out
    original, edited = (
        _styles(tmp_path / f"out/{name}.npz") for name in ("original", "edited")
    )
    moved = edited - original
    place = sum(layer.channels for layer in LAYOUT[:3]) + 7
    assert np.flatnonzero(np.abs(moved).max(axis=0)).tolist() == [place]
    np.testing.assert_allclose(moved[1::2], -moved[::2], atol=1e-6)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"direction": "a.npy - "},
            "--direction: expected a file, a number or layer:channel at character 9",
        ),
        ({"direction": "absent.pt"}, "absent.pt: no such file"),
        ({"direction": ""}, "at character 1 of '', found the end"),
        ({"channel": "3"}, "--channel: expected layer:channel, such as 6:501"),
        ({"channel": "9:1"}, "channel 9:1: expected a layer from 0 to 4 or one of"),
        ({"channel": "3:1", "direction": "a.npy"}, "expected one, found both"),
        (
            {"channel": "3:1", "neutral": "cat"},
            "--neutral: is of no use with --channel",
        ),
        ({"channel": "3:1", "method": "mapper"}, "--channel: is a flag of --method"),
    ],
)
def test_a_wrong_direction_gets_one_line(
    run: Program, tmp_path: pathlib.Path, options: dict[str, Any], expected: str
) -> None:
    defaults = {"method": "direction", **dict.fromkeys(("steps", "prompt", "clip"))}
    before = sorted(tmp_path.rglob("*"))
    code, _, err = run(edit, **(defaults | options))
    assert (code, err.count("\n")) == (2, 1), err
    assert expected in err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"method": "direction", "alpha": "strong"}, "--alpha"),
        ({"method": "direction", "neutral": " "}, "--neutral"),
        ({"method": "direction", "neutral": "cat"}, "--neutral and prompt"),
        ({"method": "direction", "directions": "absent"}, "absent: no such file"),
        ({"method": "direction", "templates": "absent"}, "absent"),
        ({"method": "direction", "num_channels": 3, "beta": "0.1"}, "found both"),
        ({"method": "direction", "directions": "file", "num_samples": 3}, "no use"),
        ({"method": "direction", "strength": 0.2}, "--strength: is a flag of"),
        ({"method": "direction", "steps": 3}, "--steps: is a flag of"),
        ({"method": "optimization", "alpha": "3"}, "--alpha: is a flag of"),
        ({"method": "mapper"}, "--mapper"),
        ({"method": "mapper", "mapper": "absent"}, "absent"),
        ({"paste": True, "method": "optimization"}, "--paste"),
        ({"paste_mask": "face", "method": "optimization"}, "expected --paste with"),
        ({"id_lambda": 0.1, "method": "optimization"}, "--id_lambda"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_bad_input_gets_one_line_and_leaves_nothing(
    run: Program,
    relevance: pathlib.Path,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    if options["method"] == "direction":
        options = {"directions": relevance, "templates": "templates.txt"} | options
    before = sorted(tmp_path.rglob("*"))
    code, _, err = run(edit, **({"steps": None} | options))
    assert code == 2
    assert err.count("\n") == 1, err
    assert expected in err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_edited_faces_return_into_their_photos(
    run: Program,
    tmp_path: pathlib.Path,
) -> None:
    config = tiny.STYLEGAN3.replace(kernel_size=1, resolution=32, output_scale=2.0)
    folder = tiny.write(tmp_path / "r", "stylegan3", tiny.generator(config))
    photo = np.full((60, 80, 3), 90, np.uint8)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    quads = square(20, 30, 20), square(57, 30, 20, 30)
    faces = [{"file": str(tmp_path / "photo.png"), "quad": q.tolist()} for q in quads]
    (tmp_path / "aligned.json").write_text(json.dumps({"faces": faces}))
    np.save(tmp_path / "w_plus.npy", tiny.w_plus(2, config))
    asked = {"latents": tmp_path / "w_plus.npy", "paste": True, "generator": folder}
    asked |= CHANNEL
    code, _, err = run(edit, **asked, paste_mask="face")
    assert code == 2
    assert "--paste_mask: expected faces with an outline, found none of" in err
    code, _, err = run(edit, **asked)
    assert code == 0, err

    def read(name: str) -> np.ndarray:
        return np.asarray(Image.open(tmp_path / "out" / name)).astype(int)

    first, second = (read(f"pasted/00000{row}.png") for row in (0, 1))
    assert first.shape == photo.shape
    images = [read(f"images/00000{row}.png").astype(np.uint8) for row in (0, 1)]
    np.testing.assert_array_equal(first, align.paste(photo, images[0], quads[0]))
    np.testing.assert_array_equal(second[:, :40], 90)
    # One that is turned is generated so, and is what a warp makes but for its blur.
    middle = np.s_[24:37, 51:64]
    warped = align.paste(photo, images[1], quads[1])[middle]
    assert 0 < np.abs(second[middle] - warped).max() <= 6
    upright = align.paste(photo, images[1], square(57, 30, 20))[middle]
    assert np.abs(second[middle] - upright).max() > 30
    # Another picture has both faces.
    both = read("pasted/together/000000.png")
    np.testing.assert_array_equal(both[:, :40], first[:, :40])
    np.testing.assert_array_equal(both[:, 40:], second[:, 40:])
