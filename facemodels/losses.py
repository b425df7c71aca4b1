"""The objective: one class a term, each headed by its equation.

Every term is a mean, so that its weight does not depend on the size of pictures, codes or batches. Terms read what
the network decoded (`Decoded`) and what the morphable model says (`Truth`); neither holds a label. On many processes
every term is that of the whole batch: its mean over the processes, and of their gradients, is what one process has.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from facemodels.autoencoder import Face
from facemodels.codes import Codes
from facemodels.config import LIGHT, LossWeights
from facemodels.data.dataset import Faces
from facemodels.morphable import MorphableModel
from facemodels.networks import fill_in
from facemodels.networks.verification import Verifier
from facemodels.parallel import gather, mean_over_processes
from multilinear import multilinear_loss

COEFFICIENT_LIMIT = 3.0
"""Fitted coefficients beyond this many standard deviations are failures of the fit and are cut there."""

MEAN_SHADING = 0.75
"""What batch-wise white shading asks for (Shu et al., CVPR 2017)."""


@dataclass(frozen=True)
class Truth:
    """What a prepared set knows of a batch of n faces.

    Attributes:
        image: Photos in [0, 1].
        mask: 1 on the face.
        normals: Unit normals in the camera frame, zero off the face.
        rotation, identity, expression, light: Targets of the codes.
        frontal: Which faces are near-frontal.
        shape: Target of the shape stream.
        swapped_shape: Target for the expression of another face of the batch, see `Decoded.partner`.
        turned_rotation, turned_mask, turned_normals: Renders of the faces `Decoded.turned_rows` in another pose.
        turned_image, turned_weight: The photos carried to that pose, and how far each pixel is known.
        swapped_image, swapped_weight: The same faces with the expression of another, and where they are known.
    """

    image: Float[Tensor, "n 3 h w"]
    mask: Float[Tensor, "n 1 h w"]
    normals: Float[Tensor, "n 3 h w"]
    rotation: Float[Tensor, "n 9"]
    identity: Float[Tensor, "n n_identity"]
    expression: Float[Tensor, "n n_expression"]
    light: Float[Tensor, "n 9"]
    frontal: Bool[Tensor, " n"]
    shape: Float[Tensor, "n k_shape"]
    swapped_shape: Float[Tensor, "n k_shape"]
    turned_rotation: Float[Tensor, "m 9"]
    turned_mask: Float[Tensor, "m 1 h w"]
    turned_normals: Float[Tensor, "m 3 h w"]
    turned_image: Float[Tensor, "m 3 h w"]
    turned_weight: Float[Tensor, "m 1 h w"]
    swapped_image: Float[Tensor, "m 3 h w"]
    swapped_weight: Float[Tensor, "m 1 h w"]


@dataclass(frozen=True)
class Read:
    """What the encoder read from the same batch.

    Attributes:
        codes: Codes of the n faces, in float32.
        expression_coefficients, identity_coefficients: fc(z_exp) and fc(z_id).
    """

    codes: Codes
    expression_coefficients: Float[Tensor, "n n_expression"]
    identity_coefficients: Float[Tensor, "n n_identity"]


@dataclass(frozen=True)
class Decoded(Read):
    """What the whole network made of it.

    Attributes:
        face: Stream 2 in the own pose.
        turned_rows: The m faces that are also decoded in another pose and with another expression.
        turned: Stream 2 of these in the pose of `Faces.turned_rotation`, or None.
        swapped: Stream 2 of these with the expression code of others, or None: of the faces `Faces.swapped_row`, or of
            others in the batch.
        lent_coefficients: fc of the expression codes that those lend.
        read_coefficients, read_identity: fc(z_exp) and z_id that the encoder, held still, reads from `swapped`.
        turned_codes: Codes of that picture, encoded again, or None.
        carried_codes: Codes of the carried photo of these, or None.
        surround_rows: The s faces whose mask and background are decoded.
        mask_logits, background, composite: Mask, background and composite of these.
        shape_core: The core B of eq. 3.
        partner_expression: Codes of the expressions that other faces lend for the swapped shape.
        frontal, frontal_normals: Stream 3 of the faces `frontal_rows`.
        frontal_rows: The near-frontal faces of the batch; the first face alone if there is none.
    """

    face: Face
    turned_rows: Int[Tensor, " m"]
    turned: Face | None
    swapped: Face | None
    lent_coefficients: Float[Tensor, "m n_expression"] | None
    read_coefficients: Float[Tensor, "m n_expression"] | None
    read_identity: Float[Tensor, "m k_identity"] | None
    turned_codes: Codes | None
    carried_codes: Codes | None
    surround_rows: Int[Tensor, " s"]
    mask_logits: Float[Tensor, "s 1 h w"]
    background: Float[Tensor, "s 3 h w"]
    composite: Float[Tensor, "s 3 h w"]
    shape_core: Float[Tensor, "k_shape k_expression k_identity"]
    partner_expression: Float[Tensor, "n k_expression"]
    frontal: Float[Tensor, "f 3 h w"]
    frontal_normals: Float[Tensor, "f 3 h w"]
    frontal_rows: Int[Tensor, " f"]


Term = Callable[[Any, Truth], Tensor]
"""What it takes: `Decoded`, or for a term of codes alone (`facemodels.config.TERMS_OF_CODES`) `Read`."""


def truth_from_faces(
    faces: Faces,
    shape_target: Callable[[Tensor, Tensor], Tensor],
    partner_expression: Float[Tensor, "n n_expression"],
    turned_rows: Int[Tensor, " m"],
) -> Truth:
    """Targets of a batch in float32.

    Args:
        faces: The batch.
        shape_target: `NeuroTensorialAutoencoder.shape_target`.
        partner_expression: Coefficients of the expression that other faces lend to each.
        turned_rows: Faces that are also judged in their other pose.
    """
    identity, expression = cut_coefficients(faces.identity), cut_coefficients(faces.expression)
    turned = faces[turned_rows]
    return Truth(
        image=faces.pictures(),
        mask=faces.masks(),
        normals=faces.normals.float() / 127,
        rotation=faces.rotation,
        identity=identity,
        expression=expression,
        light=faces.light,
        frontal=faces.frontal,
        shape=shape_target(identity, expression),
        swapped_shape=shape_target(identity, cut_coefficients(partner_expression)),
        turned_rotation=turned.turned_rotation,
        turned_mask=turned.turned_mask.float().div(255).round(),
        turned_normals=turned.turned_normals.float() / 127,
        turned_image=turned.turned_image.float() / 255,
        turned_weight=turned.turned_weight.float() / 255,
        swapped_image=turned.swapped_image.float() / 255,
        swapped_weight=turned.swapped_weight.float() / 255,
    )


def cut_coefficients(coefficients: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
    """Coefficients of the morphable model, none beyond `COEFFICIENT_LIMIT`."""
    return coefficients.clamp(-COEFFICIENT_LIMIT, COEFFICIENT_LIMIT)


def masked_mean(values: Float[Tensor, "n c h w"], mask: Float[Tensor, "n 1 h w"]) -> Tensor:
    """Mean of `values` over the pixels of the mask and all channels, over all processes; 0 for an empty mask."""
    return (values * mask).sum() / (mean_over_processes(mask.sum()) * values.shape[1]).clamp(min=1)


class FaceL2:
    """Squared error of the face inside the mask (Shu et al., CVPR 2017): mean of (x - F)^2."""

    def __call__(self, decoded: Decoded, truth: Truth) -> Tensor:
        return masked_mean((decoded.face.image - truth.image).square(), truth.mask)


class FaceL1:
    """Absolute error of the face inside the mask: mean of |x - F|."""

    def __call__(self, decoded: Decoded, truth: Truth) -> Tensor:
        return masked_mean((decoded.face.image - truth.image).abs(), truth.mask)


class ImageL2:
    """E_recon of eq. 8: mean of (x - x^)^2."""

    def __call__(self, decoded: Decoded, truth: Truth) -> Tensor:
        return F.mse_loss(decoded.composite, truth.image[decoded.surround_rows])


class ImageL1:
    """The same with the absolute error, as the cited work has it (Shu et al., CVPR 2017)."""

    def __call__(self, decoded: Decoded, truth: Truth) -> Tensor:
        return F.l1_loss(decoded.composite, truth.image[decoded.surround_rows])


class Mask:
    """Binary cross-entropy between the mask decoder and the fitted model's mask."""

    def __call__(self, decoded: Decoded, truth: Truth) -> Tensor:
        return F.binary_cross_entropy_with_logits(decoded.mask_logits, truth.mask[decoded.surround_rows])


class AlbedoSmoothness:
    """Mean absolute difference of neighbouring albedo pixels inside the face (Shu et al., CVPR 2017)."""

    def __call__(self, decoded: Decoded, truth: Truth) -> Tensor:
        albedo, mask = decoded.face.albedo, truth.mask
        across = masked_mean(albedo.diff(dim=3).abs(), mask[..., 1:] * mask[..., :-1])
        down = masked_mean(albedo.diff(dim=2).abs(), mask[:, :, 1:] * mask[:, :, :-1])
        return across + down


class WhiteShading:
    """Batch-wise white shading (Shu et al., CVPR 2017): 1/2 (mean shading - 0.75)^2, which fixes the albedo's scale.

    Of a light per colour each has that mean, which fixes the albedo's colour.
    """

    def __call__(self, decoded: Decoded, truth: Truth) -> Tensor:
        colours = decoded.face.shading.unbind(1)  # one, or each with a light of its own
        means = torch.stack([masked_mean(colour[:, None], truth.mask) for colour in colours])
        return 0.5 * (gather(means[None]).mean(0) - MEAN_SHADING).square().mean()


class Pose:
    """E_p, eq. 9: mean of (z_p - rotation)^2 over its nine numbers."""

    def __call__(self, read: Read, truth: Truth) -> Tensor:
        return F.mse_loss(read.codes.pose, truth.rotation)


class Expression:
    """E_exp, eq. 10: squared error of fc(z_exp), every coefficient weighted by the millimetres it moves the face.

    In the paper all count alike.

    Args:
        morphable: The model whose coefficients are predicted.
    """

    def __init__(self, morphable: MorphableModel):
        self.weights = displacement(morphable.expression)

    def __call__(self, read: Read, truth: Truth) -> Tensor:
        return _weighted_error(read.expression_coefficients, truth.expression, self.weights)


class Identity:
    """E_id, eq. 11: squared error of fc(z_id), weighted likewise.

    Args:
        morphable: The model whose coefficients are predicted.
    """

    def __init__(self, morphable: MorphableModel):
        self.weights = displacement(morphable.identity)

    def __call__(self, read: Read, truth: Truth) -> Tensor:
        return _weighted_error(read.identity_coefficients, truth.identity, self.weights)


class Normals:
    """Squared error of the normals inside the mask (Shu et al., CVPR 2017)."""

    def __call__(self, decoded: Decoded, truth: Truth) -> Tensor:
        return masked_mean((decoded.face.normals - truth.normals).square(), truth.mask)


class Light:
    """Squared error of the light code, or of its mean over the colours, against the fitted light (Shu et al., 2017)."""

    def __call__(self, read: Read, truth: Truth) -> Tensor:
        return F.mse_loss(read.codes.light.unflatten(1, (-1, LIGHT)).mean(1), truth.light)


class Shape:
    """E_3d, eq. 12: mean of (x_3d - B x_2 z_exp x_3 z_id)^2, with the gradient of eq. 23."""

    def __call__(self, decoded: Decoded, truth: Truth) -> Tensor:
        codes = decoded.codes
        return _mean_loss(truth.shape, decoded.shape_core, [codes.expression, codes.identity])


class SwappedShape:
    """E_3d for the identity of one face and the expression of another.

    The morphable model adds expression to identity, so the shape of every such pair is known; the pairs make the two
    codes mean the same thing in every face.
    """

    def __call__(self, decoded: Decoded, truth: Truth) -> Tensor:
        codes = decoded.codes
        return _mean_loss(truth.swapped_shape, decoded.shape_core, [decoded.partner_expression, codes.identity])


class Frontal:
    """E_f, eq. 13: squared error of the frontal texture, on near-frontal faces inside the mask."""

    def __call__(self, decoded: Decoded, truth: Truth) -> Tensor:
        return _frontal_error(decoded.frontal, truth.image, decoded, truth)


class FrontalNormals:
    """E_n, eq. 14: squared error of the frontal normals, on near-frontal faces inside the mask."""

    def __call__(self, decoded: Decoded, truth: Truth) -> Tensor:
        return _frontal_error(decoded.frontal_normals, truth.normals, decoded, truth)


class Decorrelation:
    """Mean squared correlation, over the batch, of a code with the targets of the other factors.

    The identity code against pose and the expression coefficients that move the face most; the expression code against
    pose, identity coefficients and the mean colour of the face in the photo, which is a matter of the person and the
    light.

    Args:
        morphable: The model of the coefficients.
        expressions, identities: How many coefficients take part.
    """

    def __init__(self, morphable: MorphableModel, expressions: int = 6, identities: int = 10):
        self.expressions = displacement(morphable.expression).argsort(descending=True)[:expressions]
        self.identities = displacement(morphable.identity).argsort(descending=True)[:identities]

    def __call__(self, decoded: Decoded, truth: Truth) -> Tensor:
        pose = truth.rotation[:, [2, 5, 3]]  # sines of yaw, pitch and roll for small angles
        device = pose.device
        expression = torch.cat([truth.expression[:, self.expressions.to(device)], pose], 1)
        identity = torch.cat([truth.identity[:, self.identities.to(device)], pose, _mean_colour(truth)], 1)
        return squared_correlation(gather(decoded.codes.identity), gather(expression)) + squared_correlation(
            gather(decoded.codes.expression), gather(identity)
        )


class TurnedNormals:
    """Squared error of the normals decoded in another pose, against the morphable model rendered in that pose."""

    def __call__(self, decoded: Decoded, truth: Truth) -> Tensor:
        assert decoded.turned is not None
        return masked_mean((decoded.turned.normals - truth.turned_normals).square(), truth.turned_mask)


class FaceMask:
    """Binary cross-entropy of the face stream's own mask, in the own pose and in the other."""

    def __call__(self, decoded: Decoded, truth: Truth) -> Tensor:
        assert decoded.face.mask_logits is not None
        own = F.binary_cross_entropy_with_logits(decoded.face.mask_logits, truth.mask)
        if decoded.turned is None:
            return own
        assert decoded.turned.mask_logits is not None
        return own + F.binary_cross_entropy_with_logits(decoded.turned.mask_logits, truth.turned_mask)


class TurnedFace:
    """Absolute and squared error of the face in another pose, against the photo carried there, where it is known."""

    def __call__(self, decoded: Decoded, truth: Truth) -> Tensor:
        assert decoded.turned is not None
        return _picture_error(decoded.turned, truth.turned_image, truth.turned_weight)


class SwappedFace:
    """Absolute and squared error of the face with another's expression, against its render, where there is one."""

    def __call__(self, decoded: Decoded, truth: Truth) -> Tensor:
        assert decoded.swapped is not None
        return _picture_error(decoded.swapped, truth.swapped_image, truth.swapped_weight)


class SwappedCodes:
    """Squared error of what the encoder reads from the face with another's expression.

    The expression must be the one that was lent, in the units of E_exp; the identity the own one, in units of its
    deviation over the batch. The encoder is held still, so that the decoders have to show what it sees in photos, and
    the identity code cannot keep an expression that the swap should have taken away.

    Args:
        morphable: The model of the coefficients.
    """

    def __init__(self, morphable: MorphableModel):
        self.weights = displacement(morphable.expression)

    def __call__(self, decoded: Decoded, truth: Truth) -> Tensor:
        assert decoded.read_coefficients is not None and decoded.read_identity is not None
        assert decoded.lent_coefficients is not None
        expression = _weighted_error(decoded.read_coefficients, decoded.lent_coefficients.detach(), self.weights)
        return expression + _code_error(decoded.read_identity, decoded.codes.identity.detach(), decoded.turned_rows)


class Background:
    """Absolute error of the background behind the face, against what surrounds the face, filled in.

    Without it the background decoder may paint anything there, even a copy of the face, and a turned head lays it open.
    """

    def __call__(self, decoded: Decoded, truth: Truth) -> Tensor:
        mask = truth.mask[decoded.surround_rows]
        filled = fill_in(truth.image[decoded.surround_rows], mask)
        return masked_mean((decoded.background - filled).abs(), mask)


class CarriedCodes:
    """Squared error between the codes of a photo and of the same photo carried to another pose.

    Identity and expression must be equal, in units of their deviation over the batch; the pose must be the new one.
    """

    def __call__(self, decoded: Decoded, truth: Truth) -> Tensor:
        return _codes_error(decoded.carried_codes, decoded, truth)


class Cycle:
    """Squared error between the codes that a face in another pose was decoded from and the codes of that picture."""

    def __call__(self, decoded: Decoded, truth: Truth) -> Tensor:
        return _codes_error(decoded.turned_codes, decoded, truth)


class Adversarial:
    """E_adv of eq. 8: mean of |x^ - D(x^)|, the discriminator held still.

    Args:
        error: `facemodels.training.adversary.Adversary.error`.
    """

    def __init__(self, error: Callable[[Tensor], Tensor]):
        self.error = error

    def __call__(self, decoded: Decoded, truth: Truth) -> Tensor:
        return self.error(decoded.composite)


class Verification:
    """E_veri of eq. 8: mean of 1 - cos(V(x), V(x^)), V a frozen verification network.

    Args:
        verifier: V.
    """

    def __init__(self, verifier: Verifier):
        self.verifier = verifier

    def __call__(self, decoded: Decoded, truth: Truth) -> Tensor:
        with torch.no_grad():
            real = self.verifier.embed(truth.image[decoded.surround_rows])
        return 1 - (real * self.verifier.embed(decoded.composite)).sum(1).mean()


class Objective:
    """The weighted sum of all terms whose weight is not zero.

    Args:
        weights: Weights of the terms.
        morphable: The morphable model of the training set.
        adversary: `Adversary.error`, or None to leave E_adv out.
        verifier: V of E_veri, or None to leave it out.
    """

    def __init__(
        self,
        weights: LossWeights,
        morphable: MorphableModel,
        adversary: Callable[[Tensor], Tensor] | None = None,
        verifier: Verifier | None = None,
    ):
        terms: dict[str, Term] = {
            "face_l2": FaceL2(),
            "face_l1": FaceL1(),
            "image_l2": ImageL2(),
            "image_l1": ImageL1(),
            "mask": Mask(),
            "albedo_smoothness": AlbedoSmoothness(),
            "white_shading": WhiteShading(),
            "pose": Pose(),
            "expression": Expression(morphable),
            "identity": Identity(morphable),
            "normals": Normals(),
            "light": Light(),
            "shape": Shape(),
            "frontal": Frontal(),
            "frontal_normals": FrontalNormals(),
            "swapped_shape": SwappedShape(),
            "decorrelation": Decorrelation(morphable),
            "turned_normals": TurnedNormals(),
            "face_mask": FaceMask(),
            "turned_face": TurnedFace(),
            "swapped_face": SwappedFace(),
            "swapped_codes": SwappedCodes(morphable),
            "background": Background(),
            "carried_codes": CarriedCodes(),
            "cycle": Cycle(),
        }
        if adversary is not None:
            terms["adversarial"] = Adversarial(adversary)
        if verifier is not None:
            terms["verification"] = Verification(verifier)
        self.weights = {name: getattr(weights, name) for name in terms if getattr(weights, name) != 0}
        self.terms = {name: terms[name] for name in self.weights}

    def __call__(
        self, decoded: Read, truth: Truth, ramps: Mapping[str, float] | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The objective and its unweighted terms.

        Args:
            decoded: What the network made of a batch; `Decoded`, unless `ramps` leaves terms of codes alone.
            truth: What is known of it.
            ramps: Factors of some terms' weights; a term with factor 0 is not computed.
        """
        factors = {name: (ramps or {}).get(name, 1.0) for name in self.terms}
        values = {name: term(decoded, truth) for name, term in self.terms.items() if factors[name] != 0}
        total = torch.stack([factors[name] * self.weights[name] * value for name, value in values.items()]).sum()
        return total, values


def displacement(basis: Float[Tensor, "components vertices 3"]) -> Float[Tensor, " components"]:
    """How far one standard deviation of each component moves the face, relative to the mean over components."""
    lengths = basis.flatten(1).norm(dim=1)
    return lengths / lengths.mean()


def squared_correlation(first: Float[Tensor, "n p"], second: Float[Tensor, "n q"]) -> Tensor:
    """Mean squared correlation coefficient between the columns of two batches."""

    def standardise(values: Tensor) -> Tensor:
        centred = values - values.mean(0)
        # a larger guard would reward codes for shrinking, and they all collapse
        return centred / (centred.std(0) + 1e-6)

    return (standardise(first).T @ standardise(second) / len(first)).square().mean()


def _mean_colour(truth: Truth) -> Float[Tensor, "n 3"]:
    return (truth.image * truth.mask).sum((2, 3)) / truth.mask.sum((2, 3)).clamp(min=1)


def _codes_error(again: Codes | None, decoded: Decoded, truth: Truth) -> Tensor:
    assert again is not None
    error = F.mse_loss(again.pose, truth.turned_rotation)
    for name in ("identity", "expression"):
        error = error + _code_error(getattr(again, name), getattr(decoded.codes, name), decoded.turned_rows)
    return error


def _code_error(after: Tensor, before: Float[Tensor, "n k"], rows: Int[Tensor, " m"]) -> Tensor:
    """Mean squared error of the codes of some faces, in units of the codes' variance over the batch."""
    variance = gather(before.detach()).var(0).mean().clamp(min=1e-6)
    return (after - before[rows]).square().mean() / variance


def _picture_error(face: Face, target: Float[Tensor, "m 3 h w"], weight: Float[Tensor, "m 1 h w"]) -> Tensor:
    error = face.image - target
    return masked_mean(error.abs() + error.square(), weight)


def _weighted_error(predicted: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    return ((predicted - target).square() * weights.to(target.device)).mean()


def _frontal_error(predicted: Tensor, target: Tensor, decoded: Decoded, truth: Truth) -> Tensor:
    rows = decoded.frontal_rows
    mask = truth.mask[rows] * truth.frontal[rows, None, None, None]
    return masked_mean((predicted - target[rows]).square(), mask)


def _mean_loss(target: Tensor, core: Tensor, inputs: list[Tensor]) -> Tensor:
    return multilinear_loss(target, core, inputs, reduction="mean") / target.shape[1]
