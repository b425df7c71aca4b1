"""Serving the page: what is refused before any work, and what stays as it was."""

import importlib.util
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from facemodels.app import serve
from facemodels.errors import InputError

# Gradio leaves open sockets behind, so it runs in a process of its own; named expressions would take a while.
PAGE = """
import importlib, os, urllib.request
import gradio, torch
from drawn_faces import BrightFaces
from facemodels.autoencoder import NeuroTensorialAutoencoder
from facemodels.expressions import NamedExpressions

module = importlib.import_module("facemodels.app.serve")
model = NeuroTensorialAutoencoder.from_pretrained("model")
module.name_expressions = lambda _: NamedExpressions(("happy",), torch.zeros(1, model.config.expression))
"""


def refused(model, text, **options):
    with pytest.raises(InputError, match=text), serve(model, **options):
        pytest.fail("the page is served")


def test_a_taken_port_is_refused(model):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused(model, rf"cannot be served at 127.0.0.1:{port} \(.+\); try another --port", port=port)


def test_an_address_of_another_machine_is_refused(model):
    refused(model, r"cannot be served at 192\.0\.2\.1 \(", host="192.0.2.1")  # an address for documentation


def test_without_gradio_it_says_so(model, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "gradio" else found(name))
    refused(model, r"needs Gradio, which is not installed; run `pip install 'multilinear-faces\[app\]'`")


@pytest.fixture
def outside(model, tmp_path):
    """Runs code after `PAGE` and gives what it prints."""
    pytest.importorskip("gradio", reason="needs the extra `app`")
    model.save_pretrained(tmp_path / "model")

    def run(code, **variables):
        kept = {name: value for name, value in os.environ.items() if name.lower() not in ("no_proxy", "all_proxy")}
        paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
        environment = {**kept, "PYTHONPATH": paths, **variables}
        command = [sys.executable, "-c", PAGE + code]
        ended = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout.strip()

    return run


@pytest.mark.slow
def test_a_proxy_is_not_asked_for_the_page(outside):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        proxy = f"http://127.0.0.1:{closed.getsockname()[1]}"
    code = """
names = "no_proxy", "GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED"
before = [os.environ.get(name) for name in names]
with module.serve(model, detector=BrightFaces()) as address, urllib.request.urlopen(address) as answer:
    print(answer.status)
print([os.environ.get(name) for name in names] == before)
"""
    assert outside(code, http_proxy=proxy).split() == ["200", "True"]


@pytest.mark.slow
def test_a_page_that_fails_to_start_is_closed(outside):
    code = """
launch = gradio.Blocks.launch

def fail(page, **options):
    global started
    started = page
    launch(page, **options)
    raise ValueError("localhost is not accessible")

gradio.Blocks.launch = fail
try:
    with module.serve(model, detector=BrightFaces()):
        pass
except ValueError as error:
    print(error, started.is_running)
"""
    assert outside(code) == "localhost is not accessible False"
