"""Opening of a session: networks of model directories, loaded at once."""

from collections.abc import Sequence
from typing import Any

from styleclip_jax import loading
from styleclip_jax.editing.session import Session
from styleclip_jax.io import files
from styleclip_jax.progress import BARS, SILENT


def load(
    *,
    generator: files.Path | None = None,
    clip: files.Path | Sequence[files.Path] | None = None,
    clip_weights: Sequence[float] | None = None,
    clip_towers: str = "own",
    identity: files.Path | None = None,
    encoder: files.Path | None = None,
    lpips: files.Path | None = None,
    templates: files.Path | None = None,
    class_: int | None = None,
    quiet: bool = False,
    **computed: Any,
) -> Session:
    """Loads a session with networks from model directories; embedded ones if absent.

    Args:
      generator: model directory; the encoder's own if absent, or the embedded one.
      clip: directory or hub name, such as "openai/clip-vit-base-patch32"; several
        count as one, by the mean of their losses with clip_weights.
      clip_towers: "own", or "transformers" for FlaxCLIPModel's.
      identity: model directory of a face recognition network.
      encoder: model directory of an encoder of photos: e4e, pSp or ReStyle.
      lpips: model directory of a network that sees photos when generators are tuned.
      templates: file of templates for the texts of directions.
      class_: class of the samples, for class-conditional generators.
      quiet: whether to show no progress bars.
      **computed: fields of `Computation`, such as precision, dtype and remat.

    Raises:
      UserError: a directory holds no valid network, or the class does not exist.
    """
    paths = {
        "generator": generator,
        "identity": identity,
        "encoder": encoder,
        "lpips": lpips,
        "templates": templates,
    }
    models = loading.Models.of(
        clip=clip,
        clip_weights=clip_weights,
        clip_towers=clip_towers,
        class_=class_,
        computed=computed,
        **paths,
    ).with_decoder()
    session = Session(models, listener=SILENT if quiet else BARS)
    named = [name for name, path in (paths | {"clip": clip}).items() if path]
    for name in ("generator", "label", *named):
        # That for tuning is opened with the settings that it is tuned by.
        if name != "lpips":
            getattr(session, name)
    return session
