"""Many latents through the devices into files, resumable."""
