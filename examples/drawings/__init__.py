"""Drawings of two domains, faces and cats, as folders of images."""
