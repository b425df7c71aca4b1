"""The page that shows what `prepare` made of the photos: counts, rejects, poses, quality, fits over photos."""

import base64
import html
import io
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import datasets
import numpy as np
import torch
from PIL import Image, ImageDraw

from facemodels.config import SIZE
from facemodels.data.dataset import decode_normals
from facemodels.data.workspace import Workspace, rejects_of
from facemodels.figures import normals_as_colours, on_paper, to_bytes
from facemodels.files import whole_file
from facemodels.fitting.landmarks import INNER_POINTS
from facemodels.fitting.shape import Fit
from facemodels.morphable import MorphableModel
from facemodels.rendering import matrix_to_euler, project_weak_perspective, shade

_SIDE = 128  # pixels in which a crop is shown
_SHOWN, _WORST, _REJECTED = 16, 24, 48
_LISTED = 500  # names on the page; rejects.csv has all
_FIRST_INNER = 17  # iBUG landmarks 0 to 16 are the jaw line, which the fit does not see

_COLUMNS = ("photo", "landmarks", "shape over photo", "normals", "mask", "light")
_FIGURES = {
    "quality": ("landmarks to fit", "root mean square, pixels of the 64", 2),
    "disagreement": ("photo to mirrored photo", "root mean square of the landmarks, pixels of the 64", 2),
    "coefficient_norm": ("coefficients", "root mean square, standard deviations", 2),
    "mask_agreement": ("mask and outline of the landmarks", "intersection over union", 2),
    "light_error": ("brightness unexplained", "root mean square, of 1", 3),
}
_KINDS = {
    "no face found": "no face found",
    "no face is found": "face not found again in the mirrored photo",
    "not to be trusted": "landmarks of photo and mirrored photo disagree",
    "a profile": "turned too far",
    "could not be fitted": "no good fit",
    "no image or is damaged": "no image, or damaged",
    "too small": "too small",
    "million; make it smaller": "too many pixels",
    "too many pixels": "too many pixels",
    "larger than": "file too large",
    "leads out of the archive": "path that leads out of its archive",
    "breaks off": "source that breaks off",
}
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1100px; margin: 2em auto; padding: 0 1em }
h1 { font-size: 1.6em; margin-bottom: 0 } h2 { font-size: 1.2em; margin-top: 2em; border-bottom: 1px solid #ddd }
table { border-collapse: collapse } td, th { padding: 2px 14px 2px 0; text-align: left; vertical-align: top }
th { font-weight: 600; color: #555 } td.n { text-align: right; font-variant-numeric: tabular-nums }
td { overflow-wrap: anywhere } p.note, figcaption { color: #555 }
.tiles { display: flex; flex-wrap: wrap; gap: 10px } figure { margin: 0 }
.tiles figure { width: 128px } figcaption { font-size: 12px; line-height: 1.3; overflow-wrap: anywhere }
.fits td { padding: 0 4px 4px 0; vertical-align: middle } .fits td.name { font-size: 12px; color: #555; width: 190px }
img { display: block } svg { margin-right: 18px } svg text { font: 11px system-ui, sans-serif; fill: #555 }
"""


def write_report(work: Workspace, info: dict[str, Any], morphable: MorphableModel) -> None:
    """Write `report.html`, one file that needs no other.

    Args:
        work: With its rows joined.
        info: What goes into `preparation.json`.
        morphable: The model that was fitted.
    """
    table = datasets.Dataset.load_from_disk(str(work.path))
    with whole_file(work.path / "report.html") as file:
        file.write_text(_page(work, info, morphable, table), encoding="utf-8")


def _page(work: Workspace, info: dict[str, Any], morphable: MorphableModel, table: datasets.Dataset) -> str:
    numbers = {
        name: np.asarray(table.with_format("numpy")[name]) for name in (*_FIGURES, "faces_in_photo", "photo_turned")
    }
    plain = np.flatnonzero(~np.asarray(table.with_format("numpy")["mirrored"]))  # rows in the order of the photos
    rotation = torch.tensor(np.asarray(table.with_format("numpy")["rotation"]))[plain].view(-1, 3, 3)
    yaw, pitch, _ = (angle.rad2deg().numpy() for angle in matrix_to_euler(rotation))
    numbers = {name: values[plain] for name, values in numbers.items()}
    drawing = _Drawing(work, morphable, table, plain, yaw, numbers)

    even = np.linspace(0, len(plain) - 1, min(_SHOWN, len(plain))).astype(int)
    worst = np.argsort(-numbers["disagreement"], kind="stable")[:_WORST]
    kinds, listed, shown = _rejects(work, morphable)
    found = sum(len(work.load(number).names) for number in range(work.shards))
    several = np.flatnonzero(numbers["faces_in_photo"] > 1)
    turned = np.flatnonzero(numbers["photo_turned"])
    counts = {
        "photos": info["photos"],
        "photos in which a face was found and fitted": found,
        "faces used": len(plain),
        "of these for training": info["training"],
        "held out": len(plain) - info["training"],
        "added mirrored": len(table) - len(plain),
        "turned away": info["rejected"],
        "photos with several faces (the largest was taken)": len(several),
        "photos that had to be turned to find the face": len(turned),
    }
    names = table["name"]
    photos = max(1, info["photos"])
    return "\n".join(
        [
            "<!doctype html><html lang='en'><meta charset='utf-8'><title>Prepared faces</title>",
            f"<style>{_STYLE}</style>",
            f"<h1>{len(plain):,} faces of {info['photos']:,} photos</h1>",
            f"<p class='note'>Of {_text(info['source'])}, fitted with {_text(morphable.name)} (licence:"
            f" {_text(morphable.licence)}). In {found / photos:.1%} of the photos a face was found and fitted, and"
            f" {len(plain) / photos:.1%} are used: what is not to be trusted is turned away. Every photo that is not"
            " used is named below and in <code>rejects.csv</code>, with the reason.</p>",
            "<h2>Counts</h2>",
            _table([(name, f"{count:,}") for name, count in counts.items()]),
            "<h2>Fits over photos</h2>",
            "<p class='note'>Evenly chosen. Landmarks: green as detected, red as fitted. Normals: red to the right,"
            " green up, blue to the viewer. Light: the fitted light on a grey face. <i>Moved</i>: pixels of the 64 by"
            " which landmarks move when the photo is mirrored; <i>off</i>: pixels between landmarks and fit.</p>",
            drawing.fits(even),
            "<h2>The least certain that were kept</h2>",
            "<p class='note'>Those whose landmarks moved most when the photo was mirrored, and by how many pixels"
            " of the 64. If these look right, the others do.</p>",
            drawing.tiles(worst),
            "<h2>Turned away though a face was found</h2>" if shown else "",
            f"<div class='tiles'>{''.join(shown)}</div>",
            "<h2>Poses</h2>",
            _histogram(yaw, "yaw", "degrees; positive: to the viewer's right", 5, 0)
            + _histogram(pitch, "pitch", "degrees; positive: downwards", 5, 0),
            "<h2>Quality</h2>",
            *(_histogram(numbers[name], title, unit, None, digits) for name, (title, unit, digits) in _FIGURES.items()),
            "<h2>Turned away, by reason</h2>",
            _table([(kind, f"{count:,}") for kind, count in kinds.most_common()]) if kinds else "<p>None.</p>",
            _listing("names and reasons", listed, info["rejected"]),
            _listing(
                "photos with several faces",
                [(names[int(plain[k])], "the largest was taken") for k in several[:_LISTED]],
                len(several),
            ),
            _listing(
                "photos that were turned",
                [(names[int(plain[k])], f"by {numbers['photo_turned'][k]} degrees") for k in turned[:_LISTED]],
                len(turned),
            ),
            "<h2>Settings</h2>",
            _table([(name, json.dumps(value, ensure_ascii=False)) for name, value in info["settings"].items()]),
            "</html>\n",
        ]
    )


class _Drawing:
    """Pictures of faces by their numbers among those that are used."""

    def __init__(
        self,
        work: Workspace,
        morphable: MorphableModel,
        table: datasets.Dataset,
        plain: np.ndarray,
        yaw: np.ndarray,
        numbers: dict[str, np.ndarray],
    ):
        self.work, self.morphable, self.table = work, morphable, table
        self.plain, self.yaw, self.numbers = plain, yaw, numbers
        counts = [len(work.load_fits(number)[0]) for number in range(work.shards)]
        self.starts = np.concatenate([[0], np.cumsum(counts)])

    def fits(self, chosen: np.ndarray) -> str:
        """One line a face: photo, landmarks, shape, normals, mask, light."""
        head = "".join(f"<th>{name}</th>" for name in ("", *_COLUMNS))
        lines = [f"<tr><td class='name'>{self._caption(k)}</td>{self._line(k)}</tr>" for k in chosen.tolist()]
        return f"<table class='fits'><tr>{head}</tr>{''.join(lines)}</table>"

    def tiles(self, chosen: np.ndarray) -> str:
        """Landmarks over photos."""
        figures = [_figure(self._landmarks(k), self._caption(k)) for k in chosen.tolist()]
        return f"<div class='tiles'>{''.join(figures)}</div>"

    def _caption(self, k: int) -> str:
        figures = ", ".join(f"{self.numbers[name][k]:.2f}" for name in ("disagreement", "quality"))
        name = _text(self.table[int(self.plain[k])]["name"])
        return f"{name}<br>yaw {self.yaw[k]:.0f}°, moved {figures.split(', ')[0]}, off {figures.split(', ')[1]}"

    def _landmarks(self, k: int) -> Image.Image:
        number = int(np.searchsorted(self.starts, k, side="right")) - 1
        shard = self.work.load(number)
        row = int(shard.kept[k - self.starts[number]])
        return _with_landmarks(shard.crops[row], shard.points[row], shard.fit[slice(row, row + 1)], self.morphable)

    def _line(self, k: int) -> str:
        row: Any = self.table[int(self.plain[k])]
        photo = torch.from_numpy(np.array(row["image"])).permute(2, 0, 1) / 255
        mask = torch.from_numpy(np.array(row["mask"]))[None] / 255
        normals = decode_normals(torch.from_numpy(np.array(row["normals"])).permute(2, 0, 1)[None])[0] / 127
        grey = shade(normals[None], torch.tensor([[0.3, 0.2, 0.35, 0.3, 0, 0, 0, 0, 0]]))[0].clamp(0, 1)
        lit = shade(normals[None], torch.tensor([row["light"]]))[0]
        pictures = (
            _enlarged(to_bytes(photo)),
            self._landmarks(k),
            _enlarged(to_bytes(photo * (1 - 0.75 * mask) + 0.75 * mask * grey)),
            _enlarged(to_bytes(normals_as_colours(normals, mask))),
            _enlarged(to_bytes(mask)),
            _enlarged(to_bytes(on_paper((0.6 * lit).clamp(0, 1), mask))),
        )
        return "".join(f"<td>{_embedded(picture)}</td>" for picture in pictures)


def _rejects(work: Workspace, morphable: MorphableModel) -> tuple[Counter[str], list[tuple[str, str]], list[str]]:
    """How often each kind of reason, the first names with reasons, and pictures of faces that were turned away."""
    kinds: Counter[str] = Counter()
    listed: list[tuple[str, str]] = []
    shown: list[str] = []
    for number in range(work.shards):
        shard = work.load(number)
        rejects = rejects_of(shard)
        kinds.update(_kind(reason) for _, reason in rejects)
        listed += rejects[: _LISTED - len(listed)]
        for row, reason in enumerate(shard.reasons):
            if reason and len(shown) < _REJECTED:
                fit = shard.fit[slice(row, row + 1)]
                picture = _with_landmarks(shard.crops[row], shard.points[row], fit, morphable)
                shown.append(_figure(picture, f"{_text(shard.names[row])}<br>{_text(reason)}"))
    return kinds, listed, shown


def _kind(reason: str) -> str:
    return next((kind for part, kind in _KINDS.items() if part in reason), "other")


def _with_landmarks(crop: np.ndarray, points: np.ndarray, fit: Fit, morphable: MorphableModel) -> Image.Image:
    vertices = morphable.vertices(fit.identity, fit.expression)[:, morphable.landmarks[_FIRST_INNER:]]
    fitted = project_weak_perspective(vertices, fit.rotation, fit.scale, fit.shift)[0, :, :2].numpy()
    picture = _enlarged(crop)
    draw = ImageDraw.Draw(picture)
    for places, colour in ((fitted, (255, 60, 40)), (points[list(INNER_POINTS), :2], (60, 255, 60))):
        for x, y in (places * (_SIDE / SIZE)).tolist():
            draw.ellipse((x - 1, y - 1, x + 1, y + 1), fill=colour)
    return picture


def _enlarged(pixels: np.ndarray) -> Image.Image:
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    return picture.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)


def _figure(picture: Image.Image, caption: str) -> str:
    return f"<figure>{_embedded(picture)}<figcaption>{caption}</figcaption></figure>"


def _embedded(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=88)
    content = base64.b64encode(file.getvalue()).decode()
    return f"<img width={picture.width} height={picture.height} alt='' src='data:image/jpeg;base64,{content}'>"


def _histogram(values: np.ndarray, title: str, unit: str, width: float | None, digits: int) -> str:
    """Bars as SVG; what lies beyond the 0.1st and 99.9th percentile is counted in the outermost bars."""
    low, high = np.quantile(values, [0.001, 0.999])
    if width:
        low, high = width * np.floor(low / width), width * np.ceil(high / width)
    count = max(1, round((high - low) / width)) if width else 30
    edges = np.linspace(low, max(high, low + 1e-6), count + 1)
    bars = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0]
    step, tall = 320 / len(bars), 90 / max(1, bars.max())
    drawn = "".join(
        f"<rect x='{k * step:.1f}' y='{100 - bar * tall:.1f}' width='{max(1, step - 1):.1f}' height='{bar * tall:.1f}'"
        f" fill='#5b7fb5'><title>{edges[k]:.{digits}f} to {edges[k + 1]:.{digits}f}: {bar}</title></rect>"
        for k, bar in enumerate(bars.tolist())
    )
    ticks = "".join(
        f"<text x='{share * 320:.0f}' y='115' text-anchor='{anchor}'>{low + share * (high - low):.{digits}f}</text>"
        for share, anchor in ((0, "start"), (0.5, "middle"), (1, "end"))
    )
    low, middle, high = (round(float(value), digits) + 0.0 for value in np.quantile(values, [0.05, 0.5, 0.95]))
    summary = f"5 % below {low:.{digits}f}, median {middle:.{digits}f}, 5 % above {high:.{digits}f}"
    return (
        f"<svg width='330' height='165' role='img'><title>{title}</title><line x1='0' x2='320' y1='100.5' y2='100.5'"
        f" stroke='#999'/>{drawn}{ticks}<text x='0' y='132' style='fill:#222'>{title}</text>"
        f"<text x='0' y='147'>{unit}</text><text x='0' y='162'>{summary}</text></svg>"
    )


def _table(rows: Sequence[tuple[str, str]]) -> str:
    lines = "".join(f"<tr><td>{_text(name)}</td><td class='n'>{_text(value)}</td></tr>" for name, value in rows)
    return f"<table>{lines}</table>"


def _listing(title: str, rows: Sequence[tuple[str, str]], count: int) -> str:
    if not rows:
        return ""
    more = f", the first {len(rows)}" if count > len(rows) else ""
    lines = "".join(f"<tr><td>{_text(name)}</td><td>{_text(reason)}</td></tr>" for name, reason in rows)
    return f"<details><summary>{count:,} {title}{more}</summary><table>{lines}</table></details>"


def _text(value: str) -> str:
    return html.escape(value)
