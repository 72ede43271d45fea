"""Editor: a method with everything that it needs, ready to edit batches of latents."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from styleclip_jax import progress
from styleclip_jax.models.network import Network
from styleclip_jax.ops import pixels


class Outcome(NamedTuple):
    """Outcome of a batch of latents: images, latents and terms.

    Attributes:
      image: [B, H, W, 3] in [-1, 1].
      latent: {name: latents}, W+ [B, L, D] or a tuple of styles [B, C], flat before
        they go into files. Edits have "original" and "edited".
      terms: {name: [B]} terms for metrics.jsonl.
      failed_at: [B] step at which a value was not finite, or an image out of reach of
        the generator (`pixels.is_drawn`), -1 for none.
      film: latents of the film's frames, with a frame axis after the batch axis. None
        stands for the straight line from the original to the edited latent.
      history: {name: [B, steps]} terms before each step; None where there are none.
      changes: {name: [B, …] bfloat16} changes of the generator's parameters that belong
        to each result; None where the generator stays.
      turned: [B, H, W, 3] uint8 edits generated as their faces lie in their photos;
        None where none is.
    """

    image: Any
    latent: dict[str, Any]
    terms: dict[str, Any]
    failed_at: Any
    film: Any = None
    history: Any = None
    changes: Any = None
    turned: Any = None


def finished(original: Any, latent: Any, image: jax.Array) -> Outcome:
    """Edits of a method that makes them in one pass, with l2 and failures."""
    moved = jax.tree.map(
        lambda a, b: jnp.sum(jnp.square(a - b), axis=range(1, a.ndim)), latent, original
    )
    l2 = jax.tree.reduce(jnp.add, moved)
    finite = jnp.isfinite(l2) & pixels.is_drawn(image)
    return Outcome(
        image,
        {"original": original, "edited": latent},
        {"l2": l2},
        jnp.where(finite, -1, 0),
    )


@jax.jit
def failures(image: jax.Array, failed_at: jax.Array | int, last: int) -> jax.Array:
    """Step at which each edit has failed, the last for images out of reach, or -1.

    Args:
      image: [B, H, W, 3] images that the edits ended with.
      failed_at: [B] or [] step at which one has failed before, -1 for none.
      last: number of all steps.
    """
    at_last = jnp.where(pixels.is_drawn(image), -1, last)
    return jnp.where(failed_at < 0, at_last, failed_at)


class Frozen(NamedTuple):
    """Pure function of one edit, for export to a file.

    Attributes:
      apply: (generator, weights, latents) → `Outcome`.
      weights: tree of arrays that `apply` takes.
    """

    apply: Callable[[Network, Any, Any], Outcome]
    weights: Any


class Editor(NamedTuple):
    """Editor: a method with everything that it needs, ready to edit.

    Attributes:
      method: name of the method, such as direction.
      space: latent space that the method edits in, w_plus or s.
      title: caption of the edits: what they edit towards.
      settings: settings of each edit of a latent, such as {"alpha": 4.0}.
      steps: units of work per edit.
      unit: name of these units, such as "step".
      record: settings of the method by the names of their flags, for run.json.
      inputs: hashes of the files that the editor reads.
      about: lines on the editor for people.
      edit: (latents, number of the setting, report) → `Outcome` on the devices, which
        may still be under way.
      probe: (latents) → value on the devices that takes the memory of an edit.
      memory: (latents) → bytes on each device that an edit takes, by the compiler.
      freeze: () → `Frozen`, the edit of the first setting.
      from_average: whether edits start at the average latent, and at no other.
      quicker: what would be quicker, by names of fields.
      finds: term that is found for each latent and shown with it, such as strength;
        empty for none.
      through: (generator on the devices, latents, number of the setting, report) →
        `Outcome`, the edit through another generator of the same configuration, such as
        a tuned one; None where there is no such way.
    """

    method: str
    space: str
    title: str
    settings: list[dict[str, Any]]
    steps: int
    unit: str
    record: Mapping[str, Any]
    inputs: Mapping[str, str]
    about: list[str]
    edit: Callable[[Any, int, progress.Report], Outcome]
    probe: Callable[[Any], Any]
    memory: Callable[[Any], int]
    freeze: Callable[[], Frozen]
    from_average: bool = False
    quicker: str = "batch_size=auto, images=jpg or tar, or several processes"
    finds: str = ""
    through: Callable[[Network, Any, int, progress.Report], Outcome] | None = None
