"""Decompositions: Tucker and CP models, TensorFaces of labelled images, Khatri-Rao factors of unlabelled samples.

All are fits without gradients, on the operators of `multilinear`, in float32 or float64, also inside `torch.autocast`,
on the device of what is passed; none changes it. Iterations report to `progress` (a `Sweep` each), which may end them
by raising `StopIteration`. Ctrl-C goes through: a function then returns nothing, a `KhatriRaoFactorization` keeps its
last sweep.
"""

from multilinear.decomposition._cp_als import cp_als as cp_als
from multilinear.decomposition._cp_gradient import cp_gradient as cp_gradient
from multilinear.decomposition._hooi import tucker as tucker
from multilinear.decomposition._hosvd import hosvd as hosvd
from multilinear.decomposition._iterations import Sweep as Sweep
from multilinear.decomposition._khatri_rao import KhatriRaoFactorization as KhatriRaoFactorization
from multilinear.decomposition._models import CPDecomposition as CPDecomposition
from multilinear.decomposition._models import TuckerDecomposition as TuckerDecomposition
from multilinear.decomposition._tensorfaces import TensorFaces as TensorFaces
from multilinear.decomposition._tensorfaces import tensorfaces as tensorfaces
