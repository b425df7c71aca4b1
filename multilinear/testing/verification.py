"""A table of every operator's errors, by derivative, dtype and device."""

import warnings
from collections.abc import Iterable, Sequence

import torch

from multilinear.testing.cases import CASES, Case
from multilinear.testing.derivatives import CHECKS, Check

TOLERANCES = {torch.float32: 1e-3, torch.float64: 1e-10, torch.complex64: 1e-3, torch.complex128: 1e-10}
"""Largest allowed error, relative to the largest expected number: rounding of third derivatives stays below."""

GROUPS = ("value", "gradient", "second", "third", "forward", "vmap", "compile")


def verify(
    operators: Iterable[str] | None = None,
    *,
    dtypes: Sequence[torch.dtype] = (torch.float64, torch.float32, torch.complex128),
    devices: Sequence[str] = ("cpu",),
    compile: bool = False,
) -> bool:
    """Runs every operator through every derivative, prints the largest errors, and says whether all are small.

    Args:
        operators: Their names; by default all.
        dtypes: float64, float32, complex128 or complex64. Complex ones take part in the checks that torch has for them.
        devices: Names of devices.
        compile: Whether to include torch.compile and torch.export, which takes minutes.

    Returns:
        Whether every error is within `TOLERANCES`.

    Raises:
        ValueError: An operator is unknown.

    Example:
        >>> import torch
        >>> from multilinear.testing import verify
        >>> verify(["mode_dot"], dtypes=[torch.float64])  # doctest: +ELLIPSIS
        operator          dtype       device       value  gradient    second     third   forward      vmap
        mode_dot          float64     cpu      ...
        all errors are within tolerance
        True
    """
    names = list(CASES) if operators is None else list(operators)
    for name in names:
        if name not in CASES:
            raise ValueError(f"verify: no operator is called {name}; there are {', '.join(CASES)}")
    groups = [group for group in GROUPS if compile or group != "compile"]
    print(f"{'operator':18s}{'dtype':12s}{'device':8s}" + "".join(f"{group:>10s}" for group in groups))
    failures = []
    for name in names:
        for dtype in dtypes:
            for device in devices:
                errors = [_largest_error(CASES[name], group, dtype, device, failures) for group in groups]
                cells = "".join(f"{'-' if error is None else f'{error:.0e}':>10s}" for error in errors)
                print(f"{name:18s}{str(dtype).removeprefix('torch.'):12s}{device:8s}{cells}", flush=True)
    for failure in failures:
        print(f"FAILED {failure}")
    print("all errors are within tolerance" if not failures else f"{len(failures)} checks failed")
    return not failures


def _largest_error(case: Case, group: str, dtype: torch.dtype, device: str, failures: list[str]) -> float | None:
    """Largest error of a group of checks; None if none applies. Failures are added to the list."""
    errors = []
    for check in CHECKS.values():
        if check.group == group and (check.complex or not dtype.is_complex):
            error, reason = _run(check, case, dtype, device)
            if not error <= TOLERANCES[dtype]:
                failures.append(f"{case.name} {check.name} {dtype} {device}: {reason or f'error {error:.1e}'}")
            errors.append(error)
    return max(errors, default=None)


def _run(check: Check, case: Case, dtype: torch.dtype, device: str) -> tuple[float, str]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".torch.jit.script", DeprecationWarning)  # torch about its own modules
        try:
            return check.run(case, dtype=dtype, device=device), ""
        except Exception as error:  # a derivative that raises is a result of the table, not the end of it
            return float("inf"), f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
