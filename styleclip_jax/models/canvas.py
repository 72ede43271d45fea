"""Canvas of a generator: shapes of its features, and of what is shown of its images."""

import dataclasses
from typing import Any

import jax

from styleclip_jax.errors import UserError
from styleclip_jax.models import generators, runtime

# Largest height and width of the constant that a synthesis starts from.
_MAX_BASE = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Canvas(runtime.Pyramid, generators.GeneratorConfig):
    """Base of configurations of generators; `resolution` is that over a base of 4×4.

    Attributes:
      base: height and width of the learned constant: (4, 2) makes images of half their
        height, as StyleGAN-Human's.
      crop_height: height of what is shown of images that have bars above and below,
        such as 384 of 512 with LSUN Car; None for all.
    """

    base: tuple[int, int] = dataclasses.field(
        default=(4, 4), metadata=runtime.STORED_IF_GIVEN
    )
    crop_height: int | None = dataclasses.field(
        default=None, metadata=runtime.STORED_IF_GIVEN
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        base: Any = self.base
        if len(base) != 2 or not all(
            type(x) is int and 1 <= x <= _MAX_BASE for x in base
        ):
            raise UserError(
                f"base must be a height and a width from 1 to {_MAX_BASE}, "
                f"found {list(base)}",
                field="base",
            )
        shown: Any = self.crop_height
        height = self.shape_at(self.resolution)[0]
        if shown is not None and not (
            type(shown) is int and 0 < shown < height and (height - shown) % 2 == 0
        ):
            raise UserError(
                f"crop_height must be even and from 2 to {height - 2}, the image's "
                f"height being {height}, found {shown}",
                field="crop_height",
            )

    def shape_at(self, resolution: int) -> tuple[int, int]:
        """Height and width of the features of a resolution."""
        height, width = self.base
        return height * resolution // 4, width * resolution // 4

    def shown_at(self, resolution: int) -> tuple[int, int]:
        """Height and width of what is shown of the image of a resolution."""
        height, width = self.shape_at(resolution)
        if self.crop_height is not None:
            height = -(-self.crop_height * height // self.shape_at(self.resolution)[0])
        return height, width

    def show(self, image: jax.Array) -> jax.Array:
        """What is shown of images [B, H, W, 3] of any resolution of this network."""
        if self.crop_height is None:
            return image
        height = image.shape[1]
        shown = self.shown_at(4 * height // self.base[0])[0]
        bar = (height - shown) // 2
        return image[:, bar : bar + shown]
