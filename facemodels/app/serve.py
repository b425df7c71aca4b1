"""Serving the page: to this machine alone unless asked otherwise, with nothing kept and nothing sent away."""

import contextlib
import importlib.util
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from facemodels.autoencoder import NeuroTensorialAutoencoder
from facemodels.errors import InputError
from facemodels.expressions import name_expressions
from facemodels.fitting.landmarks import LandmarkDetector, MediaPipeDetector

_LARGEST_UPLOAD = "40mb"


@contextlib.contextmanager
def serve(
    model: NeuroTensorialAutoencoder,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    open_browser: bool = False,
    detector: LandmarkDetector | None = None,
    refined: int = 0,
) -> Iterator[str]:
    """Serve the page while the context lasts; what was uploaded is deleted when it ends, if not before.

    Args:
        model: A trained network.
        host: Address to listen at; "0.0.0.0" lets other machines in.
        port: Port; by default the first free one from 7860 on.
        open_browser: Whether to show the page in the browser.
        detector: Finds the faces in photos; by default MediaPipe's.
        refined: Steps in which identity and light of every photo are fitted to it.

    Yields:
        The page's address.

    Raises:
        InputError: Gradio or MediaPipe is not installed, or the page cannot be served at this address.
    """
    if importlib.util.find_spec("gradio") is None:
        raise InputError("the page needs Gradio, which is not installed; run `pip install 'multilinear-faces[app]'`")
    _check_address(host, port)
    detector = detector or MediaPipeDetector()
    with (
        tempfile.TemporaryDirectory(prefix="facemodels-app-", ignore_cleanup_errors=True) as folder,
        _environment(
            GRADIO_ANALYTICS_ENABLED="False", GRADIO_TEMP_DIR=folder, no_proxy=_without_proxy(host, "localhost")
        ),
        contextlib.ExitStack() as ending,
    ):
        import gradio as gr

        from facemodels.app.examples import examples
        from facemodels.app.markup import CSS
        from facemodels.app.page import SCRIPT, build_page
        from facemodels.app.studio import Studio

        studio = Studio(model, detector, name_expressions(model), refined)
        page = build_page(studio, examples(), Path(folder))
        theme = gr.themes.Default(primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["monospace"])
        ending.callback(page.close, verbose=False)
        try:
            _, address, _ = page.launch(
                server_name=host,
                server_port=port,
                inbrowser=open_browser,
                share=False,
                quiet=True,
                prevent_thread_lock=True,
                ssr_mode=False,
                enable_monitoring=False,
                mcp_server=False,
                footer_links=[],
                max_file_size=_LARGEST_UPLOAD,
                theme=theme,
                css=CSS,
                head=SCRIPT,
            )
        except OSError as error:
            raise InputError(
                f"the page cannot be served at {host}:{port or 7860} ({error}); try another --port"
            ) from error
        yield address


@contextlib.contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """Variables of the environment that Gradio and its HTTP client read, while the context lasts."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _without_proxy(*hosts: str) -> str:
    """The hosts that are asked without a proxy, and these: Gradio asks its own page whether it is there."""
    known = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
    return ",".join([*([known] if known else []), *hosts])


def _check_address(host: str, port: int | None) -> None:
    """Refuse an address that is taken or not ours, before any work.

    Raises:
        InputError: Nothing can be served there.
    """
    try:
        socket.create_server((host, port or 0)).close()
    except OSError as error:
        where = host if port is None else f"{host}:{port}"
        raise InputError(
            f"the page cannot be served at {where} ({error.strerror}); try another --port or --host"
        ) from error
