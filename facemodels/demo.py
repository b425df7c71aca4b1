"""The demonstration: synthetic faces, a network trained on them, edits of held-out faces and of a photo, one page."""

import dataclasses
import html
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from facemodels.autoencoder import NeuroTensorialAutoencoder
from facemodels.baselines import PlainAutoencoder, train_plain
from facemodels.config import preset
from facemodels.data.alignment import load_photo
from facemodels.data.dataset import Faces, PreparedSet
from facemodels.data.synthetic import synthesise_set
from facemodels.editing import EDITABLE, to_tensor
from facemodels.evaluation import encode_all, measure
from facemodels.evaluation.measures import angle_between, nearest_rotation, normals_error, psnr
from facemodels.fitting.landmarks import MediaPipeDetector
from facemodels.sheets import edit_sheet, interpolation_sheet, parts_sheet
from facemodels.training import train
from facemodels.training.checkpoint import checkpoints, load_progress

_SHOWN = 6
_PLAIN_STEPS = 700


@dataclass(frozen=True)
class Row:
    """A line of the table: what was measured, ours, and the plain autoencoder's."""

    title: str
    ours: str
    plain: str


def run(out: Path, *, faces: int, minutes: float, workers: int) -> Path:
    """Do the whole way and write `out/index.html`; what an earlier run finished is not done again.

    Args:
        out: Directory of the page, the prepared set and the run.
        faces: Synthetic faces; a tenth is held out.
        minutes: Minutes of training.
        workers: Processes that render.

    Returns:
        The page.

    Raises:
        InputError: `out` holds something else, or was made with other settings.
    """
    start = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    _say(f"1/4 rendering {faces} synthetic faces")
    prepared = _prepared(out / "faces", faces, workers)
    _say(f"2/4 training for {minutes:g} minutes")
    network, training = preset("small")
    training = dataclasses.replace(training, minutes=minutes, checkpoint_minutes=1.0)
    model = train(prepared, out / "run", network=network, training=training)
    held_out = prepared.faces("test")
    _say("3/4 training the plain autoencoder it is compared with")
    plain = train_plain(prepared.faces("train"), steps=_PLAIN_STEPS)
    _say("4/4 editing, measuring, writing the page")
    photo = photo_of_the_astronaut()
    _write_pictures(out, model, held_out, photo)
    table = compare(model, plain, prepared, held_out)
    page = out / "index.html"
    seconds = load_progress(checkpoints(out / "run")[-1])
    page.write_text(_page(table, len(prepared.faces("train")), seconds))
    (out / "measures.json").write_text(json.dumps([vars(row) for row in table], indent=1) + "\n")
    _say(f"done in {(time.monotonic() - start) / 60:.1f} minutes")
    return page


def photo_of_the_astronaut() -> Tensor:
    """The public-domain portrait of Eileen Collins (NASA) that scikit-image carries, aligned, (1, 3, 64, 64)."""
    from skimage import data

    detector = MediaPipeDetector()
    path = Path(data.__file__).parent / "astronaut.png"
    return to_tensor(load_photo(path, detector, "the astronaut's photo").crop)


def compare(
    model: NeuroTensorialAutoencoder, plain: PlainAutoencoder, prepared: PreparedSet, held_out: Faces
) -> list[Row]:
    """Measures on the held-out faces beside the plain autoencoder's."""
    codings = encode_all(model, held_out)
    ours = measure(model, held_out, codings)
    images = held_out.pictures()
    with torch.no_grad():
        reconstruction = torch.cat([plain(batch) for batch in images.split(100)])
        plain_codes = torch.cat([plain.encode(batch) for batch in images.split(100)])
    emotion = np.array(prepared.split("test")["emotion"])
    codes = codings.codes
    plain_pose = _angle(_regress(plain_codes, held_out.rotation), held_out.rotation)
    pose_shuffled = measure_turned(model, held_out)
    return [
        Row(
            "PSNR of the reconstruction, dB", f"{ours['psnr']:.1f}", f"{float(psnr(reconstruction, images).mean()):.1f}"
        ),
        Row(
            "PSNR inside the face, dB",
            f"{ours['psnr_face']:.1f}",
            f"{float(psnr(reconstruction, images, held_out.masks()).mean()):.1f}",
        ),
        Row(
            "expression (7 classes) from the expression code of 15 numbers, linear, 5-fold",
            f"{_classify(codes.expression, emotion):.0%}",
            f"{_classify(plain_codes, emotion):.0%} from 128 numbers",
        ),
        Row("the same from the pose code (ought to be low)", f"{_classify(codes.pose, emotion):.0%}", "–"),
        Row("pose error, degrees", f"{ours['pose_degrees']:.1f}", f"{plain_pose:.1f} by linear regression"),
        Row("normals error, degrees", f"{ours['normals_degrees']:.1f}", "–"),
        Row("normals error after a change of pose, degrees", f"{ours['turned_normals_degrees']:.1f}", "–"),
        Row("the same if the pose is not changed", f"{pose_shuffled:.1f}", "–"),
        Row("mask, intersection over union", f"{ours['mask_iou']:.2f}", "–"),
    ]


@torch.no_grad()
def measure_turned(model: NeuroTensorialAutoencoder, faces: Faces) -> float:
    """Angle between the normals in the own pose and the render of the other pose: what no edit at all would give."""
    codes = model.encode(faces.pictures())
    normals = model.paint(codes.pose, codes.expression, codes.identity, codes.light).normals
    return normals_error(normals, faces.turned_normals.float() / 127, (faces.turned_mask > 127).float())


def _prepared(path: Path, faces: int, workers: int) -> PreparedSet:
    if path.exists():
        return PreparedSet(path)
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


def _write_pictures(out: Path, model: NeuroTensorialAutoencoder, held_out: Faces, photo: Tensor) -> None:
    images = held_out.pictures()
    source, target = images[:_SHOWN], images[_SHOWN : 2 * _SHOWN]
    edit_sheet(model, source, target, EDITABLE).save(out / "edits.png")
    parts_sheet(model, source).save(out / "parts.png")
    interpolation_sheet(model, source[:1], target[:1], ["expression", "identity", "pose", "light"]).save(
        out / "interpolation.png"
    )
    donors = target[:4]
    edit_sheet(model, photo.expand(len(donors), -1, -1, -1), donors, EDITABLE).save(out / "photo.png")
    parts_sheet(model, photo).save(out / "photo_parts.png")


def _say(line: str) -> None:
    print(line, flush=True)


_FIGURES = (
    (
        "edits.png",
        "Edits of held-out faces",
        "The source takes one factor of the target at a time. The network has seen none of these people, and was never "
        "told which faces share an expression, a pose, a light or an identity.",
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


def _page(table: list[Row], faces: int, progress: dict) -> str:
    rows = "\n".join(
        f"<tr><td>{html.escape(row.title)}</td><td>{html.escape(row.ours)}</td><td>{html.escape(row.plain)}</td></tr>"
        for row in table
    )
    figures = "\n".join(
        f'<h2>{title}</h2><p>{text}</p><img src="{name}" alt="{title}">' for name, title, text in _FIGURES
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Faces taken apart</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em; color: #222 }}
img {{ max-width: 100% }}
td, th {{ padding: 0.2em 1.2em 0.2em 0; text-align: left; border-bottom: 1px solid #ddd }}
</style></head><body>
<h1>Faces taken apart and put together again</h1>
<p>Trained on this machine, on {faces} rendered faces, for {progress["seconds"] / 60:.1f} minutes
({progress["step"]} steps of {progress["training"]["batch"]} faces).</p>
{figures}
<h2>Measured on held-out faces</h2>
<table><tr><th></th><th>this network</th><th>plain autoencoder</th></tr>
{rows}
</table>
<p>The plain autoencoder has the same convolutions and one code of 128 numbers; it was trained for {_PLAIN_STEPS} steps
on the reconstruction alone. It cannot edit a factor, because its code has none.</p>
</body></html>
"""
