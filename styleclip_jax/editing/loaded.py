"""Loaded networks, which editors are made of."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax

from styleclip_jax import loading
from styleclip_jax.models import clip
from styleclip_jax.models.network import Network
from styleclip_jax.progress import Listener


class Loaded(NamedTuple):
    """Loaded networks, which editors are made of.

    Attributes:
      models: names of the networks.
      generator: generator on the devices of the mesh.
      label: [c_dim] class of samples, None for an unconditional generator.
      mesh: devices to spread batches over.
      clip: () → CLIP and its tokenizer.
      identity: () → face recognition network, None if there is none.
      templates: () → templates of directions' texts.
      listener: listener for work before the edits.
    """

    models: loading.Models
    generator: Network
    label: jax.Array | None
    mesh: jax.sharding.Mesh
    clip: Callable[[], tuple[clip.Clip, clip.Tokenizer]]
    identity: Callable[[], Network | None]
    templates: Callable[[], Sequence[str]]
    listener: Listener
