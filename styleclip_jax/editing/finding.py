"""Finding of directions: those of the generator's weights, drawn and named by CLIP."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from styleclip_jax import losses
from styleclip_jax.batch import run_folder
from styleclip_jax.editing import applying
from styleclip_jax.editing.session import Session
from styleclip_jax.errors import UserError
from styleclip_jax.io import files, images, tables, text_files
from styleclip_jax.loading import Models
from styleclip_jax.methods import direction_names, global_directions, latent_directions
from styleclip_jax.methods.global_directions import Direction
from styleclip_jax.models import generators
from styleclip_jax.ops import pixels
from styleclip_jax.progress import Listener
from styleclip_jax.settings.measures import FindConfig

PROGRAM = "styleclip-find-directions"

# Candidates for names: what is often seen to change in portraits.
TEXTS = (
    *(f"a face with {x} hair" for x in ("blonde", "black", "brown", "red", "grey")),
    *(f"a face with {x} hair" for x in ("blue", "pink", "long", "short", "curly")),
    *("a bald person", "a face with a bun", "a face with bangs"),
    *("a smiling face", "a sad face", "an angry face", "a surprised face"),
    *("a face with an open mouth", "a serious face", "a face with closed eyes"),
    *("a bearded man", "a face with a moustache", "a clean shaven face"),
    *("a person with glasses", "a person wearing sunglasses", "a person with a hat"),
    *("an old person", "a young person", "a child", "a man", "a woman"),
    *(f"a face with {x} eyes" for x in ("blue", "brown", "green")),
    *(f"a face with {x} skin" for x in ("pale", "tanned", "dark")),
    *("a face with make-up", "a face with lipstick", "a chubby face", "a thin face"),
    *("a face turned to the left", "a face turned to the right"),
    *(f"a face on a {x} background" for x in ("blue", "green", "dark", "bright")),
)
# Samples of w, for the deviation of each component.
_NUM_STATISTICS, _SEED = 10_000, 5
# Faces on the sheet, and names on each side in the table.
_NUM_SHOWN, _NUM_NAMES = 3, 3


@dataclasses.dataclass(frozen=True)
class Request:
    """Request for directions of a generator.

    Attributes:
      models: generator, CLIP, and templates of the texts.
      config: which directions, and where to.
      settings: all of this by the names of the flags, for run.json.
    """

    models: Models
    config: FindConfig
    settings: Mapping[str, Any]


def carry_out(request: Request, listener: Listener) -> list[dict[str, Any]]:
    """Writes directions, their sheet and their table.

    Args:
      request: which directions of which generator.
      listener: listener for the progress.

    Returns:
      An entry of the table for each direction: its file, its eigenvalue, and the texts
      with their scores at both ends.

    Raises:
      UserError: something asked for does not fit, or the folder is of another run.
    """
    with run_folder.only_run(request.config.outdir, listener.tell):
        return _carry_out(request, listener)


def _carry_out(request: Request, listener: Listener) -> list[dict[str, Any]]:
    config, models = request.config, request.models
    session = Session(models, listener=listener)
    generator = session.generator
    if config.num_components > generator.config.w_dim:
        raise UserError(
            f"num_components: expected at most {generator.config.w_dim}, as w is long, "
            f"found {config.num_components}",
            field="num_components",
        )
    texts = _read_texts(config.texts, listener)
    features = global_directions.encode_texts(
        session.clip, session.tokenizer, texts, session.templates
    )
    layout = generator.config.style_layout
    layers = global_directions.select_layers(layout, config.layers)
    faces = session.sample(config.seeds)
    factors, directions = _factorize(session, layers, config.num_components)
    inputs = models.fingerprints("generator", "clip")
    for name, path in (("texts", config.texts), ("templates", models.templates)):
        if path is not None:
            inputs[name] = files.hash_file(path)
    outdir = run_folder.begin(
        config.outdir,
        program=PROGRAM,
        settings={**request.settings, **models.record()},
        inputs=inputs,
        tell=listener.tell,
    )
    styles = session.to_styles(faces)
    networks = session.networks()
    rows, entries = [], []
    quicker = "fewer num_components, seeds or texts"
    with listener.long_bar(len(directions), "direction", quicker) as report:
        for number, direction in enumerate(directions):

            def both(batch: Any, _: np.ndarray, along: Direction = direction) -> Any:
                return _ends(networks, batch, along, config.alpha)

            low, high, movement = applying.in_batches(session.mesh, styles, both)
            score = np.asarray(direction_names.scores(jnp.asarray(movement), features))
            entry: dict[str, Any] = {
                "file": f"sefa-{number:02}.safetensors",
                "eigenvalue": round(float(factors.value[number]), 4),
                "minus": _best(texts, -score),
                "plus": _best(texts, score),
            }
            session.save_direction(
                direction,
                outdir / entry["file"],
                layers=config.layers,
                minus=entry["minus"][0]["text"],
                plus=entry["plus"][0]["text"],
            )
            entries.append(entry)
            # Copies, since a slice would keep the images of all faces in memory.
            shown = [x[:_NUM_SHOWN].copy() for x in (low, faces.images, high)]
            rows.append([x for three in zip(*shown, strict=True) for x in three])
            report(1)
    tables.write_json(outdir / "directions.json", {"directions": entries})
    table = tables.markdown(("direction", "eigenvalue", "−", "+"), _cells(entries))
    tables.write_text(outdir / "directions.md", table)
    captions = [f"−{config.alpha:g} σ", "0", f"+{config.alpha:g} σ"]
    sheet = images.grid(
        rows,
        row_labels=[
            f"{number}\n− {_scored(entry['minus'][:1])}\n+ {_scored(entry['plus'][:1])}"
            for number, entry in enumerate(entries)
        ],
        column_labels=captions * (len(rows[0]) // 3),
        title=f"Directions of the weights, layers: {config.layers}; named by CLIP",
    )
    sheet_path = images.save_sheet(outdir / "grid.png", sheet)
    listener.tell(table.rstrip("\n"))
    listener.tell(f"directions: {pathlib.Path(outdir) / 'sefa-*.safetensors'}")
    listener.tell(f"sheet: {sheet_path}")
    return entries


def _read_texts(path: str | None, listener: Listener) -> Sequence[str]:
    """Texts of a file, at least two, or the candidates of this module."""
    if path is None:
        return TEXTS
    texts = text_files.read_lines(path, "texts", tell=listener.tell)
    if len(texts) < 2:
        raise UserError(f"{path}: expected two texts or more, found {len(texts)}")
    return texts


def _factorize(
    session: Session, layers: tuple[int, ...], count: int
) -> tuple[latent_directions.Factors, list[Direction]]:
    """Factors, and the directions of the first; 1 is a standard deviation of w."""
    generator, label = session.generator, session.label
    z = np.random.RandomState(_SEED).randn(_NUM_STATISTICS, generator.config.z_dim)
    if label is not None:
        label = jnp.broadcast_to(label, (len(z), *label.shape))
    w = jax.jit(generators.map_latents)(generator, jnp.float32(z), label)
    factors = jax.jit(latent_directions.factorize, static_argnums=1)(generator, layers)
    factors = jax.device_get(factors)
    spread = np.std(np.asarray(w) @ factors.step.T, axis=0)
    layout = generator.config.style_layout
    directions = []
    for step, sigma in zip(factors.step[:count], spread[:count], strict=True):
        delta = latent_directions.in_layers(jnp.asarray(step * sigma), layout, layers)
        directions.append(latent_directions.to_direction(generator, delta))
    return factors, directions


@jax.jit
def _ends(
    networks: losses.Networks, styles: Any, direction: Direction, alpha: float
) -> Any:
    low, high, movement = direction_names.ends(networks, styles, direction, alpha)
    return pixels.to_uint8(low), pixels.to_uint8(high), movement


def _best(texts: Sequence[str], score: np.ndarray) -> list[dict[str, Any]]:
    order = np.argsort(-score, kind="stable")[:_NUM_NAMES]
    return [{"text": texts[i], "score": round(float(score[i]), 4)} for i in order]


def _scored(names: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f"{name['text']} {name['score']:.2f}" for name in names)


def _cells(entries: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    return [
        [x["file"], f"{x['eigenvalue']:.1f}", _scored(x["minus"]), _scored(x["plus"])]
        for x in entries
    ]
