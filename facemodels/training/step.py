"""One training step as one module: a batch of prepared faces in, the objective out."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from facemodels.autoencoder import Face, NeuroTensorialAutoencoder
from facemodels.codes import FACTORS, Codes
from facemodels.config import TrainingConfig
from facemodels.data.dataset import Faces
from facemodels.losses import Decoded, Objective, truth_from_faces
from facemodels.morphable import MorphableModel


class TrainingStep(nn.Module):
    """The network and its objective behind a single `forward`, so that any data-parallel wrapper fits around it.

    Args:
        network: The network to train.
        config: Weights and shares.
        morphable: The morphable model of the training set.
    """

    def __init__(self, network: NeuroTensorialAutoencoder, config: TrainingConfig, morphable: MorphableModel):
        super().__init__()
        self.network = network
        self.config = config
        self.objective = Objective(config.weights, morphable)

    def forward(self, faces: Faces, seed: int, done: float = 1.0) -> tuple[Tensor, dict[str, Tensor]]:
        """The objective of a batch and its unweighted terms.

        Args:
            faces: The batch.
            seed: Fixes every draw of the step.
            done: How much of the run is done, from 0 to 1.
        """
        generator = torch.Generator().manual_seed(seed)
        partner = torch.randperm(len(faces), generator=generator).to(faces.image.device)
        weights = self.config.weights
        needs_turned = weights.turned_normals != 0
        turned = max(1, round(self.config.turned_share * len(faces))) if needs_turned else 0
        decoded = self._decode(faces, partner, turned)
        with torch.autocast(faces.image.device.type, enabled=False):
            truth = truth_from_faces(faces, self.network.shape_target, partner, turned)
            ramp = self.config.decorrelation_ramp
            return self.objective(decoded, truth, decorrelation=min(1.0, done / ramp) if ramp else 1.0)

    def _decode(self, faces: Faces, partner: Tensor, turned: int) -> Decoded:
        network = self.network
        images = faces.pictures()
        codes = network.encode(images.contiguous(memory_format=torch.channels_last))
        face, turned_face = self._paint(codes, faces.turned_rotation[:turned])
        some = codes[: max(1, round(self.config.surround_share * len(codes)))]
        mask_logits, background = network.surround(some.mask, some.background, some.context)
        mask = (faces[: len(some)].masks() if self.config.known_mask else mask_logits.sigmoid()).float()
        composite = mask * face.image[: len(some)] + (1 - mask) * background
        rows = faces.frontal.nonzero().flatten()
        rows = rows if len(rows) else rows.new_zeros(1)
        frontal, frontal_normals = network.frontal(codes.light[rows], codes.expression[rows], codes.identity[rows])
        return Decoded(
            codes=Codes(**{name: getattr(codes, name).float() for name in FACTORS}, context=codes.context),
            face=face,
            turned=turned_face,
            mask_logits=mask_logits,
            background=background,
            composite=composite,
            expression_coefficients=network.expression_coefficients(codes.expression).float(),
            identity_coefficients=network.identity_coefficients(codes.identity).float(),
            shape_core=network.shape_core.weight,
            partner=partner,
            frontal=frontal.float(),
            frontal_normals=frontal_normals.float(),
            frontal_rows=rows,
        )

    def _paint(self, codes: Codes, rotation: Float[Tensor, "m 9"]) -> tuple[Face, Face | None]:
        """Stream 2 in the own pose and, for the first m faces, in another; one call, as convolutions like batches."""
        count, turned = len(codes), len(rotation)
        if not turned:
            return self.network.paint(codes.pose, codes.expression, codes.identity, codes.light), None
        both = self.network.paint(
            *(
                torch.cat([own, other])
                for own, other in (
                    (codes.pose, rotation.to(codes.pose.dtype)),
                    (codes.expression, codes.expression[:turned]),
                    (codes.identity, codes.identity[:turned]),
                    (codes.light, codes.light[:turned]),
                )
            )
        )
        return both[:count], both[count:]
