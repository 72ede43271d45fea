"""Arithmetic of the networks: convolutions and resampling."""
