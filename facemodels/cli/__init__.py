"""The command line: every command parses, calls its twin in Python and prints."""

from facemodels.cli.commands import app as app
from facemodels.cli.commands import main as main
