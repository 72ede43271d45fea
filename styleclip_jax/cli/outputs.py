"""Output folders: what was run is written down, and runs go on where they stopped."""

import importlib.metadata
import json
import os
import pathlib
import platform
from collections.abc import Mapping, Sequence
from typing import Any, Self

import jax
import numpy as np
from absl import flags
from numpy.lib import format as npy

import styleclip_jax
from styleclip_jax import spaces
from styleclip_jax.errors import UserError
from styleclip_jax.io import files, images, latents
from styleclip_jax.models import stylegan2

# Flags that say where and how fast, not what.
_NEUTRAL_FLAGS = ("outdir", "batch_size")
_PACKAGES = ("jax", "flax", "optax", "transformers", "numpy")


def define(values: flags.FlagValues, *, outdir: str, grid: int) -> None:
    """Defines the flags of every program that writes images."""
    flags.DEFINE_string("outdir", outdir, "Folder for the results.", flag_values=values)
    flags.DEFINE_enum(
        "images",
        "png",
        images.FORMATS,
        "Format of the images; npy is float32 in [-1, 1], for exact work.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "grid",
        grid,
        "Number of latents on the sheet grid.png, 0 for no sheet.",
        lower_bound=0,
        flag_values=values,
    )
    flags.DEFINE_integer(
        "batch_size", 8, "Latents per batch.", lower_bound=1, flag_values=values
    )


def begin(
    program: str,
    values: flags.FlagValues,
    inputs: Mapping[str, str],
    *,
    folder: str = "outdir",
    neutral: Sequence[str] = _NEUTRAL_FLAGS,
) -> pathlib.Path:
    """Opens the folder of a run: writes run.json, or checks the one that is there.

    Args:
      program: name of the program.
      values: parsed flags.
      inputs: hash (or name) of each input.
      folder: flag that names the folder.
      neutral: flags that may differ when a run goes on.

    Returns:
      The folder.

    Raises:
      UserError: the folder holds another run, or files and no run, or cannot be
        written.
    """
    outdir = pathlib.Path(str(values[folder].value))
    record = {
        "program": program,
        "flags": {
            name: values[name].value
            for name in sorted(values)
            if name not in neutral and not name.startswith("help")
        },
        "inputs": dict(inputs),
    }
    path = outdir / "run.json"
    if path.exists():
        _refuse_differences(folder, path, files.read_json(path), record)
        return outdir
    if outdir.exists() and (not outdir.is_dir() or any(outdir.iterdir())):
        raise UserError(
            f"--{folder}: expected a new or empty folder, or that of a run, found "
            f"{outdir} with other contents"
        )
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    versions |= {
        "styleclip_jax": styleclip_jax.__version__,
        "python": platform.python_version(),
    }
    device = jax.devices()[0]
    files.write_json(
        path,
        record
        | {
            "versions": versions,
            "devices": f"{jax.device_count()} × {device.device_kind}",
        },
    )
    return outdir


class Journal:
    """The results of a run, on disk as they are made.

    `metrics.jsonl` has a line per latent that is done; latents go into partial files
    beside it, which get their names when all is done.
    """

    def __init__(
        self,
        outdir: pathlib.Path,
        count: int,
        space: str,
        config: stylegan2.GeneratorConfig,
        image_format: str,
        names: Sequence[str] = ("original", "edited"),
    ) -> None:
        """Opens the run in `outdir`, which may have some or all of its results.

        Args:
          outdir: folder of the run.
          count: number of latents, N.
          space: "w_plus" or "s".
          config: of the generator.
          image_format: one of `images.FORMATS`.
          names: of the files of latents.
        """
        self.outdir = outdir
        self._space, self._config, self._format = space, config, image_format
        suffix = ".npz" if space == "s" else ".npy"
        self.paths = {n: outdir / (n + suffix) for n in names}
        self._partial = {n: outdir / f".{n}.partial.npy" for n in self.paths}
        self._metrics = outdir / "metrics.jsonl"
        self.lines: dict[int, dict[str, Any]] = {}
        self._arrays: dict[str, np.memmap] = {}
        # A run may have been killed between the two renames at its end.
        final = {name for name, path in self.paths.items() if path.exists()}
        resumed = all(n in final or self._partial[n].exists() for n in self.paths)
        if resumed:
            self._read_metrics()
        channels = sum(layer.channels for layer in config.style_layout)
        shape = (channels,) if space == "s" else (config.num_rows, config.w_dim)
        for name in self.paths.keys() - final:
            self._arrays[name] = npy.open_memmap(
                self._partial[name],
                "r+" if resumed else "w+",
                np.float32,
                (count, *shape),
            )
        self._writer = images.Writer()

    def write(
        self,
        rows: Sequence[int],
        image: np.ndarray,
        lines: Sequence[dict[str, Any]],
        **latent: np.ndarray,
    ) -> None:
        """Stores a batch: images [B, H, W, 3], metrics, latents by name [B, …]."""
        if self._format != "none":
            for row, picture in zip(rows, image, strict=True):
                name = f"{row:06d}.{self._format}"
                self._writer.submit(self.outdir / "images" / name, picture)
        for name, batch in latent.items():
            self._arrays[name][list(rows)] = batch
            self._arrays[name].flush()
        self._writer.flush()
        # The line comes last: it says that everything else of the latent is there.
        with self._metrics.open("a") as file:
            for row, line in zip(rows, lines, strict=True):
                self.lines[row] = line
                file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def finish(self) -> None:
        """Gives the latents their names; every latent must be written."""
        for name, array in self._arrays.items():
            if self._space == "s":
                flat = latents.Latents(array, "s")
                latents.write(self.paths[name], flat, self._config.style_layout)
                self._partial[name].unlink()
            else:
                self._partial[name].replace(self.paths[name])
        self._arrays = {}

    def read(self, name: str, count: int) -> Any:
        """The first latents of this name, S as a tuple; once finished."""
        if self._space == "s":
            flat = np.load(self.paths[name])["styles"][:count]
            return spaces.unflatten_styles(flat, self._config.style_layout)
        return np.load(self.paths[name], mmap_mode="r")[:count]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._writer.__exit__(*error)  # type: ignore[arg-type]

    def _read_metrics(self) -> None:
        """Reads the lines of an earlier run and cuts off one that is incomplete."""
        if not self._metrics.exists():
            return
        content = self._metrics.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            os.truncate(self._metrics, len(whole))
        for text in whole.splitlines():
            line = json.loads(text)
            self.lines[line["index"]] = line


def _refuse_differences(
    folder: str, path: pathlib.Path, found: dict[str, Any], record: dict[str, Any]
) -> None:
    if found.get("program") != record["program"]:
        raise UserError(
            f"--{folder}: {path} is of {found.get('program')}, expected another folder "
            f"for {record['program']}"
        )
    for part, prefix in (("flags", "--"), ("inputs", "")):
        before, now = found.get(part, {}), record[part]
        for name in sorted(before.keys() | now.keys()):
            if before.get(name) != now.get(name):
                raise UserError(
                    f"--{folder}: {path} is of a run with {prefix}{name}="
                    f"{before.get(name)}, found {now.get(name)}; use the same flags to "
                    "go on with it, or another folder"
                )
