"""Commands that measure a network: `evaluate`, `probe` and `report`."""

from pathlib import Path
from typing import Annotated

import typer

from facemodels.cli.ending import stop
from facemodels.cli.networks import load_network, network_name
from facemodels.cli.options import Model, check_split


def evaluate(
    prepared: Annotated[Path, typer.Argument(help="Prepared set.")] = Path("prepared"),
    model: Model = None,
    split: Annotated[str, typer.Option(help="test, train, or all of a set that was not trained on.")] = "test",
    taught_by: Annotated[
        Path | None,
        typer.Option(help="Set whose split train teaches the judge of swaps; by default, of the split test, its own."),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="CSV with the columns `file`, the label's and, if known, `identity`.")
    ] = None,
    label: Annotated[str, typer.Option(help="Label of expression that swaps are judged by.")] = "Smiling",
    verifier: Annotated[
        str | None,
        typer.Option(help="Who judges whether edits keep the person: sface, dlib, or a file of weights."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Measure at most so many faces, evenly spread.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the figures as JSON, too.")] = None,
) -> None:
    """Measure a network on the held-out split, beside what one trained on photos should reach."""
    from facemodels.data.dataset import PreparedSet
    from facemodels.evaluation.report import evaluate as evaluate_network
    from facemodels.files import check_place, write_json
    from facemodels.networks.verification import load_verifier

    check_split(split)
    if out:
        check_place(out)
    report = evaluate_network(
        load_network(model),
        PreparedSet(prepared),
        labels,
        label,
        split=split,
        teacher=None if taught_by is None else PreparedSet(taught_by),
        verifier=None if verifier is None else load_verifier(verifier),
        limit=limit,
    )
    for line in report.lines():
        print(line)
    if out:
        write_json(out, report.to_dict())


def probe(
    labels: Annotated[
        Path, typer.Argument(help="CSV with the columns path, identity, expression, pose; or a prepared FaceFactors.")
    ],
    model: Model = None,
    split: Annotated[str, typer.Option(help="Of a prepared set: all, test or train.")] = "all",
    aligned: Annotated[bool, typer.Option("--aligned", help="The photos are crops of the network's size.")] = False,
    folds: Annotated[int, typer.Option(min=2, help="Parts of the faces, each classified once.")] = 10,
    workers: Annotated[int, typer.Option(min=1, help="Processes that look for faces.")] = 2,
    out: Annotated[Path | None, typer.Option(help="Write the figures as JSON, too.")] = None,
) -> None:
    """Tell identity, expression and pose from the codes of labelled faces: the paper's Table 1 on your photos."""
    from facemodels.data.dataset import PreparedSet
    from facemodels.evaluation.labelled import labels_of, read_labelled
    from facemodels.evaluation.protocol import run_protocol
    from facemodels.files import check_place, write_json

    check_split(split)
    if out:
        check_place(out)
    network = load_network(model)
    if labels.is_dir():
        prepared = PreparedSet(labels)
        prepared.require_size(network.config.size)
        faces = labels_of(prepared, split)
    else:
        faces = read_labelled(labels, size=network.config.size, aligned=aligned, workers=workers)
    protocol = run_protocol(network, faces, folds=folds, progress=True)
    for line in protocol.lines():
        print(line)
    if out:
        write_json(out, protocol.to_dict())


def report(
    model: Annotated[
        Path | None, typer.Argument(help="Checkpoint or run, here or on the hub; by default the newest run.")
    ] = None,
    prepared: Annotated[
        Path | None, typer.Option(help="Prepared set to measure on; by default FaceFactors is rendered.")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="CSV with the columns `file` and any of `identity`, `expression`, `pose` and `light`."),
    ] = None,
    label: Annotated[str, typer.Option(help="Column that stands in for `expression`.")] = "Smiling",
    split: Annotated[str, typer.Option(help="test, train, or all of a set that was not trained on.")] = "test",
    limit: Annotated[
        int, typer.Option(min=0, help="Measure at most so many faces, evenly spread; 0 for all of them.")
    ] = 2000,
    taught_by: Annotated[
        Path | None,
        typer.Option(
            help="Set whose split train teaches baselines and judges; by default, of the split test, its own."
        ),
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="Adversarial autoencoder that `train-baseline` has trained.")
    ] = None,
    baseline_steps: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Steps to train one for; by default that of the package stands beside rendered faces, and 600 steps"
            " are trained beside photos; 0 goes without.",
        ),
    ] = None,
    verifier: Annotated[
        str | None,
        typer.Option(help="Who judges whether edits keep the person: sface, dlib, or a file of weights."),
    ] = None,
    frontal: Annotated[bool, typer.Option("--frontal", help="Take near-frontal faces only.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Fixes pairs and folds.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes that render.")] = 2,
    out: Annotated[Path, typer.Option(help="Directory of the page.")] = Path("report"),
) -> None:
    """Write OUT/index.html: every figure and table of the paper for a network, beside the baselines."""
    from facemodels.data.dataset import PreparedSet
    from facemodels.evaluation.page import ReportSettings
    from facemodels.evaluation.page import report as write_report
    from facemodels.networks.verification import load_verifier

    check_split(split)
    network = load_network(model)
    try:
        page = write_report(
            network,
            out,
            None if prepared is None else PreparedSet(prepared),
            ReportSettings(
                split=split, limit=limit or None, label=label, steps=baseline_steps, seed=seed, frontal=frontal
            ),
            name=network_name(model),
            labels=labels,
            teacher=None if taught_by is None else PreparedSet(taught_by),
            z0=baseline,
            verifier=None if verifier is None else load_verifier(verifier),
            workers=workers,
        )
    except KeyboardInterrupt:
        stop(f"interrupted; {out} keeps what the baselines have learnt, and the same command goes on from there")
    print(f"look at {page}")
