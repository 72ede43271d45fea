"""Arithmetic of the networks: convolutions, resampling, vectors and pixels."""
