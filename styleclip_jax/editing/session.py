"""Session: loaded networks, with faces and edits of them for people and programs.

  session = load()
  faces = session.sample(seeds=range(4))
  edit = session.optimize(faces, "a smiling face", steps=80, l2_lambda=0.0045)
  edit.save("outputs/smile")

Networks are loaded when they are first asked for, those that `load` is given at once.
A session adds no behaviour of its own: programs, the app and examples stand on it.
"""

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np

from styleclip_jax import loading, losses, parallel, spaces
from styleclip_jax.batch import source
from styleclip_jax.batch.editor import Editor
from styleclip_jax.batch.tuned import Generators, Tuning
from styleclip_jax.editing import (
    applying,
    directing,
    inverter,
    portraits,
    registry,
    tuning,
)
from styleclip_jax.editing.directing import DirectionConfig
from styleclip_jax.editing.faces import Edit, Faces
from styleclip_jax.editing.loaded import Loaded
from styleclip_jax.editing.prompts import Prompts
from styleclip_jax.io import direction_files, files, latent_files
from styleclip_jax.methods import global_directions
from styleclip_jax.methods.global_directions import Direction
from styleclip_jax.methods.inversion import InversionConfig
from styleclip_jax.models import clip, generators
from styleclip_jax.models.clip import Clip, Tokenizer
from styleclip_jax.models.network import Network
from styleclip_jax.photos import photo_files
from styleclip_jax.progress import SILENT, Listener
from styleclip_jax.settings.tuning import TuningConfig


class Session:
    """Session: loaded networks, and the work with them.

    Attributes:
      models: names of the networks.
      mesh: devices that batches are spread over.
      listener: listener for the progress of long work.
    """

    def __init__(
        self,
        models: loading.Models | None = None,
        *,
        devices: Sequence[jax.Device] | None = None,
        listener: Listener = SILENT,
    ) -> None:
        """Opens a session without loading anything.

        Args:
          models: names of the networks; the embedded ones if absent.
          devices: devices to spread batches over; all of this process if absent.
          listener: listener for the progress of long work.
        """
        self.models = models or loading.Models()
        self.mesh = parallel.make_mesh(devices or jax.local_devices())
        self.listener = listener

    @functools.cached_property
    def generator(self) -> generators.Generator:
        """Generator, on the devices."""
        return parallel.replicate(self.models.load_generator(), self.mesh)

    @functools.cached_property
    def label(self) -> jax.Array | None:
        """Class as a one-hot vector [c_dim], None for an unconditional generator."""
        return self.models.one_hot_label(self.generator.config)

    @functools.cached_property
    def _clip(self) -> tuple[Clip, Tokenizer]:
        return self.models.load_clip()

    @property
    def clip(self) -> Clip:
        """CLIP that encodes images and texts."""
        return self._clip[0]

    @property
    def tokenizer(self) -> Tokenizer:
        """Tokenizer of the CLIP; that of each of several."""
        return self._clip[1]

    @functools.cached_property
    def identity(self) -> Network | None:
        """Face recognition network, None if there is none for this generator."""
        found = self.models.has_identity
        return self.models.load_identity(self.generator.config) if found else None

    @functools.cached_property
    def encoder(self) -> Network | None:
        """Encoder of photos, None if none is named."""
        if self.models.encoder is None:
            return None
        return self.models.load_encoder(self.generator.config)

    @property
    def encoded_size(self) -> spaces.Size | None:
        """Input size of the encoder, or its height and width; None without one."""
        return None if self.encoder is None else self.encoder.config.photo_size

    @functools.cached_property
    def templates(self) -> list[str]:
        """Templates for the texts of directions."""
        return loading.load_templates(self.models.templates)

    def networks(self, *, identity: bool = False) -> losses.Networks:
        """Networks that losses see, on the devices, with the identity's or without."""
        found = losses.Networks(
            self.generator, self.clip, self.identity if identity else None
        )
        return parallel.replicate(found, self.mesh)

    @property
    def loaded(self) -> Loaded:
        """Loaded networks, which editors are made of."""
        return Loaded(
            models=self.models,
            generator=self.generator,
            label=self.label,
            mesh=self.mesh,
            clip=lambda: self._clip,
            identity=lambda: self.identity,
            templates=lambda: self.templates,
            listener=self.listener,
        )

    def encode(self, *texts: str) -> jax.Array:
        """Normalised CLIP features [T, E] of texts.

        Raises:
          UserError: a text is too long.
        """
        return clip.encode_prompts(self.clip, self.tokenizer, texts)

    # Faces

    def sample(
        self,
        seeds: Iterable[int] | str | int = "0-7",
        *,
        truncation_psi: float = 0.7,
        truncation_cutoff: int | None = None,
    ) -> Faces:
        """Faces of seeds, as styleclip-generate draws them.

        Args:
          seeds: seeds as numbers, or as a text such as "0-15".
          truncation_psi: truncation: 1 for none, 0 for the average.
          truncation_cutoff: number of leading rows to truncate, None for all.

        Raises:
          UserError: a seed or the truncation is out of range.
        """
        if not isinstance(seeds, str):
            numbers = [seeds] if isinstance(seeds, int) else list(seeds)
            seeds = ",".join(map(str, numbers))
        request = source.SourceRequest(seeds, None, truncation_psi, truncation_cutoff)
        return self._open(request.open(self.generator.config, default_seeds=""))

    def read(
        self,
        latents: files.Path | np.ndarray | jax.Array,
        *,
        space: str | None = None,
        truncation_psi: float = 0.7,
        truncation_cutoff: int | None = None,
        tuned: str | None = None,
    ) -> Faces:
        """Reads the faces of a file of latents, or of an array.

        Args:
          latents: file of latents, or a folder of them, or an array.
          space: latent space: z, w, w_plus or s; None tells it by the shape.
          truncation_psi: truncation of z and w; W+ and S stay as they are.
          truncation_cutoff: number of leading rows to truncate, None for all.
          tuned: folder of generators tuned to the latents of a file; None for those
            beside latents of styleclip-invert, "none" to leave them out.

        Raises:
          UserError: the latents or the tuned generators do not fit the generator.
        """
        config, path = self.generator.config, None
        if isinstance(latents, np.ndarray | jax.Array):
            array = np.asarray(latents)
            found = latent_files.interpret(array, config, space, name="latents")
        else:
            path = str(latents)
            found = latent_files.read(path, config, space)
        about = (self.models, self.generator, self.mesh)
        generators = Generators.open(*about, tuned, path, len(found.array))
        return self._open(
            source.LatentSource(
                found.space,
                range(len(found.array)),
                found.array,
                config.style_layout,
                config.z_dim,
                truncation_psi,
                truncation_cutoff,
                names=found.names,
            ),
            generators.tuned,
        )

    def invert(
        self,
        photos: files.Path | Sequence[files.Path],
        *,
        align: bool = True,
        all_faces: bool = False,
        **settings: Any,
    ) -> Faces:
        """Inverts photos into faces whose images they are; see styleclip-invert.

        Args:
          photos: a photo, a folder of photos, or several.
          align: whether to find the largest face of each and crop it as in FFHQ;
            without it photos are square crops already.
          all_faces: whether to take all faces of a photo.
          **settings: fields of `InversionConfig`, such as refine_steps, and of
            `TuningConfig`: with tune_steps the generator is tuned to each face, which
            is then drawn and edited through it.

        Raises:
          UserError: a photo cannot be read, has no face, or does not stay finite; or a
            network or the settings are wrong.
        """
        own = {x.name for x in dataclasses.fields(TuningConfig)}
        tuned = {name: settings.pop(name) for name in own & settings.keys()}
        return portraits.invert(
            self,
            photo_files.find(files.several(photos)).photos,
            align=align,
            all_faces=all_faces,
            config=InversionConfig(**settings),
            tuned=TuningConfig(**tuned),
        )

    def faces(
        self,
        latent: Any,
        names: Sequence[str],
        origins: Sequence[int] = (),
        tuned: Sequence[Tuning] = (),
    ) -> Faces:
        """Faces of latents.

        Args:
          latent: [B, L, D] W+, or a tuple of [B, C] styles.
          names: name of each face.
          origins: row that each face comes from; 0, 1, … if absent.
          tuned: tuned generator of each face; none without tuning.
        """
        latent = jax.tree.map(np.asarray, latent)
        rows = tuple(origins) or tuple(range(len(names)))
        image = self.render(latent, tuned)
        return Faces(latent, image, tuple(names), rows, tuned=tuple(tuned))

    def render(self, latent: Any, tuned: Sequence[Tuning] = ()) -> np.ndarray:
        """Renders W+ [B, L, D], or a tuple of styles [B, C], as images [B, H, W, 3].

        Args:
          latent: the latents.
          tuned: tuned generator of each; none without tuning.
        """
        return applying.render(self.loaded, latent, tuned)

    def to_styles(self, faces: Faces) -> spaces.Styles:
        """Converts faces to styles, a tuple of [B, C]."""
        return applying.to_styles(self.loaded, faces)

    # Edits

    def optimize(
        self, faces: Faces, prompt: str | Sequence[str], **settings: Any
    ) -> Edit:
        """Edits faces by latent optimization.

        Args:
          faces: faces to edit.
          prompt: text to edit towards, or several.
          **settings: fields of `OptimizationConfig`, such as steps, l2_lambda, space;
            see `editor_of`, and `editors.optimize` for parts of one's own.

        Raises:
          UserError: a setting or the prompt is wrong.
        """
        return self.edit(faces, self.optimization(prompt, **settings))

    def map(
        self, faces: Faces, mapper: files.Path | Sequence[files.Path], **settings: Any
    ) -> Edit:
        """Edits faces by a mapper, or several.

        Args:
          faces: faces to edit.
          mapper: model directories of the mappers.
          **settings: fields of `MappingConfig`: strength, levels.

        Raises:
          UserError: a mapper is of another generator, or a setting is wrong.
        """
        return self.edit(faces, self.mapping(mapper, **settings))

    def move(self, faces: Faces, direction: Direction, alpha: float = 1.0) -> Edit:
        """Moves faces along a direction: s + α·Δs.

        Another direction or α compiles nothing new.
        """
        return self.edit(faces, self.moving(direction, alpha))

    def editor_of(
        self, method: str, prompt: str | Sequence[str] | None = None, **settings: Any
    ) -> Editor:
        """Editor of a method, for `edit` and `batch.run`.

        Args:
          method: name in `registry.METHODS`, or module:NAME of one's own.
          prompt: text to edit towards, or several; None where the method reads none.
          **settings: fields of the method's configuration; also and avoid, as of
            `PromptRequest`; and further arguments of its `Method.edit`.

        Raises:
          UserError: there is no such method, or a setting or the prompt is wrong.
        """
        beside = {x: settings.pop(x) for x in ("also", "avoid") if x in settings}
        texts = Prompts.of(prompt or "", **beside) if prompt or beside else None
        config, parts = registry.configure(method, settings)
        return registry.make_editor(self.loaded, method, texts, config, **parts)

    def optimization(self, prompt: str | Sequence[str], **settings: Any) -> Editor:
        """Editor of `optimize`, for `batch.run`."""
        return self.editor_of("optimization", prompt, **settings)

    def mapping(
        self, mapper: files.Path | Sequence[files.Path], **settings: Any
    ) -> Editor:
        """Editor of `map`, for `batch.run`."""
        paths = tuple(map(str, files.several(mapper)))
        return self.editor_of("mapper", mapper=paths, **settings)

    def moving(self, direction: Direction, alpha: float = 1.0) -> Editor:
        """Editor of `move`, for `batch.run`."""
        return directing.direct_by_value(
            self.loaded, direction, alpha=alpha, title="direction"
        )

    def direction(
        self,
        prompt: str,
        *,
        neutral: str = "a face",
        beta: float | str = directing.AUTO,
        num_channels: int | None = None,
        directions: files.Path | None = None,
        num_samples: int = 16,
    ) -> Direction:
        """Global direction of a prompt: one Δs for all faces.

        Args:
          prompt: text that the direction leads to.
          neutral: text that the direction leads away from.
          beta: least relevance of a channel, or "auto".
          num_channels: number of channels in place of beta.
          directions: file of channel relevance; without it, relevance for the prompt
            is estimated.
          num_samples: number of samples of the estimate.

        Raises:
          UserError: a text or number is wrong, or the file does not fit.
        """
        config = DirectionConfig(
            neutral=neutral,
            directions=None if directions is None else str(directions),
            num_samples=num_samples,
            beta=(str(beta),),
            num_channels=num_channels,
        )
        (relevance,) = directing.relevances(self.loaded, Prompts.of(prompt), config)
        (chosen,) = directing.choose_betas(relevance, config)
        return global_directions.make_direction(relevance, chosen)

    def read_direction(self, path: files.Path) -> Direction:
        """Reads the direction of a file, or of a text such as "a.npy - 0.5*b.pt".

        Raises:
          UserError: there is no such file, or it does not fit the generator.
        """
        return directing.read(self.loaded, path)

    def save_direction(
        self, direction: Direction, path: files.Path, **about: Any
    ) -> None:
        """Writes a direction, which `read_direction` and styleclip-edit read.

        Args:
          direction: direction to write.
          path: .safetensors file to make.
          **about: notes on the direction, such as its texts.
        """
        direction_files.write_direction(
            path,
            np.asarray(direction.delta),
            layout=direction.layout,
            generator=self.models.generator_origin(),
            about=about,
        )

    def edit(self, faces: Faces, edit: Editor | Direction) -> Edit:
        """Edits faces by an editor, or along a direction.

        Raises:
          UserError: the faces are in S, and the editor edits in W+.
        """
        return applying.apply(self.loaded, faces, self.editor(edit))

    def editor(self, edit: Editor | Direction) -> Editor:
        """Editor of an edit: the edit itself, or the editor of a direction."""
        if isinstance(edit, Direction):
            return self.moving(edit)
        return edit

    def inverter(self, config: InversionConfig) -> tuple[inverter.Inverter, int]:
        """Inverter of batches of photos, and its number of steps per photo.

        Raises:
          UserError: a network is missing, or there is nothing to do.
        """
        self.models.require_identity(config.id_lambda)
        steps = inverter.count_steps(config, self.encoder)
        networks = self.networks(
            identity=bool(config.id_lambda) or self.models.identity is not None
        )
        encoder = parallel.replicate(self.encoder, self.mesh)
        sharding = parallel.over_batch(self.mesh)
        return inverter.inverter(networks, encoder, config, sharding), steps

    def tuner(self, config: TuningConfig) -> tuning.Tuner:
        """Tuner of generators to batches of photos.

        Raises:
          UserError: there is no network for the perceptual distance.
        """
        return tuning.tuner(self.models, self.generator, config, self.mesh)

    def _open(self, latent: source.LatentSource, tuned: Sequence[Tuning] = ()) -> Faces:
        """Opens all faces of a source."""
        space = "s" if latent.space == "s" else "w_plus"
        batch = latent.load(np.arange(len(latent)))
        unit = "seed" if latent.array is None else "row"
        found = applying.in_batches(
            self.mesh,
            batch,
            lambda part, _: latent.convert(
                self.generator, part, to=space, label=self.label
            ),
        )
        names = latent.names or tuple(f"{unit} {x}" for x in latent.origins)
        origins, image = tuple(latent.origins), self.render(found, tuned)
        return Faces(found, image, names, origins, unit, tuple(tuned))
