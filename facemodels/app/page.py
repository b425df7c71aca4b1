"""The page: photos on the left, the edited face in the middle, sliders on the right, parts and mesh below."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from facemodels.app import markup
from facemodels.app.studio import Settings, Studio, Subject
from facemodels.data.alignment import read_image
from facemodels.editing import EDITABLE, to_tensor
from facemodels.errors import InputError
from facemodels.morphable.procedural import EMOTIONS

TITLE = "Faces taken apart"
_KEPT_SECONDS = 300  # how long a file of the page may lie on the disk
_VIEWS = _CROP, _WHOLE = "face", "in the photo"
_TURN = 30  # degrees
SCRIPT = """<script>addEventListener("keyup", event => {
  if (event.target.type === "range") event.target.dispatchEvent(new PointerEvent("pointerup", { bubbles: true }))
})</script>"""
"""Gradio tells of a slider's release only for the mouse; with this, the mesh follows the keyboard, too."""
_DIRECT = {"show_progress": "hidden", "api_visibility": "private", "queue": False}
"""Every event asks the server itself. Gradio's queue answers all of them over one stream, which the browser may close
just as the next event begins; that event then never ends, and the page stands still."""
_FACTOR_LABELS = {
    "expression": "expression of B",
    "pose": "pose of B",
    "light": "light of B",
    "identity": "identity of B",
}

_HEAD = """<h1>Faces taken apart</h1><p>Take expression, pose, light or identity of one face over to another. Everything
runs on this computer: photos go nowhere, and their files are deleted after five minutes.</p>"""


def build_page(studio: Studio, examples: Sequence[Path], folder: Path) -> gr.Blocks:
    """The page, not served yet.

    Args:
        studio: The network behind it.
        examples: Pictures to choose from; the first two are shown at the start.
        folder: Gradio's directory of files, for the meshes that the browser loads; Gradio deletes them with the others.
    """
    names = studio.expressions.names  # emotions first, then single movements
    first, second = (studio.read(str(path), path.name) for path in examples[:2])
    start = _Show(studio, folder, examples)

    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(60, _KEPT_SECONDS)) as page:
        gr.HTML(_HEAD, elem_id="head")
        with gr.Row():
            with gr.Column(scale=3, min_width=240):
                photo_a, note_a, chosen_a = _photo("A: the face to edit", "a", examples[0], examples)
                photo_b, note_b, chosen_b = _photo("B: the face to take from", "b", examples[1], examples)
                swap = gr.Button("Exchange A and B", size="sm", elem_id="swap")
            with gr.Column(scale=5, min_width=360):
                view = gr.Radio(list(_VIEWS), value=_CROP, show_label=False, container=False, elem_id="view")
                edited = gr.HTML(elem_id="edited")
                gr.Markdown("### What the face is made of")
                parts = gr.HTML(elem_id="parts")
                gr.Markdown("### In 3D")
                mesh = gr.Model3D(height=340, show_label=False, elem_id="mesh", clear_color=(1.0, 1.0, 1.0, 1.0))
                mesh_link = gr.HTML(elem_id="mesh-link")
            with gr.Column(scale=4, min_width=280):
                sliders = [
                    gr.Slider(0, 1, 0, step=0.05, label=_FACTOR_LABELS[name], elem_id=f"take-{name}")
                    for name in EDITABLE
                ]
                sliders.append(gr.Slider(-_TURN, _TURN, 0, step=1, label="turn, degrees", elem_id="yaw"))
                sliders.append(gr.Slider(-_TURN, _TURN, 0, step=1, label="look up, degrees", elem_id="pitch"))
                with gr.Accordion("Expressions by name", open=True, elem_id="named"):
                    sliders += [_named(name) for name in names if name in EMOTIONS]
                    with gr.Accordion("Single movements", open=False, elem_id="movements"):
                        sliders += [_named(name) for name in names if name not in EMOTIONS]
                        gr.HTML(markup.note(_untold(studio.expressions.untold)))
                reset = gr.Button("Reset", size="sm", elem_id="reset")

        subject_a, subject_b = gr.State(first), gr.State(second)
        settings = [gr.State({}), subject_a, subject_b, view, *sliders]
        show = {"fn": newest(start.face), "inputs": settings, "outputs": [edited, parts], **_DIRECT}
        show_mesh = {**show, "fn": newest(start.mesh), "outputs": [mesh, mesh_link]}
        gr.on([slider.change for slider in sliders], trigger_mode="always_last", **show)
        gr.on([slider.release for slider in sliders], trigger_mode="always_last", **show_mesh)
        view.change(**show)
        page.load(**show).then(**show_mesh)
        reset.click(lambda: [0] * len(sliders), outputs=sliders, **_DIRECT).then(**show_mesh)
        for photo, note, subject, chosen in (
            (photo_a, note_a, subject_a, chosen_a),
            (photo_b, note_b, subject_b, chosen_b),
        ):
            photo.change(start.read, photo, [subject, note], **_DIRECT).then(**show).then(**show_mesh)
            chosen.click(start.example, chosen, photo, **_DIRECT)
        swap.click(start.swap, [subject_a, subject_b], [photo_a, photo_b], **_DIRECT)
    return page


def newest(answer: Callable[..., Any]) -> Callable[..., Any]:
    """What answers an event, silent where a later event of the page has asked for the same.

    Events of different sliders and buttons are answered side by side; one that takes long would otherwise show again
    what is no longer asked for.

    Args:
        answer: Takes the event's inputs; the new function takes before them a dictionary that the page keeps for it.
    """

    def answered(asked: dict[str, object], *inputs: Any) -> Any:
        own = asked[answer.__name__] = object()
        outputs = answer(*inputs)
        return outputs if asked[answer.__name__] is own else gr.skip()

    return answered


class _Show:
    """What the page's events call."""

    def __init__(self, studio: Studio, folder: Path, examples: Sequence[Path]):
        self.studio = studio
        self.folder = folder
        self.examples = examples

    def example(self, number: int) -> np.ndarray:
        return read_image(self.examples[number])

    def read(self, path: str | None) -> tuple[Subject | None, str]:
        if path is None:
            return None, markup.note("Drop a photo here, paste one, or take one with the camera.")
        try:
            subject = self.studio.read(path, Path(path).name)
        except InputError as error:
            return None, markup.note(_sentence(str(error)), bad=True)
        faces = subject.photo.landmarks.faces
        return subject, markup.note("" if faces == 1 else f"{faces} faces found: the largest is taken.")

    def face(self, subject: Subject | None, other: Subject | None, view: str, *values: float) -> tuple[str, str]:
        if subject is None:
            return markup.note("There is no face to edit yet."), ""
        settings = self.settings(values)
        edit = self.studio.edit(subject, other, settings)
        if view == _WHOLE:
            picture = markup.photo(self.studio.in_photo(subject, edit))
        else:
            picture = markup.faces(to_tensor(subject.photo.crop)[0], edit.image[0])
        return picture, markup.tiles(self.studio.parts(edit, settings))

    def mesh(self, subject: Subject | None, other: Subject | None, view: str, *values: float) -> tuple[str | None, str]:
        if subject is None:
            return None, ""
        try:
            mesh = self.studio.mesh(self.studio.edit(subject, other, self.settings(values)))
        except InputError as error:
            return None, markup.note(_sentence(str(error)))
        with tempfile.NamedTemporaryFile(dir=self.folder, prefix="face-", suffix=".glb", delete=False) as file:
            path = Path(file.name)
        mesh.save(path)
        return str(path), markup.save_mesh(path)

    def swap(self, subject: Subject | None, other: Subject | None) -> tuple[np.ndarray | None, np.ndarray | None]:
        mine, theirs = (None if one is None else one.photo.photo for one in (subject, other))
        return theirs, mine

    def settings(self, values: Sequence[float]) -> Settings:
        """The sliders' values in their order on the page."""
        factors, (yaw, pitch), named = values[: len(EDITABLE)], values[len(EDITABLE) :][:2], values[len(EDITABLE) + 2 :]
        return Settings(
            dict(zip(EDITABLE, factors, strict=True)),
            yaw,
            pitch,
            dict(zip(self.studio.expressions.names, named, strict=True)),
        )


def _photo(label: str, which: str, path: Path, examples: Sequence[Path]) -> tuple[gr.Image, gr.HTML, gr.Dataset]:
    """A place for a photo, the line under it, and the pictures to choose from."""
    photo = gr.Image(
        str(path),
        label=label,
        height=230,
        type="filepath",
        format="png",  # what is exchanged keeps its pixels
        sources=["upload", "webcam", "clipboard"],
        buttons=[],
        elem_id=f"photo-{which}",
    )
    # Gradio's own reading fails on what is no image before we can say so on the page.
    photo.preprocess = lambda payload: payload and payload.path
    note = gr.HTML(markup.note(""), elem_id=f"note-{which}")
    chosen = gr.Dataset(
        components=[gr.Image(render=False)],
        samples=[[str(example)] for example in examples],
        type="index",
        show_label=False,
        layout="gallery",
        elem_id=f"examples-{which}",
        elem_classes="thumbs",
    )
    return photo, note, chosen


def _named(name: str) -> gr.Slider:
    return gr.Slider(-1, 1.5, 0, step=0.05, label=name, elem_id=f"named-{name.replace(' ', '-')}")


def _untold(names: Sequence[str]) -> str:
    return f"This network does not tell: {', '.join(names)}." if names else ""


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."
