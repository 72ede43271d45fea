"""Old name of `attributes`, `drawing` and `captioning`."""

from styleclip_jax.toy.attributes import *  # noqa: F403
from styleclip_jax.toy.captioning import *  # noqa: F403
from styleclip_jax.toy.drawing import *  # noqa: F403
