"""Export of one edit as one file that runs without this package.

The file holds the program that `jax.export` makes, for any number of latents, on CPUs,
GPUs and TPUs. It takes W+ latents [N, L, D] float32 and returns {"image": [N, H, W, 3]
in [-1, 1], "latent": W+ or flat S}. Weights are inside of the file, or beside it in an
.npz file. The arrays of the latter, as a dict, are then the program's first argument.
"""

import functools
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from styleclip_jax import latents
from styleclip_jax.batch.editor import Editor
from styleclip_jax.errors import UserError
from styleclip_jax.io import files
from styleclip_jax.models import generators
from styleclip_jax.models.network import Network
from styleclip_jax.settings.output import ExportRequest

PLATFORMS = ("cpu", "cuda", "tpu")


def write(request: ExportRequest, editor: Editor, generator: Network) -> list[str]:
    """Writes the edit of an editor as a program.

    Args:
      request: file to write.
      editor: editor with one setting.
      generator: generator of the images.

    Returns:
      Lines on what was written.

    Raises:
      UserError: there are several edits, or the file cannot be written.
    """
    if len(editor.settings) > 1:
        raise UserError(
            "export: expected one edit, with one prompt and one alpha and beta, "
            f"found {len(editor.settings)}",
            field="export",
            also=["alpha", "beta"],
        )
    path, frozen = pathlib.Path(str(request.export)), editor.freeze()
    # Weights are on the host, so that the program is not tied to these devices.
    tree = jax.device_get((generator, frozen.weights))
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    arrays = {
        jax.tree_util.keystr(key, simple=True, separator="/"): np.asarray(leaf)
        for key, leaf in leaves
    }

    def run(given: dict[str, Any], w_plus: jax.Array) -> dict[str, jax.Array]:
        every = arrays | given
        generator, rest = jax.tree.unflatten(structure, [every[n] for n in arrays])
        batch: Any = w_plus
        if editor.space == "s":
            batch = generators.to_styles(generator, w_plus)
        made = frozen.apply(generator, rest, batch)
        return {"image": made.image, "latent": latents.pack(made.latent["edited"])}

    (count,) = export.symbolic_shape("n")
    shape = (count, generator.config.num_rows, generator.config.w_dim)
    w_plus = jax.ShapeDtypeStruct(shape, jnp.float32)
    lines = []
    if request.export_weights == "inside":
        program = _export(functools.partial(run, {}), w_plus)
    else:
        used = _used(_export(run, arrays, w_plus), arrays)
        program = _export(run, used, w_plus)
        beside = pathlib.Path(f"{path}.npz")
        with files.new_file(beside) as temporary:
            np.savez(temporary, **used)  # type: ignore[arg-type]
        lines.append(f"weights: {beside}")
    with files.new_file(path) as temporary:
        temporary.write_bytes(program.serialize())
    lines.append(
        f"program: {path}, W+ [N, {shape[1]}, {shape[2]}] to images and {editor.space}"
    )
    return lines


def _export(function: Callable[..., Any], *arguments: Any) -> export.Exported:
    return export.export(jax.jit(function), platforms=PLATFORMS)(*arguments)


def _used(
    program: export.Exported, weights: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Weights that the program reads; a text encoder is not among them."""
    # Dicts are flattened in the order of their keys.
    kept = {sorted(weights)[i] for i in program.module_kept_var_idx[:-1]}
    return {name: array for name, array in weights.items() if name in kept}
