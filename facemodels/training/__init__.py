"""Training on one process or many, with checkpoints that resume exactly."""

from facemodels.training.loop import train as train
from facemodels.training.processes import end_processes as end_processes
