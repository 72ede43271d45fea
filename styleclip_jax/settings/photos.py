"""Settings of inversions: photos and steps."""

import dataclasses

from styleclip_jax import checks
from styleclip_jax.errors import UserError

# Largest number of pixels of an image that is read, each of which takes some 16 bytes.
MAX_PIXELS = 50_000_000


@dataclasses.dataclass(frozen=True)
class PhotoRequest:
    """Photos to invert.

    Attributes:
      photos: Photos, folders of photos, and text files with one of these in each line,
        with commas between.
      align: Find faces and crop them as in FFHQ; without it photos are crops of the
        shape of the generator's images.
      all_faces: Invert all faces of a photo, not the largest alone.
      landmarks: File of 68 landmarks per face by name of the photo (.json, .npz);
        without it a detector finds them.
      max_pixels: Largest number of pixels of a photo. A larger JPEG is shrunk while it
        is read, other photos are skipped.
    """

    photos: tuple[str, ...] = ()
    align: bool = True
    all_faces: bool = False
    landmarks: str | None = None
    max_pixels: int = dataclasses.field(default=MAX_PIXELS, metadata={"lower_bound": 1})


@dataclasses.dataclass(frozen=True)
class InversionConfig(checks.Config):
    """Settings of an inversion.

    The defaults were measured on the embedded models; larger ones gain from more steps.

    Attributes:
      w_steps: steps in W from the average latent; none where an encoder gives the
        start.
      refine_steps: steps in W+ after that.
      learning_rate: peak learning rate of both phases.
      pixel_lambda: weight of the pixel distance to the photo.
      clip_lambda: weight of the distance between CLIP's features of image and photo.
      id_lambda: weight of the identity distance to the photo; needs an identity
        network.
      l2_lambda: weight of the mean squared distance to the latent at which a phase
        starts.
      encoder_iterations: passes of an encoder that refines its latent (ReStyle); as
        its file says if absent, officially 5.
    """

    w_steps: int = 50
    refine_steps: int = 100
    learning_rate: float = 0.1
    pixel_lambda: float = 1.0
    clip_lambda: float = 0.1
    id_lambda: float = 0.0
    l2_lambda: float = 0.02
    encoder_iterations: int | None = dataclasses.field(
        default=None, metadata={"lower_bound": 1}
    )

    def __post_init__(self) -> None:
        checks.at_least(self, 0, *checks.given(self))
        if not (self.pixel_lambda or self.clip_lambda or self.id_lambda):
            raise UserError(
                "pixel_lambda must be above 0 where clip_lambda and id_lambda are 0, "
                "found 0",
                field="pixel_lambda",
            )
