"""The sections of the report: every figure and table of the paper, and what else tells how good a network is."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from facemodels.baselines.morphable_edit import MORPHABLE_EDITABLE
from facemodels.data.dataset import faces_from_rows
from facemodels.editing import EDITABLE, interpolate, transfer
from facemodels.errors import InputError
from facemodels.evaluation import charts
from facemodels.evaluation.after_swap import after_swap
from facemodels.evaluation.coders import Array
from facemodels.evaluation.cost import cost
from facemodels.evaluation.disentanglement import Disentanglement, disentanglement
from facemodels.evaluation.embedding import Embedding, embed
from facemodels.evaluation.exchange import spread
from facemodels.evaluation.fidelity import edit_trials
from facemodels.evaluation.film import FRAMES, landmark_detector, make_film
from facemodels.evaluation.html import Content, Figure, Table
from facemodels.evaluation.interpolation import STEPS, Monotonicity, monotonicity
from facemodels.evaluation.jitter import jitter
from facemodels.evaluation.material import FITS, OURS, PCA, TENSORFACES, UNNAMED, Z0, Material, edit_by_fits
from facemodels.evaluation.measures import psnr, quality
from facemodels.evaluation.persons import verify_swaps
from facemodels.evaluation.probes import FOLDS, PAPER, TableOne, table_one
from facemodels.evaluation.readers import READABLE, reader_errors
from facemodels.evaluation.report import LINES, Labels, evaluate, reaches
from facemodels.evaluation.shapes import ShapeErrors, shape_errors
from facemodels.figures import grid, on_paper
from facemodels.sheets import interpolation_sheet, mesh_pictures, parts_sheet

_FEWEST = 6  # faces of a label on a map
_PERSONS = 18  # whose faces are in the leakage matrix
_MAPPED = 600  # faces on a t-SNE map
_EVALUATED = 200  # faces of `facemodels evaluate`, whose every measure decodes them anew
_MEASURED = 100  # faces whose shapes are measured
_READ = 60  # pairs whose edits the judge reads
_EVERY = 3  # frames of the film, of which one is shown
_PATHS = 12  # pairs between which it reads interpolations
_PAIRS = 60  # pairs whose edits are compared with the truth
_ALL_POSES = "These are faces in all poses, also with `--frontal`."
_NO_LABELS = (
    "no labels are known; give them with --labels CSV, or take a set of `facemodels synthesise`, which knows its own"
)

TARGETS = {
    "identity": ">= 0.90",
    "expression": ">= 0.88",
    "pose": ">= 0.97",
    "edited": ">= 21",
    "better": ">= 0.8",
}
"""What a network trained on rendered faces should reach on FaceFactors, whose persons it has never seen."""


def decomposition(m: Material) -> Content:
    """Figures 1 and 2: what the network takes a face apart into."""
    picture = parts_sheet(m.model, m.images[m.pairs("expression").sources])
    text = (
        "Albedo, normals and shading make the face; mask and background put it into the picture. The frontal view, its"
        " normals and the 3D shape come from the products of the codes alone."
    )
    if not m.model.config.cores:
        text += " This network was exported without its cores, so it has no frontal view and no 3D shape."
    return Content(text, [Figure(picture, "One row a face. Normals: red to the right, green up, blue to the viewer.")])


def expression_editing(m: Material) -> Content:
    """Figures 3 and 8."""
    return _editing(
        m,
        "expression",
        "Every face takes the expression code of the face beside it and keeps all other codes, its background and its"
        " mask (the paper's eq. 18). Pairs were found by the fitted expressions, not by how well the edit came out.",
    )


def pose_editing(m: Material) -> Content:
    """Figures 4 and 9."""
    return _editing(
        m,
        "pose",
        "Every face takes the pose code of the face beside it (eq. 18). The paper shows the face alone, because nobody"
        " knows what the head hid; here the surroundings are filled in from around the old face.",
    )


def light_and_identity(m: Material) -> Content:
    """Beyond the paper's figures: the two other factors."""
    parts = []
    for factor in ("light", "identity"):
        parts += _editing(m, factor, "").parts
    return Content("The paper edits expression and pose; the same exchange of codes moves light and identity.", parts)


def _editing(m: Material, factor: str, text: str) -> Content:
    pair = m.pairs(factor)
    source, donor = m.images[pair.sources], m.images[pair.donors]
    edit = transfer(m.model, source, donor, factor)
    columns = {
        "photo": source,
        f"{factor} of": donor,
        "reconstruction": transfer(m.model, source, donor, []).image,
        "our edit": edit.image,
    }
    if factor == "pose":
        columns["our face alone"] = on_paper(edit.rendering.face, edit.rendering.face_mask)
    fits, truth = m.morphable_edits(pair, factor), m.truth(pair, factor)
    caption = ""
    if fits is not None:
        columns[FITS] = fits
        caption = (
            "3DMM: the morphable model fitted to both faces, one fit with that factor of the other, drawn over the"
            " photo in its own colours. "
        )
    if truth is not None:
        columns["the truth"] = truth
        caption += "The truth is rendered from the exact factors of both faces."
    picture = grid(list(zip(*columns.values(), strict=True)), columns=list(columns), zoom=2)
    title = f"Taking over the {factor}"
    return Content(text, [Figure(picture, caption, title)])


def shapes(m: Material) -> Content:
    """Figure 5."""
    model, morphable = m.model, m.model.morphable
    if morphable is None:
        raise InputError("the network carries no morphable model, so that its shapes have no vertices")
    rows = m.pairs("expression").sources
    columns: dict[str, Tensor] = {"photo": m.images[rows]}
    with torch.no_grad():
        codes = model.encode(m.images[rows])
        vertices = model.vertices(codes)
        identity, expression = model.coefficients(codes)
    if vertices is not None:
        columns["our shape stream"] = mesh_pictures(vertices, morphable)
    columns["our coefficients"] = mesh_pictures(morphable.vertices(identity, expression), morphable)
    fit = m.prepared.morphable.vertices(m.faces.identity[rows], m.faces.expression[rows])
    columns["the exact shape" if m.synthetic else "fit of the 3DMM"] = mesh_pictures(fit, m.prepared.morphable)
    picture = grid(list(zip(*columns.values(), strict=True)), columns=list(columns), zoom=2)
    text = (
        "Meshes without pose, turned a little to the side: of the shape stream (eq. 3), of the morphable model with the"
        " coefficients read off the codes (eq. 10 and 11), and of "
        + ("the exact coefficients the face was rendered from." if m.synthetic else "the landmark fit of the photo.")
    )
    parts: list[Figure | Table] = [Figure(picture)]
    if not m.synthetic or not torch.equal(morphable.triangles, m.prepared.morphable.triangles):
        return Content(text, parts)
    found = shape_errors(model, m.prepared, split=m.exact_split, limit=_MEASURED, detector=landmark_detector())
    text += f"\n\n{_ALL_POSES}" if m.frontal else ""
    return Content(text, [*parts, _shape_table(found)], {name: one.to_dict() for name, one in found.items()})


def _shape_table(found: Mapping[str, ShapeErrors]) -> Table:
    names = {
        "stream": "our shape stream",
        "coefficients": "our coefficients",
        "fit": "3DMM fitted to landmarks",
        "mean": "mean face, without looking",
    }
    rows = [
        (
            names[name],
            f"{one.rigid:.2f} ± {one.rigid_deviation:.2f} mm",
            f"{one.similarity:.2f} ± {one.similarity_deviation:.2f} mm",
        )
        for name, one in found.items()
    ]
    first = next(iter(found.values()))
    return Table(
        ["", "after a rigid motion", "after a similarity"],
        rows,
        caption=f"Mean distance of the face's vertices from the exact ones, mean and deviation over {first.faces}"
        " faces. The paper compares by eye.",
    )


def reconstruction(m: Material) -> Content:
    """How near decoded faces come to the photos, beside the baselines."""
    photos, masks = m.images[m.sample], m.faces[torch.tensor(m.sample)].masks()
    pictures = {OURS: m.codings.image} | m.decoded(m.sample)
    found = {name: quality(image, photos, masks) for name, image in pictures.items()}
    lines = [
        (name, f"{one.psnr:.1f} dB", f"{one.psnr_face:.1f} dB", f"{one.ssim:.3f}", f"{one.ssim_face:.3f}")
        for name, one in found.items()
    ]
    shown = m.pairs("expression").sources
    ours = transfer(m.model, m.images[shown], m.images[shown], []).image
    columns = {"photo": m.images[shown], OURS: ours} | m.decoded(shown)
    labels = [name.split(",")[0] for name in columns]
    picture = grid(list(zip(*columns.values(), strict=True)), columns=labels, zoom=2)
    text = (
        f"Decoded faces against the photos, means over {len(photos)} faces. Ours has six codes and carries the"
        " surroundings past them; the others have one code of 128 numbers. Set out to reach: 24 dB inside the face."
    )
    head = ["", "PSNR", "PSNR in the face", "SSIM", "SSIM in the face"]
    return Content(text, [Table(head, lines), Figure(picture)], {name: one.to_dict() for name, one in found.items()})


def table_1(m: Material) -> Content:
    """Table 1, and the same on persons that the classifier never saw."""
    usable = m.often(FOLDS)
    if not set(PAPER) & set(usable):
        raise InputError(_why(m, usable))
    coders: dict[str, Array | Mapping[str, Array]] = {OURS: m.ours, **m.singles}
    if set(usable) & set(PAPER) <= set(m.labelled_factors):
        coders[TENSORFACES] = m.labelled_factors
    if m.unlabelled_factors:
        coders[UNNAMED] = np.concatenate(m.unlabelled_factors, axis=1)
    tables = {name: table_one(codes, usable, seed=m.seed) for name, codes in coders.items()}
    targets = TARGETS if m.prepared.info.get("source") == "facefactors" else {}
    names = list(tables[OURS].rows)
    lines = [_probe_row(name, tables, targets.get(name, "")) for name in names]
    shares = [[table.rows[name].accuracy for table in tables.values()] for name in names]
    best = {number: 1 + int(np.argmax(row)) for number, row in enumerate(shares)}
    first = tables[OURS].rows[names[0]]
    text = (
        f"A linear SVM learns to tell a label from a code: identity from the identity code, expression from the"
        f" expression code, pose from the pose code. It learns from nine tenths of the {first.faces} faces and is tried"
        f" on the rest, {FOLDS} times over; mean and standard deviation over the folds. The paper's figures are for"
        " Multi-PIE, other faces than these. In the rows “of new persons” nobody is both learnt from and tried.\n\n"
        f"{Z0} and {PCA} have one code of 128 numbers for everything. {TENSORFACES} was told all labels of the faces it"
        f" learnt from; {UNNAMED} factorizes without labels and does not say which code is which, so that all of its"
        " numbers count."
    )
    head = ["told", *tables, "chance", "paper", "set out to reach", ""]
    numbers = {name: table.to_dict() for name, table in tables.items()}
    return Content(text, [Table(head, lines, best=best, caption=_left_out(m, usable))], numbers)


def _probe_row(name: str, tables: Mapping[str, TableOne], target: str) -> list[str]:
    probes = [table.rows[name] for table in tables.values()]
    return [
        name,
        *(f"{one.accuracy:.1%} ± {one.deviation:.1%}" for one in probes),
        f"{probes[0].chance:.1%}",
        f"{PAPER[name]:.2%}" if name in PAPER else "–",
        target and f"{float(target.split()[1]):.0%}",
        target and _verdict([(probes[0].accuracy, target)]),
    ]


def embeddings(m: Material) -> Content:
    """Figures 6 and 7."""
    usable = m.often(_FEWEST)
    wanted = [name for name in ("expression", "pose") if name in usable]
    if not wanted:
        raise InputError(_why(m, usable, _FEWEST))
    parts: list[Figure | Table] = []
    numbers: dict[str, Any] = {}
    for factor in wanted:
        rows = np.flatnonzero(usable[factor] != "")
        labels, persons = usable[factor][rows], m.persons[rows]
        codes = {f"our {factor} code": m.ours[factor][rows], **_some(m.singles, rows)}
        maps = {name: embed(code, labels, persons, limit=_MAPPED, seed=m.seed) for name, code in codes.items()}
        first = next(iter(maps.values()))
        figure = "6" if factor == "expression" else "7"
        drawing = charts.scatters({name: one.points for name, one in maps.items()}, labels[first.rows].tolist())
        parts += [
            Figure(drawing, f"Every point is a face, coloured by {factor}.", f"Coloured by {factor} (Figure {figure})"),
            _cluster_table(maps),
        ]
        numbers[factor] = {
            name: {k: v for k, v in one.to_dict().items() if k in ("plane", "space")} for name, one in maps.items()
        }
    text = (
        "Maps of the codes by t-SNE. The paper shows that faces of one expression, or one pose, lie together in our"
        " code and not in that of Z0, and gives no figure; silhouette and nearest neighbours say the same in numbers,"
        " in the plane and in the full space of the codes, where no map can deceive."
    )
    return Content(text, parts, numbers)


def _cluster_table(maps: Mapping[str, Embedding]) -> Table:
    rows = [
        (
            name,
            f"{one.plane.silhouette:.2f}",
            f"{one.plane.neighbours:.1%}",
            f"{one.space.silhouette:.2f}",
            f"{one.space.neighbours:.1%}",
        )
        for name, one in maps.items()
    ]
    first = next(iter(maps.values()))
    return Table(
        ["", "silhouette in the plane", "neighbours in the plane", "silhouette in full", "neighbours in full"],
        rows,
        caption=f"Of {len(first.rows)} faces. Neighbours: share of those whose label most of their five nearest"
        " neighbours have, faces of other persons where persons are known; chance is"
        f" {first.space.chance:.1%}. Silhouette: 1 is best, 0 is none.",
    )


def leakage(m: Material) -> Content:
    """Each factor told from each code."""
    usable = m.often(FOLDS)
    if len(usable) < 2:
        raise InputError(_why(m, usable))
    rows = _of_some_persons(usable)
    labels = {name: values[rows] for name, values in usable.items()}
    models: dict[str, Mapping[str, Array]] = {OURS: _some(m.ours, rows)}
    if set(usable) <= set(m.labelled_factors):
        models[TENSORFACES] = _some(m.labelled_factors, rows)
    found = {name: disentanglement(codes, labels, seed=m.seed) for name, codes in models.items()}
    parts: list[Figure | Table] = [
        Figure(
            charts.matrix(one.leakage, one.codes, one.factors, across="told", down="from the code of"),
            "0 is chance, 1 is certainty. Only the fields where code and factor agree should be dark.",
            name,
        )
        for name, one in found.items()
    ]
    parts.append(_disentanglement_table(found))
    text = (
        f"A linear SVM tells every factor from every code, of {len(rows)} faces. The paper does not measure this; a"
        " code may hold its factor and yet leak into others, which Table 1 cannot see."
    )
    return Content(text, parts, {name: one.to_dict() for name, one in found.items()})


def _of_some_persons(labels: Mapping[str, np.ndarray]) -> np.ndarray:
    """Faces of which everything is known, of at most 18 persons: to tell many from each other takes long."""
    known = np.all([values != "" for values in labels.values()], axis=0)
    if "identity" in labels:
        persons = np.unique(labels["identity"][known])
        known &= np.isin(labels["identity"], persons[spread(len(persons), _PERSONS)])
    return np.flatnonzero(known)


def _disentanglement_table(found: Mapping[str, Disentanglement]) -> Table:
    rows = [
        (
            name,
            f"{one.own:.2f}",
            f"{one.foreign:.2f}",
            f"{one.dci['disentanglement']:.2f}",
            f"{one.dci['completeness']:.2f}",
            f"{one.dci['informativeness']:.2f}",
            f"{one.mig:.2f}",
            f"{one.sap:.2f}",
        )
        for name, one in found.items()
    ]
    head = ["", "own factor", "other factors", "disentanglement", "completeness", "informativeness", "MIG", "SAP"]
    return Table(
        head,
        rows,
        caption="Whole codes are the units. Disentanglement, completeness and informativeness: Eastwood and Williams"
        " 2018; MIG: Chen et al. 2018; SAP: Kumar et al. 2018. 1 is best, but for the leakage into other factors.",
    )


def fidelity(m: Material) -> Content:
    """Edits against the true mixed render."""
    if not m.synthetic:
        raise InputError("the set holds photos, and nobody knows what a photo with another expression looks like")
    split = m.exact_split
    lines, numbers = [], {}
    for factor in EDITABLE:
        trials = edit_trials(m.prepared, factor, _PAIRS, m.seed, split=split)
        one = trials.measure(m.model)
        numbers[factor] = {OURS: one.to_dict()}
        fits = "–"
        if factor in MORPHABLE_EDITABLE:
            rows = m.prepared.split(split)
            faces, donors = (faces_from_rows(rows.select(some)) for some in (trials.sources, trials.targets))
            theirs = trials.score(edit_by_fits(faces, donors, factor, m.prepared.morphable), trials.images)
            numbers[factor][FITS] = theirs.to_dict()
            fits = f"{theirs.edited:.1f} dB"
        lines.append(
            (
                factor,
                f"{one.edited:.1f} dB",
                f"{one.unedited:.1f} dB",
                f"{one.photo:.1f} dB",
                fits,
                f"{one.better:.0%}",
                f"{one.edited_ssim:.3f}",
                f"{one.unedited_ssim:.3f}",
                _verdict([(one.edited, TARGETS["edited"]), (one.better, TARGETS["better"])]),
            )
        )
    head = ["edit", "ours", "no edit", "photo", FITS, "ours is nearer", "SSIM of ours", "SSIM of no edit", ""]
    text = (
        f"The same edit rendered from the exact factors says how a swap should look. PSNR and SSIM inside the face,"
        f" over {_PAIRS} random pairs that differ in the factor: of our edit, of our reconstruction without the edit,"
        " of the photo itself, and of the morphable model's edit, which has the photo's own pixels and here the exact"
        " fits. “Ours is nearer”: share of pairs in which the edit is nearer to the truth than our reconstruction."
        " Set out to reach: 21 dB, and nearer in 80 % of the pairs."
    )
    text += f"\n\n{_ALL_POSES}" if m.frontal else ""
    return Content(text, [Table(head, lines)], numbers)


def after(m: Material) -> Content:
    """What a judge without codes sees after a swap."""
    pair = m.random_pairs(_READ)
    source, donor = m.images[pair.sources], m.images[pair.donors]
    known = {factor: m.truth(pair, factor) for factor in READABLE}
    truth = {factor: pictures for factor, pictures in known.items() if pictures is not None}
    taught = {"pose": m.faces.rotation, "light": m.faces.light}
    if m.teacher is not None and m.teacher.morphable.fingerprint() == m.prepared.morphable.fingerprint():
        taught["expression"] = m.faces.expression
    trust = reader_errors(m.reader.read(source), {name: values[pair.sources] for name, values in taught.items()})

    def ours(source: Tensor, donor: Tensor, factor: str) -> Tensor:
        return transfer(m.model, source, donor, [factor] if factor else []).image

    def by_fits(source: Tensor, donor: Tensor, factor: str) -> Tensor:
        edited = m.morphable_edits(pair, factor)
        return source if edited is None else edited

    found = {
        OURS: after_swap(ours, source, donor, m.reader, READABLE, truth),
        FITS: after_swap(by_fits, source, donor, m.reader, MORPHABLE_EDITABLE, truth),
    }
    drawings = [
        Figure(charts.matrix(one.moved, one.swapped, one.read, across="read", down="swapped"), title=name)
        for name, one in found.items()
    ]
    degrees = []
    for name, one in found.items():
        verdict = _verdict([(one.pose_degrees, "<= 8")])
        degrees.append((name, f"{one.pose_degrees:.1f}°", f"{one.unedited_pose_degrees:.1f}°", "8°", verdict))
    table = Table(["pose after a pose swap", "error", "without the swap", "set out to reach", ""], degrees)
    text = (
        f"A judge that knows no codes, taught by real pictures to tell factors from pixels, reads"
        f" {found[OURS].pairs} edited faces. The matrix says how far the factor that is read goes the way to the"
        " donor's when a factor is swapped: 1 on the diagonal is all of it, 0 elsewhere says that nothing else came"
        " along.\n\n"
        f"How far the judge is to be trusted: on the photos themselves it errs by {trust['pose_degrees']:.1f}° of pose"
        f" and reads {_share_read(trust)} of the variance of the other factors."
    )
    return Content(text, [*drawings, table], {name: one.to_dict() for name, one in found.items()} | {"judge": trust})


def _share_read(trust: Mapping[str, float]) -> str:
    return " and ".join(
        f"{trust[f'r2_of_{name}']:.0%} ({name})" for name in ("expression", "light") if f"r2_of_{name}" in trust
    )


def persons(m: Material) -> Content:
    """Whose face a swap shows."""
    if m.verifier is None:
        raise InputError("no network that tells persons apart was given; name one with --verifier")
    who = m.persons[m.sample].tolist()
    found = verify_swaps(m.model, m.faces[torch.tensor(m.sample)], m.codings, m.verifier, who)
    if found is None:
        raise InputError("all faces show one person")
    rows = [
        (factor, f"{found.won[factor]:.0%}", f"{found.cosine[factor]:.2f}", f"{found.above_strangers[factor]:.0%}")
        for factor in EDITABLE
    ]
    text = (
        f"A network that tells persons apart ({m.verifier.facts.name}), which ours was not trained with, looks at"
        f" {found.pairs} swaps. An edit of expression, pose or light should keep the person, a swap of identity should"
        f" take it over. Two persons' reconstructions have a mean cosine of {found.strangers:.2f}, a reconstruction and"
        f" its photo {found.reconstruction:.2f}."
    )
    head = ["swap", "shows whom it should", "cosine with the own reconstruction", "above two persons'"]
    return Content(text, [Table(head, rows)], found.to_dict())


def interpolation(m: Material) -> Content:
    """Figures 10 and 11."""
    pair = m.pairs("expression")
    parts: list[Figure | Table] = []
    for number in (0, len(pair.sources) // 2):
        source, target = (m.images[[rows[number]]] for rows in (pair.sources, pair.donors))
        parts.append(Figure(interpolation_sheet(m.model, source, target, EDITABLE, zoom=1)))
    text = (
        "One code at a time goes in eleven steps of 0.1 on a straight line to that of another face; everything else,"
        " the background too, stays. The paper shows expression (Figure 10) and identity (Figure 11)."
    )
    return Content(text, parts)


def film(m: Material) -> Content:
    """The video of appendix E, on a film whose every frame is known."""
    if not m.synthetic:
        raise InputError(
            "this film needs exact factors; `facemodels animate VIDEO PHOTO` makes one of a video and a photo"
        )
    pair = m.pairs("expression")
    driver, peak, other = pair.sources[0], pair.donors[0], pair.sources[-1]
    made = make_film(m.model, m.factors[driver], m.factors[other], m.factors[peak])
    rows = {"drives": made.driver, "ours": made.ours, "the truth": made.truth}
    if made.warped is not None:
        rows["landmark warp"] = made.warped
    every = range(0, FRAMES, _EVERY)
    strip = grid([[pictures[k] for k in every] for pictures in rows.values()], row_labels=list(rows), zoom=1)
    trembling = {name: jitter(pictures, m.reader if m.teacher else None) for name, pictures in rows.items()}
    lines = []
    for name, pictures in rows.items():
        near = "–" if name in ("drives", "the truth") else f"{float(psnr(pictures, made.truth).mean()):.1f} dB"
        read = trembling[name].readings.get("expression")
        lines.append((name, near, f"{trembling[name].pixels:.4f}", "–" if read is None else f"{read:.3f}"))
    text = (
        f"A rendered face goes to another expression and back in {FRAMES} frames while its head sways; another face"
        " takes the expression code of every frame, without smoothing, and keeps its own pose. The paper compares with"
        " the photo warped to the landmarks of the video. Trembling is the root mean square second difference over"
        " time, of the pixels and of the expression that a judge reads: ours should tremble no more than the truth."
    )
    table = Table(["", "PSNR to the truth", "trembling of the pixels", "of the expression read"], lines)
    numbers = {name: one.to_dict() for name, one in trembling.items()}
    return Content(text, [Figure(strip, "Every third frame."), table], numbers)


def monotony(m: Material) -> Content:
    """Figures 10 and 11 in numbers."""
    courses: dict[str, Monotonicity] = {}
    for factor in READABLE:
        pair = m.pairs(factor, _PATHS)
        source, donor = m.images[pair.sources], m.images[pair.donors]
        course = monotonicity(functools.partial(interpolate, m.model), source, donor, m.reader, factor)
        if course is not None:
            courses[factor] = course
    amounts = [step / (STEPS - 1) for step in range(STEPS)]
    drawing = charts.lines(
        {name: (amounts, one.course) for name, one in courses.items()}, across="amount", up="read in the picture"
    )
    rows = [
        (name, f"{one.spearman:.3f} ± {one.deviation:.3f}", "0.95", _verdict([(one.spearman, ">= 0.95")]))
        for name, one in courses.items()
    ]
    text = (
        "The judge of edits reads the moving factor in every picture of such a way: 0 is what it reads in the face"
        " itself, 1 what it reads in the other. Spearman's rank correlation of the amount and the reading is 1 where"
        f" every step goes ahead; mean and deviation over {_PATHS} pairs."
    )
    parts = [Figure(drawing), Table(["", "rank correlation", "set out to reach", ""], rows)]
    return Content(text, parts, {name: one.to_dict() for name, one in courses.items()})


def everything(m: Material) -> Content:
    """All measures of `facemodels evaluate`."""
    limit = min(len(m.chosen), _EVALUATED)
    unfit = _unfit(m)
    labels = None if unfit else m.table
    report = evaluate(
        m.model, m.prepared, labels, m.label, split=m.split, teacher=m.teacher, verifier=m.verifier, limit=limit
    )
    rows = [
        (
            LINES[name].title,
            f"{value:.3g} {LINES[name].unit}".strip(),
            LINES[name].target,
            ("reached" if reaches(value, LINES[name].target) else "missed") if LINES[name].target else "",
        )
        for name, value in report.measures.items()
    ]
    text = (
        "What `facemodels evaluate` measures, beside what a network trained for two hours on a CPU should reach on"
        f" photos, on {report.faces} faces. Every measure is explained in `facemodels.evaluation`."
    )
    text += f"\n\nThe table of labels was not used here: {unfit}." if unfit else ""
    text += f"\n\n{_ALL_POSES}" if m.frontal else ""
    return Content(text, [Table(["measure", "value", "target", ""], rows)], report.to_dict())


def _unfit(m: Material) -> str:
    """Why the table of labels is none that `evaluate` takes; empty if it is one, or if there is no table."""
    if m.table is None:
        return ""
    try:
        Labels.of(m.prepared, m.split, m.table, m.label)
        if m.teacher is not None:
            Labels.of(m.teacher, "train", m.table, m.label)
    except InputError as error:
        return str(error)
    return ""


def costs(m: Material) -> Content:
    """Weights and milliseconds."""
    found = cost(m.model)
    times = {
        "encode": (found.encode_ms, found.encode_batch_ms),
        "decode, all three streams": (found.decode_ms, found.decode_batch_ms),
    }
    rows = [(name, f"{one:.1f} ms", f"{many:.2f} ms") for name, (one, many) in times.items()]
    rows.append(("edit: encode two, exchange a code, decode", f"{found.edit_ms:.1f} ms", "–"))
    weights = [(name, f"{count / 1e6:.2f} million") for name, count in found.weights.items()]
    text = (
        f"On this machine ({found.device}, {found.threads} threads, and whatever else it did meanwhile), medians. The"
        f" network has {found.total / 1e6:.1f} million numbers; the paper's has 133 million in the core of stream 3"
        " alone."
    )
    parts = [Table(["", "one face alone", "one of 32 together"], rows), Table(["part", "numbers"], weights)]
    return Content(text, parts, found.to_dict())


SECTIONS: Sequence[tuple[str, str, Callable[[Material], Content]]] = (
    ("decomposition", "A face taken apart (Figure 1)", decomposition),
    ("expression", "Expression editing (Figures 3 and 8)", expression_editing),
    ("pose", "Pose editing (Figures 4 and 9)", pose_editing),
    ("light-identity", "Light and identity", light_and_identity),
    ("interpolation", "Interpolation (Figures 10 and 11)", interpolation),
    ("monotony", "How steadily interpolations move", monotony),
    ("film", "A film (appendix E)", film),
    ("shapes", "3D shape (Figure 5)", shapes),
    ("reconstruction", "Reconstruction", reconstruction),
    ("table-1", "Identity, expression and pose told from the codes (Table 1)", table_1),
    ("maps", "Maps of the codes (Figures 6 and 7)", embeddings),
    ("leakage", "What each code tells of each factor", leakage),
    ("fidelity", "Edits against the truth", fidelity),
    ("after-swap", "What a judge sees after a swap", after),
    ("persons", "Whose face a swap shows", persons),
    ("measures", "All other measures", everything),
    ("cost", "What it costs", costs),
)
"""Name, title and maker of every section, in their order."""


def _some(codes: Mapping[str, Array], rows: np.ndarray) -> dict[str, Array]:
    return {name: code[rows] for name, code in codes.items()}


def _why(m: Material, usable: Mapping[str, np.ndarray], rarest: int = FOLDS) -> str:
    """Why labels do not suffice."""
    return _left_out(m, usable, rarest) or (
        _NO_LABELS if not m.labels else f"only labels of {' and '.join(usable)} are known"
    )


def _left_out(m: Material, usable: Mapping[str, np.ndarray], rarest: int = FOLDS) -> str:
    """Faces that do not count, in words."""
    lost = {name: int((values.astype(str) != usable.get(name, "")).sum()) for name, values in m.labels.items()}
    names = " and ".join(f"{count} of {name}" for name, count in lost.items() if count)
    return names and f"labels that fewer than {rarest} faces show, or all, do not count: {names}"


def _verdict(values: Sequence[tuple[float, str]]) -> str:
    return "reached" if all(reaches(value, target) for value, target in values) else "missed"
