"""What the network is compared with."""

from facemodels.baselines.adversarial_autoencoder import SHIPPED_Z0 as SHIPPED_Z0
from facemodels.baselines.adversarial_autoencoder import AdversarialAutoencoder as AdversarialAutoencoder
from facemodels.baselines.adversarial_autoencoder import AdversarialConfig as AdversarialConfig
from facemodels.baselines.adversarial_autoencoder import train_adversarial as train_adversarial
from facemodels.baselines.linear import LabelledFactors as LabelledFactors
from facemodels.baselines.linear import PrincipalComponents as PrincipalComponents
from facemodels.baselines.linear import UnlabelledFactors as UnlabelledFactors
