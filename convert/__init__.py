"""Conversion of the official PyTorch and TensorFlow files; see `styleclip-convert`."""
