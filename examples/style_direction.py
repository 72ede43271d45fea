"""A direction in S learned at low resolution, as in StyleMC (Kocasari et al. 2021).

One step Δs for all faces, found from coarse images of a few; any face then takes it.

  python -m examples.style_direction
"""

import jax
import jax.numpy as jnp
import optax

import examples
from styleclip_jax import loading, losses
from styleclip_jax.io import images
from styleclip_jax.methods import global_directions
from styleclip_jax.models import clip, stylegan2


def learn(networks, styles, text, *, resolution, steps, l2_lambda=0.002):
    """Δs, and its loss at every step; styles a tuple of [B, C], text [E]."""
    config = networks.generator.config
    layers = [x for x in config.style_layout if x.resolution <= resolution]
    moved = [i for i, layer in enumerate(layers) if not layer.is_torgb]

    @jax.jit
    @jax.value_and_grad
    def loss(direction, networks, styles):
        edited = global_directions.edit(styles, direction, 1.0)
        image = stylegan2.synthesize_layers(
            networks.generator, edited, stop=len(layers)
        ).rgb
        value = losses.clip_distance(networks, losses.Edit(image, edited, None, text))
        return jnp.mean(value) + l2_lambda * jnp.sum(direction.delta**2)

    start = jnp.zeros(sum(layer.channels for layer in config.style_layout))
    direction = global_directions.Direction(start, config.style_layout)
    optimizer = optax.adam(0.05)
    state, history = optimizer.init(direction), []
    for _ in range(steps):
        value, gradient = loss(direction, networks, styles)
        step, state = optimizer.update(global_directions.mask(gradient, moved), state)
        direction, history = direction + step, [*history, float(value)]
    return direction, history


def main():
    generator, (model, words) = loading.load_generator(), loading.load_clip()
    styles = examples.sample_styles(generator, 12)
    (text,) = clip.encode_prompts(model, words, ["a person wearing sunglasses"])
    known, new = tuple(s[:8] for s in styles), tuple(s[8:] for s in styles)
    networks = losses.Networks(generator, model)
    direction, history = learn(networks, known, text, resolution=32, steps=60)
    print(f"loss: {history[0]:.3f} to {history[-1]:.3f}")
    rows = [examples.render(generator, new, direction * a) for a in (0.0, 0.5, 1.0)]
    print(images.save_sheet("outputs/examples/style_direction.png", images.grid(rows)))


if __name__ == "__main__":
    main()
