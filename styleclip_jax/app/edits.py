"""Edits of the page: one face at a time, by the settings of the sliders.

A `Room` holds a session, mappers and relevance. Everything else is a value or a
function of values, so that several people can use one room.
"""

import collections
import dataclasses
import functools
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from PIL import Image

from styleclip_jax import loading, losses, optimizers, spaces
from styleclip_jax.editing import directing, estimation, inverter
from styleclip_jax.editing.directing import DirectionConfig
from styleclip_jax.editing.faces import Faces
from styleclip_jax.editing.prompts import Prompts
from styleclip_jax.editing.session import Session
from styleclip_jax.errors import UserError
from styleclip_jax.io import direction_files, images, latent_files, text_files
from styleclip_jax.methods import global_directions, mapper, optimization
from styleclip_jax.methods.inversion import InversionConfig
from styleclip_jax.models.network import Network
from styleclip_jax.photos import align, crops, photo_files
from styleclip_jax.progress import Report

MAX_STEPS = 1000

# Seconds between two pictures of an optimization.
_SHOW_EVERY = 0.5
_INVERSION = InversionConfig()


class Settings(NamedTuple):
    """Settings of an optimization; other values compile nothing new.

    Attributes:
      steps: number of steps, 1 to `MAX_STEPS`.
      learning_rate: peak learning rate.
      l2_lambda: weight of the squared distance to the source latent.
      id_lambda: weight of the identity distance to the source image.
    """

    steps: int = 300
    learning_rate: float = 0.1
    l2_lambda: float = 0.008
    id_lambda: float = 0.0


class Edited(NamedTuple):
    """Edited face, and how it was edited.

    Attributes:
      face: a single face, after the edit.
      about: line on the edit for people.
      direction: direction of one unit of α; None where the edit has none.
      note: note on the direction, for its file.
    """

    face: Faces
    about: str
    direction: global_directions.Direction | None = None
    note: dict[str, Any] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Room:
    """Room: the networks that all visitors of the page share.

    Attributes:
      session: loaded networks, on one device, since a face alone has no use for more.
      mappers: mappers by the prompt that they were trained for.
      relevance: relevance of all channels for all texts; None to estimate it for each
        pair of texts.
      num_samples: number of samples of that estimate.
    """

    session: Session
    mappers: Mapping[str, Network] = dataclasses.field(default_factory=dict)
    relevance: global_directions.Relevance | None = None
    num_samples: int = 16

    @property
    def layout(self) -> tuple[spaces.StyleLayer, ...]:
        """Layout of S."""
        return self.session.generator.config.style_layout

    @functools.cached_property
    def origin(self) -> direction_files.Origin:
        """Origin of directions: the generator that they are for."""
        return self.session.models.generator_origin()

    @functools.cached_property
    def samples(self) -> estimation.Samples:
        """Samples that relevance is estimated from."""
        session, config = self.session, estimation.configure(self.num_samples)
        return estimation.draw_samples(
            session.generator, config, session.mesh, label=session.label
        )

    @functools.cached_property
    def inverter(self) -> inverter.Inverter:
        """Inverter of photos."""
        return self.session.inverter(_INVERSION)[0]

    @property
    def num_inversion_steps(self) -> int:
        """Number of steps of the inversion of a photo."""
        return inverter.count_steps(_INVERSION, self.session.encoder)


def open_room(
    models: loading.Models,
    *,
    mappers: Sequence[str] = (),
    directions: str | None = None,
    num_samples: int = 16,
) -> Room:
    """Opens a room: loads all networks and files that are named.

    Args:
      models: names of the networks.
      mappers: model directories of mappers.
      directions: file of channel relevance, None to estimate it.
      num_samples: number of samples of the estimate.

    Raises:
      UserError: a network or file does not fit.
    """
    session = Session(models, devices=jax.local_devices()[:1])
    config = session.generator.config
    named = {
        loading.mapper_prompt(path) or pathlib.Path(path).name: models.load_mapper(
            path, config
        )
        for path in mappers
    }
    relevance = None
    if directions is not None:
        relevance, _ = loading.read_relevance(
            directions, models, session.generator, session.clip
        )
    room = Room(session, named, relevance, num_samples)
    # Networks are loaded now, so that errors come before the page is there.
    for name in ("generator", "label", "clip", "identity", "encoder", "templates"):
        getattr(session, name)
    return room


def draw(room: Room, seed: int, truncation_psi: float) -> Faces:
    """Draws the face of a seed, as styleclip-generate makes it.

    Raises:
      UserError: the seed is out of range.
    """
    if not 0 <= seed < 2**32:
        raise UserError(f"seed: expected 0 to {2**32 - 1}, found {seed}")
    return room.session.sample(seed, truncation_psi=truncation_psi)


def invert_photo(
    room: Room, path: str, *, find_face: bool, report: Report
) -> tuple[Faces, str]:
    """Inverts the face that a photo shows, and says how it was found in the photo.

    Args:
      room: networks.
      path: file of the photo, whatever its name.
      find_face: whether to crop a face as in FFHQ; without it, or without a face, the
        largest square in the middle is the face.
      report: is told of steps, `num_inversion_steps` in all.

    Raises:
      UserError: the file is no photo, or one that cannot be inverted.
    """
    name, session = pathlib.Path(path).name, room.session
    try:
        photo = photo_files.read(path)
    except UserError as error:
        # The folder of an upload concerns nobody.
        raise UserError(str(error).replace(str(path), name)) from None
    if isinstance(session.encoded_size, tuple):
        quad, found = None, "used as it is"
    else:
        photo, quad, found = _frame(photo, find_face)
    crop = crops.cut(
        photo,
        quad,
        resolution=session.generator.config.resolution,
        encoded_size=session.encoded_size,
    )
    result = room.inverter(jax.tree.map(lambda x: x[None], crop), report)
    if int(result.failed_at[0]) >= 0 or not np.isfinite(result.latent).all():
        raise UserError(f"{name}: the inversion did not stay finite")
    return session.faces(result.latent, [name]), found


def _frame(
    photo: np.ndarray, find_face: bool
) -> tuple[np.ndarray, np.ndarray | None, str]:
    """Photo or its middle, square of the face in it, and how the face was found."""
    if find_face:
        try:
            faces = align.detect(photo)
            found = "no face was found, its middle is used"
        except UserError:
            faces = []
            found = "no face detector (the extra align), its middle is used"
        if faces:
            return photo, align.quad(align.largest(faces)), "the face was aligned"
    else:
        found = "used as it is"
    height, width, _ = photo.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return photo[top : top + side, left : left + side], None, found


def measure(
    room: Room, neutral: str, target: str, report: Report
) -> global_directions.TextRelevance:
    """Relevance of every channel for a pair of texts.

    Args:
      room: networks, perhaps with relevance for all texts.
      neutral: text that the direction leads away from.
      target: text that the direction leads to.
      report: is told of the samples that are done, `room.num_samples` in all.

    Raises:
      UserError: a text is missing or too long, or CLIP sees no difference.
    """
    texts = Prompts((_text("target text", target),))
    config = DirectionConfig(
        neutral=_text("neutral text", neutral), num_samples=room.num_samples
    )
    (text,) = directing.text_directions(room.session.loaded, texts, config.neutral)
    if room.relevance is not None:
        return global_directions.relevance_for(room.relevance, text)
    how = estimation.configure(room.num_samples)
    networks = room.session.networks()
    return estimation.estimate(networks, room.samples, text, how, report=report)


class Relevances:
    """Cache of relevance for the last pairs of texts, shared by all visitors."""

    def __init__(self, room: Room, capacity: int = 64) -> None:
        self._room, self._capacity = room, capacity
        self._found: collections.OrderedDict[
            tuple[str, str], global_directions.TextRelevance
        ] = collections.OrderedDict()

    def find(
        self, neutral: str, target: str, report: Report
    ) -> global_directions.TextRelevance:
        """Relevance for a pair of texts, measured unless it is known; see `measure`."""
        pair = (text_files.clean(neutral), text_files.clean(target))
        found = self._found.pop(pair, None)
        if found is None:
            found = measure(self._room, *pair, report)
        self._found[pair] = found
        while len(self._found) > self._capacity:
            self._found.popitem(last=False)
        return found


_direction = jax.jit(global_directions.make_direction)
_count_kept = jax.jit(global_directions.count_kept)


def move(
    room: Room,
    face: Faces,
    relevance: global_directions.TextRelevance,
    alpha: float,
    beta: float,
) -> tuple[Edited, int]:
    """Moves a face along a direction; also gives the number of its channels.

    Only arrays change between calls, so that a slider compiles nothing.
    """
    threshold = jnp.float32(beta)
    direction = _direction(relevance, threshold)
    kept = int(_count_kept(relevance, threshold))
    # Without strength there is no edit, and the face stays in W+.
    moved = room.session.move(face, direction, alpha).after if alpha else face
    note = {"alpha": alpha, "beta": beta, "channels": kept}
    about = f"α {alpha:g}, β {beta:.3g}, {kept} channels"
    return Edited(moved, about, direction, note), kept


def warm_up(room: Room) -> None:
    """Compiles drawing and moving, so that the first edit is as fast as the others."""
    face = draw(room, 0, 1.0)
    size = sum(layer.channels for layer in room.layout)
    nothing = global_directions.TextRelevance(
        jnp.zeros(size),
        jnp.zeros(size),
        global_directions.select_layers(room.layout, "all"),
        room.layout,
    )
    move(room, face, nothing, 1.0, 0.0)


def beta_for(relevance: global_directions.TextRelevance, num_channels: int) -> float:
    """Threshold β, to four decimals, that keeps so many channels or barely more.

    Raises:
      UserError: fewer channels were measured.
    """
    exact = global_directions.beta_for(relevance, num_channels)
    return float(np.floor(exact * 1e4) / 1e4)


def sheet(
    room: Room,
    face: Faces,
    relevance: global_directions.TextRelevance,
    alphas: Sequence[float],
    counts: Sequence[int],
) -> Image.Image:
    """Sheet of a face at several strengths and numbers of channels.

    Raises:
      UserError: fewer channels were measured.
    """

    def image(alpha: float, beta: float) -> np.ndarray:
        return move(room, face, relevance, alpha, beta)[0].face.images[0]

    betas = [beta_for(relevance, count) for count in counts]
    return images.grid(
        [np.stack([image(alpha, beta) for alpha in alphas]) for beta in betas],
        row_labels=[f"{count} channels" for count in counts],
        column_labels=[f"alpha {alpha:g}" for alpha in alphas],
    )


def map_face(room: Room, face: Faces, name: str, strength: float) -> Edited:
    """Edits a face by a mapper.

    Raises:
      UserError: there is no such mapper, or the face is not in the mapper's space.
    """
    if name not in room.mappers:
        raise UserError(
            f"mapper: expected one of {', '.join(room.mappers) or 'none'}, "
            f"found {name!r}",
            field="mapper",
        )
    network = room.mappers[name]
    in_s = network.config.space == "s"
    if not in_s and face.space == "s":
        raise UserError(
            "this mapper edits in W+, and the start was edited in S: draw or upload one"
        )
    source = room.session.to_styles(face) if in_s else face.latent
    latent = _map(network, source, jnp.float32(strength))
    return Edited(
        room.session.faces(latent, face.names), f"{name}, strength {strength:g}"
    )


@jax.jit
def _map(network: Network, latent: Any, strength: jax.Array) -> Any:
    """Latents edited by a mapper."""
    return mapper.edit(network, latent, strength=strength)


def optimize(
    room: Room, face: Faces, prompt: str, settings: Settings
) -> Iterator[tuple[int, Edited]]:
    """Optimizes a face towards a text: in W+, or in S where it is not in W+.

    Returns:
      Iterator over the number of steps done and the face so far, about twice a second
      and at the end. It raises a UserError where the loss is not finite.

    Raises:
      UserError: a setting is wrong.
    """
    text = _text("prompt", prompt)
    if not 1 <= settings.steps <= MAX_STEPS:
        raise UserError(f"steps: expected 1 to {MAX_STEPS}, found {settings.steps}")
    if min(settings) < 0 or not np.isfinite(settings).all():
        raise UserError("learning rate and weights: expected numbers of at least 0")
    if settings.id_lambda and room.session.identity is None:
        raise UserError("identity: expected a network of it for this generator")
    (feature,) = room.session.encode(text)
    return _steps(room, face, text, feature, settings)


def _steps(
    room: Room, face: Faces, text: str, feature: jax.Array, settings: Settings
) -> Iterator[tuple[int, Edited]]:
    """Steps of `optimize`, after its settings were checked."""
    session = room.session
    latent = jax.tree.map(lambda x: jnp.asarray(x[0]), face.latent)
    networks = session.networks(identity=session.identity is not None)
    static = {"space": face.space, "use_identity": settings.id_lambda > 0}
    state = _start(networks, latent, feature, settings, **static)
    shown = time.monotonic()
    for done in range(1, settings.steps + 1):
        state = _step(networks, state, settings, **static)
        # Without waiting, steps would be queued sooner than pictures are due.
        jax.block_until_ready(state)
        last = done == settings.steps
        if not last and time.monotonic() - shown < _SHOW_EVERY:
            continue
        if int(state.failed_at) >= 0:
            raise UserError(f"the loss was not finite at step {int(state.failed_at)}")
        total = float(state.history["total"][done - 1])
        batch = jax.tree.map(lambda x: x[None], state.latent)
        about = f"{text}: step {done} of {settings.steps}, loss {total:.4f}"
        yield done, Edited(session.faces(batch, face.names), about)
        shown = time.monotonic()


def _text(name: str, text: str) -> str:
    cleaned = text_files.clean(text)
    if not cleaned:
        raise UserError(f"{name}: expected a text, found none")
    return cleaned


def _problem(
    space: str, settings: Settings, use_identity: bool
) -> optimization.Problem:
    """Official problem with settings that may be traced."""
    problem = optimization.official(optimization.OptimizationConfig(space=space))
    objective = {**problem.objective, "l2": (settings.l2_lambda, losses.latent_l2)}
    if use_identity:
        objective["identity"] = (settings.id_lambda, losses.identity_distance)
    rate = optimizers.ramped(settings.learning_rate, settings.steps)
    return problem._replace(
        objective=objective, optimizer=optax.adam(rate), steps=MAX_STEPS
    )


@functools.partial(jax.jit, static_argnames=("space", "use_identity"))
def _start(
    networks: losses.Networks,
    latent: Any,
    text: jax.Array,
    settings: Settings,
    *,
    space: str,
    use_identity: bool,
) -> optimization.State:
    problem = _problem(space, settings, use_identity)
    return optimization.start(networks, latent, text, problem=problem)


@functools.partial(
    jax.jit, static_argnames=("space", "use_identity"), donate_argnames="state"
)
def _step(
    networks: losses.Networks,
    state: optimization.State,
    settings: Settings,
    *,
    space: str,
    use_identity: bool,
) -> optimization.State:
    problem = _problem(space, settings, use_identity)
    return optimization.step(networks, state, problem=problem)


def save(room: Room, edited: Edited, folder: pathlib.Path) -> list[pathlib.Path]:
    """Writes image, latent and, where there is one, direction into a folder.

    Returns:
      Paths of edited.png, edited.npy (W+) or edited.npz (S), and
      direction.safetensors.
    """
    face = edited.face
    suffix = ".npz" if face.space == "s" else ".npy"
    paths = [folder / "edited.png", folder / f"edited{suffix}"]
    images.write(paths[0], face.images[0])
    found = latent_files.Latents(face.latents, face.space)
    latent_files.write(paths[1], found, room.layout)
    if edited.direction is not None:
        paths.append(folder / "direction.safetensors")
        room.session.save_direction(edited.direction, paths[2], **(edited.note or {}))
    return paths
