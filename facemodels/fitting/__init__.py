"""From landmarks to everything a morphable model can say about a photo: camera, shape and light.

The paper fits its model to the image itself, after Booth et al., "3D Face Morphable Models In-the-Wild", CVPR 2017;
here landmarks alone give camera and shape, and the image gives the light.
"""

from facemodels.fitting.landmarks import LandmarkDetector as LandmarkDetector
from facemodels.fitting.landmarks import Landmarks as Landmarks
from facemodels.fitting.landmarks import MediaPipeDetector as MediaPipeDetector
from facemodels.fitting.shape import Fit as Fit
from facemodels.fitting.shape import FitConfig as FitConfig
from facemodels.fitting.shape import correspond as correspond
from facemodels.fitting.shape import fit as fit
from facemodels.fitting.targets import Cleaning as Cleaning
from facemodels.fitting.targets import PoseTransfer as PoseTransfer
