"""A direction in S learned at low resolution, as in StyleMC (Kocasari et al. 2021).

One step Δs for all faces, found from coarse images of a few; any face then takes it.

  python -m examples.style_direction
"""

import jax
import jax.numpy as jnp
import optax

import examples
import styleclip_jax
from styleclip_jax import losses, progress
from styleclip_jax.io import images
from styleclip_jax.methods import global_directions
from styleclip_jax.models import stylegan2


def learn(session, faces, prompt, *, resolution, steps, l2_lambda=0.002):
    """Δs, and its loss before each step, [steps]."""
    layout = session.generator.config.style_layout
    layers = [layer for layer in layout if layer.resolution <= resolution]
    moved = [i for i, layer in enumerate(layers) if not layer.is_torgb]
    (text,), optimizer, stop = session.encode(prompt), optax.adam(0.05), len(layers)

    def loss(direction, networks, styles):
        edited = global_directions.edit(styles, direction, 1.0)
        image = stylegan2.synthesize_layers(networks.generator, edited, stop=stop).rgb
        value = losses.clip_distance(networks, losses.Edit(image, edited, None, text))
        return jnp.mean(value) + l2_lambda * jnp.sum(direction.delta**2)

    @jax.jit
    def step(inputs, state):
        direction, memory, history = state
        value, gradient = jax.value_and_grad(loss)(direction, *inputs)
        gradient = global_directions.mask(gradient, moved)
        change, memory = optimizer.update(gradient, memory)
        return direction + change, memory, jnp.append(history[1:], value)

    start = jnp.zeros(sum(layer.channels for layer in layout))
    start = global_directions.Direction(start, layout)
    inputs = (session.networks(), session.to_styles(faces))
    state = (start, optimizer.init(start), jnp.zeros(steps))
    state = progress.take_steps(step, inputs, state, steps, progress.ignore)
    return state[0], state[2]


def main():
    session = styleclip_jax.load()
    faces, prompt = examples.sample(session, 12), "a person wearing sunglasses"
    direction, history = learn(session, faces[:8], prompt, resolution=32, steps=60)
    print(f"loss: {history[0]:.3f} to {history[-1]:.3f}")
    rows = [session.move(faces[8:], direction, a).images for a in (0.0, 0.5, 1.0)]
    print(images.save_sheet("outputs/examples/style_direction.png", images.grid(rows)))


if __name__ == "__main__":
    main()
