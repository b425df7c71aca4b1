"""Verification networks by the name or the file that a setting holds."""

from facemodels.networks.verification.dlib import load_dlib
from facemodels.networks.verification.sface import load_sface
from facemodels.networks.verification.small import load_small
from facemodels.networks.verification.verifier import Verifier


def load_verifier(name: str) -> Verifier:
    """The verification network "sface" or "dlib", or the one whose weights a file holds.

    Args:
        name: A name, or a path: SFace's weights end in `.onnx`, dlib's in `.bin`; others are taken for a small network
            that `save_small` wrote.

    Raises:
        InputError: There are no weights of that network, or no such file.
    """
    if name == "sface" or name.endswith(".onnx"):
        return load_sface(None if name == "sface" else name)
    if name == "dlib" or name.endswith(".bin"):
        return load_dlib(None if name == "dlib" else name)
    return load_small(name)
