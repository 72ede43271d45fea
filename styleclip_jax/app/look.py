"""Look of the page: its theme, its style, and pictures as parts of it."""

import base64
import io

import gradio as gr
import numpy as np
from PIL import Image

from styleclip_jax.app import room as rooms

CSS = """
.gradio-container {
  width: 100% !important; max-width: 1400px !important; margin: 0 auto !important;
  /* Hidden, it would keep what is sticky from sticking. */
  overflow: visible !important;
}
#heading h1 { margin: 0; }
#pictures { flex-wrap: nowrap; gap: var(--layout-gap); }
#pictures > * { min-width: 0 !important; overflow: visible !important; }
#pictures .html-container { padding: 0 !important; }
#status { min-height: 3.2em; }
#status, #status * { overflow: hidden !important; }
figure { margin: 0; }
figure figcaption { padding: 0 0 .3em .1em; font-weight: 600; white-space: nowrap; }
figcaption small { font-weight: 400; color: var(--body-text-color-subdued); }
figure img, figure .hint {
  width: 100%; aspect-ratio: 1; border-radius: 8px; display: block;
  user-select: none; -webkit-touch-callout: none;
}
figure .hint {
  box-sizing: border-box; padding: 1em; text-align: center;
  display: flex; align-items: center; justify-content: center;
  border: 2px dashed var(--border-color-primary); color: var(--body-text-color-subdued);
}
.crisp img { image-rendering: pixelated; }
/* Held down, the edit lets the start lie over it. */
#after figure:has(img) { cursor: pointer; touch-action: manipulation; }
#pictures:has(#after figure:active img) #before img {
  position: relative; z-index: 2; left: calc(100% + var(--layout-gap));
}
.thumbs, .thumbs .gallery-container { min-height: 0 !important; height: auto; }
.thumbs .grid-wrap { min-height: 0; height: auto; max-height: none; padding: 0; }
.thumbs .grid-container {
  grid-template-columns: repeat(8, minmax(0, 1fr)) !important;
  grid-auto-rows: auto !important; height: auto; padding: 0;
}
.thumbs .gallery-item { height: auto !important; }
.thumbs .empty { min-height: 4em !important; }
.thumbs .thumbnail-lg { width: 100%; height: auto; aspect-ratio: 1; }
#others .thumbnail-lg { height: auto; aspect-ratio: 2; }
#others .grid-container {
  grid-auto-rows: auto !important; height: auto; padding-top: 2.2em;
}
#others .gallery-item { height: auto !important; }
#others, #others .gallery-container, #others .grid-wrap {
  min-height: 0 !important; height: auto; max-height: none;
}
footer { display: none !important; }
@media (min-width: 769px) {
  #result { position: sticky; top: 0; align-self: flex-start; }
}
@media (max-width: 768px) {
  .gradio-container > .main { padding: 8px 12px !important; }
  .thumbs .grid-container {
    grid-template-columns: repeat(4, minmax(0, 1fr)) !important;
  }
  #main { flex-direction: column; flex-wrap: nowrap; }
  #result { display: contents; }
  #pictures {
    position: sticky; top: 0; z-index: 3; padding-bottom: .5em;
    background: var(--body-background-fill);
  }
  #after, #before { flex: 1 1 0; }
  #trail { order: 1; }
}
"""


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
