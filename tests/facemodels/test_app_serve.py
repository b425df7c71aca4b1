"""Serving the page: what is refused, before any work."""

import importlib.util
import socket

import pytest

from facemodels.app import serve
from facemodels.errors import InputError


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
