"""One training step as one module: a batch of prepared faces in, the objective out."""

import dataclasses
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from facemodels.autoencoder import Face, NeuroTensorialAutoencoder, full_precision
from facemodels.codes import FACTORS, Codes
from facemodels.config import TERMS_IN_ANOTHER_POSE, TERMS_OF_CODES, TERMS_RAMPED, TrainingConfig
from facemodels.data.dataset import Faces
from facemodels.losses import Decoded, Objective, Read, Truth, truth_from_faces
from facemodels.morphable import MorphableModel
from facemodels.networks import fill_face
from facemodels.networks.verification import Verifier
from facemodels.parallel import gather, processes
from facemodels.training.adversary import Adversary, held_still

_LONGEST_RAMP = 0.1  # share of the run over which the adversary enters, at most


@dataclass(frozen=True)
class StepResult:
    """What a step gives.

    Attributes:
        total: The objective.
        terms: Its terms, without their weights.
        real, fake: Photos, and the composites the network made of them, without gradients; none while it learns codes
            alone.
    """

    total: Float[Tensor, ""]
    terms: dict[str, Tensor]
    real: Float[Tensor, "s 3 h w"]
    fake: Float[Tensor, "s 3 h w"]


class TrainingStep(nn.Module):
    """The network and its objective behind a single `forward`, so that any data-parallel wrapper fits around it.

    On many processes every draw and every choice of faces is that of the whole batch, so that a step does not depend
    on the number of processes.

    Args:
        network: The network to train; the only submodule.
        config: Weights and shares.
        morphable: The morphable model of the training set.
        adversary: The discriminator's side of the game, or None to leave E_adv out.
        verifier: V of E_veri, or None to leave it out.
    """

    def __init__(
        self,
        network: NeuroTensorialAutoencoder,
        config: TrainingConfig,
        morphable: MorphableModel,
        adversary: Adversary | None = None,
        verifier: Verifier | None = None,
    ):
        super().__init__()
        self.network = network
        self.config = config
        self.objective = Objective(config.weights, morphable, adversary.error if adversary else None, verifier)

    def forward(
        self,
        faces: Faces,
        seed: int,
        done: float = 1.0,
        first: int = 0,
        lenders: UInt8[Tensor, "n 3 h w"] | None = None,
    ) -> StepResult:
        """The objective of a batch and its unweighted terms.

        Args:
            faces: This process's part of the batch.
            seed: Fixes every draw of the step; the same on every process.
            done: How much of the run is done, from 0 to 1.
            first: Number, in the whole batch, of the first face; the parts of all processes are equally long.
            lenders: Photos of `Faces.swapped_row`, for the term `swapped_face`; without them the term is left out.
        """
        device = faces.image.device
        if done < self.config.codes_first:
            return self._read_alone(faces)
        generator = torch.Generator().manual_seed(seed)
        count = len(faces)
        ramps = self._ramps(done)
        partner = torch.randperm(count * processes(), generator=generator)[first : first + count].to(device)
        turned = strided(count, self.config.turned_share if self._turns(ramps) else 0.0).to(device)
        surround = strided(count, self.config.surround_share).to(device)
        with torch.autocast(device.type, enabled=False):
            lent = gather(faces.expression)[partner]
            truth = truth_from_faces(faces, self.network.shape_target, lent, turned)
        swaps = self._counts("swapped_face", ramps)
        lenders = lenders[turned].float() / 255 if lenders is not None and swaps else None
        decoded = self._decode(faces, truth, partner, turned, surround, lenders)
        with torch.autocast(device.type, enabled=False):
            left_out = {} if lenders is not None else {"swapped_face": 0.0}
            total, terms = self.objective(decoded, truth, ramps | left_out)
        return StepResult(total, terms, truth.image[surround], decoded.composite.detach())

    def _read_alone(self, faces: Faces) -> StepResult:
        """A step in which the encoder learns codes from their targets, and nothing is decoded."""
        device = faces.image.device
        with torch.autocast(device.type, enabled=False):
            nobody = torch.zeros(0, dtype=torch.long, device=device)
            truth = truth_from_faces(faces, self.network.shape_target, faces.expression, nobody)
        pictures = truth.image.to(self.network.encoder.head.weight.dtype)
        codes = _float(self.network.perceive(_contiguous(pictures)))
        identity, expression = self.network.coefficients(codes)
        with torch.autocast(device.type, enabled=False):
            alone = dict.fromkeys(self.objective.terms, 0.0) | dict.fromkeys(TERMS_OF_CODES, 1.0)
            total, terms = self.objective(Read(codes, expression, identity), truth, alone)
        return StepResult(total, terms, truth.image[:0], truth.image[:0])

    def _turns(self, ramps: dict[str, float]) -> bool:
        return any(self._counts(name, ramps) for name in TERMS_IN_ANOTHER_POSE)

    def _counts(self, name: str, ramps: dict[str, float]) -> bool:
        """Whether a term has any weight now."""
        return getattr(self.config.weights, name) * ramps.get(name, 1.0) != 0

    def _ramps(self, done: float) -> dict[str, float]:
        config = self.config
        ramps: dict[str, float] = {}
        if config.decorrelation_ramp and config.start is None:  # a trained network knows its codes apart already
            ramps |= dict.fromkeys(TERMS_RAMPED, min(1.0, done / config.decorrelation_ramp))
        if config.adversarial_start:
            length = min(config.adversarial_start, _LONGEST_RAMP)
            ramps["adversarial"] = min(1.0, max(0.0, done - config.adversary_enters) / length)
        return ramps

    def _decode(
        self, faces: Faces, truth: Truth, partner: Tensor, turned: Tensor, surround: Tensor, lenders: Tensor | None
    ) -> Decoded:
        network, weights = self.network, self.config.weights
        count = len(truth.image)
        pictures = truth.image if lenders is None else torch.cat([truth.image, lenders])
        pictures = pictures.to(network.encoder.head.weight.dtype)
        everyone = network.perceive(_contiguous(pictures))
        images, codes = pictures[:count], everyone[:count]
        partner_expression = gather(codes.expression)[partner]
        lent = everyone.expression[count:] if lenders is not None else None
        if lent is None and weights.swapped_codes:
            lent = partner_expression[turned]
        face, turned_face, swapped_face = self._paint(codes, truth.turned_rotation, turned, lent)
        some = codes[surround]
        known = truth.mask[surround] if self.config.known_mask else None
        if network.config.cut_background:
            some = network.look_behind(images[surround], some, known)
        mask_logits, background = network.surround(some)
        mask = mask_logits.sigmoid() if known is None else known
        composite = mask * face[surround].image + (1 - mask) * background
        rows = faces.frontal.nonzero().flatten()
        rows = rows if len(rows) else rows.new_zeros(1)
        frontal, frontal_normals = network.frontal(codes.light[rows], codes.expression[rows], codes.identity[rows])
        turned_codes = carried_codes = None
        if turned_face is not None and (weights.cycle or weights.carried_codes):
            around = fill_face(truth.image[turned], truth.mask[turned])
            inside = truth.turned_mask
            if weights.cycle:
                turned_codes = self._encode_again(inside * turned_face.image + (1 - inside) * around)
            if weights.carried_codes:
                # where the photo shows nothing of the turned face, what the network paints there
                seen = truth.turned_weight
                carried = seen * truth.turned_image + (1 - seen) * turned_face.image.detach()
                carried_codes = self._encode_again(inside * carried + (1 - inside) * around)
        lent_coefficients = read_coefficients = read_identity = None
        if swapped_face is not None and lent is not None and weights.swapped_codes:
            shown = truth.mask[turned] * swapped_face.image + (1 - truth.mask[turned]) * truth.image[turned]
            read_coefficients, read_identity = self._read(shown)
            lent_coefficients = full_precision(network.expression_coefficients(lent))
        codes = _float(codes)
        identity_coefficients, expression_coefficients = network.coefficients(codes)
        return Decoded(
            codes=codes,
            face=face,
            turned_rows=turned,
            turned=turned_face,
            swapped=swapped_face,
            lent_coefficients=lent_coefficients,
            read_coefficients=read_coefficients,
            read_identity=read_identity,
            turned_codes=turned_codes,
            carried_codes=carried_codes,
            surround_rows=surround,
            mask_logits=mask_logits,
            background=background,
            composite=composite,
            expression_coefficients=expression_coefficients,
            identity_coefficients=identity_coefficients,
            shape_core=network.shape_core.weight,
            partner_expression=full_precision(partner_expression),
            frontal=full_precision(frontal),
            frontal_normals=full_precision(frontal_normals),
            frontal_rows=rows,
        )

    def _encode_again(self, images: Float[Tensor, "m 3 h w"]) -> Codes:
        return _float(self.network.perceive(_contiguous(images.clamp(0, 1))))

    def _read(self, images: Float[Tensor, "m 3 h w"]) -> tuple[Tensor, Tensor]:
        """fc(z_exp) and z_id of pictures, with gradients for the pictures but none for the encoder."""
        network = self.network
        features, _ = held_still(network.encoder, _contiguous(images.clamp(0, 1)))
        expression = held_still(network.expression_coefficients, held_still(network.heads["expression"], features))
        return full_precision(expression), full_precision(held_still(network.heads["identity"], features))

    def _paint(
        self, codes: Codes, rotation: Float[Tensor, "m 9"], turned: Tensor, lent: Float[Tensor, "m k"] | None
    ) -> tuple[Face, Face | None, Face | None]:
        """Stream 2 in the own pose and, for some faces, in another or with an expression lent by another.

        One call, as convolutions like batches.
        """
        count, again = len(codes), len(turned)
        some = codes[turned]
        parts = [(codes.pose, codes.expression, codes.identity, codes.light)]
        if again:
            parts.append((rotation.to(codes.pose.dtype), some.expression, some.identity, some.light))
        if again and lent is not None:
            parts.append((some.pose, lent, some.identity, some.light))
        faces = self.network.paint(*(torch.cat(part) for part in zip(*parts, strict=True)))
        own, others = faces[:count], faces[count:]
        return own, others[:again] if again else None, others[again:] if len(parts) > 2 else None


def strided(count: int, share: float) -> Int[Tensor, " rows"]:
    """Rows that are in a share of a process's part of the batch, evenly spread, at least one.

    Every process has as many, so that means over processes are means over faces. Where `count * share` is a whole
    number, they are together the rows of the whole batch.

    Args:
        count: Rows of this part.
        share: From 0 to 1.

    Example:
        >>> strided(8, 0.25).tolist(), strided(4, 0.25).tolist(), strided(2, 0.25).tolist()
        ([3, 7], [3], [0])
    """
    number = torch.arange(count).double()
    chosen = ((number + 1) * share + 1e-9).floor() > (number * share + 1e-9).floor()
    rows = chosen.nonzero().flatten()
    return rows if len(rows) or share == 0 else torch.zeros(1, dtype=torch.long)


def _float(codes: Codes) -> Codes:
    return dataclasses.replace(codes, **{name: full_precision(getattr(codes, name)) for name in FACTORS})


def _contiguous(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)
