"""Faces and edits of a session: shown in a notebook, and saved as files."""

import dataclasses
import io
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from PIL import Image

from styleclip_jax import latents, parallel
from styleclip_jax.batch import edit_sheets, edits, runs
from styleclip_jax.batch.editor import Editor, Outcome
from styleclip_jax.batch.runs import Summary
from styleclip_jax.batch.source import LatentSource
from styleclip_jax.batch.tuned import Generators, Tuning
from styleclip_jax.editing.loaded import Loaded
from styleclip_jax.io import files, images
from styleclip_jax.models import generators
from styleclip_jax.progress import SILENT, Report

# Number of faces on a sheet in a notebook.
_NUM_SHOWN = 16
_COLUMNS = 8


@dataclasses.dataclass(frozen=True, eq=False)
class Faces:
    """Faces: latents of one space, and their images.

    Attributes:
      latent: [B, L, D] W+, or a tuple of [B, C] styles.
      images: [B, H, W, 3] float32, nominally in [-1, 1].
      names: name of each face, such as "seed 3".
      origins: seed or row of each face, such as 3.
      unit: unit of the origins, "seed" or "row".
      tuned: generator of each face, tuned to its photo; none without tuning.
    """

    latent: Any
    images: np.ndarray
    names: tuple[str, ...]
    origins: tuple[int, ...]
    unit: str = "row"
    tuned: Sequence[Tuning] = ()

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int | slice) -> "Faces":
        """Faces of an index or a slice."""
        rows = slice(index, index + 1 or None) if isinstance(index, int) else index
        return Faces(
            jax.tree.map(lambda x: x[rows], self.latent),
            self.images[rows],
            self.names[rows],
            self.origins[rows],
            self.unit,
            self.tuned[rows],
        )

    @property
    def space(self) -> str:
        """Latent space, w_plus or s."""
        return "s" if isinstance(self.latent, tuple) else "w_plus"

    @property
    def latents(self) -> np.ndarray:
        """Latents as files hold them: W+ [B, L, D], or S flat [B, S]."""
        return np.asarray(latents.pack(self.latent))

    def as_source(self, config: generators.GeneratorConfig) -> LatentSource:
        """Source of a run with these faces, for a generator of this configuration."""
        return LatentSource(
            self.space,
            self.origins,
            self.latents,
            config.style_layout,
            config.z_dim,
            unit=self.unit,
        )

    def sheet(self) -> Image.Image:
        """Sheet of the first faces with their names."""
        shown = min(len(self), _NUM_SHOWN)
        rows = range(0, shown, _COLUMNS)
        return images.grid([self.images[i : min(i + _COLUMNS, shown)] for i in rows])

    def _repr_png_(self) -> bytes:
        return _png(self.sheet())


@dataclasses.dataclass(frozen=True, eq=False)
class Edit:
    """Edits of faces by one editor; with several settings, those of a face in turn.

    Attributes:
      before: faces before the edits.
      after: edited faces, N = len(before) · len(settings) of them.
      terms: {name: [N]} losses and other terms.
      failed_at: [N] step at which a value was not finite, -1 for none.
      film: latents of the film's frames, [N, F, …], or None.
      history: {name: [N, steps]} terms before each step; None without steps.
      editor: editor that made the edits.
      loaded: networks that the editor was made with.
    """

    before: Faces
    after: Faces
    terms: dict[str, np.ndarray]
    failed_at: np.ndarray
    film: Any
    history: dict[str, np.ndarray] | None
    editor: Editor
    loaded: Loaded

    @property
    def images(self) -> np.ndarray:
        """Edited images, [N, H, W, 3] float32, nominally in [-1, 1]."""
        return self.after.images

    @property
    def latents(self) -> np.ndarray:
        """Edited latents as files hold them: W+ [N, L, D], or S flat [N, S]."""
        return self.after.latents

    @property
    def settings(self) -> Sequence[Mapping[str, Any]]:
        """Settings of the edits, which tell those of a face apart."""
        return self.editor.settings

    def save(
        self,
        outdir: files.Path,
        *,
        images: str = "png",
        grid: int = _COLUMNS,
        prompt: str | None = None,
        film_format: str = "gif",
    ) -> Summary:
        """Writes the edits into a new folder, in the files of styleclip-edit.

        Args:
          outdir: folder to make.
          images: format of the images: png, jpg, npy, or none.
          grid: number of faces on the sheet grid.png, 0 for no sheet.
          prompt: prompt of a direction, which is written down for evaluation.
          film_format: format of the films, gif or mp4, where there are any.

        Returns:
          Summary of the run.

        Raises:
          UserError: the folder has other contents, or cannot be written.
        """
        # All latents are one batch, on one device.
        mesh = parallel.make_mesh(list(self.loaded.mesh.devices.flat[:1]))
        generator = parallel.replicate(self.loaded.generator, mesh)
        editor = self.editor._replace(edit=self._edit_again, steps=1, through=None)
        frames = 0 if self.film is None else len(jax.tree.leaves(self.film)[0][0])
        return edits.carry_out(
            self.loaded._replace(mesh=mesh, generator=generator),
            editor,
            self.before.as_source(generator.config),
            latents_file=None,
            generators=Generators(generator, mesh, self.before.tuned),
            output=runs.Output(
                str(outdir), images, grid=grid, batch_size=str(len(self.before))
            ),
            extras=edits.Extras(frames, film_format),
            settings=edits.record(
                self.loaded.models, editor, prompt=prompt, images=images, grid=grid
            ),
            listener=SILENT,
        )

    def _edit_again(self, batch: Any, setting: int, report: Report) -> Outcome:
        """Edits that the editor made of all faces by one setting."""
        report(1)
        rows = slice(setting, None, len(self.settings))
        latent = {"edited": self.after.latent}
        made = Outcome(self.images, latent, self.terms, self.failed_at, self.film)
        found = jax.tree.map(lambda x: x[rows], made)
        return found._replace(latent={"original": batch, **found.latent})

    def sheet(self) -> Image.Image:
        """Sheet of the first faces and their edits."""
        variants = len(self.settings)
        shown = min(len(self.before), _COLUMNS)
        after = self.images.reshape(len(self.before), variants, *self.images.shape[1:])
        found = list(self.terms.get(self.editor.finds, ()))
        labels = edit_sheets.captions_of(self.editor, self.before.names[:shown], found)
        return edit_sheets.draw(
            [np.repeat(x[None], variants, axis=0) for x in self.before.images[:shown]],
            list(after[:shown]),
            labels,
            self.settings,
            self.editor.title,
        )

    def _repr_png_(self) -> bytes:
        return _png(self.sheet())


def _png(sheet: Image.Image) -> bytes:
    content = io.BytesIO()
    sheet.save(content, "png")
    return content.getvalue()
