"""Many faces as one object: a dataclass whose every field has a row for each face."""

from typing import Any, Self


class Rows:
    """Length and rows of a frozen dataclass all of whose fields are batches of the same faces.

    Example:
        >>> from dataclasses import dataclass
        >>> import torch
        >>> @dataclass(frozen=True)
        ... class Cameras(Rows):
        ...     scale: torch.Tensor
        ...     shift: torch.Tensor
        >>> cameras = Cameras(torch.ones(3), torch.zeros(3, 2))
        >>> len(cameras), cameras[1:].shift.shape
        (3, torch.Size([2, 2]))
    """

    def __len__(self) -> int:
        return len(next(iter(vars(self).values())))

    def __getitem__(self, rows: Any) -> Self:
        """Some of the faces."""
        return type(self)(**{name: value[rows] for name, value in vars(self).items()})
