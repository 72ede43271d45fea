"""Files in and out: latents, images, model directories."""
