"""Tensor algebra with analytic gradients.

Modes count from 0. Matrices come as one sequence, `khatri_rao([a, b, c])`. `order="C"`, last index fastest, is the
default of every function that has an element order; `order="F"` is Kolda and Bader's.
"""

from multilinear import decomposition as decomposition
from multilinear import nn as nn
from multilinear import optim as optim
from multilinear.autograd._dispatch import use as use
from multilinear.contractions import mode_dot as mode_dot
from multilinear.contractions import mttkrp as mttkrp
from multilinear.contractions import mttkrps as mttkrps
from multilinear.contractions import multi_mode_dot as multi_mode_dot
from multilinear.cp import cp_loss as cp_loss
from multilinear.cp import cp_to_tensor as cp_to_tensor
from multilinear.maps import compress as compress
from multilinear.maps import multilinear_loss as multilinear_loss
from multilinear.maps import multilinear_map as multilinear_map
from multilinear.matricization import fold as fold
from multilinear.matricization import matricize as matricize
from multilinear.matricization import unfold as unfold
from multilinear.matricization import unvec as unvec
from multilinear.matricization import vec as vec
from multilinear.products import face_splitting as face_splitting
from multilinear.products import khatri_rao as khatri_rao
from multilinear.products import kronecker as kronecker
from multilinear.products import outer as outer
from multilinear.tucker import tucker_loss as tucker_loss
from multilinear.tucker import tucker_to_tensor as tucker_to_tensor
