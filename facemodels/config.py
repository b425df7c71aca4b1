"""Every setting of the system with its unit, default and source.

Sources: [P] the paper; [N] Shu et al., "Neural Face Editing with Intrinsic Image Disentangling", CVPR 2017, whose
architecture and constraints the paper takes over; [M] measured by us; [-] the paper is silent, our choice.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from types import NoneType, UnionType
from typing import Any, Literal, Self, get_args, get_origin, get_type_hints

from facemodels.errors import InputError

SIZE = 64
"""Height and width of a crop in pixels [P]."""

FIVE_POINTS = ((22.675, 31.6), (41.75, 31.55), (32.2, 41.8), (23.95, 52.05), (40.6, 52.05))
"""Where the eyes' centres, the nose tip and the mouth's corners lie in a crop of 64x64 pixels: x and y, left first."""

FIVE_LANDMARKS = ((36, 42), (42, 48), (30, 31), (48, 49), (54, 55))
"""The iBUG landmarks, from - to, whose means are `FIVE_POINTS`."""

TERMS_OF_CODES = ("pose", "expression", "identity", "light")
"""Terms of the objective that compare codes with their targets, without decoding anything."""

TERMS_RAMPED = ("decorrelation", "carried_codes", "swapped_codes", "cycle")
"""Terms that codes which say nothing satisfy best: from the start, they would keep the encoder from learning."""

TERMS_IN_ANOTHER_POSE = ("turned_normals", "turned_face", "swapped_face", "swapped_codes", "carried_codes", "cycle")
"""Terms of faces that are decoded in another pose or with another expression."""

_TERMS_AROUND = ("image_l2", "image_l1", "mask", "background", "adversarial", "verification")
_TERMS_OF_SOME_RUNS = (*TERMS_RAMPED, "adversarial", "verification", "swapped_face")

LIGHT = 9
"""Spherical-harmonic coefficients of a light [P]."""


class Settings:
    """JSON round trip for a frozen dataclass of settings."""

    def __post_init__(self) -> None:
        """Refuse what is none of the choices.

        Raises:
            InputError: A setting is none of the choices that its type names.
        """
        for name, kind in get_type_hints(type(self)).items():
            if get_origin(kind) is Literal and getattr(self, name) not in get_args(kind):
                choices = ", ".join(map(str, get_args(kind)))
                raise InputError(f"{type(self).__name__}: {name} must be one of {choices}, got {getattr(self, name)!r}")

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain JSON values."""
        return json.loads(json.dumps(dataclasses.asdict(self)))  # type: ignore[call-overload]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Settings from `to_dict`'s result.

        Raises:
            InputError: A name is unknown, or a choice is none of those there are.
        """
        names = {entry.name for entry in dataclasses.fields(cls)}  # type: ignore[arg-type]
        unknown = sorted(set(values) - names)
        if unknown:
            raise InputError(
                f"{cls.__name__} has no setting {', '.join(unknown)}; was the file written by another version?"
            )
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})

    def with_text(self, name: str, text: str) -> Self:
        """The same settings with one given as text, as on a command line.

        Args:
            name: A setting that is a number, a truth value, a choice, or several whole numbers.
            text: Its value; of a truth value "true" or "false", of several numbers "96,48,24", of what may be left out
                "none".

        Raises:
            InputError: The text is no value of that setting, or there is no such setting.

        Example:
            >>> NetworkConfig().with_text("channels", "48,24,24").channels
            (48, 24, 24)
        """
        kinds = {name: kind for name, kind in get_type_hints(type(self)).items() if not dataclasses.is_dataclass(kind)}
        if name not in kinds:
            raise InputError(f"{type(self).__name__} has no setting {name}; choose one of {', '.join(kinds)}")
        try:
            value = _value(kinds[name], text.strip())
        except ValueError as reason:
            raise InputError(f"{name} must be {reason}, got {text!r}") from None
        return dataclasses.replace(self, **{name: value})  # type: ignore[type-var]


def _value(kind: Any, text: str) -> Any:
    """What a text says, by the type of a setting; the message of a ValueError says what it should."""
    if get_origin(kind) is Literal:
        return {str(choice): choice for choice in get_args(kind)}.get(text, text)  # others are refused when set
    if get_origin(kind) is UnionType:
        (kind,) = (one for one in get_args(kind) if one is not NoneType)
        return None if text == "none" else _value(kind, text)
    if kind is bool:
        if text not in ("true", "false"):
            raise ValueError("true or false")
        return text == "true"
    if get_origin(kind) is tuple:
        first, *_ = get_args(kind)
        return tuple(_value(first, part) for part in text.split(","))
    try:
        return kind(text)
    except ValueError:
        raise ValueError({int: "a whole number", float: "a number"}[kind]) from None


@dataclass(frozen=True)
class NetworkConfig(Settings):
    """Sizes of the network.

    Attributes:
        size: Height and width of a crop in pixels [P: 64].
        channels: Filters of the encoder's convolutions, each followed by pooling, outermost first [P: 96, 48, 24]; the
            decoders mirror them.
        residual: Filters of the stages of a residual network that reads all codes, too, beside the convolutions behind
            the first; () for none [P]. Each stage halves the picture [M].
        bottleneck: Activation of the vector that all codes are read from ["sigmoid" N; "tanh" M].
        skips: How the encoder's activations enter the unpooling decoders: they are added before unpooling, or left
            out [P has skips and does not say how; N has none].
        cut_background: Whether code and decoder of the background get the picture with the face filled in from around
            it, so that they cannot carry the face past the other codes [M].
        rotation: Whether the pose code turns the face as the "matrix" it is [P], or as the "rotation" nearest to it (a
            reflection, where its determinant is negative).
        intermediate: Size of the vector all codes are read from [P: 128].
        background, mask, pose, identity, expression: Sizes of the codes [P: 128, 128, 9, 80, 15].
        light_channels: Lights in the light code, each of 9 numbers: 1 for all colours [P: a code of 9], or 3, one per
            colour [N]. Fitted lights are those of all colours; a network's three are free to differ from their mean.
        morphable_identity, morphable_expression: Coefficients of the morphable model, the targets of the fully
            connected layers behind the identity and expression codes [P: 157, 28].
        vertices: Vertices of the morphable model [P: 9375].
        shape_space: What the shape stream predicts: the "vertices" themselves [P], or "coordinates" in the span of
            the morphable model's bases. The loss is the same because the coordinates are isometric; a core of
            1200 x 34 million numbers becomes one of 1200 x 185.
        frontal_rank: Rank of the frontal core's mode of pixels: None keeps the full core of 12288 x 9 x 15 x 80
            numbers [P]; a rank r replaces it by 12288 x r times r x 9 x 15 x 80.
        face_mask: Whether the normals decoder has a fourth channel, a mask of the face in the decoded pose [M].
        residual_identity: Whether identity codes hold only what does not follow from the expression code; what does, a
            linear function of it, is added before anything is decoded [M]. Networks are trained without it, and
            `facemodels.gauge.separate_identity` gives it to finished ones.
        cores: Whether the network has the cores of streams 1 and 3. They serve training, and hold most of its numbers;
            a copy that `facemodels export` made for inference has none, and decodes no shape and no frontal pictures.
    """

    size: int = SIZE
    channels: tuple[int, ...] = (96, 48, 24)
    residual: tuple[int, ...] = ()
    bottleneck: Literal["sigmoid", "tanh"] = "sigmoid"
    skips: Literal["add", "none"] = "add"
    cut_background: bool = False
    rotation: Literal["matrix", "rotation"] = "matrix"
    intermediate: int = 128
    background: int = 128
    mask: int = 128
    pose: int = 9
    identity: int = 80
    expression: int = 15
    light_channels: Literal[1, 3] = 1
    morphable_identity: int = 157
    morphable_expression: int = 28
    vertices: int = 9375
    shape_space: Literal["vertices", "coordinates"] = "vertices"
    frontal_rank: int | None = None
    face_mask: bool = False
    residual_identity: bool = False
    cores: bool = True

    def __post_init__(self) -> None:
        """Refuse sizes that make no network.

        Raises:
            InputError: A size is not positive, pictures cannot be halved as often as there are convolutions, or a
                rotation cannot turn the product of the codes.
        """
        super().__post_init__()
        sizes = {name: value for name, value in vars(self).items() if type(value) is int}
        for name in ("channels", "residual"):
            sizes |= {f"{name}[{level}]": count for level, count in enumerate(getattr(self, name))}
        if wrong := [f"{name} {size}" for name, size in sizes.items() if size < 1]:
            raise InputError(f"NetworkConfig: sizes must be at least 1, got {', '.join(wrong)}")
        if not self.channels or self.size % 2 ** len(self.channels):
            raise InputError(
                f"NetworkConfig: pictures of {self.size} pixels cannot be halved {len(self.channels)} times, once for"
                " each of the channels; leave some out, or take a size that is a multiple of a higher power of 2"
            )
        if self.size % 2 ** (1 + len(self.residual)):
            raise InputError(
                f"NetworkConfig: pictures of {self.size} pixels cannot be halved {1 + len(self.residual)} times, once"
                " and for each of the stages of residual; leave some out"
            )
        if self.pose != 9:
            raise InputError(f"NetworkConfig: the pose code is a rotation of 9 numbers, got pose {self.pose}")
        if self.expression * self.identity % 3:
            raise InputError(
                "NetworkConfig: expression * identity must be a multiple of 3, so that a rotation can turn the product"
                f" of the codes, got {self.expression} * {self.identity}"
            )


@dataclass(frozen=True)
class LossWeights(Settings):
    """Weight of every term of the objective; every term is a mean, so weights do not depend on sizes. 0 drops a term.

    Of the constraints of [N], which the paper takes over for light, normals and albedo, smooth normals are left out
    [-], as is a smooth mask; normals have unit length anyway.

    Attributes:
        face_l2, face_l1: Face against photo inside the mask [N: 4; -].
        image_l2, image_l1: Composite against photo, E_recon of eq. 8 [P without weight; N: L1 2].
        mask: Binary cross-entropy of the mask [N: 5 x L1; M].
        albedo_smoothness: L1 of the albedo's differences inside the face [N: 0.2; M].
        white_shading: Mean shading of a batch against 0.75 [N: 1].
        pose: E_p, eq. 9 [P without weight].
        expression, identity: E_exp and E_id, eq. 10 and 11 [P without weight], in which every coefficient counts by the
            millimetres it moves the face [-].
        normals: Normals against the fitted model's [N: 0.2].
        light: Light code against the fitted light [N: 5 per colour].
        shape: E_3d, eq. 12 [P without weight].
        frontal, frontal_normals: E_f and E_n, eq. 13 and 14 [P without weight], inside the mask [-].
        adversarial: E_adv of eq. 8 [P without weight; N: 1].
        verification: E_veri of eq. 8 [P without weight]; it needs `TrainingConfig.verifier`.
        swapped_shape: E_3d on pairs with exchanged expressions, known because the morphable model is additive [M].
        decorrelation: Squared correlation between a code and the other factors' targets [M].
        turned_normals: Normals of the codes in another pose against the render of that pose [M].
        face_mask: Binary cross-entropy of the face stream's own mask, in the own and the other pose [M].
        turned_face: The face in another pose against the photo itself, carried to that pose by the fit [M].
        swapped_face: The face with another's expression against its render; only rendered sets have them [M].
        swapped_codes: What the encoder, held still, reads from the face with another's expression, against the codes
            that it was decoded from [M].
        background: The background behind the face against what surrounds the face, filled in [M].
        carried_codes: Identity and expression codes of the carried photo against those of the photo, and its pose [M].
        cycle: Codes of the face decoded in another pose against the codes that were put in [M].
    """

    face_l2: float = 4.0
    face_l1: float = 2.0
    image_l2: float = 1.0
    image_l1: float = 2.0
    mask: float = 0.5
    albedo_smoothness: float = 0.1
    white_shading: float = 1.0
    pose: float = 2.0
    expression: float = 0.3
    identity: float = 0.05
    normals: float = 0.4
    light: float = 0.5
    shape: float = 0.5
    frontal: float = 2.0
    frontal_normals: float = 0.4
    adversarial: float = 0.1
    verification: float = 0.2
    swapped_shape: float = 0.0
    decorrelation: float = 0.0
    turned_normals: float = 0.0
    face_mask: float = 0.0
    turned_face: float = 0.0
    swapped_face: float = 0.0
    swapped_codes: float = 0.0
    background: float = 0.0
    carried_codes: float = 0.0
    cycle: float = 0.0


@dataclass(frozen=True)
class TrainingConfig(Settings):
    """How a network is trained.

    Attributes:
        weights: Weights of the objective.
        codes_first: Share of the run, at its start, in which only the encoder learns: pose, expression, identity and
            light against their targets, all other terms left out [M].
        decorrelation_ramp: Share of the run over which the weights of the decorrelation, of carried and swapped codes
            and of the cycle rise from 0; at their full weight from the start they keep the encoder from learning
            anything [M]. Not for a run with `start`.
        known_mask: Composite with the fitted model's mask instead of the predicted one, and judge the face stream on
            its own, so that only the face stream can paint the face [M].
        batch: Faces a step and process.
        surround_share: Share of the batch on which the mask and background decoders run; they cost half of a step and
            learn as well from a quarter [M].
        turned_share: Share of the batch that is also decoded in another pose, and with another's expression.
        start: Model or run whose weights the run starts from; by default they are drawn.
        separate_identity: Whether a finished network's identity codes are freed of what follows from its expression
            codes, see `facemodels.gauge`. Swaps of expressions on photos gain by it; where rendered faces taught them
            (`LossWeights.swapped_face`) they lose [M].
        verifier: Verification network of E_veri: "sface", "dlib" or a file that `facemodels train-verifier` wrote [P: a
            Light CNN]. Without one the term is left out.
        adversarial_start: Share of the run after which E_adv enters; its weight then rises over as long again, up to
            a tenth of the run [-].
        gamma: Diversity ratio of BEGAN: what L(G) / L(x) is held at [0.5, Berthelot et al., "BEGAN", 2017].
        balance_rate: lambda_k, the rate of BEGAN's k_t [0.001, ibid.].
        discriminator_rate: Learning rate of the discriminator [1e-4, ibid.]; it falls as the network's does.
        optimizer: Of both: "adamw", without decay for the discriminator, or "rmsprop" [N: smoothing 0.9, epsilon 1e-8].
        accumulation: Batches whose gradients are averaged for one step.
        learning_rate: Peak of the network's rate.
        betas: AdamW's moments.
        weight_decay: AdamW's decay.
        warmup: Steps of linear warm-up.
        final_rate: Rate at the end of the cosine, as a share of the peak.
        gradient_clip: Norm to which a gradient is clipped.
        steps: Length of the run in steps, or None when `minutes` limits it.
        minutes: Length of the run in minutes of training time, or None.
        seed: Fixes the order of the faces and every draw.
        precision: "bf16", "fp16" or "no", Accelerate's mixed precision; "auto" is bf16 where the device computes in it
            itself, else float32, which is then faster.
        checkpoint_minutes: Minutes between checkpoints.
        keep: Checkpoints kept besides the best; older ones are removed.
        log_every: Steps between lines of metrics.
        sheet_every: Steps between sheets of pictures and measures on held-out faces; 0 makes none.
    """

    weights: LossWeights = field(default_factory=LossWeights)
    codes_first: float = 0.0
    decorrelation_ramp: float = 0.4
    known_mask: bool = False
    batch: int = 32
    surround_share: float = 1.0
    turned_share: float = 0.5
    start: str | None = None
    separate_identity: bool = False
    verifier: str | None = None
    adversarial_start: float = 0.4
    gamma: float = 0.5
    balance_rate: float = 0.001
    discriminator_rate: float = 1e-4
    optimizer: Literal["adamw", "rmsprop"] = "adamw"
    accumulation: int = 1
    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 1e-4
    warmup: int = 100
    final_rate: float = 0.01
    gradient_clip: float = 1.0
    steps: int | None = None
    minutes: float | None = None
    seed: int = 0
    precision: Literal["auto", "bf16", "fp16", "no"] = "auto"
    checkpoint_minutes: float = 5.0
    keep: int = 2
    log_every: int = 50
    sheet_every: int = 500

    def __post_init__(self) -> None:
        """Refuse what no run can have.

        Raises:
            InputError: A setting is out of its range, or nothing is left of what has a weight.
        """
        super().__post_init__()
        shares = (
            "codes_first",
            "decorrelation_ramp",
            "surround_share",
            "turned_share",
            "adversarial_start",
            "final_rate",
        )
        rules = {name: (0 <= getattr(self, name) <= 1, "from 0 to 1") for name in shares}
        for name, least in {
            "batch": 1,
            "accumulation": 1,
            "log_every": 1,
            "keep": 1,
            "sheet_every": 0,
            "warmup": 0,
        }.items():
            rules[name] = getattr(self, name) >= least, f"at least {least}"
        for name in ("learning_rate", "discriminator_rate", "balance_rate", "weight_decay"):
            rules[name] = getattr(self, name) >= 0, "0 or more"
        rules["betas"] = len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas), "two numbers from 0 to 1"
        rules["gradient_clip"] = self.gradient_clip > 0, "more than 0"
        rules["steps"] = self.steps is None or self.steps >= 1, "at least 1"
        rules["minutes"] = self.minutes is None or self.minutes > 0, "more than 0"
        for name, (holds, rule) in rules.items():
            if not holds:
                raise InputError(f"TrainingConfig: {name} must be {rule}, got {getattr(self, name)}")
        weights = vars(self.weights)
        if not any(weight for name, weight in weights.items() if name not in _TERMS_OF_SOME_RUNS):
            raise InputError(
                "TrainingConfig: no term has a weight but those that come later in a run or not in every one; give one"
                " of the others a weight, such as face_l1=1"
            )
        for share, terms in {"surround_share": _TERMS_AROUND, "turned_share": TERMS_IN_ANOTHER_POSE}.items():
            weighing = [name for name in terms if weights[name] and (name != "verification" or self.verifier)]
            if weighing and not getattr(self, share):
                raise InputError(
                    f"TrainingConfig: {share} 0 leaves no faces for {', '.join(weighing)}; raise it, or give these"
                    " terms the weight 0"
                )
        if self.codes_first and not any(getattr(self.weights, name) for name in TERMS_OF_CODES):
            raise InputError(
                f"TrainingConfig: codes_first needs a weight of {', '.join(TERMS_OF_CODES)}, all of which are 0"
            )

    @property
    def adversary_enters(self) -> float:
        """Share of the run after which E_adv enters: pictures have to be learnt before they are judged."""
        return max(self.adversarial_start, self.codes_first)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TrainingConfig":
        """Settings from `to_dict`'s result."""
        weights = LossWeights.from_dict(values.get("weights", {}))
        return super().from_dict({**values, "weights": weights})


_OURS = LossWeights(
    adversarial=0.3,
    swapped_shape=1.0,
    decorrelation=2.0,
    turned_normals=2.0,
    face_mask=1.0,
    turned_face=2.0,
    background=1.0,
    carried_codes=0.1,
)
# of rendered faces light, pose and shape are known exactly, and what they look like with another's expression
_RENDERED = dataclasses.replace(_OURS, light=5.0, pose=20.0, expression=3.0, shape=1.0, normals=2.0, swapped_face=2.0)


def _network(*channels: int, rank: int = 96, size: int = SIZE) -> NetworkConfig:
    return NetworkConfig(
        size=size,
        channels=channels,
        bottleneck="tanh",
        cut_background=True,
        shape_space="coordinates",
        frontal_rank=rank,
        face_mask=True,
    )


def _training(weights: LossWeights) -> TrainingConfig:
    # In thousands of steps k_t goes nowhere at BEGAN's own rate; and the network's pictures, which are smoother than
    # photos, are nearly as hard for an autoencoder (benchmarks/results/training), so that at BEGAN's 0.5 it stays at 0.
    return TrainingConfig(
        weights=weights,
        known_mask=True,
        surround_share=0.25,
        separate_identity=weights.swapped_face == 0,
        gamma=0.95,
        balance_rate=0.01,
    )


PRESETS: dict[str, tuple[NetworkConfig, TrainingConfig]] = {
    "paper": (NetworkConfig(), TrainingConfig()),
    "default": (_network(96, 48, 24), _training(_OURS)),
    "small": (_network(48, 24, 24), _training(_OURS)),
    "large": (
        _network(48, 48, 48, 24, size=128),
        _training(_OURS),
    ),
    "rendered": (dataclasses.replace(_network(48, 24, 24), residual=(64, 128, 128)), _training(_RENDERED)),
}
"""Named settings. "paper" has every size and term of the paper (E_veri once a `verifier` is named), and beside these
only errors of face and mask and absolute errors, after [N]. The others add what was measured to make the swaps work:
"default" in full width; "small" in half of it, which trains within an hour or two on a CPU; "large" for pictures of 128
pixels; "rendered" like "small" with residual stages beside its encoder, and trusting light, pose and shape, as rendered
faces allow. Finished networks of all presets have white identity codes, which changes nothing that they decode
(`facemodels.gauge`)."""


def preset(name: str) -> tuple[NetworkConfig, TrainingConfig]:
    """Settings by name.

    Raises:
        InputError: There is no such preset.

    Example:
        >>> network, training = preset("paper")
        >>> network.channels, network.identity, training.weights.swapped_shape
        ((96, 48, 24), 80, 0.0)
    """
    if name not in PRESETS:
        raise InputError(f"there is no preset {name!r}; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]
