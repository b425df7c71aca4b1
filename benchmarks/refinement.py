"""What it brings to fit a face's codes to its photo: `python -m benchmarks refinement SET [--model RUN]`.

Held-out faces are read by the encoder and fitted on by `facemodels.editing.refine`, then decoded: how near they come to
the photos and to the fitted normals. Edits of rendered faces are compared with the true renders, as many pairs of each
factor; swaps of photos are judged by a label of expression (`--labels`). Codes that another face lends are as they are
read.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from benchmarks.options import add_teacher, command_parser, teacher_from
from facemodels.autoencoder import NeuroTensorialAutoencoder
from facemodels.cli.networks import load_network
from facemodels.data.dataset import Faces, PreparedSet, faces_from_rows
from facemodels.editing import EDITABLE, refine
from facemodels.evaluation.exchange import spread
from facemodels.evaluation.fidelity import edit_trials
from facemodels.evaluation.measures import Codings, encode_all, reconstruction
from facemodels.evaluation.report import Labels, teach_judge
from facemodels.evaluation.swaps import SwapRates, swap_rates

Row = tuple[str, str, str]
"""What was measured, as the codes are read, and with refined ones."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print a table."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    prepared = PreparedSet(options.prepared)
    model = load_network(options.model)
    prepared.require_size(model.config.size)
    prepared.faces(options.split, limit=1)  # refuses an empty split
    judge = None
    if options.labels:
        teacher = teacher_from(options, prepared)
        judge = teach_judge(teacher, options.labels, options.label)
    rows = prepared.split(options.split)
    chosen = spread(len(rows), options.faces or None)
    faces = faces_from_rows(rows.select(chosen.tolist()))
    read, refined = encode_all(model, faces), encode_all(model, faces, options.steps)
    lines = list(_faces(faces, read, refined))
    shown = Labels.of(prepared, options.split, options.labels, options.label).shown
    if judge and shown is not None:
        labels = shown[chosen.numpy()]
        swaps = (swap_rates(model, faces.pictures(), own, labels, judge, donors=read) for own in (read, refined))
        lines += _swaps(*swaps)
    if "emotion" in rows.column_names:
        lines += _edits(model, prepared, options.split, options.pairs, options.steps)
    titles = ("", "as read", f"refined, {options.steps} steps")
    text = "\n".join(f"| {' | '.join(line)} |" for line in (titles, ("---",) * 3, *lines))
    print(text)
    if options.out:
        options.out.write_text(text + "\n")
    return 0


def _faces(faces: Faces, read: Codings, refined: Codings) -> Iterator[Row]:
    """How near decoded faces come to photos and fits."""
    before, after = (reconstruction(faces, codings) for codings in (read, refined))
    for name, title in {"psnr_face": "face, dB", "normals_degrees": "normals, degrees"}.items():
        yield f"{title}, {len(faces)} faces", f"{before[name]:.2f}", f"{after[name]:.2f}"


def _swaps(read: SwapRates, refined: SwapRates) -> Iterator[Row]:
    """How often swaps show the label of the other face, and decoded faces their own."""
    titles = {"expression": "expression swap follows", "identity": "identity swap follows"}
    for name, title in {**titles, "reconstruction": "own label shown without a swap"}.items():
        yield f"{title}, {read.pairs} pairs", f"{getattr(read, name):.3f}", f"{getattr(refined, name):.3f}"


def _edits(
    model: NeuroTensorialAutoencoder, prepared: PreparedSet, split: str, pairs: int, steps: int
) -> Iterator[Row]:
    """How near edits come to their true renders."""
    for factor in EDITABLE:
        trials = edit_trials(prepared, factor, pairs, split=split)
        before, after = trials.measure(model), trials.measure(model, refine(model, trials.images, steps))
        yield f"{factor} edits, dB, {pairs} pairs", f"{before.edited:.2f}", f"{after.edited:.2f}"


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("refinement", __doc__)
    parser.add_argument("prepared", type=Path, help="prepared set with faces that the network has not seen")
    parser.add_argument("--model", type=Path, help="run or checkpoint; by default the newest run, or the package's")
    parser.add_argument("--split", default="test", choices=("test", "train", "all"), help="faces that are measured")
    parser.add_argument("--faces", type=int, default=100, help="faces that are measured, evenly spread; 0 for all")
    parser.add_argument("--pairs", type=int, default=24, help="edits of each factor, of rendered faces")
    parser.add_argument("--steps", type=int, default=60, help="steps of refinement")
    parser.add_argument("--labels", type=Path, help="CSV with the columns file and the label's: swaps are judged, too")
    parser.add_argument("--label", default="Smiling", help="label of expression that swaps are judged by")
    add_teacher(parser)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the table there, too")
    return parser
