"""Inverter by projection: batches of faces through the optimization of a projector."""

import functools
from typing import Any, NamedTuple

import jax

from styleclip_jax import losses, parallel
from styleclip_jax.batch.tuned import as_stored
from styleclip_jax.editing import inverter, perceptions
from styleclip_jax.editing.inverter import Inverter
from styleclip_jax.loading import Models
from styleclip_jax.methods import encoding, projection
from styleclip_jax.methods.projection import Networks
from styleclip_jax.models import generators
from styleclip_jax.models.network import Network
from styleclip_jax.photos.crops import Crops
from styleclip_jax.progress import Pace, Report, take_steps
from styleclip_jax.settings.projection import ProjectionConfig

# Width and height to which the projector shrinks images that LPIPS compares.
_LARGEST = 256


class Projected(NamedTuple):
    """Projections of a batch; the names are those of `optimization.Result`.

    Attributes:
      latent: [B, L, D] in W+.
      image: [B, H, W, 3] with the noise that was found.
      terms: {term: [B]} of these images.
      source: photos, as images of the source.
      failed_at: [B] first step that was not finite, -1 for none.
      changes: {name: [B, …] bfloat16}, changes of the generator's noise by flat name;
        None where it stays.
    """

    latent: jax.Array
    image: jax.Array
    terms: dict[str, jax.Array]
    source: losses.Source
    failed_at: jax.Array
    changes: dict[str, jax.Array] | None


def projector(
    models: Models,
    generator: Network,
    encoder: Network | None,
    config: ProjectionConfig,
    mesh: jax.sharding.Mesh,
) -> tuple[Inverter, int]:
    """Inverter of batches of faces, and its number of steps per face.

    Args:
      models: names of the networks.
      generator: generator on the devices.
      encoder: encoder of the latents to start at; None to start at the average of w.
      config: settings of the projection.
      mesh: devices that batches are spread over.

    Raises:
      UserError: a network is missing, or there is nothing to do.
    """
    steps = inverter.count_steps(config, encoder)
    perception = None
    if config.perceptual_lambda:
        perception = perceptions.load(
            models, generator.config, "perceptual_lambda", _LARGEST
        )
    networks = parallel.replicate(Networks(generator, perception), mesh)
    encoder = parallel.replicate(encoder, mesh)
    sharding, pace = parallel.over_batch(mesh), Pace()
    key = jax.random.key(config.jitter_seed)

    def over_batch(function: Any, *axes: int | None, **more: Any) -> Any:
        one = functools.partial(function, config=config, **more)
        return jax.jit(jax.vmap(one, in_axes=axes), out_shardings=sharding)

    axes = (None, 0, None, None)
    start_in_w = over_batch(projection.start, *axes, None, steps=config.w_steps)
    start = over_batch(projection.start, *axes, 0, steps=config.refine_steps)
    widen = over_batch(projection.widen, None, 0)
    in_w = over_batch(projection.step, None, 0, steps=config.w_steps)
    in_w_plus = over_batch(projection.step, None, 0, steps=config.refine_steps)
    statistics = jax.jit(projection.statistics)

    @jax.jit
    def finish(networks: Networks, state: projection.State) -> Projected:
        one = functools.partial(_finish, networks, config=config)
        return jax.vmap(one)(state)

    def begin(faces: Crops) -> projection.State:
        known = statistics(networks.generator)
        if encoder is None:
            return start_in_w(networks, faces.target, key, known, known.mean)
        w_plus = encoding.encode(
            networks.generator,
            encoder,
            faces.encoded,
            iterations=config.encoder_iterations,
        )
        return start(networks, faces.target, key, known, w_plus)

    def invert(faces: Crops, report: Report, most: int | None) -> Any:
        def run(step: Any, state: Any, count: int) -> projection.State:
            count = count if most is None else min(count, most)
            return take_steps(step, networks, state, count, report, pace=pace)

        state = begin(faces)
        if encoder is None:
            state = run(in_w, state, config.w_steps)
            if config.refine_steps:
                state = widen(networks, state)
        return finish(networks, run(in_w_plus, state, config.refine_steps))

    def memory(faces: Crops) -> int:
        state = parallel.shapes_of(sharding, begin, faces)
        step = in_w if encoder is None else in_w_plus
        return max(
            parallel.bytes_needed(step, networks, state),
            parallel.bytes_needed(finish, networks, state),
        )

    return Inverter(invert, memory), steps


def _finish(
    networks: Networks, state: projection.State, *, config: ProjectionConfig
) -> Projected:
    """Projection of a photo, with the noise as its file will have it."""
    found = projection.finish(networks, state, config=config)
    generator, image, changes = networks.generator, found.image, None
    if found.noise:
        after = {generators.noise_name(x): noise for x, noise in found.noise.items()}
        changes, stored = as_stored(generator, after)
        image = generators.synthesize(stored, found.latent[None])[0]
    source = losses.Source(found.latent, state.target.image, None)
    about: Any = (found.terms, source, found.failed_at, changes)
    return Projected(found.latent, image, *about)
