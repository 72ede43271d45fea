"""Look of the page: its theme, its style, and pictures as parts of it."""

import base64
import io
import pathlib

import gradio as gr
import numpy as np
from PIL import Image

from styleclip_jax.app import rooms

CSS = pathlib.Path(__file__).with_name("page.css")


def theme() -> gr.themes.Base:
    """Theme of the page, whose fonts are those of the visitor's machine."""
    return gr.themes.Default(
        primary_hue="indigo",
        spacing_size="sm",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )


def figure(caption: str, image: np.ndarray, aside: str = "") -> str:
    """Figure of an image of 8 bits inside the page itself, sooner there than a file."""
    kind = "png" if len(image) <= rooms.SMALL else "jpeg"
    content = io.BytesIO()
    Image.fromarray(image).save(content, kind, quality=92)
    data = base64.b64encode(content.getvalue()).decode()
    source = f"data:image/{kind};base64,{data}"
    return (
        f"<figure><figcaption>{caption} <small>{aside}</small></figcaption>"
        f'<img src="{source}" alt="{caption}" draggable="false"></figure>'
    )


def hint(caption: str, text: str) -> str:
    """Figure with a text in place of an image."""
    return (
        f"<figure><figcaption>{caption}</figcaption>"
        f'<div class="hint">{text}</div></figure>'
    )
