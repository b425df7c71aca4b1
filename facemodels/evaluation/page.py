"""The report: every figure and table of the paper for one network and one set, beside the baselines, on one page."""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from facemodels.autoencoder import NeuroTensorialAutoencoder
from facemodels.baselines import SHIPPED_Z0, AdversarialAutoencoder, AdversarialConfig, train_adversarial
from facemodels.data.dataset import PreparedSet
from facemodels.data.synthetic import synthesise_set
from facemodels.errors import InputError
from facemodels.evaluation.html import Section, page
from facemodels.evaluation.material import Material, gather
from facemodels.evaluation.report import teacher_of
from facemodels.evaluation.sections import SECTIONS
from facemodels.files import explained, whole_file, write_json
from facemodels.networks.verification import Verifier
from facemodels.progress import progress_bar

PAGE, FIGURES = "index.html", "report.json"
"""Names of the two files of a report."""

# what is rendered where no set is given: 16 persons, of whom the baselines learn from half
_RENDERED: dict[str, Any] = {"design": "facefactors", "count": 16 * 192, "held_out": 0.5}
_BATCH = 16  # faces of a step of Z0: in a few minutes, many small steps teach it more than few large ones
_STEPS = 600  # of Z0, where neither steps nor a trained one are given and that of the package does not fit


@dataclass(frozen=True)
class ReportSettings:
    """What a report is made with.

    Attributes:
        split: Faces that are shown and measured: "test", "train", or "all" of a set that was not trained on.
        limit: At most so many of them, evenly spread.
        label: Column of the table of labels that stands in for `expression`.
        steps: Steps that the adversarial autoencoder Z0 is trained for, if no trained one is given; 0 leaves it out.
            By default none: of rendered faces that of the package is taken, of others one is trained in 600.
        seed: Fixes pairs, folds and the training of Z0.
        frontal: Take near-frontal faces only; linear baselines learn from such, too.
    """

    split: str = "test"
    limit: int | None = 2000
    label: str = "Smiling"
    steps: int | None = None
    seed: int = 0
    frontal: bool = False


def report(
    model: NeuroTensorialAutoencoder,
    out: Path,
    prepared: PreparedSet | None = None,
    settings: ReportSettings | None = None,
    *,
    name: str = "the network",
    labels: Path | None = None,
    teacher: PreparedSet | None = None,
    z0: Path | None = None,
    verifier: Verifier | None = None,
    workers: int = 2,
    progress: bool = True,
) -> Path:
    """Write `out/index.html`, a page that needs no other file, and `out/report.json` with its figures.

    Sections that cannot be made, because labels, exact factors or parts of the network are missing, say why.

    Args:
        model: A trained network.
        out: Directory; made if it does not exist. Z0, and the set that is rendered where none is given, stay in it for
            the next report.
        prepared: The set to measure on; by default 3,072 faces of 16 persons of FaceFactors, half of them held out.
        settings: Which faces, how many, and how long baselines learn.
        name: What the network is called on the page.
        labels: Table of labels, see `facemodels.evaluation.material.gather`.
        teacher: The set whose split "train" the baselines and judges learn from; by default `prepared` itself, if
            "test" is measured.
        z0: A Z0 that `facemodels train-baseline` has trained.
        verifier: Tells persons apart in edits; not one that the network was trained with.
        workers: Processes that render.
        progress: Show progress on the standard error.

    Returns:
        The page.

    Raises:
        InputError: The set, the labels or the baseline cannot be read or do not fit the network, or the set would
            teach what it is measured by.
    """
    settings, start = settings or ReportSettings(), time.monotonic()
    trained = None if z0 is None else AdversarialAutoencoder.load(z0)
    size = model.config.size
    if trained is not None and trained.config.size != size:
        raise InputError(
            f"{z0} takes pictures of {trained.config.size} pixels, the network {size}; train one on a set of that size"
        )
    if teacher is not None:
        teacher.require_size(size)
    if prepared is None:
        _make(out)
        prepared = synthesise_set(out / "faces", size=size, workers=workers, **_RENDERED)
    teacher = teacher_of(prepared, settings.split, teacher)
    material = gather(
        model,
        prepared,
        split=settings.split,
        limit=settings.limit,
        labels=labels,
        label=settings.label,
        seed=settings.seed,
        frontal=settings.frontal,
    )
    material.verifier = verifier
    material.teacher = teacher if teacher and "train" in teacher.table["split"][:] else None
    _make(out)
    material.z0 = trained or _z0(material, out, settings, progress)
    sections, seconds = make_sections(material, progress)
    with whole_file(out / PAGE) as file:
        file.write_text(
            page("Faces taken apart: the report", _introduction(material, name), sections, _closing(settings, start)),
            encoding="utf-8",
        )
    figures = {section.name: _figures(section) for section in sections}
    write_json(
        out / FIGURES,
        _plain(
            {
                "network": name,
                "set": {"path": str(prepared.path), "faces": len(material.chosen), "source": prepared.info["source"]},
                "settings": asdict(settings),
                "versions": {package: version(package) for package in ("torch", "scikit-learn", "numpy")},
                "seconds": seconds,
                "sections": figures,
            }
        ),
    )
    return out / PAGE


def make_sections(material: Material, progress: bool = True) -> tuple[list[Section], dict[str, float]]:
    """All sections, and the seconds that each took; those that cannot be made say why."""
    sections, seconds = [], {}
    bar = progress_bar(SECTIONS, disable=not progress)
    for name, title, make in bar:
        bar.set_description(f"report: {title}")
        start = time.monotonic()
        try:
            sections.append(Section(name, title, make(material)))
        except (InputError, ValueError) as error:
            sections.append(Section(name, title, missing=str(error)))
        seconds[name] = round(time.monotonic() - start, 1)
    return sections, seconds


def _make(out: Path) -> None:
    with explained(out):
        out.mkdir(parents=True, exist_ok=True)


def _z0(material: Material, out: Path, settings: ReportSettings, progress: bool) -> AdversarialAutoencoder | None:
    steps, teacher = settings.steps, material.teacher
    if steps is None and material.synthetic:
        shipped = AdversarialAutoencoder.load(SHIPPED_Z0)
        if shipped.config.size == material.prepared.size:
            return shipped
    steps = _STEPS if steps is None else steps
    if teacher is None or not steps:
        return None
    config = AdversarialConfig(size=teacher.size, steps=steps, batch=_BATCH, seed=settings.seed)
    return train_adversarial(teacher, out / "z0.safetensors", config, progress=progress)


def _introduction(material: Material, name: str) -> str:
    prepared, model = material.prepared, material.model
    weights = sum(weight.numel() for weight in model.parameters())
    shown = {
        "facefactors": "rendered faces of FaceFactors (everyone with every expression in every pose and light)",
        "wild": "rendered faces in the wild",
        "synthetic": "rendered faces",
    }.get(prepared.info["source"], "photos")
    ahead = "near-frontal " if material.frontal else ""
    persons = material.labels.get("identity", np.empty(0, str)).astype(str)
    known = set(persons.tolist()) - {""}
    whose = f", of {len(known)} {'known ' if (persons == '').any() else ''}persons" if known else ""
    lines = [
        f"{name}: a network of {weights / 1e6:.1f} million numbers for pictures of {model.config.size} pixels, after"
        " Wang, Shu, Cheng, Panagakis, Samaras and Zafeiriou, “An Adversarial Neuro-Tensorial Approach For Learning"
        " Disentangled Representations” (arXiv 1711.10402). Labels were never used in training; they are used here, to"
        " measure.",
        f"Shown and measured: {len(material.chosen):,} {ahead}{shown}{whose} (split “{material.split}”).",
    ]
    teacher = material.teacher
    if teacher is None:
        lines.append(
            "There is no split to train baselines on that is not measured, so that only baselines that were given stand"
            " beside us; name a set with --taught-by."
        )
    else:
        own = "the same set" if teacher is prepared else "another set"
        lines.append(f"The baselines learnt from the split “train” of {own}, {len(material.lesson):,} {ahead}faces.")
    z0 = material.z0
    if z0 is not None:
        lines.append(f"Z0 learnt from {z0.learnt_from}, in {z0.config.steps:,} steps of {z0.config.batch}.")
    return "\n\n".join(lines)


def _closing(settings: ReportSettings, start: float) -> str:
    return (
        f"Made by `facemodels report` in {(time.monotonic() - start) / 60:.1f} minutes with torch {torch.__version__};"
        f" seed {settings.seed}. All figures are in {FIGURES} beside this page."
    )


def _figures(section: Section) -> dict[str, Any]:
    if section.content is None:
        return {"missing": section.missing}
    return {} if section.content.numbers is None else {"figures": section.content.numbers}


def _plain(value: Any) -> Any:
    """JSON that every reader takes: numbers that are none become null."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return json.loads(json.dumps(value))
