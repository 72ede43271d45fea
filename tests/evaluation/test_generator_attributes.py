"""Attributes that a generator shows: shares as drawn, and the embedded generator's."""

import json
import pathlib

import numpy as np
import pytest

from styleclip_jax.cli import metrics
from styleclip_jax.evaluation import generator_attributes
from styleclip_jax.ops import pixels
from styleclip_jax.toy import attributes, drawing, judge
from tests import programs


def test_shares_are_those_of_what_is_drawn(faces: list[attributes.Face]) -> None:
    network, some = judge.load(), faces[:100]
    image = np.stack([drawing.draw(face, 64) for face in some])
    features = np.asarray(judge.features(network, pixels.to_float(image)))
    found = generator_attributes.shares(network, features)
    for name, table in attributes.ATTRIBUTES.items():
        hidden = attributes.HIDDEN_BY.get(name)
        shown = [x for x in some if not hidden or getattr(x, hidden[0]) != hidden[1]]
        expected = [np.mean([getattr(x, name) == v for x in shown]) for v in table]
        np.testing.assert_allclose(found[name], expected, atol=0.04, err_msg=name)
    assert generator_attributes.recall(found, found) == pytest.approx(1)


def test_a_value_that_samples_lack_costs_its_share() -> None:
    data = {"mouth": np.array([0.5, 0.3, 0.2]), "eyes": np.array([0.4, 0.6])}
    samples = {"mouth": np.array([0.7, 0.3, 0.0]), "eyes": np.array([0.4, 0.6])}
    assert generator_attributes.recall(samples, data) == pytest.approx((0.8 + 1) / 2)


@pytest.mark.slow
def test_the_embedded_generator_shows_all_that_is_frequent(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["styleclip-metrics", "--metrics=attributes", "--num_samples=96"]
    argv += [f"--outdir={tmp_path / 'out'}", "--data_cache=none"]
    assert programs.run(metrics, argv) == 0, capsys.readouterr().err
    table = json.loads((tmp_path / "out/metrics.json").read_text())
    (row,) = table["metrics"]
    assert row["metric"] == "attributes"
    assert 0.75 < row["mean"] < 1
    for name, values in attributes.ATTRIBUTES.items():
        rows = [x for x in table["attributes"] if x["attribute"] == name]
        assert [x["value"] for x in rows] == list(values)
        for part in ("samples", "data"):
            assert sum(x[part] for x in rows) == pytest.approx(1)
        assert all(x["samples"] > 0 for x in rows if x["data"] > 0.15)
    assert "| glasses | sunglasses |" in capsys.readouterr().out
