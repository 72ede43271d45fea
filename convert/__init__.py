"""Conversion of the official PyTorch and TensorFlow files; see `python -m convert`."""
