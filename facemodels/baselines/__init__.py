"""What the network is compared with."""

from facemodels.baselines.plain_autoencoder import PlainAutoencoder as PlainAutoencoder
from facemodels.baselines.plain_autoencoder import train_plain as train_plain
