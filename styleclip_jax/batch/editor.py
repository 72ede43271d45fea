"""Editor: a method with everything that it needs, ready to edit batches of latents."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from styleclip_jax import progress
from styleclip_jax.models.network import Network


class Outcome(NamedTuple):
    """Results for a batch of latents.

    Attributes:
      image: [B, H, W, 3] in [-1, 1].
      latent: {name: latents}, W+ [B, L, D] or a tuple of styles [B, C], flat before
        they go into files; of edits "original" and "edited".
      terms: {name: [B]} for metrics.jsonl.
      failed_at: [B] step at which something was not finite, -1 for none.
      film: latents on the way with an axis of frames after that of the batch; of edits
        None for the straight line between the two.
      history: {name: [B, steps]}, terms before each step; None where there are none.
    """

    image: Any
    latent: dict[str, Any]
    terms: dict[str, Any]
    failed_at: Any
    film: Any = None
    history: Any = None


class Frozen(NamedTuple):
    """One edit as a pure function, to be written to a file.

    Attributes:
      apply: (generator, weights, latents) → `Outcome`.
      weights: tree of arrays.
    """

    apply: Callable[[Network, Any, Any], Outcome]
    weights: Any


class Editor(NamedTuple):
    """A method with everything that it needs, ready to edit.

    Attributes:
      method: optimization, mapper or direction.
      space: latent space that it edits in, w_plus or s.
      title: what it edits towards.
      settings: of each edit that it makes of a latent, such as {"alpha": 4.0}.
      steps: units of work per edit.
      unit: what they are called.
      record: settings of the method by the names of their flags, for run.json.
      inputs: hashes of the files that it reads.
      about: lines for people.
      edit: (latents, number of the setting, report) → `Outcome` on the devices, which
        may still be under way.
      probe: (latents) → something on the devices that takes the memory of an edit.
      freeze: the edit of the first setting.
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
    freeze: Callable[[], Frozen]
