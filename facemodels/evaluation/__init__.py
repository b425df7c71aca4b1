"""Measures on held-out faces; labels are read here and nowhere else."""

from facemodels.evaluation.fidelity import edit_fidelity as edit_fidelity
from facemodels.evaluation.fidelity import true_edits as true_edits
from facemodels.evaluation.gates import gates as gates
from facemodels.evaluation.measures import Codings as Codings
from facemodels.evaluation.measures import encode_all as encode_all
from facemodels.evaluation.measures import reconstruction as reconstruction
from facemodels.evaluation.report import Report as Report
from facemodels.evaluation.report import evaluate as evaluate
from facemodels.evaluation.report import measure as measure
from facemodels.evaluation.swaps import swap_rates as swap_rates
