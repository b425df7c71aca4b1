"""What separated codes bring, and how strongly to separate: `python -m benchmarks separation SET --model RUN`.

One finished network is measured as it was trained and with its identity codes separated from its expression codes
(`facemodels.gauge`) by regressions of several guards. What it makes of a photo is the same in every row; what a swap
shows is not. Photos it was trained on (`--split train`) choose a guard, held-out ones tell what was chosen;
of the former, another set (`--taught-by`) teaches the judge of swaps.
"""

import argparse
import copy
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from benchmarks.options import add_teacher, command_parser, teacher_from
from facemodels.autoencoder import NeuroTensorialAutoencoder
from facemodels.cli.networks import RUNS, load_network
from facemodels.codes import Codes
from facemodels.data.dataset import PreparedSet, faces_from_rows
from facemodels.errors import InputError
from facemodels.evaluation.exchange import spread
from facemodels.evaluation.measures import batches, encode_all
from facemodels.evaluation.report import LINES, Report, evaluate, teach_judge
from facemodels.gauge import RIDGE, join_identity, separate_identity, whiten_identity
from facemodels.training.checkpoint import checkpoints, newest_run
from facemodels.training.loop import GAUGE_FACES

GUARDS = (0.03, 0.1, RIDGE, 1.0, 3.0)
SHOWN = {
    "psnr": "PSNR",
    "expression_follows": "expression swaps that show the donor's label",
    "identity_follows": "identity swaps that do",
    "person_auc": "persons told apart",
    "moved_by_expression": "moved by the expression code",
    "turn_of_appearance": "turn",
    "cycle_pose_degrees": "cycle °",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print a table."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    prepared = PreparedSet(options.prepared)
    teacher = teacher_from(options, prepared)
    run = options.model or newest_run(RUNS)
    if run is None:
        raise InputError(f"there is no run under {RUNS}/; name one with --model")
    model = load_network(next(reversed(checkpoints(run)), run))
    judge = teach_judge(teacher, options.labels, options.label)
    rows: dict[str, Report] = {}
    for name, network in networks(model, training_codes(model, prepared), options.guards):
        rows[name] = evaluate(
            network,
            prepared,
            options.labels,
            options.label,
            split=options.split,
            judge=judge,
            limit=options.faces or None,
        )
        print(f"{name}: measured", flush=True)
    text = "\n".join(table(rows))
    print(text)
    if options.out:
        options.out.write_text(text + "\n")
    return 0


def networks(
    model: NeuroTensorialAutoencoder, codes: Codes, guards: Sequence[float]
) -> Iterator[tuple[str, NeuroTensorialAutoencoder]]:
    """The network as trained, then separated with each guard; codes white in all of them, as training leaves them.

    Args:
        model: A trained network, best of a run's last checkpoint: whitening the codes of a finished one again would
            change distances between persons a little. It stays as it is.
        codes: `training_codes` of it.
        guards: Shares of the mean variance of the expression codes.
    """
    identity = model.whole_identity(codes.expression, codes.identity)
    codes = codes.replace(identity=identity)
    trained = copy.deepcopy(model)
    join_identity(trained)
    for guard in (None, *guards):
        network = copy.deepcopy(trained)
        whiten_identity(network, identity if guard is None else separate_identity(network, codes, guard))
        yield ("as trained" if guard is None else f"separated, guard {guard:g}"), network


@torch.no_grad()
def training_codes(model: NeuroTensorialAutoencoder, prepared: PreparedSet) -> Codes:
    """Codes of at most `GAUGE_FACES` faces of the split "train", without context."""
    rows = prepared.split("train")
    chosen = spread(len(rows), GAUGE_FACES)
    return Codes.cat(
        encode_all(model, faces_from_rows(rows.select(chosen[part].tolist()))).codes for part in batches(len(chosen))
    )


def table(rows: dict[str, Report]) -> Iterator[str]:
    """The measures in Markdown, a line a network."""
    shown = [name for name in SHOWN if any(name in report.measures for report in rows.values())]
    yield "| | " + " | ".join(SHOWN[name] for name in shown) + " |"
    yield "|" + "---|" * (len(shown) + 1)
    yield "| *target* | " + " | ".join(LINES[name].target for name in shown) + " |"
    for name, report in rows.items():
        yield f"| {name} | " + " | ".join(f"{report.measures[measure]:.3f}" for measure in shown) + " |"


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("separation", __doc__)
    parser.add_argument("prepared", type=Path, help="prepared set that the network was trained on")
    parser.add_argument("--model", type=Path, help="run, whose last checkpoint is taken; by default the newest")
    parser.add_argument("--labels", type=Path, help="CSV with the columns file, the label's and identity")
    parser.add_argument("--label", default="Smiling", help="label of expression that swaps are judged by")
    parser.add_argument("--split", default="test", choices=("test", "train"), help="faces that are measured")
    add_teacher(parser)
    parser.add_argument("--guards", nargs="+", type=float, default=GUARDS, help="shares of the mean variance")
    parser.add_argument("--faces", type=int, default=0, help="faces that are measured; 0 for all")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the table there, too")
    return parser
