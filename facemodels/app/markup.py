"""Pieces of the page in HTML; their pictures are inside them, so that none is left on the disk."""

import base64
import html
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from facemodels.figures import to_bytes

_TILE, _LARGE = 128, 384  # pixels

CSS = """
.gradio-container { max-width: 1280px !important; margin: 0 auto !important }
#head h1 { font-size: 1.5rem; margin: 0.4rem 0 0.1rem }
#head p { margin: 0; opacity: 0.75 }
.note { font-size: 0.9rem; opacity: 0.8 }
.note.bad { color: #b3261e; opacity: 1; font-weight: 600 }
.faces { display: flex; gap: 12px; margin: 0; width: 100% }
.faces figure, .tiles figure { margin: 0; text-align: center; font-size: 0.85rem }
.faces figure { flex: 1 1 0; min-width: 0 }
.faces img { width: 100%; aspect-ratio: 1; border-radius: 8px; object-fit: cover; display: block }
.faces.photo img { aspect-ratio: auto; max-height: 560px; object-fit: contain }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(104px, 1fr)); gap: 10px }
.tiles img { width: 100%; border-radius: 6px; display: block; border: 1px solid rgba(128, 128, 128, 0.25) }
.thumbs .gallery { display: grid; grid-template-columns: repeat(6, 1fr); gap: 4px }
.thumbs .gallery :is(button, span, .container, img) { display: block; width: 100%; height: 100%; margin: 0; padding: 0 }
.thumbs .gallery-item { aspect-ratio: 1 }
.thumbs .gallery img { max-width: none; max-height: none; object-fit: cover }
.block:has(> .html-container .note:empty) { display: none }
figcaption { padding-top: 4px; opacity: 0.8 }
a.save { display: inline-block; margin-top: 10px; padding: 6px 14px; border-radius: 6px; text-decoration: none;
  border: 1px solid rgba(128, 128, 128, 0.5); color: inherit }
a.save:hover { background: rgba(128, 128, 128, 0.15) }
"""


def note(text: str, bad: bool = False) -> str:
    """A line under a photo; a complaint stands out."""
    return f'<div class="note{" bad" if bad else ""}" role="status">{html.escape(text)}</div>'


def faces(before: Tensor, after: Tensor) -> str:
    """A crop before and after an edit, each (3, h, w) in [0, 1], with a link that saves the edited one."""
    shown, edited = (_url(_enlarged(to_bytes(picture), _LARGE)) for picture in (before, after))
    pair = _figure("before", shown) + _figure("edited", edited)
    return f'<div class="faces">{pair}</div>{_save("Save the picture", "edited.png", edited)}'


def photo(picture: np.ndarray) -> str:
    """A whole photo with its edited face, (height, width, 3) bytes, with a link that saves it."""
    url = _url(Image.fromarray(picture), "JPEG")
    return f'<div class="faces photo">{_figure("edited", url)}</div>{_save("Save the picture", "edited.jpg", url)}'


def tiles(pictures: Mapping[str, Tensor]) -> str:
    """Small pictures, (c, h, w) in [0, 1], each with its name."""
    figures = (_figure(name, _url(_enlarged(to_bytes(one), _TILE))) for name, one in pictures.items())
    return f'<div class="tiles">{"".join(figures)}</div>'


def save_mesh(file: Path) -> str:
    """A link that saves a mesh."""
    return _save("Save the mesh (GLB)", "face.glb", _data_url(file.read_bytes(), "model/gltf-binary"))


def _enlarged(picture: np.ndarray, side: int) -> Image.Image:
    return Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC)


def _url(picture: Image.Image, kind: str = "PNG") -> str:
    content = io.BytesIO()
    # the page is on this machine: speed matters more than bytes
    picture.save(content, kind, **({"quality": 92} if kind == "JPEG" else {"compress_level": 1}))
    return _data_url(content.getvalue(), f"image/{kind.lower()}")


def _data_url(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _figure(name: str, url: str) -> str:
    label = html.escape(name)
    return f'<figure><img src="{url}" alt="{label}"><figcaption>{label}</figcaption></figure>'


def _save(text: str, name: str, url: str) -> str:
    return f'<a class="save" download="{name}" href="{url}">{text}</a>'
