"""W3, W7: inputs that the whole batch shares: one light in all pictures, or a video of one person in one light."""

from functools import partial
from math import prod

from benchmarks.case import Case, Floor
from benchmarks.sizes import Size, full
from benchmarks.workloads import maps
from benchmarks.workloads.projection import TEXTURE

TOO_LONG = {"einsum, no path": "takes minutes"}


def shared_light(count: int, size: Size, *, learned: bool) -> Case:
    outputs, (light, *others) = size(TEXTURE[0]), [size(k) for k in TEXTURE[1]]
    columns, core = prod(others), outputs * light * prod(others)
    return Case(
        name=f"w3-light-{'learned' if learned else 'given'}-n{count}",
        workload="W3",
        shape=f"{TEXTURE[0]} x {TEXTURE[1]}, n={count}, one light, {'learned' if learned else 'given'}",
        operands=partial(
            maps.operands,
            size(count),
            outputs,
            [light, *others],
            shared=[0],
            constant=() if learned else ("shared",),
        ),
        providers=maps.providers(maps.CHAIN, maps.FOLDED, "TensorLy", "einsum", left_out=TOO_LONG),
        reference=maps.CHAIN,
        floor=Floor(
            forward=[(outputs, columns, size(count))],
            backward=[(outputs, size(count), columns), (size(count), outputs, columns)],
            forward_stream=core // 2,  # read once: half of what a copy moves
            backward_stream=core
            if learned
            else core // 2,  # the core's gradient written, the core read for the light's
            operations=(6 if learned else 4) * core,
        ),
        memory_unit=core,
        forward_alone=False,
        memory_too=count == 64,
    )


def video(count: int, size: Size, *, frozen: bool) -> Case:
    outputs, sizes = size(TEXTURE[0]), [size(k) for k in TEXTURE[1]]
    expression, core = sizes[1], outputs * prod(sizes)
    products = [(outputs, expression, size(count)), (outputs, size(count), expression)]
    return Case(
        name=f"w7-video-{'frozen' if frozen else 'core'}-n{count}",
        workload="W7",
        shape=f"{TEXTURE[0]} x {TEXTURE[1]}, n={count} expressions, core {'frozen' if frozen else 'learned'}",
        operands=partial(
            maps.operands,
            size(count),
            outputs,
            sizes,
            shared=[0, 2],
            constant=("core",) if frozen else (),
        ),
        providers=maps.providers(
            maps.FOLDED,
            "TensorLy, folded",
            "einsum",
            left_out=TOO_LONG | {maps.CHAIN: "with expanded inputs, 50 times slower"},
        ),
        reference=maps.FOLDED,
        floor=Floor(
            forward=products[:1],
            backward=[*products[1:], (size(count), outputs, expression)],
            forward_stream=core // 2,
            backward_stream=core // 2 if frozen else core,
            operations=(4 if frozen else 6) * core,
        ),
        memory_unit=0 if frozen else core,
    )


def cases(size: Size = full) -> list[Case]:
    return [
        *(shared_light(n, size, learned=learned) for learned in (True, False) for n in (16, 64)),
        *(video(1000, size, frozen=frozen) for frozen in (False, True)),
    ]
