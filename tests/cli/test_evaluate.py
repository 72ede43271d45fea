"""styleclip-evaluate: tables, judge, Table 2, zero-shot classification, refusals."""

import csv
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from styleclip_jax import latents, loading, spaces
from styleclip_jax.cli import evaluate
from styleclip_jax.errors import UserError
from styleclip_jax.evaluation import edit_sets, measuring, metrics, planning
from styleclip_jax.io import checkpoints, plots, tables
from styleclip_jax.methods import mapper
from styleclip_jax.models import clip, clip_input
from styleclip_jax.models.network import Network
from styleclip_jax.toy import attributes, judge
from tests import programs, tiny
from tests.cli.edit_folders import write_edits
from tests.programs import Program

LAYOUT = tiny.GENERATOR.style_layout
CHANNELS = sum(layer.channels for layer in LAYOUT)


@pytest.fixture
def run(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> Program:
    """Runs the program and returns its exit code, stdout and stderr."""

    def call(**options: Any) -> tuple[int, str, str]:
        options = {"outdir": tmp_path / "out"} | options
        argv = ["styleclip-evaluate"]
        argv += [f"--{name}={value}" for name, value in options.items()]
        code = programs.run(evaluate, argv)
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def optimized(models: dict[str, str], tmp_path: pathlib.Path) -> str:
    """Four edits in W+, of which one is not finite."""
    w_plus = np.array(tiny.w_plus(4))
    edited = w_plus + 0.3 * np.array(tiny.normal(8, *w_plus.shape))
    edited[2] = np.nan
    lines = [{}, {}, {"failed_at": 7}, {}]
    return write_edits(
        tmp_path / "optimized",
        w_plus,
        edited,
        lines,
        generator=models["generator"],
        clip_name=models["clip"],
        method="optimization",
    )


@pytest.fixture
def directed(models: dict[str, str], tmp_path: pathlib.Path) -> str:
    """Three latents in S, each with two strengths."""
    styles = np.repeat(np.array(tiny.normal(9, 3, CHANNELS)), 2, axis=0)
    alphas = np.array([-1.0, 2.0] * 3, np.float32)
    step = np.array(tiny.normal(10, CHANNELS))
    return write_edits(
        tmp_path / "directed",
        styles,
        styles + alphas[:, None] * step,
        [{"alpha": float(a), "beta": 0.15} for a in alphas],
        generator=models["generator"],
        clip_name=models["clip"],
        method="direction",
    )


def rows_of(folder: pathlib.Path) -> list[dict[str, Any]]:
    return json.loads((folder / "edits.json").read_text())["rows"]


def test_each_prompt_and_strength_has_a_row(
    run: Program, optimized: str, directed: str, models: dict[str, str], tmp_path
) -> None:
    (tmp_path / "pairs.txt").write_text("a dog | a cat\n a red dog|a blue dog\n")
    (tmp_path / "labels.txt").write_text("a dog\na cat\n")
    code, out, _ = run(
        edits=f"{optimized},{directed}",
        pairs=tmp_path / "pairs.txt",
        zero_shot=tmp_path / "labels.txt",
        batch_size=2,
    )
    assert code == 0
    rows = rows_of(tmp_path / "out")
    assert [row["strength"] for row in rows] == [
        "l2 0.008",
        "alpha -1, beta auto",
        "alpha 2, beta auto",
    ]
    assert [row["failed"] for row in rows] == [1, 0, 0]
    # The last batch is not full.
    assert all(row["metrics"]["clip_score"]["n"] == 3 for row in rows)
    _, backward, forward = (row["metrics"] for row in rows)
    assert forward["latent_distance"]["mean"] == pytest.approx(
        2 * backward["latent_distance"]["mean"], rel=1e-5
    )
    assert forward["direction_consistency"]["mean"] == pytest.approx(1, abs=1e-5)
    # Images of 8² are too small for MS-SSIM, and no identity network is known.
    assert not {"ms_ssim", "identity_similarity"} & forward.keys()
    for found in (backward, forward):
        for name in ("clip_score", "target_gain", "pixel_l1", "latent_distance"):
            value = found[name]
            assert value["low"] - 1e-5 <= value["mean"] <= value["high"] + 1e-5
        ratio = found["target_gain"]["mean"] / found["change_elsewhere"]["mean"]
        assert found["disentanglement"]["mean"] == pytest.approx(ratio, rel=1e-4)
        # The target pair is the two labels.
        gain = found["after: a cat"]["mean"] - found["before: a cat"]["mean"]
        assert found["target_gain"]["mean"] == pytest.approx(gain, abs=1e-5)
    with (tmp_path / "out" / "edits.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == sum(len(row["metrics"]) for row in rows)
    chosen = [
        x for x in lines if x["metric"] == "pixel_l2" and x["strength"][:2] == "l2"
    ]
    expected = rows[0]["metrics"]["pixel_l2"]["mean"]
    assert float(chosen[0]["mean"]) == pytest.approx(expected)
    # The only CLIP is the one that was optimised, and that is said.
    assert all(row["clip_was_optimized"] for row in rows)
    assert "3 of 3 rows are by the CLIP that was optimised" in out
    assert (tmp_path / "out" / "edits.md").read_text().strip() in out


def test_targets_go_to_folders_or_to_their_prompts(
    models: dict[str, str], optimized: str, tmp_path: pathlib.Path
) -> None:
    styles = np.zeros((4, CHANNELS), np.float32)
    several = write_edits(
        tmp_path / "several",
        styles,
        styles,
        [
            {"prompt": prompt, "alpha": alpha, "beta": 0.1}
            for prompt in ("a cat", "a dog")
            for alpha in (1.0, 2.0)
        ],
        generator=models["generator"],
        clip_name=models["clip"],
        method="direction",
    )
    folders = [edit_sets.read(folder) for folder in (optimized, several)]

    def targets(*texts: str) -> list[str]:
        return [str(x) for x in planning.targets_of(texts, folders)]

    sad, smile, beard = "mouth:sad", "mouth:smile", "facial_hair:beard"
    assert targets(sad) == [sad] * 5
    assert targets(sad, "") == [sad] + ["None"] * 4
    assert targets(sad, smile, beard) == [sad, smile, smile, beard, beard]
    with pytest.raises(UserError, match="2 for the folders or 3 for their prompts"):
        targets(sad, smile, beard, sad)


def shown(flat: np.ndarray) -> jax.Array:
    """Images of flat styles, as people see them."""
    styles = spaces.unflatten_styles(jnp.asarray(flat), LAYOUT)
    return jnp.clip(latents.render(tiny.generator(), styles), -1, 1)


@pytest.mark.slow
def test_metrics_are_those_of_the_library(
    run: Program, directed: str, models: dict[str, str], tmp_path
) -> None:
    assert run(edits=directed, neutral="a cow")[0] == 0
    row = rows_of(tmp_path / "out")[1]
    network, words = loading.load_clip(models["clip"])
    neutral, prompt = clip.encode_prompts(network, words, ["a cow", "a cat"])
    folder = pathlib.Path(directed)
    before, after = (
        shown(np.load(path)["styles"][1::2])
        for path in (folder / "original.npz", folder / "edited.npz")
    )
    a, b = (measuring.encode_images(network, image) for image in (before, after))
    for name, expected in (
        ("clip_score", metrics.clip_score(b, prompt)),
        ("clip_score_before", metrics.clip_score(a, prompt)),
        (
            "directional_similarity",
            metrics.directional_similarity(a, b, neutral, prompt),
        ),
        ("pixel_l1", metrics.pixel_l1(before, after)),
    ):
        assert row["metrics"][name]["mean"] == pytest.approx(
            float(expected.mean()), abs=1e-4
        )
        assert row["metrics"][name]["std"] == pytest.approx(
            float(expected.std(ddof=1)), abs=1e-4
        )


@pytest.mark.slow
def test_another_clip_is_not_the_one_that_was_optimised(
    run: Program, optimized: str, models: dict[str, str], tmp_path
) -> None:
    path = pathlib.Path(optimized, "run.json")
    record = json.loads(path.read_text())
    record["inputs"]["clip"] = "of another file"
    path.write_text(json.dumps(record))
    code, out, _ = run(edits=optimized, clip=models["clip"])
    assert code == 0
    assert rows_of(tmp_path / "out")[0]["clip_was_optimized"] is False
    assert "flatters" not in out


@pytest.mark.slow
def test_judge_finds_targets_in_edits_and_not_in_random_steps(
    run: Program, tmp_path
) -> None:
    generator = loading.load_generator()
    config = generator.config
    random = np.random.RandomState(0)
    z = jnp.asarray(random.randn(6, config.z_dim), jnp.float32)
    w = np.asarray(
        latents.convert(
            generator, z, space="z", truncation_psi=1.0, cutoff=None, to="w_plus"
        )
    )
    found = judge.predict(judge.load(), jnp.clip(latents.render(generator, w), -1, 1))
    glasses = np.asarray(found["glasses"])
    target = int(np.bincount(glasses).argmax())
    donor = int(np.flatnonzero(glasses == target)[0])
    # Every latent becomes the donor; its neighbours keep what they share with it.
    edited = np.repeat(w[donor : donor + 1], 6, axis=0)
    folder = write_edits(
        tmp_path / "donor",
        w,
        edited,
        [{}] * 6,
        generator=None,
        clip_name=None,
        layout=config.style_layout,
        method="optimization",
        prompt="a face with glasses",
    )
    value = list(attributes.ATTRIBUTES["glasses"])[target]
    code, out, _ = run(edits=folder, target=f"glasses:{value}", batch_size=6)
    assert code == 0
    assert "By the judge" in out
    (row,) = rows_of(tmp_path / "out")
    shares = {name: x["mean"] for name, x in row["metrics"].items()}
    assert shares["judge_before"] == pytest.approx((glasses == target).mean())
    assert shares["judge_after"] == 1
    assert row["metrics"]["judge_after"]["low"] == 1
    before = {name: np.asarray(x) for name, x in found.items()}
    after = {name: np.repeat(x[donor], 6) for name, x in before.items()}
    kept = judge.kept(before, after, "glasses")
    assert shares["kept"] == pytest.approx(kept.mean())
    gain = shares["judge_after"] - shares["judge_before"]
    assert shares["judge_disentanglement"] == pytest.approx(
        gain / (1 - kept.mean()), rel=1e-4
    )
    # Steps anywhere change less of a face than steps to another face.
    assert shares["kept_random"] > shares["kept"]
    assert 0 < shares["fd_judge_random"] < shares["fd_judge"]
    assert shares["kd_judge_random"] < shares["kd_judge"]
    distance = row["metrics"]["fd_judge"]
    assert (distance["n"], distance["low"]) == (6, None)
    assert shares["identity_similarity"] <= 1
    assert 0 < shares["ms_ssim"] < 1
    with Image.open(tmp_path / "out" / "frontier.png") as picture:
        assert picture.size == (960, 640)


def test_random_steps_are_as_long_and_in_the_same_rows() -> None:
    delta = np.array(tiny.normal(0, 5, 4, 6))
    delta[:, 1] = 0
    mask = edit_sets.moved(delta, LAYOUT)
    assert mask.shape == (4, 6)
    steps = measuring.random_step(delta, np.arange(5), mask=mask, seed=0)
    np.testing.assert_allclose(
        metrics.latent_distance(steps, 0 * steps),
        metrics.latent_distance(delta, 0 * delta),
        rtol=1e-5,
    )
    assert (steps[:, 1] == 0).all()
    assert (steps[:, 0] != 0).all()
    # They belong to the row, not to the batch.
    alone = measuring.random_step(delta[3:4], np.array([3]), mask=mask, seed=0)
    np.testing.assert_array_equal(alone[0], steps[3])
    # In S whole style vectors count: a sparse edit still has all of its layer.
    sparse = np.zeros((2, CHANNELS), np.float32)
    sparse[:, 0] = 1
    assert edit_sets.moved(sparse, LAYOUT).sum() == LAYOUT[0].channels


def test_mapper_similarity_is_table_2(
    run: Program, models: dict[str, str], tmp_path
) -> None:
    config = mapper.MapperConfig(levels=("coarse",), w_dim=12, num_layers=1)
    networks = [tiny.mapper_network(config)]
    networks.append(
        networks[0].replace(params=jax.tree.map(lambda x: x[::-1], networks[0].params))
    )
    names = []
    for i, network in enumerate(networks):
        names.append(str(tmp_path / f"mapper{i}"))
        loading.save_mapper(
            names[-1],
            network.params,
            config,
            prompt=f"prompt {i}",
            generator=checkpoints.fingerprint(models["generator"]),
            clip="any",
            training={},
        )
    w_plus = tiny.w_plus(5)
    np.save(tmp_path / "w_plus.npy", w_plus)
    code, out, _ = run(
        tables="mapper_similarity",
        mapper=",".join(names),
        generator=models["generator"],
        latents=tmp_path / "w_plus.npy",
    )
    assert code == 0
    found = json.loads((tmp_path / "out" / "mapper_similarity.json").read_text())
    steps = jnp.stack(
        [
            latents.flatten(mapper.apply(Network(x.params, config), w_plus))
            for x in networks
        ]
    )
    expected = mapper.similarity(steps)
    assert [x["prompt"] for x in found["mappers"]] == ["prompt 0", "prompt 1"]
    for name in ("mean", "std"):
        values = [x[name] for x in found["mappers"]]
        np.testing.assert_allclose(values, getattr(expected, name), atol=1e-5)
    np.testing.assert_allclose(found["between"], expected.between, atol=1e-5)
    assert found["between"][0][1] < 0.99
    assert f"| prompt 1 | {expected.mean[1]:.3f} |" in out


@pytest.mark.slow
def test_images_are_classified_by_text(
    run: Program, models: dict[str, str], tmp_path
) -> None:
    labels = ["a dog", "a cat", "a cow"]
    (tmp_path / "labels.txt").write_text("\n".join(labels))
    (tmp_path / "photos").mkdir()
    random = np.random.RandomState(0)
    pixels = random.randint(0, 256, (3, 9, 14, 3)).astype(np.uint8)
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / "photos" / f"{i}.png")
    code, *_ = run(
        images=tmp_path / "photos",
        zero_shot=tmp_path / "labels.txt",
        clip=models["clip"],
        batch_size=2,
    )
    assert code == 0
    text = (tmp_path / "out" / "zero_shot.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    network, words = loading.load_clip(models["clip"])
    config = network.config
    prepared = clip_input.preprocess_clip_uint8(
        Network({}, config), jnp.asarray(pixels)
    )
    feature = clip.encode_image(Network(network.params, config), prepared)
    expected = metrics.zero_shot(
        network, feature, clip.encode_prompts(network, words, labels)
    )
    for line, row in zip(lines, np.asarray(expected), strict=True):
        np.testing.assert_allclose(list(line["probabilities"].values()), row, atol=1e-4)
        assert line["label"] == labels[row.argmax()]


def test_plot_places_points_by_their_values() -> None:
    low, high = plots.Point(0.0, 0.0, "weak"), plots.Point(1.0, 2.0, "strong")
    picture = plots.draw(
        [plots.Curve("one", [low, high])], x_label="identity", y_label="gain"
    )
    pixels = np.asarray(picture)
    color = (pixels == plots._COLORS[0]).all(axis=-1)
    # Below the legend: the curve starts at the lower left and ends at the upper right.
    rows, columns = np.nonzero(color[:, 150:])
    assert rows[columns.argmin()] > 450
    assert rows[(columns + 150 < 900) & (columns > 650)].min() < 120
    axis = plots._Axis.around([0.0, 1.0], 0, 100)
    captions = [caption for _, caption in axis.ticks()]
    assert captions == ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]
    # One point alone has an axis too.
    plots.draw([plots.Curve("one", [low])], x_label="x", y_label="y")


def test_numbers_that_are_not_finite_are_empty(tmp_path) -> None:
    value = {"a": float("nan"), "b": [float("inf"), 1.5]}
    path = tables.write_json(tmp_path / "x.json", value)
    assert json.loads(path.read_text()) == {"a": None, "b": [None, 1.5]}
    path = tables.write_csv(tmp_path / "x.csv", ["a", "b"], [{"a": float("nan")}])
    assert path.read_text() == "a,b\n,\n"
    assert tables.markdown(["x"], [["a|b"]]) == "| x |\n| --- |\n| a\\|b |\n"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "--edits: expected folders of styleclip-edit"),
        ({"edits": "absent"}, "absent"),
        ({"edits": "EDITS,photos"}, "photos/run.json"),
        ({"edits": "unfinished"}, "expected a finished run"),
        ({"edits": "EDITS", "target": "hair:red"}, "--target: expected ATTRIBUTE"),
        ({"edits": "EDITS", "target": "mouth:wide"}, "found 'wide'"),
        ({"edits": "EDITS", "target": "mouth:sad,mouth:sad"}, "expected one, 1 for"),
        ({"edits": "EDITS", "target": "mouth:sad"}, "the judge knows drawn faces"),
        ({"edits": "EDITS", "generator": "other"}, "expected the generator of"),
        ({"edits": "EDITS", "pairs": "labels.txt"}, "expected TEXT | TEXT"),
        ({"tables": "magic"}, "--tables"),
        ({"tables": "mapper_similarity"}, "--mapper"),
        ({"images": "photos"}, "--zero_shot"),
        ({"images": "photos", "zero_shot": "labels.txt"}, "photos: expected .png"),
        ({"images": "a.tar", "zero_shot": "labels.txt"}, "tar -xf unpacks shards"),
        ({"images": "labels.txt", "zero_shot": "absent.txt"}, "absent.txt"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_bad_input_gets_one_line_and_leaves_nothing(
    run: Program,
    optimized: str,
    models: dict[str, str],
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    pathlib.Path("photos").mkdir()
    pathlib.Path("labels.txt").write_text("a dog\na cat\n")
    pathlib.Path("a.tar").touch()
    pathlib.Path("unfinished").mkdir()
    pathlib.Path("unfinished/run.json").write_text('{"program": "styleclip-edit"}')
    other = tiny.generator()
    checkpoints.save_network(
        "other",
        kind="stylegan2",
        params={
            **other.params,
            "mapping": {
                **other.params["mapping"],
                "w_avg": 1 + other.params["mapping"]["w_avg"],
            },
        },
        config=other.config,
        source={},
    )
    before = sorted(tmp_path.rglob("*"))
    filled = {
        name: str(value).replace("EDITS", optimized) for name, value in options.items()
    }
    code, _, err = run(**filled)
    message = err.strip().split("\n")
    assert code == 2
    assert len(message) == 1, err
    assert expected in message[0]
    assert sorted(tmp_path.rglob("*")) == before
