"""Search for the strength of edits: the editor of any method becomes one that searches.

The edit of a method is a step from a latent. `methods.strength` finds for each latent
how far to go along it, and which parts of it help, from what pictures of random samples
say about the text.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from styleclip_jax import latents, losses, parallel
from styleclip_jax.batch.editor import Editor, Frozen, Outcome, finished
from styleclip_jax.editing import applying
from styleclip_jax.editing.loaded import Loaded
from styleclip_jax.errors import UserError
from styleclip_jax.methods import strength
from styleclip_jax.methods.strength import SearchConfig
from styleclip_jax.models import clip
from styleclip_jax.models.network import Network
from styleclip_jax.ops import norms
from styleclip_jax.progress import Report
from styleclip_jax.settings.edits import AUTO, Searched


def is_asked(config: Searched) -> bool:
    """Whether the strength is to be found.

    Raises:
      UserError: it is something else than that.
    """
    if config.strength not in (None, AUTO):
        raise UserError(
            f"strength: expected {AUTO}, found {config.strength!r}", field="strength"
        )
    return config.strength == AUTO


def surplus(config: Any) -> dict[str, str]:
    """Flags that are of no use where the strength is not found, and why."""
    if config.strength == AUTO:
        return {}
    return {"budget": f"is of use with strength={AUTO} alone"}


# Random samples that a search learns from: their number, seeds and truncation.
_NUM_SAMPLES, _FIRST_SEED, _TRUNCATION_PSI = 256, 10**6, 0.7


def look_around(loaded: Loaded) -> jax.Array:
    """Unit CLIP features [N, E] of the images of random samples of the generator."""
    generator, mesh = loaded.generator, loaded.mesh
    networks = parallel.replicate(losses.Networks(generator, _seeing(loaded)), mesh)
    seeds = range(_FIRST_SEED, _FIRST_SEED + _NUM_SAMPLES)
    z = latents.seeded_batch(seeds, generator.config.z_dim)
    with loaded.listener.bar(_NUM_SAMPLES, "image") as report:

        def see(batch: jax.Array, rows: np.ndarray) -> jax.Array:
            report(len(rows))
            return _see(networks, batch, loaded.label)

        return jnp.asarray(applying.in_batches(mesh, z, see))


@jax.jit
def _see(networks: losses.Networks, z: jax.Array, label: jax.Array | None) -> jax.Array:
    latent = latents.convert(
        networks.generator,
        z,
        space="z",
        truncation_psi=_TRUNCATION_PSI,
        cutoff=None,
        to="w_plus",
        label=label,
    )
    image = latents.render(networks.generator, latent)
    return strength.features(networks, image)


def _seeing(loaded: Loaded) -> clip.Clip:
    """CLIP's part for images."""
    return clip.without_text(loaded.clip()[0])


def search(
    loaded: Loaded,
    editor: Editor,
    texts: Sequence[tuple[str, jax.Array]],
    budget: float,
    *,
    units: Sequence[float] = (1.0,),
) -> Editor:
    """Editor that finds the strength of another's steps for each latent.

    Args:
      loaded: loaded networks.
      editor: editor whose edits give the steps.
      texts: name and [E] feature of the text of each of the editor's settings.
      budget: largest change elsewhere.
      units: strength of the editor's own step, for each of its settings or for all.

    Raises:
      UserError: the budget is no length.
    """
    config = SearchConfig(budget=budget)
    seeing, samples = _seeing(loaded), look_around(loaded)
    aims = [
        strength.aim_at(samples, norms.unit_by_rsqrt(feature)) for _, feature in texts
    ]
    pairs = list(zip(aims, np.broadcast_to(units, len(aims)), strict=True))
    # One copy of CLIP on each device, for all texts.
    shared, rest = parallel.replicate((seeing, pairs), loaded.mesh)
    placed = [(shared, *pair) for pair in rest]
    find = _searching(editor.space, config)
    generator = loaded.generator

    def edit(batch: Any, setting: int, report: Report) -> Outcome:
        step = _step(editor.edit(batch, setting, report))
        return find(generator, placed[setting], step)

    def through(
        generator: Network, batch: Any, setting: int, report: Report
    ) -> Outcome:
        assert editor.through is not None
        made = editor.through(generator, batch, setting, report)
        return find(generator, placed[setting], _step(made))

    def memory(batch: Any) -> int:
        none = jnp.zeros(len(jax.tree.leaves(batch)[0]), jnp.int32)
        step = (batch, batch, none)
        needed = parallel.bytes_needed(find, generator, placed[0], step)
        return max(editor.memory(batch), needed)

    def freeze() -> Frozen:
        inner = editor.freeze()

        def apply(generator: Network, weights: Any, batch: Any) -> Outcome:
            given, own = weights

            def find_one(step: Any) -> Outcome:
                alone = find(generator, own, jax.tree.map(lambda x: x[None], step))
                return jax.tree.map(lambda x: x[0], alone)

            # One by one, since the number of latents is open, and CLIP reads it.
            return jax.vmap(find_one)(_step(inner.apply(generator, given, batch)))

        return Frozen(apply, (inner.weights, (seeing, *pairs[0])))

    lines = dict.fromkeys(
        f"strength auto: random samples have similarity {aim.typical:.2f} to {text!r}, "
        f"the best {aim.best:.2f}"
        for (text, _), aim in zip(texts, aims, strict=True)
    )
    return editor._replace(
        edit=edit,
        through=through if editor.through else None,
        probe=lambda batch: find(generator, placed[0], _step(editor.probe(batch))),
        memory=memory,
        freeze=freeze,
        about=[*editor.about, *lines],
        finds="strength",
    )


@functools.lru_cache(maxsize=8)
def _searching(space: str, config: SearchConfig) -> Any:
    """Jitted (generator, (CLIP, aim, unit), steps) → edits."""

    @jax.jit
    def find(generator: Network, own: Any, step: tuple[Any, Any, Any]) -> Outcome:
        seeing, aim, unit = own
        start, end, failed_at = step
        found = strength.search(
            losses.Networks(generator, seeing),
            latents.SPACES[space],
            start,
            jax.tree.map(jnp.subtract, end, start),
            aim,
            config,
        )
        made = finished(start, found.latent, found.image)
        terms = {
            "strength": found.strength * unit,
            "fit": found.fit,
            "change": found.change,
            "kept": found.kept,
        }
        # A step that failed leads nowhere, and its latent only seems to stay.
        failed_at = jnp.where(failed_at < 0, made.failed_at, failed_at)
        return made._replace(terms=made.terms | terms, failed_at=failed_at)

    return find


def _step(made: Outcome) -> tuple[Any, Any, Any]:
    """Latents before and after an edit, and where it failed."""
    return made.latent["original"], made.latent["edited"], made.failed_at
