"""The demonstration: synthetic faces, the package's network trained on them, edits of new faces and a photo, a page."""

import dataclasses
import html
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from facemodels.autoencoder import NeuroTensorialAutoencoder
from facemodels.baselines import SHIPPED_Z0, AdversarialAutoencoder
from facemodels.config import preset
from facemodels.data.alignment import load_photo
from facemodels.data.dataset import PreparedSet
from facemodels.data.synthetic import synthesise_set
from facemodels.editing import EDITABLE, to_tensor
from facemodels.errors import InputError
from facemodels.evaluation import edit_trials, encode_all, measure, true_edits
from facemodels.evaluation.fidelity import Fidelity
from facemodels.evaluation.measures import angle_between, nearest_rotation, psnr
from facemodels.fitting.landmarks import MediaPipeDetector
from facemodels.sheets import edit_sheet, interpolation_sheet, parts_sheet
from facemodels.training import train
from facemodels.training.checkpoint import checkpoints, load_progress

_SHOWN = 4
_PAIRS = 100
_COMPONENTS = 128
_START = "facefactors"  # the network of the package
_RATE = 6e-4  # learning rate
_ASTRONAUT = Path(skimage.data.__file__).parent / "astronaut.png"
"""Portrait of Eileen Collins, NASA, public domain; scikit-image carries it."""


_COLUMNS = ("as it came", "trained here", "Z0, adversarial autoencoder", "principal components")


@dataclass(frozen=True)
class Row:
    """A line of the table of measures.

    Attributes:
        title: What is measured.
        cells: Of the network before and after its training here, of Z0, and of principal components.
    """

    title: str
    cells: list[str]


def run(out: Path, *, faces: int, minutes: float, workers: int) -> Path:
    """Do the whole way and write `out/index.html`; what an earlier run finished is not done again.

    Args:
        out: Directory of the page, the prepared set and the run.
        faces: Synthetic faces; the persons of a tenth of them are held out.
        minutes: Minutes of training.
        workers: Processes that render.

    Returns:
        The page.

    Raises:
        InputError: `out` holds a set or a run that this one cannot go on with.
    """
    start = time.monotonic()
    detector = MediaPipeDetector()  # complain before any work
    out.mkdir(parents=True, exist_ok=True)
    _say(f"1/3 rendering {faces} synthetic faces")
    prepared = _prepared(out / "faces", faces, workers)
    _say(f"2/3 training the network of the package for {minutes:g} minutes more")
    network, training = preset("rendered")
    weights = dataclasses.replace(training.weights, adversarial=0.0, carried_codes=0.0)  # half the time of a step
    changes = {"weights": weights, "start": _START, "learning_rate": _RATE, "minutes": minutes}
    training = dataclasses.replace(training, checkpoint_minutes=1.0, **changes)
    model = train(prepared, out / "run", network=network, training=training).cpu()
    _say("3/3 editing, measuring, writing the page")
    photo = to_tensor(load_photo(_ASTRONAUT, detector, "the astronaut's photo").crop)
    _write_pictures(out, model, prepared, photo)
    before = NeuroTensorialAutoencoder.from_pretrained(_START, morphable=prepared.morphable)
    table = compare(before, model, AdversarialAutoencoder.load(SHIPPED_Z0), prepared)
    trials = {name: edit_trials(prepared, name, _PAIRS) for name in EDITABLE}
    fidelity = {name: [some.measure(network) for network in (before, model)] for name, some in trials.items()}
    progress = load_progress(checkpoints(out / "run")[-1])
    page = out / "index.html"
    page.write_text(_page(table, fidelity, prepared, progress))
    edits = {name: {"before": vars(old), "after": vars(new)} for name, (old, new) in fidelity.items()}
    measures = {"table": [vars(row) for row in table], "edits": edits}
    (out / "measures.json").write_text(json.dumps(measures, indent=1) + "\n")
    _say(f"done in {(time.monotonic() - start) / 60:.1f} minutes")
    return page


def compare(
    before: NeuroTensorialAutoencoder,
    after: NeuroTensorialAutoencoder,
    z0: AdversarialAutoencoder,
    prepared: PreparedSet,
) -> list[Row]:
    """Measures on the held-out faces beside those of the adversarial autoencoder and of principal components."""
    held_out = prepared.faces("test")
    images, mask = held_out.pictures(), held_out.masks()
    codings = [encode_all(model, held_out) for model in (before, after)]
    ours = [measure(model, held_out, coding) for model, coding in zip((before, after), codings, strict=True)]
    with torch.no_grad():
        reconstruction = torch.cat([z0(batch) for batch in images.split(100)])
    z0_codes = z0.encode(images)
    pca = PCA(_COMPONENTS, svd_solver="randomized", random_state=0)
    pca.fit(prepared.faces("train").pictures().flatten(1).numpy())
    pca_codes = torch.from_numpy(pca.transform(images.flatten(1).numpy()))
    projection = torch.from_numpy(pca.inverse_transform(pca_codes.numpy())).reshape(images.shape).clamp(0, 1)
    emotion = np.array(prepared.split("test")["emotion"])

    def decibels(pictures: Tensor, inside: Tensor | None = None) -> str:
        return f"{float(psnr(pictures, images, inside).mean()):.1f} dB"

    def emotions(code: Tensor, what: str) -> str:
        return f"{_classify(code, emotion):.0%} ({what})"

    def degrees(code: Tensor) -> str:
        return f"{_angle(_regress(code, held_out.rotation), held_out.rotation):.1f}° (by regression)"

    def read_off(name: str, form: str) -> list[str]:
        return [form.format(one[name]) for one in ours]

    codes = [coding.codes for coding in codings]
    everywhere = [*(coding.image for coding in codings), reconstruction, projection]
    others = [z0_codes, pca_codes]
    nothing = ["–", "–"]
    return [
        Row("reconstruction", [decibels(pictures) for pictures in everywhere]),
        Row("reconstruction inside the face", [decibels(pictures, mask) for pictures in everywhere]),
        Row(
            "emotion, one of seven, told from the code by a linear probe",
            [emotions(one.expression, "expression, 15 numbers") for one in codes]
            + [emotions(one, "128 numbers") for one in others],
        ),
        Row(
            "the same from a code that should not tell",
            [*(emotions(one.pose, "pose, 9 numbers") for one in codes), *nothing],
        ),
        Row("pose error", [*read_off("pose_degrees", "{:.1f}° (read off)"), *map(degrees, others)]),
        Row("normals error", [*read_off("normals_degrees", "{:.1f}°"), *nothing]),
        Row("normals error in another pose", [*read_off("turned_normals_degrees", "{:.1f}°"), *nothing]),
        Row("mask, intersection over union", [*read_off("mask_iou", "{:.2f}"), *nothing]),
    ]


def _prepared(path: Path, faces: int, workers: int) -> PreparedSet:
    if path.exists():
        prepared = PreparedSet(path)
        if prepared.info.get("count") != faces:
            raise InputError(f"{path} holds another number of faces than {faces}; remove {path.parent} or name another")
        return prepared
    return synthesise_set(path, count=faces, held_out=0.1, seed=0, workers=workers)


def _classify(codes: Tensor, labels: np.ndarray) -> float:
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))
    return float(np.mean(cross_val_predict(probe, codes.numpy(), labels, cv=5) == labels))


def _regress(codes: Tensor, rotation: Tensor) -> Tensor:
    probe = make_pipeline(StandardScaler(), Ridge(10.0))
    return torch.from_numpy(cross_val_predict(probe, codes.numpy(), rotation.numpy(), cv=5)).float()


def _angle(first: Tensor, second: Tensor) -> float:
    matrices = first.unflatten(1, (3, 3)), second.unflatten(1, (3, 3))
    return float(angle_between(nearest_rotation(matrices[0]), matrices[1]).mean())


def _write_pictures(out: Path, model: NeuroTensorialAutoencoder, prepared: PreparedSet, photo: Tensor) -> None:
    images = prepared.faces("test").pictures()
    sources, targets = _pairs(prepared)
    truth = {name: true_edits(prepared, "test", sources, targets, name)[0] for name in EDITABLE}
    source, target = images[sources], images[targets]
    edit_sheet(model, source, target, EDITABLE, truth=truth).save(out / "edits.png")
    parts_sheet(model, source).save(out / "parts.png")
    interpolation_sheet(model, source[:1], target[:1], EDITABLE).save(out / "interpolation.png")
    edit_sheet(model, photo.expand(len(target), -1, -1, -1), target, EDITABLE).save(out / "photo.png")
    parts_sheet(model, photo).save(out / "photo_parts.png")


def _pairs(prepared: PreparedSet) -> tuple[list[int], list[int]]:
    """Neutral held-out faces, and as many of other people with other emotions: the first of each by number."""
    rows = prepared.split("test")
    faces = list(zip(rows["emotion"], rows["person"], strict=True))

    def first_of(wanted: Sequence[str], besides: set[int]) -> list[int]:
        chosen: dict[int, int] = {}
        for number, (emotion, person) in enumerate(faces):
            if emotion in wanted and person not in besides and len(chosen) < _SHOWN:
                chosen.setdefault(person, number)
        return list(chosen.values())

    sources = first_of(["neutral"], set())
    targets = first_of(["happy", "surprised", "disgusted", "fearful"], {faces[number][1] for number in sources})
    return sources, targets


def _say(line: str) -> None:
    print(line, flush=True)


_FIGURES = (
    (
        "edits.png",
        "Edits of held-out faces",
        "Neutral faces take one factor of the target at a time; below each edit, what it should look like, rendered "
        "from the exact factors. The network has seen none of these people, and was never told which faces share an "
        "expression, a pose, a light or an identity.",
    ),
    (
        "parts.png",
        "What the network takes a face apart into",
        "Albedo, normals and shading make the face; mask and background put it into the picture. The frontal view, its "
        "normals and the 3D shape come from the products of the codes.",
    ),
    (
        "interpolation.png",
        "Eleven steps from one face to another",
        "One code at a time moves on a straight line; everything else stays.",
    ),
    (
        "photo.png",
        "A real photo",
        "The astronaut Eileen Collins (NASA, public domain), edited by the same network, which has seen nothing but "
        "rendered faces. Train on photos for better: see the README.",
    ),
    ("photo_parts.png", "The photo taken apart", ""),
)


def _page(
    table: list[Row], fidelity: dict[str, list[Fidelity]], prepared: PreparedSet, progress: dict[str, Any]
) -> str:
    figures = "\n".join(
        f'<h2>{title}</h2><p>{text}</p><img src="{name}" alt="{title}">' for name, title, text in _FIGURES
    )
    edits = _table(
        ["edit", "as it came", "trained here", "not edited", "pairs in which the edit is nearer to the truth"],
        [
            (name, f"{old.edited:.1f} dB", f"{new.edited:.1f} dB", f"{new.unedited:.1f} dB", f"{new.better:.0%}")
            for name, (old, new) in fidelity.items()
        ],
    )
    measures = _table(["", *_COLUMNS], [(row.title, *row.cells) for row in table])
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Faces taken apart</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em; color: #222 }}
img {{ max-width: 100% }}
td, th {{ padding: 0.2em 1.2em 0.2em 0; text-align: left; border-bottom: 1px solid #ddd }}
</style></head><body>
<h1>Faces taken apart and put together again</h1>
<p>The network of the package, which has learnt from 34,000 rendered faces in the wild, went on learning here,
from {len(prepared.split("train"))} other rendered faces, for {progress["seconds"] / 60:.1f} minutes
({progress["step"]} steps of {progress["training"]["batch"]} faces).</p>
{figures}
<h2>Measured on {len(prepared.split("test"))} faces of people never seen</h2>
<p>Edits against the same edit rendered from the exact factors: peak signal-to-noise ratio inside the face,
{_PAIRS} random pairs.</p>
{edits}
<p>What the codes hold, beside the paper's Z0, an adversarial autoencoder with the same convolutions and one code of 128
numbers, which has learnt from 7000 of those in the wild, and {_COMPONENTS} principal components of the pixels of the
faces rendered here. Neither can edit a factor, because their codes have none.</p>
{measures}
</body></html>
"""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return "\n".join(["<table>", line(head, "th"), *(line(row, "td") for row in rows), "</table>"])
