"""Convolutional building blocks: the encoder and its decoders."""

from facemodels.networks.decoders import UnpoolingDecoder as UnpoolingDecoder
from facemodels.networks.decoders import UpsamplingDecoder as UpsamplingDecoder
from facemodels.networks.discriminator import Discriminator as Discriminator
from facemodels.networks.encoder import Context as Context
from facemodels.networks.encoder import Encoder as Encoder
from facemodels.networks.filling import fill_face as fill_face
from facemodels.networks.filling import fill_in as fill_in
from facemodels.networks.filling import widen as widen
from facemodels.networks.layout import channels_last as channels_last
