"""Variants of the methods, a page each (docs/variants.md), and what they share."""

import jax

# Settings of the optimizations.
SETTINGS = {"steps": 40, "learning_rate": 0.05, "l2_lambda": 0.002}


def sample(session, count):
    """The same random faces in all examples."""
    shape = (count, session.generator.config.z_dim)
    return session.read(jax.random.normal(jax.random.key(0), shape), space="z")
