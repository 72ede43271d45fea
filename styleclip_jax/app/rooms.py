"""Room of the page: the networks that all visitors share, and faces to start from.

Everything else is a value or a function of values, so that several people can use one
room.
"""

import dataclasses
import functools
import math
import pathlib
import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image

from styleclip_jax import latents, loading, spaces
from styleclip_jax.app.tunings import Tunings
from styleclip_jax.batch.tuned import changed
from styleclip_jax.editing import estimation, inverter, searching
from styleclip_jax.editing.session import Session
from styleclip_jax.editing.tuning import Tuner
from styleclip_jax.errors import UserError
from styleclip_jax.io import direction_files, images, text_files
from styleclip_jax.methods import global_directions, strength
from styleclip_jax.methods.inversion import InversionConfig
from styleclip_jax.models import clip
from styleclip_jax.models.network import Network
from styleclip_jax.ops import norms, pixels
from styleclip_jax.settings.tuning import TuningConfig

# Labels of the page's fields, which messages name.
SEED, NEUTRAL, PROMPT, STRENGTH = "Seed", "Away from", "Towards", "Strength (α)"
SELECTIVITY, CHANNELS, MAPPER = "Selectivity (β)", "Channels", "Mapper"
STEPS, RATE, STAY, IDENTITY = "Steps", "Learning rate", "Stay close", "Keep identity"
# Seeds of the faces to choose from.
SEEDS = tuple(range(8))
TRUNCATION_PSI = 0.7
# Width of the largest picture that is small: its pixels are shown as squares, and
# without loss.
SMALL = 256

_MAX_SEED = 2**32 - 1
_INVERSION = InversionConfig()
_THUMBNAIL = 96


class Face(NamedTuple):
    """Face, or several, to edit.

    Attributes:
      latent: [B, L, D] W+, or a tuple of [B, C] styles.
      name: name for people, such as "seed 3".
      tuned: number of the generator that is tuned to its photo; None for that of the
        room.
    """

    latent: Any
    name: str
    tuned: int | None = None

    @property
    def space(self) -> str:
        """Latent space, w_plus or s."""
        return "s" if isinstance(self.latent, tuple) else "w_plus"


@dataclasses.dataclass(frozen=True, eq=False)
class Room:
    """Room: the networks that all visitors of the page share.

    Attributes:
      session: loaded networks, on one device, since a face alone has no use for more.
      mappers: mappers by the prompt that they were trained for, or their folder.
      untold: names of the mappers whose prompt is not known.
      relevance: relevance of all channels for all texts; None to estimate it for each
        pair of texts.
      num_samples: number of samples of that estimate.
      max_pixels: largest number of pixels of a photo.
      tuning: settings of the tuning of generators to photos; no steps for none.
      tunings: generators that are tuned to photos.
      heavy: lock of heavy work, which is done for one visitor at a time.
    """

    session: Session
    mappers: Mapping[str, Network] = dataclasses.field(default_factory=dict)
    untold: frozenset[str] = frozenset()
    relevance: global_directions.Relevance | None = None
    num_samples: int = 16
    max_pixels: int = images.MAX_PIXELS
    tuning: TuningConfig = dataclasses.field(default_factory=TuningConfig)
    tunings: Tunings = dataclasses.field(default_factory=Tunings)
    heavy: threading.Lock = dataclasses.field(default_factory=threading.Lock)

    @property
    def generator(self) -> Network:
        """Generator."""
        return self.session.generator

    @property
    def layout(self) -> tuple[spaces.StyleLayer, ...]:
        """Layout of S."""
        return self.generator.config.style_layout

    @property
    def is_embedded(self) -> bool:
        """Whether the generator is the embedded one."""
        return self.origin.name == "embedded"

    @property
    def is_small(self) -> bool:
        """Whether pictures are small."""
        return self.generator.config.resolution <= SMALL

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
    def seen(self) -> jax.Array:
        """Features of random faces, which tell how well a face fits a text."""
        return jax.block_until_ready(searching.look_around(self.session.loaded))

    @functools.cached_property
    def inverter(self) -> inverter.Inverter:
        """Inverter of photos."""
        return self.session.inverter(_INVERSION)[0]

    @property
    def num_inversion_steps(self) -> int:
        """Number of steps of the inversion of a photo."""
        return inverter.count_steps(_INVERSION, self.session.encoder)

    @property
    def can_tune(self) -> bool:
        """Whether generators can be tuned: there are steps, and a network that sees."""
        models = self.session.models
        sees = models.lpips is not None or models.has_identity
        return bool(self.tuning.tune_steps) and sees

    @functools.cached_property
    def tuner(self) -> Tuner:
        """Tuner of the generator to photos."""
        return self.session.tuner(self.tuning)

    def generator_of(self, tuned: int | None) -> Network:
        """Generator of a face, by the number of its tuning.

        Raises:
          UserError: the tuning is no longer kept.
        """
        if tuned is None:
            return self.generator
        return changed(self.generator, self.tunings.find(tuned), self.session.mesh)

    def aim(self, text: str) -> strength.Aim:
        """Aim of a search for the strength that makes a text fit."""
        return _aim(self.seen, norms.unit_by_rsqrt(self.session.encode(text)[0]))

    def to_styles(self, latent: Any, tuned: int | None = None) -> spaces.Styles:
        """Styles, a tuple of [B, C], of latents in W+ or S; see `generator_of`."""
        space = "s" if isinstance(latent, tuple) else "w_plus"
        return latents.convert(
            self.generator_of(tuned),
            latent,
            space=space,
            truncation_psi=1.0,
            cutoff=None,
            to="s",
        )

    def render(self, latent: Any, tuned: int | None = None) -> np.ndarray:
        """Images [B, H, W, 3] of 8 bits, of latents that share a generator.

        Raises:
          UserError: an image has a value that is not finite, or the tuning is no longer
            kept.
        """
        count = len(jax.tree.leaves(latent)[0])
        found = [] if tuned is None else [self.tunings.find(tuned)] * count
        image = self.session.render(latent, found)
        if not np.isfinite(image).all():
            raise UserError(f"{STRENGTH}: expected a smaller one, the picture is lost")
        return pixels.to_uint8(image)

    def check_text(self, name: str, text: str) -> str:
        """Text without blanks around it.

        Args:
          name: label of its field.
          text: what stands in the field.

        Raises:
          UserError: there is none, or CLIP cannot read all of it.
        """
        cleaned = text_files.clean(text or "")
        if not cleaned:
            raise UserError(f"{name}: expected a text such as “a smiling face”")
        session = self.session
        longest = max(session.templates, key=len).replace("{}", cleaned)
        try:
            clip.tokenize(session.clip, session.tokenizer, [longest])
        except UserError:
            raise UserError(
                f"{name}: expected a text that CLIP reads to its end, some 40 words at "
                f"most, found {len(cleaned)} letters"
            ) from None
        return cleaned


_aim = jax.jit(strength.aim_at)


def open_room(
    models: loading.Models,
    *,
    mappers: Sequence[str] = (),
    directions: str | None = None,
    num_samples: int = 16,
    max_pixels: int = images.MAX_PIXELS,
    tuning: TuningConfig | None = None,
    max_tuned: int = 2**30,
) -> Room:
    """Opens a room: loads all networks and files that are named.

    Args:
      models: names of the networks; an encoder brings its own generator, if none is
        named.
      mappers: model directories of mappers.
      directions: file of channel relevance, None to estimate it.
      num_samples: number of samples of the estimate.
      max_pixels: largest number of pixels of a photo.
      tuning: settings of the tuning of generators to photos; None for none.
      max_tuned: bytes of the tuned generators that are kept.

    Raises:
      UserError: a network or file does not fit.
    """
    models = models.with_decoder()
    session = Session(models, devices=jax.local_devices()[:1])
    config = session.generator.config
    named, untold = {}, set()
    for path in mappers:
        name = loading.mapper_prompt(path)
        if name is None:
            name = pathlib.Path(path).name
            untold.add(name)
        named[name] = models.load_mapper(path, config)
    relevance = None
    if directions is not None:
        relevance, _ = loading.read_relevance(
            directions, models, session.generator, session.clip
        )
    room = Room(
        session,
        named,
        frozenset(untold),
        relevance,
        num_samples,
        max_pixels,
        tuning or TuningConfig(),
        Tunings(max_tuned),
    )
    # Networks are loaded now, so that errors come before the page is there.
    for name in ("generator", "label", "clip", "identity", "encoder", "templates"):
        getattr(session, name)
    if room.can_tune and models.lpips is not None:
        _ = room.tuner
    return room


def draw(room: Room, seed: float, truncation_psi: float = TRUNCATION_PSI) -> Face:
    """Draws the face of a seed, as styleclip-generate makes it.

    Raises:
      UserError: the seed is no whole number, or out of range.
    """
    if not (math.isfinite(seed) and 0 <= seed <= _MAX_SEED and seed == int(seed)):
        raise UserError(
            f"{SEED}: expected a whole number from 0 to {_MAX_SEED}, found {seed:.15g}"
        )
    found = room.session.sample(int(seed), truncation_psi=truncation_psi)
    return Face(found.latent, found.names[0])


def thumbnails(room: Room) -> list[Image.Image]:
    """Small pictures of the faces to choose from."""
    found = room.session.sample(SEEDS, truncation_psi=TRUNCATION_PSI)
    return [thumbnail(image) for image in pixels.to_uint8(found.images)]


def thumbnail(image: np.ndarray) -> Image.Image:
    """Small picture of an image [H, W, 3] of 8 bits."""
    found = Image.fromarray(image)
    width, height = (_THUMBNAIL * n // max(found.size) for n in found.size)
    return found.resize((max(1, width), max(1, height)))


def warm_up(room: Room) -> None:
    """Compiles drawing in W+ and S, so that the first slider is as fast as others."""
    room.render(room.to_styles(draw(room, SEEDS[0]).latent))
