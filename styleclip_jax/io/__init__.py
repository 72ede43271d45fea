"""Files in and out: latents, images, tables, directions, model directories."""
