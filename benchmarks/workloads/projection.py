"""W1, W2: the paper's texture and shape streams, loss and all gradients, that of the core included."""

from functools import partial
from math import prod

from benchmarks.case import Case
from benchmarks.sizes import Size, full
from benchmarks.workloads import maps

TEXTURE, SHAPE = (12288, (9, 15, 80)), (28125, (15, 80))
TEXTURE_RIVALS = {
    16: maps.providers(
        maps.CHAIN,
        "torch.compile",
        "TensorLy",
        "einsum",
        left_out={"einsum, no path": "takes 90 s", "opt_einsum": "never faster than einsum, and these are long"},
    ),
    64: maps.providers(maps.CHAIN, "TensorLy", "einsum"),
    256: maps.providers(maps.CHAIN, left_out={"einsum": "loses more than 2 times at n=64; too long here"}),
}
SHAPE_RIVALS = {
    16: maps.providers(maps.CHAIN, "torch.compile", "TensorLy", "einsum", "einsum, no path", "opt_einsum"),
    64: maps.providers(maps.CHAIN, "torch.compile", "TensorLy", "einsum", "opt_einsum"),
    256: maps.providers(maps.CHAIN, "torch.compile", "TensorLy", "einsum"),
    512: maps.providers(maps.CHAIN, "torch.compile", "TensorLy", "einsum"),
}


def texture(count: int, size: Size) -> Case:
    outputs, sizes = size(TEXTURE[0]), [size(k) for k in TEXTURE[1]]
    return Case(
        name=f"w1-texture-n{count}",
        workload="W1",
        shape=f"{TEXTURE[0]} x {TEXTURE[1]}, n={count}",
        operands=partial(maps.operands, size(count), outputs, sizes),
        providers=TEXTURE_RIVALS[count],
        reference=maps.CHAIN,
        floor=maps.floor(size(count), outputs, prod(sizes)),
        memory_unit=outputs * prod(sizes),
        forward_alone=count < 64,
        memory_too=count < 256,
    )


def shape(count: int, size: Size, *, learning_step: bool = False) -> Case:
    outputs, sizes = size(SHAPE[0]), [size(k) for k in SHAPE[1]]
    return Case(
        name=f"w2-shape-step-n{count}" if learning_step else f"w2-shape-n{count}",
        workload="W2",
        shape=f"{SHAPE[0]} x {SHAPE[1]}, n={count}" + (", with a step of SGD" if learning_step else ""),
        operands=partial(maps.operands, size(count), outputs, sizes),
        providers=maps.providers(maps.CHAIN, "TensorLy", "einsum") if learning_step else SHAPE_RIVALS[count],
        reference=maps.CHAIN,
        floor=maps.floor(size(count), outputs, prod(sizes)),
        memory_unit=outputs * prod(sizes),
        learning_step=learning_step,
        forward_alone=not learning_step and count < 256,
        devices=("cpu", "cuda") if count <= 256 else ("cuda",),
    )


def cases(size: Size = full) -> list[Case]:
    counts = (16, 64, 256)
    return [
        *(texture(n, size) for n in counts),
        *(shape(n, size) for n in (*counts, 512)),
        shape(16, size, learning_step=True),
    ]
