"""Measures on held-out faces; labels are read here and nowhere else."""

from facemodels.evaluation.after_swap import after_swap as after_swap
from facemodels.evaluation.coders import Coder as Coder
from facemodels.evaluation.coders import encode_pictures as encode_pictures
from facemodels.evaluation.coders import named_codes as named_codes
from facemodels.evaluation.disentanglement import disentanglement as disentanglement
from facemodels.evaluation.embedding import embed as embed
from facemodels.evaluation.fidelity import edit_fidelity as edit_fidelity
from facemodels.evaluation.fidelity import edit_trials as edit_trials
from facemodels.evaluation.fidelity import true_edits as true_edits
from facemodels.evaluation.gates import gates as gates
from facemodels.evaluation.interpolation import monotonicity as monotonicity
from facemodels.evaluation.labelled import labels_of as labels_of
from facemodels.evaluation.labelled import read_labelled as read_labelled
from facemodels.evaluation.measures import Codings as Codings
from facemodels.evaluation.measures import encode_all as encode_all
from facemodels.evaluation.measures import reconstruction as reconstruction
from facemodels.evaluation.probes import probe as probe
from facemodels.evaluation.probes import table_one as table_one
from facemodels.evaluation.report import Report as Report
from facemodels.evaluation.report import evaluate as evaluate
from facemodels.evaluation.report import measure as measure
from facemodels.evaluation.swaps import swap_rates as swap_rates
