"""Training of the embedded models; not installed."""
