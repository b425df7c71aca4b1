"""Verification networks by the name or the file that a setting holds."""

from facemodels.networks.verification.dlib import load_dlib
from facemodels.networks.verification.sface import load_sface
from facemodels.networks.verification.small import load_small
from facemodels.networks.verification.verifier import Verifier


def load_verifier(name: str) -> Verifier:
    """The verification network "sface" or "dlib", or the small one in a file that `save_small` wrote.

    Raises:
        InputError: There are no weights of that network, or no such file.
    """
    if name == "sface":
        return load_sface()
    if name == "dlib":
        return load_dlib()
    return load_small(name)
