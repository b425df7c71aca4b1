"""The command that makes a network fit for passing on: `export`."""

from pathlib import Path
from typing import Annotated

import typer

from facemodels.cli.networks import load_network


def export(
    model: Annotated[Path, typer.Argument(help="Checkpoint or run, here or as OWNER/NAME on the Hugging Face hub.")],
    out: Annotated[Path, typer.Argument(help="Directory to write to.")],
    cores: Annotated[
        bool, typer.Option("--cores", help="Keep what only training and the 3D shape stream need.")
    ] = False,
    pt2: Annotated[
        bool, typer.Option("--pt2", help="Also write encoder.pt2 and decoder.pt2 for torch.export.")
    ] = False,
    onnx: Annotated[bool, typer.Option("--onnx", help="Also write encoder.onnx and decoder.onnx.")] = False,
    morphable: Annotated[
        bool | None,
        typer.Option(
            "--morphable/--no-morphable",
            help="Keep the morphable model, if its licence lets you, for meshes; without this beside --cores alone.",
        ),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="JSON of `facemodels evaluate --out`, whose figures the model card shows.")
    ] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of the weights, for the model card.")] = None,
    trained_on: Annotated[str | None, typer.Option(help="A sentence about the training data, for the card.")] = None,
) -> None:
    """Write a small copy of a network for inference, in float16, and compare its pictures with the original's."""
    from facemodels.evaluation.report import Report
    from facemodels.export import export as export_network

    facts = {} if report is None else Report.load(report).facts()
    facts |= {"licence": licence, "data_licence": licence} if licence else {}
    facts |= {"training_data": trained_on} if trained_on else {}
    exported = export_network(
        load_network(model), out, cores=cores, pt2=pt2, onnx=onnx, morphable=morphable, facts=facts
    )
    for line in exported.lines():
        print(line)
