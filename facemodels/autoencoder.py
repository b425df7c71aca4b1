"""The network of the paper: one encoder, six codes, three streams (section 3, Figure 2).

Stream 1 makes the 3D shape from expression and identity; stream 2 turns their product by the pose and paints the
face with albedo, normals and light; stream 3 makes the frontal texture and, with the light replaced by a constant,
the frontal normals. All products of codes are Khatri-Rao products, all projections are cores of `multilinear`.
"""

import dataclasses
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from facemodels.codes import FACTORS, Codes
from facemodels.config import LIGHT, SIZE, NetworkConfig
from facemodels.morphable import MorphableModel
from facemodels.networks import Encoder, UnpoolingDecoder, UpsamplingDecoder, fill_in
from facemodels.pretrained import PretrainedMixin
from facemodels.rendering.shading import shade
from multilinear import face_splitting
from multilinear.nn import Multilinear, TuckerCore

VERTEX_UNIT = 100.0
"""Millimetres in the unit of the shape stream's vertices: keeps targets near one."""

# Codes that multiply each other must not start at zero: the heads of identity and expression start off it.
_IDENTITY_START, _EXPRESSION_START, _LIGHT_START = 0.3, 0.5, 0.8


@dataclass(frozen=True)
class Face:
    """What stream 2 paints, the face alone.

    Attributes:
        image: Albedo times shading, (n, 3, h, w); meaningful inside the mask.
        albedo: In [0, 1], (n, 3, h, w).
        normals: Unit vectors in the camera frame, (n, 3, h, w).
        shading: (n, 1, h, w), or (n, 3, h, w) for a light per colour; not negative.
        mask_logits: The face stream's own mask before the sigmoid, (n, 1, h, w); None without that channel.
    """

    image: Float[Tensor, "n 3 h w"]
    albedo: Float[Tensor, "n 3 h w"]
    normals: Float[Tensor, "n 3 h w"]
    shading: Float[Tensor, "n c h w"]
    mask_logits: Float[Tensor, "n 1 h w"] | None

    def __getitem__(self, rows: slice | Tensor) -> "Face":
        """Some of the faces."""
        mask_logits = None if self.mask_logits is None else self.mask_logits[rows]
        return Face(self.image[rows], self.albedo[rows], self.normals[rows], self.shading[rows], mask_logits)


@dataclass(frozen=True)
class Rendering:
    """Everything decoded from codes (the paper's eq. 7); pictures are (n, c, h, w).

    Attributes:
        image: The composite: `mask * face + (1 - mask) * background`.
        face: The face alone.
        albedo, normals, shading: What `face` is made of.
        mask: Where the face was in the picture of the context, in [0, 1].
        face_mask: Where the face is in the decoded pose; equal to `mask` for networks without that channel.
        background: What surrounds the face.
        frontal: Frontal texture of stream 3; None if the network was exported without its cores.
        frontal_normals: Frontal normals of stream 3; None likewise.
        shape: Vertices in millimetres, without pose, (n, vertices, 3); None likewise, and if the network carries no
            morphable model and predicts coordinates.
    """

    image: Float[Tensor, "n 3 h w"]
    face: Float[Tensor, "n 3 h w"]
    albedo: Float[Tensor, "n 3 h w"]
    normals: Float[Tensor, "n 3 h w"]
    shading: Float[Tensor, "n c h w"]
    mask: Float[Tensor, "n 1 h w"]
    face_mask: Float[Tensor, "n 1 h w"]
    background: Float[Tensor, "n 3 h w"]
    frontal: Float[Tensor, "n 3 h w"] | None
    frontal_normals: Float[Tensor, "n 3 h w"] | None
    shape: Float[Tensor, "n vertices 3"] | None


class NeuroTensorialAutoencoder(nn.Module, PretrainedMixin):
    """Autoencoder with separate codes for identity, expression, pose, light, mask and background.

    Args:
        config: Sizes; see `facemodels.config.PRESETS`.
        morphable: The morphable model whose coefficients the training set holds. It is saved with the network and
            turns the shape stream's coordinates into vertices.

    Raises:
        ValueError: The morphable model has other sizes than `config`.

    Reference:
        Wang, Shu, Cheng, Panagakis, Samaras, Zafeiriou, "An Adversarial Neuro-Tensorial Approach For Learning
        Disentangled Representations", arXiv 1711.10402, sections 3.4 and 3.5, appendix A.
    """

    def __init__(self, config: NetworkConfig, morphable: MorphableModel | None = None):
        super().__init__()
        self.config = config
        self.morphable = morphable
        self._moved = morphable  # where it was needed last: moving it takes as long as a step
        if morphable is not None:
            _check_sizes(config, morphable)
        size = config.size
        self.encoder = Encoder(config.channels, config.intermediate, size, config.bottleneck, config.residual)
        self.heads = nn.ModuleDict(
            {
                "background": nn.Linear(config.intermediate, config.background),
                "mask": nn.Linear(config.intermediate, config.mask),
                "light": _head(config.intermediate, _first_light(config.light_channels)),
                "pose": _head(config.intermediate, torch.eye(3).flatten()),
                "identity": _head(config.intermediate, torch.full((config.identity,), _IDENTITY_START)),
                "expression": _head(config.intermediate, torch.full((config.expression,), _EXPRESSION_START)),
            }
        )
        # fc(.) of eq. 10 and 11
        self.expression_coefficients = nn.Linear(config.expression, config.morphable_expression)
        self.identity_coefficients = nn.Linear(config.identity, config.morphable_identity)
        if config.residual_identity:
            self.identity_of_expression = nn.Linear(config.expression, config.identity, bias=False)

        product = config.expression * config.identity
        if config.cores:
            self._make_cores()
        self.normals = UpsamplingDecoder(product, config.channels, 4 if config.face_mask else 3, size)
        self.albedo = UpsamplingDecoder(product, config.channels, 3, size)
        self.mask = UnpoolingDecoder(config.mask, config.channels, 1, size, config.skips)
        self.background = UnpoolingDecoder(config.background, config.channels, 3, size, config.skips)
        with torch.no_grad():
            facing_the_viewer = torch.tensor([0.0, 0.0, 1.0, 0.0])
            self.normals.bias.copy_(facing_the_viewer[: len(self.normals.bias)])

    def _make_cores(self) -> None:
        """Streams 1 and 3."""
        config = self.config
        components = config.morphable_identity + config.morphable_expression
        shape_size = 3 * config.vertices if config.shape_space == "vertices" else components
        self.shape_core = Multilinear((config.expression, config.identity), shape_size)
        sizes = (LIGHT * config.light_channels, config.expression, config.identity)
        core = TuckerCore((config.frontal_rank, *sizes)) if config.frontal_rank else "full"
        self.frontal_core = Multilinear(sizes, 3 * config.size**2, core=core)
        if config.shape_space == "coordinates":
            factor = torch.zeros(components, components) if self.morphable is None else shape_factor(self.morphable)
            self.register_buffer("shape_factor", factor)

    def encode(self, images: Float[Tensor, "n 3 h w"]) -> Codes:
        """E(x), eq. 6.

        Args:
            images: Aligned crops in [0, 1].

        Raises:
            ValueError: The images have another shape.
        """
        check_images("encode", images, self.config.size)
        codes = self.perceive(images)
        return self.look_behind(images, codes) if self.config.cut_background else codes

    def perceive(self, images: Float[Tensor, "n 3 h w"]) -> Codes:
        """All codes from one look at the pictures."""
        features, context = self.encoder(images)
        codes = {name: self.heads[name](features) for name in FACTORS}
        return Codes(**codes, context=context, background_context=context)

    def look_behind(
        self, images: Float[Tensor, "n 3 h w"], codes: Codes, known: Float[Tensor, "n 1 h w"] | None = None
    ) -> Codes:
        """The same codes, but those of the background from a second look, at the pictures with the face filled in.

        Args:
            images: The pictures.
            codes: `perceive(images)`.
            known: The mask, where it is known; by default the one that the mask decoder makes of `codes`.
        """
        mask = (self.mask(codes.mask, codes.context) > 0).to(images.dtype) if known is None else known
        features, context = self.encoder(fill_in(images, mask))
        return dataclasses.replace(codes, background=self.heads["background"](features), background_context=context)

    def whole_identity(
        self, expression: Float[Tensor, "n k_expression"], identity: Float[Tensor, "n k_identity"]
    ) -> Float[Tensor, "n k_identity"]:
        """The identity code that is decoded: with what follows from the expression, see `residual_identity`."""
        return identity + self.identity_of_expression(expression) if self.config.residual_identity else identity

    def coefficients(
        self, codes: Codes
    ) -> tuple[Float[Tensor, "n morphable_identity"], Float[Tensor, "n morphable_expression"]]:
        """Coefficients of the morphable model that codes tell: the fc(.) of eq. 11 and of eq. 10, in float32."""
        identity = self.identity_coefficients(self.whole_identity(codes.expression, codes.identity))
        return full_precision(identity), full_precision(self.expression_coefficients(codes.expression))

    def paint(
        self,
        pose: Float[Tensor, "n 9"],
        expression: Float[Tensor, "n k_expression"],
        identity: Float[Tensor, "n k_identity"],
        light: Float[Tensor, "n k_light"],
    ) -> Face:
        """Stream 2: the face from four codes.

        The 2-way synthesis of expression and identity, read as a 3 x (k_exp k_id / 3) matrix row by row, is multiplied
        by the rotation from the left (section 3.4) and decoded to albedo and normals.
        """
        feature = face_splitting([expression, self.whole_identity(expression, identity)])
        rotation = pose.unflatten(-1, (3, 3))
        if self.config.rotation == "rotation":
            rotation = orthogonal(rotation)
        turned = rotation @ feature.unflatten(-1, (3, -1))
        turned = turned.flatten(1)
        geometry = full_precision(self.normals(turned))
        # not F.normalize: its gradient grows without bound where the decoder says nothing
        normals = geometry[:, :3] / (geometry[:, :3].square().sum(1, keepdim=True) + 1e-4).sqrt()
        albedo = full_precision(self.albedo(turned)).sigmoid()
        shading = shade(normals, full_precision(light)).relu()
        mask_logits = geometry[:, 3:] if self.config.face_mask else None
        return Face(albedo * shading, albedo, normals, shading, mask_logits)

    def surround(self, codes: Codes) -> tuple[Float[Tensor, "n 1 h w"], Float[Tensor, "n 3 h w"]]:
        """Logits of the mask, and the background in [0, 1]."""
        logits = full_precision(self.mask(codes.mask, codes.context))
        background = self.background(codes.background, codes.background_context)
        return logits, full_precision(background).sigmoid()

    def shape(
        self, expression: Float[Tensor, "n k_expression"], identity: Float[Tensor, "n k_identity"]
    ) -> Float[Tensor, "n k_shape"]:
        """Stream 1, eq. 3: the 3D shape in the units of `shape_target`.

        Raises:
            ValueError: The network was exported without its cores.
        """
        self._check_cores("shape")
        return self.shape_core(expression, self.whole_identity(expression, identity))

    def frontal(
        self,
        light: Float[Tensor, "n k_light"],
        expression: Float[Tensor, "n k_expression"],
        identity: Float[Tensor, "n k_identity"],
    ) -> tuple[Float[Tensor, "n 3 h w"], Float[Tensor, "n 3 h w"]]:
        """Stream 3: frontal texture (eq. 1) and frontal normals (eq. 5), through the same core.

        The normals come from the same product with every light coefficient replaced by 1 / their number.

        Raises:
            ValueError: The network was exported without its cores.
        """
        self._check_cores("frontal")
        identity = self.whole_identity(expression, identity)
        constant = torch.full_like(light, 1 / light.shape[1])
        # one product, as the core is by far the largest part: it is read once, and once cast where that is needed
        both = self.frontal_core(torch.cat([light, constant]), expression.repeat(2, 1), identity.repeat(2, 1))
        texture, normals = both.unflatten(1, (3, self.config.size, self.config.size)).chunk(2)
        return texture, normals

    def decode(self, codes: Codes) -> Rendering:
        """D(codes), eq. 7: everything the three streams make of the codes."""
        face = self.paint(codes.pose, codes.expression, codes.identity, codes.light)
        mask_logits, background = self.surround(codes)
        mask = mask_logits.sigmoid()
        face_mask = mask if face.mask_logits is None else face.mask_logits.sigmoid()
        frontal = frontal_normals = None
        if self.config.cores:
            frontal, frontal_normals = self.frontal(codes.light, codes.expression, codes.identity)
            frontal = full_precision(frontal).clamp(0, 1)
            frontal_normals = F.normalize(full_precision(frontal_normals), dim=1)
        image = mask * face.image + (1 - mask) * background
        return Rendering(
            image=image.clamp(0, 1),
            face=face.image.clamp(0, 1),
            albedo=face.albedo,
            normals=face.normals,
            shading=face.shading,
            mask=mask,
            face_mask=face_mask,
            background=background,
            frontal=frontal,
            frontal_normals=frontal_normals,
            shape=self.vertices(codes),
        )

    def vertices(self, codes: Codes) -> Float[Tensor, "n vertices 3"] | None:
        """Stream 1 as vertices in millimetres, without pose; None without a core or a morphable model it needs."""
        if not self.config.cores:
            return None
        shape = full_precision(self.shape(codes.expression, codes.identity))
        if self.config.shape_space == "vertices":
            return shape.unflatten(-1, (self.config.vertices, 3)) * VERTEX_UNIT
        if self.morphable is None:
            return None
        factor: Tensor = self.shape_factor  # type: ignore[assignment]
        coefficients = torch.linalg.solve_triangular(factor, shape.T, upper=True).T
        identity, expression = coefficients.split([self.config.morphable_identity, self.config.morphable_expression], 1)
        return self._morphable_on(shape.device).vertices(identity, expression)

    def shape_target(
        self,
        identity: Float[Tensor, "n n_identity"],
        expression: Float[Tensor, "n n_expression"],
    ) -> Float[Tensor, "n k_shape"]:
        """What stream 1 should predict for coefficients of the morphable model (the x_3d of eq. 12).

        Raises:
            ValueError: The network predicts vertices and carries no morphable model, or was exported without cores.
        """
        self._check_cores("shape_target")
        if self.config.shape_space == "coordinates":
            factor: Tensor = self.shape_factor  # type: ignore[assignment]
            return torch.cat([identity, expression], 1) @ factor.T
        if self.morphable is None:
            raise ValueError("shape_target: the network carries no morphable model; give it one when it is made")
        return self._morphable_on(identity.device).vertices(identity, expression).flatten(1) / VERTEX_UNIT

    def _morphable_on(self, device: torch.device) -> MorphableModel:
        assert self.morphable is not None
        if self._moved is None or self._moved.mean.device != device:
            self._moved = self.morphable.to(device)
        return self._moved

    def _check_cores(self, caller: str) -> None:
        if not self.config.cores:
            raise ValueError(
                f"{caller}: this network was exported for inference, without the cores of streams 1 and 3;"
                " take the checkpoint it was made of, or export it with its cores"
            )


def _first_light(channels: int) -> Float[Tensor, " k_light"]:
    """An even light from everywhere, for every channel."""
    light = torch.zeros(channels, LIGHT)
    light[:, 0] = _LIGHT_START
    return light.flatten()


def _head(features: int, start: Tensor) -> nn.Linear:
    """A linear layer whose output starts around `start`."""
    head = nn.Linear(features, len(start))
    with torch.no_grad():
        head.bias.copy_(start)
    return head


def shape_factor(morphable: MorphableModel) -> Float[Tensor, "components components"]:
    """Upper triangular R with |R c| proportional to |shape of the coefficients c|: coordinates of the bases' span.

    Coefficients c = (identity, expression) move the vertices by A c; with A^T A = R^T R the coordinates R c have the
    length of that move, so a squared error of coordinates is a squared error of vertices. R is scaled so that the
    coordinates of standard-normal coefficients have mean square 1.
    """
    bases = torch.cat([morphable.identity, morphable.expression]).flatten(1).double()
    gram = bases @ bases.T
    gram = gram + 1e-9 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    factor = torch.linalg.cholesky(gram, upper=True)
    return (factor / (factor.square().sum() / len(factor)).sqrt()).float()


def full_precision(values: Tensor) -> Tensor:
    """What half precision computed, in float32; other values as they are."""
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values


def orthogonal(matrices: Float[Tensor, "n 3 3"], rounds: int = 6) -> Float[Tensor, "n 3 3"]:
    """The orthogonal matrix nearest to each, by the Newton-Schulz iteration.

    Unlike a singular value decomposition it has a gradient where singular values are equal, which is where a
    rotation lies. A negative determinant gives a reflection, and a nearly singular matrix is not brought all the way.

    Reference:
        Bjorck and Bowie, "An Iterative Algorithm for Computing the Best Estimate of an Orthogonal Matrix", SIAM J.
        Numer. Anal. 8(2), 1971.
    """
    result = matrices / matrices.flatten(1).norm(dim=1).clamp_min(1e-6)[:, None, None] * 3**0.5
    for _ in range(rounds):
        result = 1.5 * result - 0.5 * result @ result.mT @ result
    return result


def check_images(caller: str, images: Tensor, size: int = SIZE) -> None:
    """Refuse anything but a batch of colour images of the right size.

    Raises:
        ValueError: Another shape, or integers.
    """
    if images.ndim != 4 or images.shape[1:] != (3, size, size):
        raise ValueError(
            f"{caller}: images must have shape (n, 3, {size}, {size}), got {tuple(images.shape)};"
            " align photos with facemodels.data.alignment.load_photo, and put channels first"
        )
    if not images.is_floating_point():
        raise ValueError(f"{caller}: images must be floating point in [0, 1], got {images.dtype}; divide bytes by 255")


def _check_sizes(config: NetworkConfig, morphable: MorphableModel) -> None:
    expected = (config.morphable_identity, config.morphable_expression, config.vertices)
    sizes = (morphable.n_identity, morphable.n_expression, morphable.n_vertices)
    if sizes != expected:
        raise ValueError(
            "NeuroTensorialAutoencoder: the configuration is for a morphable model with (identity, expression,"
            f" vertices) = {expected}, {morphable.name!r} has {sizes}; use facemodels.training.fit_to_morphable"
        )
