"""Networks that tell whether two faces show the same person: three kinds behind one interface, `Verifier.embed`.

`load_sface` and `load_dlib` read weights that others published, from files or packages that the user has; nothing of
them is part of this distribution. `load_small` reads a small network of ours, trained on rendered faces alone.
Train against one and judge with another: a score must not be the loss it was trained with.
"""

from facemodels.networks.verification.dlib import load_dlib as load_dlib
from facemodels.networks.verification.named import load_verifier as load_verifier
from facemodels.networks.verification.sface import load_sface as load_sface
from facemodels.networks.verification.small import load_small as load_small
from facemodels.networks.verification.small import save_small as save_small
from facemodels.networks.verification.small import train_small as train_small
from facemodels.networks.verification.verifier import Facts as Facts
from facemodels.networks.verification.verifier import Verifier as Verifier
