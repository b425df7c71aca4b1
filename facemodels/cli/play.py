"""Commands that show what the package does: `demo` and `app`."""

from pathlib import Path
from typing import Annotated

import typer

from facemodels.cli.ending import stop
from facemodels.cli.networks import load_network
from facemodels.cli.options import Model, Refine


def demo(
    out: Annotated[Path, typer.Option(help="Directory of the page.")] = Path("demo"),
    faces: Annotated[int, typer.Option(min=1000, help="Synthetic faces, a tenth of them held out.")] = 3000,
    minutes: Annotated[float, typer.Option(help="Minutes of training.")] = 5.0,
    workers: Annotated[int, typer.Option(help="Processes that render.")] = 2,
) -> None:
    """Synthesise faces, train on them, edit held-out faces and a photo, and write OUT/index.html."""
    from facemodels.demo import run

    try:
        page = run(out, faces=faces, minutes=minutes, workers=workers)
    except KeyboardInterrupt:
        stop(f"interrupted; {out} keeps what is done, and the same command goes on from there")
    print(f"look at {page}")


def play(
    model: Model = None,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port; by default the first free one from 7860 on.")
    ] = None,
    refine: Refine = 0,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Show the page in the browser.")] = True,
) -> None:
    """Edit faces in the browser, with sliders; photos stay on this machine and are not kept."""
    import signal
    from threading import Event

    from facemodels.app import serve

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a service that is stopped keeps no photos, either
    network = load_network(model)
    print("starting the page; it takes some seconds", flush=True)
    with serve(network, host=host, port=port, open_browser=open_browser, refined=refine) as address:
        print(f"the page is at {address} until you press Ctrl-C", flush=True)
        try:
            Event().wait()
        except KeyboardInterrupt:
            print("\nended; nothing was kept")
