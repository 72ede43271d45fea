"""Conversion of relevance: the official arrays become our file or are refused."""

import pathlib
import pickle

import numpy as np
import pytest

from convert import __main__
from styleclip_jax import spaces
from styleclip_jax.io import direction_files
from styleclip_jax.methods import global_directions
from styleclip_jax.models import stylegan2

OURS = direction_files.Origin("ours", "a" * 64)


# Conversion


def official_files(
    folder: pathlib.Path, rows: int, channels: tuple[int, ...]
) -> tuple[pathlib.Path, np.ndarray, list[np.ndarray]]:
    folder.mkdir(exist_ok=True)
    random, layout = np.random.RandomState(0), spaces.style_layout(channels)
    relevance = random.randn(rows, 6).astype(np.float32)
    std = [random.rand(x.channels).astype(np.float32) for x in layout]
    np.save(folder / "fs3.npy", relevance)
    with (folder / "S_mean_std").open("wb") as file:
        pickle.dump([[0 * x for x in std], std], file)
    return folder / "fs3.npy", relevance, std


FFHQ = stylegan2.GeneratorConfig().channels


@pytest.mark.parametrize(
    ("rows", "channels", "layers"),
    [(6048, FFHQ, 17), (5376, FFHQ, 11), (28, (10, 8), 3)],
)
def test_official_files_convert(tmp_path, rows, channels, layers) -> None:
    path, relevance, std = official_files(tmp_path / "npy", rows, channels)
    output = tmp_path / "out"
    assert __main__.main(["convert", str(path), f"--output={output}"]) == 0
    layout = spaces.style_layout(channels)
    found = direction_files.read_relevance(
        output / "relevance.safetensors",
        layout=layout,
        generator=OURS,
        clip=OURS,
        embed_dim=6,
    )
    np.testing.assert_array_equal(found.rows, relevance)
    np.testing.assert_array_equal(found.std, np.concatenate(std))
    assert len(found.layers) == layers
    table = global_directions.expand(found.rows, found.std, found.layers, layout)
    assert np.count_nonzero(table.table.any(1)) == rows


def test_official_files_that_do_not_fit_are_refused(tmp_path, capsys) -> None:
    path, *_ = official_files(tmp_path / "npy", 6000, FFHQ)
    statistics = path.with_name("S_mean_std")

    def refusal() -> str:
        argv = ["convert", str(path), f"--output={tmp_path / 'out'}"]
        assert __main__.main([*argv, "--kind=global_directions"]) == 2
        assert not (tmp_path / "out").exists()
        return capsys.readouterr().err

    assert "expected 5376 or 6048 rows" in (message := refusal())
    assert "found 6000" in message
    statistics.write_bytes(pickle.dumps([[np.ones(3)], [np.ones(3)]]))
    assert "expected style vectors of StyleGAN2" in refusal()
    statistics.write_bytes(pickle.dumps({"mean": 1}))
    assert "expected lists of means and deviations" in refusal()
    statistics.write_bytes(pickle.dumps(print))
    assert "nothing was run" in refusal()
    statistics.unlink()
    assert "expected S_mean_std beside it" in refusal()
