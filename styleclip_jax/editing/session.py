"""Faces of styleclip-app: where they come from and what is kept of them.

A `Studio` holds the networks, a `Face` a latent with its image. All are values, and
functions of them, so that several people can use one studio; `studio_edits` edits.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags

from styleclip_jax import latents, loading, losses, parallel, progress, spaces
from styleclip_jax.cli import invert, latent_flags
from styleclip_jax.editing import estimation
from styleclip_jax.errors import UserError
from styleclip_jax.io import direction_files, images, latent_files
from styleclip_jax.methods import global_directions, inversion
from styleclip_jax.methods.channel_relevance import RelevanceConfig
from styleclip_jax.models import bpe, stylegan2
from styleclip_jax.models.network import Network
from styleclip_jax.photos import align, crops, photo_files


class Face(NamedTuple):
    """A latent and what it shows.

    Attributes:
      name: such as "seed 3".
      w_plus: [L, D]; None for a face that was edited in S.
      styles: [S] flat.
      image: [H, W, 3] uint8.
    """

    name: str
    w_plus: np.ndarray | None
    styles: np.ndarray
    image: np.ndarray


class Edited(NamedTuple):
    """An edited face.

    Attributes:
      face: after the edit.
      about: what was done, for people.
      delta: [S] flat direction of one unit of α; None where the edit has none.
      note: what the direction is, for its file.
    """

    face: Face
    about: str
    delta: np.ndarray | None = None
    note: dict[str, Any] | None = None


@dataclasses.dataclass(frozen=True)
class Studio:
    """Networks and files, loaded once.

    Attributes:
      networks: generator, CLIP, and the identity network where there is one.
      tokenizer: of CLIP.
      templates: prompt templates of directions.
      origin: which generator it is, for files of directions.
      label: [c_dim] class of drawn faces; None for an unconditional generator.
      mappers: by the prompt that they were trained for.
      relevance: of all channels for all texts; None to estimate it for each pair.
      num_samples: samples of that estimate.
      encoder: starts the inversion of photos; None for the average latent.
    """

    networks: losses.Networks
    tokenizer: bpe.Tokenizer
    templates: Sequence[str]
    origin: direction_files.Origin
    label: jax.Array | None = None
    mappers: dict[str, Network] = dataclasses.field(default_factory=dict)
    relevance: global_directions.Relevance | None = None
    num_samples: int = 16
    encoder: Network | None = None

    @property
    def generator(self) -> Network:
        """The generator."""
        return self.networks.generator

    @property
    def layout(self) -> tuple[spaces.StyleLayer, ...]:
        """Layout of S."""
        return self.generator.config.style_layout

    @functools.cached_property
    def samples(self) -> estimation.Samples:
        """Samples that relevance is estimated from."""
        return estimation.draw_samples(
            self.generator, self.relevance_config, self._mesh, label=self.label
        )

    @functools.cached_property
    def inverter(self) -> invert.Inverter:
        """Inversion of photos."""
        sharding = parallel.over_batch(self._mesh)
        config = inversion.InversionConfig()
        return invert.inverter(self.networks, self.encoder, config, sharding)

    @property
    def relevance_config(self) -> RelevanceConfig:
        """How relevance is estimated."""
        return estimation.estimate_config(self.num_samples)

    @property
    def _mesh(self) -> jax.sharding.Mesh:
        # A face alone has no use for more devices.
        return parallel.make_mesh(jax.local_devices()[:1])


def load(values: flags.FlagValues) -> Studio:
    """The studio that the flags ask for.

    Raises:
      UserError: a flag is wrong, or its file does not fit.
    """
    directory = loading.generator_directory(values.generator)
    generator = loading.load_generator(directory)
    model, tokenizer = loading.load_clip(values.clip)
    identity = None
    if values.identity is not None or values.generator is None:
        identity = loading.load_identity(values.identity)
    networks = losses.Networks(generator, model, identity)
    origins = loading.origins(values.generator, values.clip)
    relevance = None
    if values.directions is not None:
        relevance, _ = loading.read_relevance(values.directions, networks, *origins)
    encoder = None
    if values.encoder is not None:
        encoder = loading.load_encoder(values.encoder)
        invert.check_encoder(encoder, generator)
    return Studio(
        networks=networks,
        tokenizer=tokenizer,
        templates=loading.load_templates(values.templates),
        origin=origins[0],
        label=latent_flags.one_hot_label(values, generator.config),
        mappers={
            loading.mapper_prompt(path) or pathlib.Path(path).name: loading.load_mapper(
                path, directory, generator.config
            )
            for path in values.mapper or ()
        },
        relevance=relevance,
        num_samples=values.num_samples,
        encoder=encoder,
    )


def draw(studio: Studio, seed: int, truncation_psi: float) -> Face:
    """The face of a seed, as styleclip-generate makes it.

    Raises:
      UserError: the seed is none.
    """
    if not 0 <= seed < 2**32:
        raise UserError(f"seed: expected 0 to {2**32 - 1}, found {seed}")
    z = latents.seeded_z(seed, studio.generator.config.z_dim)
    w_plus = latents.convert(
        studio.generator,
        z[None],
        space="z",
        truncation_psi=truncation_psi,
        cutoff=None,
        to="w_plus",
        label=studio.label,
    )
    return make_face(studio, f"seed {seed}", w_plus[0])


def invert_photo(
    studio: Studio, path: str, *, find_face: bool, report: progress.Report
) -> tuple[Face, str]:
    """The face that a photo shows, and how it was found in the photo.

    Args:
      studio: networks.
      path: the photo; any file whatever its name.
      find_face: crop as in FFHQ; without it, or without a face, the largest square in
        the middle is the face.
      report: is told of steps, of `count_inversion_steps`.

    Raises:
      UserError: not a photo, or one that cannot be inverted.
    """
    name = pathlib.Path(path).name
    try:
        photo = photo_files.read(path)
    except UserError as error:
        # Where an upload is kept concerns nobody.
        raise UserError(str(error).replace(str(path), name)) from None
    photo, quad, found = _frame(photo, find_face)
    encoder = studio.encoder
    crop = crops.cut(
        photo,
        quad,
        resolution=studio.generator.config.resolution,
        encoded_size=None if encoder is None else encoder.config.input_size,
    )
    batch = jax.tree.map(lambda x: x[None], crop)
    result = studio.inverter(batch, report)
    w_plus = result.latent[0]
    if int(result.failed_at[0]) >= 0 or not np.isfinite(w_plus).all():
        raise UserError(f"{name}: the inversion did not stay finite")
    return make_face(studio, name, w_plus), found


def count_inversion_steps(studio: Studio) -> int:
    """Steps of the inversion of a photo."""
    config = inversion.InversionConfig()
    return config.refine_steps + (0 if studio.encoder else config.w_steps)


def save(studio: Studio, edited: Edited, folder: pathlib.Path) -> list[pathlib.Path]:
    """Writes image, latent and, where there is one, direction into a folder.

    Returns:
      edited.png, edited.npy (W+) or edited.npz (S), and direction.safetensors.
    """
    face = edited.face
    paths = [folder / "edited.png"]
    images.write(paths[0], face.image)
    if face.w_plus is None:
        found = latent_files.Latents(face.styles[None], "s")
        paths.append(folder / "edited.npz")
    else:
        found = latent_files.Latents(face.w_plus[None], "w_plus")
        paths.append(folder / "edited.npy")
    latent_files.write(paths[1], found, studio.layout)
    if edited.delta is not None:
        paths.append(folder / "direction.safetensors")
        direction_files.write_direction(
            paths[2],
            edited.delta,
            layout=studio.layout,
            generator=studio.origin,
            about=edited.note or {},
        )
    return paths


def _frame(
    photo: np.ndarray, find_face: bool
) -> tuple[np.ndarray, np.ndarray | None, str]:
    """The photo or its middle, the square of the face in it, and what that is."""
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


def make_face(
    studio: Studio, name: str, latent: np.ndarray | jax.Array, *, space: str = "w_plus"
) -> Face:
    """The face of a latent: [L, D] in w_plus, or flat [S] in s."""
    styles = latent if space == "s" else _to_styles(studio.generator, latent)
    return Face(
        name,
        None if space == "s" else np.asarray(latent),
        np.asarray(styles),
        images.to_uint8(np.asarray(render(studio.generator, styles))),
    )


@jax.jit
def _to_styles(generator: Network, w_plus: jax.Array) -> jax.Array:
    """Flat styles [S] of one W+ latent."""
    styles = stylegan2.to_styles(generator, w_plus[None])
    return spaces.flatten_styles(styles)[0]


@jax.jit
def render(generator: Network, flat: jax.Array) -> jax.Array:
    """The image [H, W, 3] of flat styles [S]."""
    styles = spaces.unflatten_styles(flat[None], generator.config.style_layout)
    return latents.SPACES["s"].synthesize(generator, styles)[0]
