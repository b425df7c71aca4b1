"""The colours of a head: skin, lips, brows, lashes, hair, beard, eyes and teeth, from a few parameters.

Colours are as displayed: an image is albedo times shading, without a gamma curve.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from facemodels.morphable.procedural import anatomy
from facemodels.morphable.procedural.anatomy import EYE_LEVEL, MOUTH_HALF_WIDTH
from facemodels.morphable.procedural.fields import Array, bump, plateau, rise
from facemodels.morphable.procedural.head import N_VERTICES, Head
from facemodels.morphable.procedural.sheet import EYE_POCKET, MOUTH_POCKET, hairline
from facemodels.morphable.procedural.smooth import smooth_functions

N_TONES = 24
"""Number of smooth fields by which the tone of the skin varies."""

_HAIR = np.array(
    [[0.74, 0.58, 0.38], [0.52, 0.37, 0.22], [0.30, 0.20, 0.13], [0.17, 0.12, 0.095], [0.085, 0.072, 0.070]]
)
_RED_HAIR, _GREY_HAIR = np.array([0.46, 0.20, 0.09]), np.array([0.50, 0.50, 0.51])
_IRIS = np.array([[0.22, 0.12, 0.06], [0.34, 0.21, 0.10], [0.42, 0.36, 0.20], [0.36, 0.46, 0.42], [0.38, 0.52, 0.66]])
_LIGHTEST_SKIN = np.array([0.88, 0.715, 0.615])
_MELANIN = np.array([0.98, 1.24, 1.40])  # absorption of red, green and blue
_BLOOD = np.array([0.015, 0.13, 0.10])


@dataclass(frozen=True)
class Complexion:
    """Colours of one person; none of them says anything about the shape.

    Attributes:
        melanin: Darkness of the skin, 0 to 1.
        blood: Redness of the skin, about -1 to 1.
        hair: 0 blond to 1 black.
        red: Share of red hair, 0 to 1.
        grey: Share of grey hair, 0 to 1.
        age: Lines and bags of age, 0 to 1.
        iris: 0 brown to 1 blue.
        lip: Redness of the lips, about -1 to 1.
        brow_density: 0 to 1.
        brow_thickness: 1 is the mean.
        beard: 0 none to 1 full.
        blush: 0 to 1.
        freckles: 0 to 1.
        bald: 1 without scalp hair, else 0.
        make_up: Darker lashes and lips, 0 to 1.
        fringe: How far hair hangs into the forehead, in mm; below 0 the hairline recedes.
        parting: Where hair parts, -1 at the subject's right to 1 at the left.
        hair_length: How far hair hangs below the eyes at sides and back, in mm; 0 is a short cut.
        hair_top: How far hair stands off the top of the head, in mm.
        hair_volume: How far it stands off at the sides, in mm; with neither there is only the scalp's colour.
        hair_front: Where long hair starts beside the face, in degrees from the front.
        hair_wave: Depth of waves, in mm.
        hair_curl: 0 straight to 1 curly.
        tones: Weights of the skin's smooth variation, standard normal, shape `(24,)`.
    """

    melanin: float = 0.25
    blood: float = 0.0
    hair: float = 0.7
    red: float = 0.0
    grey: float = 0.0
    age: float = 0.2
    iris: float = 0.3
    lip: float = 0.3
    brow_density: float = 0.8
    brow_thickness: float = 1.0
    beard: float = 0.0
    blush: float = 0.5
    freckles: float = 0.0
    bald: float = 0.0
    make_up: float = 0.0
    fringe: float = 0.0
    parting: float = 0.0
    hair_length: float = 0.0
    hair_top: float = 9.0
    hair_volume: float = 3.0
    hair_front: float = 70.0
    hair_wave: float = 0.0
    hair_curl: float = 0.0
    tones: Array = field(default_factory=lambda: np.zeros(N_TONES))


def sample_complexion(generator: np.random.Generator, masculinity: float = 0.0) -> Complexion:
    """Draw a plausible complexion; dark skin makes dark hair and brown eyes likelier.

    Args:
        generator: Source of randomness.
        masculinity: Of the face's shape, in standard deviations: makes beards and short hair likelier, make-up less.
    """
    man = bool(generator.random() < 1 / (1 + np.exp(-2.5 * masculinity)))
    melanin = generator.beta(1.15, 2.2)
    age = generator.beta(1.3, 2.0)
    beard = man * generator.choice(
        [0.0, generator.uniform(0.1, 0.45), generator.uniform(0.5, 0.85)], p=[0.48, 0.32, 0.20]
    )
    return Complexion(
        melanin=melanin,
        blood=float(np.clip(0.15 + 0.35 * generator.standard_normal(), -0.4, 1.0)),
        hair=float(np.clip(0.3 + 0.75 * melanin + 0.28 * generator.standard_normal(), 0, 1)),
        red=generator.beta(0.4, 4.0) * (1 - melanin),
        grey=float(np.clip(3.2 * (age - 0.55) + 0.5 * generator.standard_normal(), 0, 1) * (age > 0.45)),
        age=age,
        iris=float(np.clip(generator.beta(0.9, 1.0) * (1 - 1.3 * melanin) - 0.05, 0, 1)),
        lip=0.3 + 0.5 * generator.standard_normal() + 0.2 * (not man),
        brow_density=generator.uniform(0.45, 0.95),
        brow_thickness=generator.uniform(0.85, 1.4) if man else generator.uniform(0.65, 1.1),
        beard=float(beard),
        blush=generator.uniform(0.1, 0.9),
        freckles=generator.beta(0.5, 3.0),
        make_up=0.0 if man or generator.random() < 0.3 else generator.uniform(0.3, 1.0),
        parting=generator.uniform(-1, 1),
        tones=generator.standard_normal(N_TONES),
        **_choose_haircut(generator, man, age, melanin),
    )


HAIRCUTS: dict[str, tuple[float, float, dict[str, tuple[float, float]]]] = {
    # share among women and among men; ranges of the parameters, others keep their defaults
    "bald": (0.0, 0.07, {"bald": (1, 1)}),
    "shorn": (0.01, 0.14, {"hair_top": (0, 0.4), "hair_volume": (0, 0.4), "fringe": (-14, 2)}),
    "crop": (0.04, 0.34, {"hair_top": (4, 14), "hair_volume": (1, 4), "fringe": (-12, 3)}),
    "quiff": (0.02, 0.18, {"hair_top": (14, 28), "hair_volume": (2, 6), "fringe": (-6, 2)}),
    "fringed": (0.06, 0.14, {"hair_top": (6, 12), "hair_volume": (4, 9), "fringe": (12, 34), "hair_length": (0, 12)}),
    "tied": (0.15, 0.02, {"hair_top": (2, 6), "hair_volume": (1, 3), "fringe": (-6, 1)}),
    "bob": (0.17, 0.02, {"hair_top": (6, 13), "hair_volume": (11, 20), "fringe": (-2, 34), "hair_length": (60, 115),
                         "hair_front": (52, 72), "hair_wave": (0, 3)}),
    "long": (0.27, 0.04, {"hair_top": (5, 12), "hair_volume": (7, 16), "fringe": (-4, 30), "hair_length": (130, 200),
                          "hair_front": (50, 74), "hair_wave": (0, 2)}),
    "wavy": (0.17, 0.02, {"hair_top": (8, 16), "hair_volume": (12, 24), "fringe": (-4, 14), "hair_length": (80, 190),
                          "hair_front": (50, 70), "hair_wave": (3, 8), "hair_curl": (0.1, 0.4)}),
    "curly": (0.11, 0.05, {"hair_top": (18, 40), "hair_volume": (14, 34), "fringe": (0, 10), "hair_length": (10, 80),
                           "hair_front": (62, 80), "hair_curl": (0.8, 1.0)}),
}  # fmt: skip


def _choose_haircut(generator: np.random.Generator, man: bool, age: float, melanin: float) -> dict[str, float]:
    """Parameters of one of the haircuts; men grow bald with age, and curls come with dark skin."""
    shares = np.array([cut[man] for cut in HAIRCUTS.values()])
    factors = {"bald": 3 * age, "curly": 0.5 + 2 * melanin, "shorn": 0.7 + 1.5 * melanin}
    shares *= [factors.get(name, 1.0) for name in HAIRCUTS]
    return sample_haircut(generator, str(generator.choice(list(HAIRCUTS), p=shares / shares.sum())))


def sample_haircut(generator: np.random.Generator, name: str) -> dict[str, float]:
    """Parameters of one of `HAIRCUTS`, for a `Complexion`; those that are not among them keep their defaults."""
    return {key: float(generator.uniform(*limits)) for key, limits in HAIRCUTS[name][2].items()}


def hair_tips(person: Complexion, angle: Array) -> Array:
    """Level at which the hair ends, in mm, at an angle in degrees: the fringe, then the sides."""
    line = hairline(angle)
    opened = np.exp(-((np.abs(angle - 35 * person.parting) / 24) ** 2)) * rise(person.fringe, 34, 18)
    front = line + 3 - np.maximum(person.fringe, 0) * (1 - opened)
    # Parted long hair falls beside the face.
    beside = rise(np.abs(angle), person.hair_front - 24, person.hair_front + 4) ** 1.5
    sides = np.minimum(line + 3, -person.hair_length) if person.hair_length > 0 else line + 3
    return front + beside * (sides - front) - np.minimum(person.fringe, 0) * rise(np.abs(angle), 60, 40)


class AlbedoModel:
    """Colours of the vertices of the procedural head.

    Args:
        head: The mean head, whose canonical coordinates say where lips, brows and the like are.
    """

    def __init__(self, head: Head):
        self.head = head

    def colours(self, complexion: Complexion) -> Array:
        """Albedo of each vertex in [0, 1], shape `(V, 3)`."""
        person, head = complexion, self.head
        skin_tone = _LIGHTEST_SKIN * np.exp(-_MELANIN * person.melanin - _BLOOD * person.blood)
        hair = hair_colour(person)
        brow = 0.75 * hair + 0.1 * skin_tone * (1 - person.hair)
        lip = skin_tone * (np.array([0.88, 0.75, 0.76]) - np.array([0.0, 0.10, 0.07]) * person.lip) + np.array(
            [0.02, 0, 0]
        )
        lip = lip * (1 - 0.4 * person.make_up) + 0.4 * person.make_up * np.array([0.64, 0.24, 0.26])

        colour = self._skin(person)
        colour = _mix(colour, lip, 0.92 * self._lips)
        stubble = self._beard * person.beard * (1 + 0.12 * self._grain).clip(0, 1.2) * 0.9
        colour = _mix(colour, 0.7 * hair + 0.25 * skin_tone, stubble)
        colour = _mix(colour, brow, self._brows(person.brow_thickness) * person.brow_density)
        colour = _mix(colour, 0.35 * brow, self._upper_lashes * (0.7 + 0.3 * person.make_up))
        colour = _mix(colour, 0.6 * brow + 0.25 * skin_tone, self._lower_lashes * (0.2 + 0.4 * person.make_up))
        colour = (
            colour * (self._occlusion * (1 - self._shadow_of_hair(person)) * (1 - person.age * self._lines))[:, None]
        )
        if not person.bald:
            colour = _mix(colour, hair * (1 + self._strands[:, None]), 0.97 * self._hair(person))
        colour = _mix(colour, 0.5 * skin_tone + [0.10, 0.02, 0.02], (head.pocket == EYE_POCKET).astype(float))
        colour = _mix(colour, 0.5 * lip, (head.pocket == MOUTH_POCKET).astype(float))
        colour = _mix(colour, np.array([0.16, 0.05, 0.05]), self._inside_mouth)
        colour[head.teeth] = (
            np.array([0.76, 0.73, 0.66]) * (0.82 + 0.18 * np.sin(np.pi * head.ring[head.teeth]))[:, None]
        )
        colour[head.eyeball] = _eye_colour(head.ring[head.eyeball], person.iris)
        colour = _mix(colour, np.ones(3), 0.85 * self._catch_light)
        return np.clip(colour * (1 - 0.38 * self._lid_shadow)[:, None], 0.01, 1.0)

    def _skin(self, person: Complexion) -> Array:
        tone = 0.018 * self._tone_fields @ person.tones
        melanin = person.melanin + 0.5 * tone + 0.35 * person.freckles * self._spots * (1 - person.melanin)
        blood = person.blood + tone + 1.3 * person.blush * self._blush * (1 - 0.5 * person.melanin)
        absorbed = _MELANIN * melanin[:, None] + _BLOOD * blood[:, None]
        return _LIGHTEST_SKIN * np.exp(-absorbed) * (1 + 0.012 * self._grain[:, None])

    @cached_property
    def _front_skin(self) -> Array:
        return self.head.skin * (self.head.degrees < 90)

    @cached_property
    def _lips(self) -> Array:
        row, across = self.head.row, self.head.across
        corner = np.clip(1 - (across / (MOUTH_HALF_WIDTH + 0.6)) ** 4, 0, 1)
        return self._front_skin * rise(row, 8.75, 9.15) * rise(row, 12.2, 11.8) * rise(corner, 0.0, 0.35)

    def _brows(self, thickness: float) -> Array:
        across, level = self.head.across, self.head.level
        middle = np.interp(across, [8, 11, 25, 38, 50, 56], [19.6, 20.2, 22.6, 23.6, 20.4, 17.5])
        width = np.interp(across, [8, 11, 25, 38, 50, 56], [2.2, 2.9, 2.9, 2.3, 1.3, 0.9])
        ends = rise(across, 7.5, 12) * rise(across, 54, 45)
        return self._front_skin * ends * np.exp(-((np.abs(level - middle) / (width * thickness)) ** 2.4))

    def _hair(self, person: Complexion) -> Array:
        """Coverage by scalp hair, where it has not receded."""
        head = self.head
        receded = np.minimum(person.fringe, 0) * (bump(head.degrees, 33, 16) + 0.4 * plateau(head.angle, 0, 52))
        above = head.level - hairline(head.angle) + receded + 6 * self._strands
        return rise(above, -6, 7) * head.skin * rise(head.level, 12, 20) + head.hair * rise(head.level, 20, 12)

    def _shadow_of_hair(self, person: Complexion) -> Array:
        """What hair that hangs keeps in the shade."""
        if person.bald or person.hair_volume < 0.5:
            return np.zeros(N_VERTICES)
        tips = hair_tips(person, self.head.angle)
        below = bump(np.minimum(self.head.level - tips, 0), 0, 7) * rise(tips, -20, 10)
        beside = rise(self.head.degrees, person.hair_front - 18, person.hair_front + 6) * rise(
            person.hair_length, 20, 60
        )
        return self.head.skin * (0.32 * below * rise(self.head.hair, 0.6, 0.2) + 0.30 * beside * (self.head.level < 60))

    @cached_property
    def _lines(self) -> Array:
        """Lines and bags of age."""
        across, level = self.head.across, self.head.level
        outside = anatomy.nasolabial_distance(across, level)
        fold = 0.20 * bump(outside, 0, 2.4) * plateau(level, -54, 15)
        bags = 0.10 * bump(level + 13 - 0.010 * (across - 31) ** 2, 0, 2.2) * plateau(across, 30, 13)
        mouth = 0.14 * bump(across - 0.12 * (-72 - level), 29, 2.4) * plateau(level, -85, 11)
        frown = 0.10 * bump(across, 6, 2.2) * bump(level, 24, 6)
        return self._front_skin * (fold + bags + mouth + frown)

    @cached_property
    def _upper_lashes(self) -> Array:
        across = self.head.across
        margin = np.interp(self.head.row, [3.7, 4.0, 4.26, 4.3], [0, 1, 1, 0])
        return self._front_skin * margin * rise(across, 15, 20) * rise(across, 49, 46)

    @cached_property
    def _lower_lashes(self) -> Array:
        across = self.head.across
        margin = np.interp(self.head.row, [4.73, 4.74, 5.0, 5.3], [0, 0.5, 1, 0])
        return self._front_skin * margin * rise(across, 17, 24) * rise(across, 49, 46)

    @cached_property
    def _blush(self) -> Array:
        x, across, level = self.head.x, self.head.across, self.head.level
        cheeks = bump(across, 42, 13) * bump(level, -36, 13)
        nose, chin = 0.7 * bump(x, 0, 9) * bump(level, -34, 7), 0.3 * bump(x, 0, 14) * bump(level, -106, 9)
        return self._front_skin * (cheeks + nose + chin) + 0.5 * self.head.ear

    @cached_property
    def _beard(self) -> Array:
        head = self.head
        across, level, degrees, row = head.across, head.level, head.degrees, head.row
        lips = rise(row, 8.9, 8.6) + rise(row, 12.2, 12.6) + (across > MOUTH_HALF_WIDTH + 1)
        moustache = rise(level, -47, -54) * plateau(across, 0, 24)
        low = np.maximum(rise(level - 0.25 * np.clip(across - 22, 0, 25), -50, -64), moustache)
        low = low * rise(level, -128, -116)
        low = low * (1 - 0.5 * bump(across, 44, 9) * bump(level, -62, 8))
        jaw = rise(degrees, 30, 58) * rise(level, -30, -55) * rise(degrees, 86, 78)
        grown = np.clip(np.maximum(low, jaw), 0, 1) * np.clip(lips, 0, 1)
        return head.skin * grown * rise(degrees, 100, 85) * rise(level, -132, -118)

    @cached_property
    def _occlusion(self) -> Array:
        """Light that hollows keep out, painted on: nostrils, creases, corners, below the chin, inside the ear."""
        head, skin = self.head, self._front_skin
        x, across, level, row = head.x, head.across, head.level, head.row
        nostril = 0.6 * np.exp(-(np.hypot((across - 6.4) / 3.2, (level + 45.8) / 1.7) ** 3))
        wing, base = (
            0.10 * bump(across, 19.5, 2.2) * bump(level, -42.5, 4.5),
            0.06 * bump(across, 0, 9) * bump(level, -50.5, 2),
        )
        crease = 0.20 * bump(row, anatomy.KEY_CREASE, 0.32) * rise(across, 16, 24) * rise(across, 52, 45)
        corner, below_eye = (
            0.10 * bump(across, 16, 5) * bump(level, 3, 7),
            0.05 * bump(across, 30, 14) * bump(level, -9, 3.5),
        )
        mouth = 0.55 * np.exp(-(((row - 10.5) / 0.62) ** 4)) * rise(across, MOUTH_HALF_WIDTH + 1, MOUTH_HALF_WIDTH - 5)
        chin = 0.14 * bump(x, 0, 15) * bump(level, -86.5, 3.5)
        neck = 0.42 * rise(level, -114, -128) * (1 - 0.5 * rise(level, -140, -185))
        neck = np.maximum(neck, 0.45 * bump(level, -124, 9) * rise(head.degrees, 30, 55))
        kept_out = skin * (nostril + wing + base + crease + corner + below_eye + mouth + chin)
        kept_out = kept_out + head.skin * neck + 0.45 * head.ear * rise(head.ring, 0.40, 0.05)
        return np.clip(1 - kept_out, 0.15, 1.0)

    @cached_property
    def _inside_mouth(self) -> Array:
        return (self.head.pocket == MOUTH_POCKET) * rise(np.abs(self.head.row - 10.5), 0.5, 0.22)

    @cached_property
    def _lid_shadow(self) -> Array:
        return rise(self.head.position[:, 1] - EYE_LEVEL, 1.0, 6.0) * self.head.eyeball

    @cached_property
    def _catch_light(self) -> Array:
        """A window's reflection on the cornea."""
        around = np.arctan2(self.head.eye_offset[:, 1], self.head.eye_offset[:, 0])
        return self.head.eyeball * bump(self.head.ring, 14, 4) * bump(around, np.deg2rad(58), np.deg2rad(13))

    @cached_property
    def _tone_fields(self) -> Array:
        fields = smooth_functions(self.head, N_TONES + 4, width=30.0)[:, 4:] / (1 + 0.06 * np.arange(N_TONES))
        return fields * self.head.skin[:, None]

    @cached_property
    def _grain(self) -> Array:
        return np.random.default_rng(7).standard_normal(N_VERTICES)

    @cached_property
    def _spots(self) -> Array:
        generator = np.random.default_rng(8)
        spots = (generator.random(N_VERTICES) < 0.10) * generator.random(N_VERTICES) * self._front_skin
        cheeks = bump(self.head.across, 30, 20) * bump(self.head.level, -28, 18)
        return spots * (cheeks + 0.3 * bump(self.head.level, 45, 25))

    @cached_property
    def _strands(self) -> Array:
        angle, level = self.head.angle, self.head.level
        wave = np.sin(0.9 * angle + 3 * np.sin(0.13 * angle) + 0.05 * level) + 0.6 * np.sin(2.3 * angle + 0.03 * level)
        return 0.10 * wave + 0.06 * self._grain


def _mix(colour: Array, other: Array, weight: Array) -> Array:
    return colour + (other - colour) * weight[:, None]


def _ramp(table: Array, position: float) -> Array:
    """Colour between the rows of a table, at a position from 0 to 1."""
    place = np.clip(position, 0, 1) * (len(table) - 1)
    return np.array([np.interp(place, np.arange(len(table)), channel) for channel in table.T])


def hair_colour(person: Complexion) -> Array:
    """Red, green and blue of the hair, in [0, 1]."""
    colour = _ramp(_HAIR, person.hair)
    colour = colour * (1 - person.red) + person.red * _RED_HAIR
    return colour * (1 - person.grey) + person.grey * _GREY_HAIR


def _eye_colour(polar: Array, iris: float) -> Array:
    """Pupil, iris with a dark rim, and the white, by degrees from the gaze."""
    degrees = [8.5, 10, 14, 22, 26, 29, 32]
    channels = [
        np.interp(polar, degrees, [0.03, 0.75 * tint, 1.1 * tint, tint, 0.55 * tint, 0.45, white])
        for tint, white in zip(_ramp(_IRIS, iris), (0.86, 0.83, 0.80), strict=True)
    ]
    return np.stack(channels, axis=1)
