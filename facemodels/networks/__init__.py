"""Convolutional building blocks: the encoder and its decoders."""

from facemodels.networks.decoders import UnpoolingDecoder as UnpoolingDecoder
from facemodels.networks.decoders import UpsamplingDecoder as UpsamplingDecoder
from facemodels.networks.encoder import Context as Context
from facemodels.networks.encoder import Encoder as Encoder
