"""Settings of what a run writes: folders, formats, films and programs."""

import dataclasses

from styleclip_jax import checks
from styleclip_jax.errors import UserError

# Formats of single images, of archives of many with the suffix of an image in them, and
# of films.
IMAGE_FORMATS = ("png", "jpg", "npy", "none")
SHARD_FORMATS = {"tar": ".png", "tar-jpg": ".jpg"}
FILM_FORMATS = ("gif", "mp4")
# Parts of a photo that an edited face may replace.
PASTE_MASKS = ("square", "face")
# Formats of the images of a run.
FORMATS = (*IMAGE_FORMATS, *SHARD_FORMATS)
# Compression of PNGs: five times as fast as Pillow's 6, for some 15 % more bytes.
PNG_LEVEL = 1
# Batch size that is tried out.
AUTO = "auto"


@dataclasses.dataclass(frozen=True)
class Output:
    """Output of a run: its folder, its files and the batch size.

    Attributes:
      outdir: Folder for the results.
      images: Format of the images; npy is float32 in [-1, 1], for exact work. tar puts
        ten thousand PNGs into an archive, tar-jpg JPEGs, as WebDataset reads them.
      png_level: Compression of PNGs, from 0 for none to 9, which is slowest.
      grid: Number of latents on the sheet grid.png, 0 for no sheet.
      batch_size: Number of latents per device at a time; auto tries how many fit, or
        on a CPU how many are fastest. If absent, 8, or fewer so that every device has
        some.
    """

    outdir: str = "outputs"
    images: str = dataclasses.field(default="png", metadata={"choices": FORMATS})
    png_level: int = PNG_LEVEL
    grid: int = dataclasses.field(default=8, metadata={"lower_bound": 0})
    batch_size: str | None = None

    def __post_init__(self) -> None:
        if self.images not in FORMATS:
            raise UserError(
                f"images: expected {', '.join(FORMATS)}, found {self.images!r}",
                field="images",
            )
        if not 0 <= self.png_level <= 9:
            raise UserError(
                f"png_level: expected 0 to 9, found {self.png_level}", field="png_level"
            )
        text = self.batch_size
        if text not in (None, AUTO) and not (
            text.isdecimal() and 1 <= int(text) <= 2**20
        ):
            raise UserError(
                f"batch_size: expected 1 or more, or {AUTO}, found {text!r}",
                field="batch_size",
            )


@dataclasses.dataclass(frozen=True)
class Extras:
    """Additional files of each edit: films and pasted photos.

    Attributes:
      film_frames: Number of frames of a film from the source to the edit, 0 for none.
      film_format: Format of the films that film_frames asks for; mp4 needs the extra
        film.
      paste: Paste the edited faces back into the photos that styleclip-invert made
        the latents from; a photo of several faces also with all of them.
      paste_mask: Part of the photo that an edited face replaces with a soft rim: the
        whole square, as without this, or along the face's outline, without its hair.
    """

    film_frames: int = 0
    film_format: str = dataclasses.field(
        default="gif", metadata={"choices": FILM_FORMATS}
    )
    paste: bool = False
    paste_mask: str | None = dataclasses.field(
        default=None, metadata={"choices": PASTE_MASKS}
    )

    def __post_init__(self) -> None:
        checks.at_least(self, 0, "film_frames")
        if self.paste_mask not in (None, *PASTE_MASKS):
            raise UserError(
                f"paste_mask: expected {' or '.join(PASTE_MASKS)}, found "
                f"{self.paste_mask!r}",
                field="paste_mask",
            )
        if self.paste_mask and not self.paste:
            raise UserError(
                f"paste_mask: expected paste with {self.paste_mask}, found none",
                field="paste_mask",
                also=["paste"],
            )


# Places for the weights.
WEIGHTS = ("inside", "beside")


@dataclasses.dataclass(frozen=True)
class ExportRequest:
    """Export of an edit as a program of its own.

    Attributes:
      export: File to write the edit to as a program of its own, instead of editing.
      export_weights: Place of the weights: inside that file, or beside it in FILE.npz.
    """

    export: str | None = None
    export_weights: str = dataclasses.field(
        default="inside", metadata={"choices": WEIGHTS}
    )
