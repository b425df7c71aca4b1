"""Rotations and the two cameras: weak perspective and pinhole.

The face frame has x to the viewer's right (the subject's left), y up and z to the viewer. A rotation takes the face
frame to the camera frame. In an image x runs right, y runs down, and the centre of the first pixel is (0.5, 0.5).
"""

import torch
from jaxtyping import Float
from torch import Tensor

NEAREST = 1.0
"""Nearest distance, in mm, at which the pinhole camera still sees a point."""


def euler_to_matrix(
    yaw: Float[Tensor, "*batch"], pitch: Float[Tensor, "*batch"], roll: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch 3 3"]:
    """Rotation `Rz(roll) @ Rx(pitch) @ Ry(yaw)`: the head first turns, then nods, then tilts.

    Positive yaw turns the face to the right of the image, positive pitch tips it down, positive roll turns it
    anticlockwise in the image.

    Args:
        yaw: Angles in radians.
        pitch: Angles in radians, same shape.
        roll: Angles in radians, same shape.

    Returns:
        Rotations of shape `(*batch, 3, 3)`, from the face frame to the camera frame.

    Example:
        >>> quarter_turn = euler_to_matrix(torch.tensor(torch.pi / 2), torch.tensor(0.0), torch.tensor(0.0))
        >>> (quarter_turn @ torch.tensor([0.0, 0.0, 1.0])).round().tolist()[:2]  # where the nose points: to the right
        [1.0, 0.0]
    """
    yaw, pitch, roll = torch.broadcast_tensors(yaw, pitch, roll)
    one, zero = torch.ones_like(yaw), torch.zeros_like(yaw)

    def matrix(*entries: Tensor) -> Tensor:
        return torch.stack(entries, dim=-1).unflatten(-1, (3, 3))

    turn = matrix(yaw.cos(), zero, yaw.sin(), zero, one, zero, -yaw.sin(), zero, yaw.cos())
    nod = matrix(one, zero, zero, zero, pitch.cos(), -pitch.sin(), zero, pitch.sin(), pitch.cos())
    tilt = matrix(roll.cos(), -roll.sin(), zero, roll.sin(), roll.cos(), zero, zero, zero, one)
    return tilt @ nod @ turn


def matrix_to_euler(
    rotation: Float[Tensor, "*batch 3 3"],
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """Yaw, pitch and roll of a rotation: the inverse of `euler_to_matrix` for pitch within 90 degrees.

    Args:
        rotation: Rotations of shape `(*batch, 3, 3)`, from the face frame to the camera frame.

    Returns:
        Yaw, pitch and roll in radians, each of shape `(*batch,)`.

    Example:
        >>> angles = matrix_to_euler(euler_to_matrix(torch.tensor(0.5), torch.tensor(-0.25), torch.tensor(0.125)))
        >>> [round(angle.item(), 4) for angle in angles]
        [0.5, -0.25, 0.125]
    """
    # The last row before the tilt is left alone by it: (-cos p sin y, sin p, cos p cos y).
    pitch = torch.asin(rotation[..., 2, 1].clamp(-1.0, 1.0))
    yaw = torch.atan2(-rotation[..., 2, 0], rotation[..., 2, 2])
    roll = torch.atan2(-rotation[..., 0, 1], rotation[..., 1, 1])
    return yaw, pitch, roll


def project_weak_perspective(
    vertices: Float[Tensor, "n vertices 3"],
    rotation: Float[Tensor, "n 3 3"],
    scale: Float[Tensor, "n"],
    shift: Float[Tensor, "n 2"],
) -> Float[Tensor, "n vertices 3"]:
    """Weak perspective: rotate, scale, shift; far and near are shown alike.

    A point `v` lands at pixel `(shift_x + scale * (R v)_x, shift_y - scale * (R v)_y)`.

    Args:
        vertices: Points in mm in the face frame, shape `(n, vertices, 3)`.
        rotation: Shape `(n, 3, 3)`.
        scale: Pixels per mm, shape `(n,)`.
        shift: Where the face frame's origin lands, in pixels, shape `(n, 2)`.

    Returns:
        Pixel x, pixel y and depth in mm (smaller is nearer, the origin has 0), shape `(n, vertices, 3)`.

    Example:
        >>> point, camera = torch.tensor([[[10.0, 20.0, 30.0]]]), torch.eye(3)[None]
        >>> project_weak_perspective(point, camera, torch.tensor([0.5]), torch.tensor([[32.0, 32.0]]))
        tensor([[[ 37.,  22., -30.]]])
    """
    x, y, z = (vertices @ rotation.transpose(-1, -2)).unbind(dim=-1)
    scale = scale[:, None]
    return torch.stack([shift[:, :1] + scale * x, shift[:, 1:] - scale * y, -z], dim=-1)


def project_perspective(
    vertices: Float[Tensor, "n vertices 3"],
    rotation: Float[Tensor, "n 3 3"],
    translation: Float[Tensor, "n 3"],
    focal: Float[Tensor, "n"],
    centre: Float[Tensor, "n 2"],
) -> Float[Tensor, "n vertices 3"]:
    """Pinhole camera at the origin that looks down the negative z axis.

    Points nearer than 1 mm, or behind the camera, keep their depth and are left out by `rasterize`.

    Args:
        vertices: Points in mm in the face frame, shape `(n, vertices, 3)`.
        rotation: Shape `(n, 3, 3)`.
        translation: Where the face frame's origin is in the camera frame, in mm (z is negative), shape `(n, 3)`.
        focal: Focal length in pixels, shape `(n,)`.
        centre: The pixel that the camera looks at, shape `(n, 2)`.

    Returns:
        Pixel x, pixel y and distance in mm along the view, shape `(n, vertices, 3)`.

    Example:
        >>> point, away = torch.tensor([[[10.0, 20.0, 0.0]]]), torch.tensor([[0.0, 0.0, -500.0]])
        >>> centre = torch.tensor([[32.0, 32.0]])
        >>> project_perspective(point, torch.eye(3)[None], away, torch.tensor([100.0]), centre)
        tensor([[[ 34.,  28., 500.]]])
    """
    x, y, z = (vertices @ rotation.transpose(-1, -2) + translation[:, None]).unbind(dim=-1)
    enlarged = focal[:, None] / (-z).clamp_min(NEAREST)
    return torch.stack([centre[:, :1] + enlarged * x, centre[:, 1:] - enlarged * y, -z], dim=-1)
