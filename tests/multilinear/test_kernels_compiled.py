"""Every block shape of the GPU kernels, compiled without a GPU: it fits, it does not spill, it uses tensor cores.

Triton compiles kernels that no GPU can launch: only the figures in the binary tell.
"""

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed")

from kernel_runs import compile_for

from multilinear.kernels import face_splitting, multilinear_loss, multilinear_loss_one_pass

SHARED = {80: 166912, 90: 232448}  # bytes of shared memory that one program may ask for
WITHOUT_PRODUCTS = ("_forward_kernel", "_backward_kernel")
HALVES = [torch.bfloat16, torch.float16]

FACE_SPLITTING = [  # n, sizes
    (16, (9, 15, 80)),
    (512, (9, 15, 80)),
    (1, (30, 30, 30)),
    (64, (15, 80)),
    (64, (300, 300)),
    (16, (8, 8, 8, 8)),
    (512, (16, 16, 16, 16)),
    (7, (63, 7)),
    (1000, (1, 5)),
]

LOSS = [  # n, k, sizes: every number of samples has blocks of its own, every order its addresses
    (16, 12288, (9, 15, 80)),
    (32, 12288, (9, 15, 80)),
    (64, 12288, (9, 15, 80)),
    (512, 28125, (15, 80)),
    (7, 63, (5, 9, 7)),
    (20, 500, (50,)),
    (63, 1001, (5, 5, 5, 5)),
]

ONE_PASS = [(16, 28125, (15, 80)), (3, 28125, (1536,)), (16, 5000, (24, 64)), (9, 777, (6, 16, 16)), (16, 40, (4, 4))]


@pytest.fixture(params=[80, 90])
def compiled(request, monkeypatch):
    """The kernels that a test launches; checked when it ends."""
    launches = compile_for(monkeypatch, request.param)
    yield launches
    assert launches
    for launch in launches:
        assert launch.shared <= SHARED[request.param], launch
        assert launch.stack == 0 and not launch.instructions & {"LDL", "STL"}, launch
        assert launch.registers <= 255, launch
        if launch.kernel not in WITHOUT_PRODUCTS:
            assert launch.instructions & {"HGMMA", "HMMA"}, launch


def empty(*shape, dtype=torch.float32, layout="rows"):
    tensor = torch.empty(shape, dtype=dtype, device="meta")
    return tensor.mT.contiguous().mT if layout == "columns" else tensor


def product_and_gradients(n, sizes, dtype, layout):
    factors = [empty(n, size, dtype=dtype, layout=layout) for size in sizes]
    face_splitting.backward(face_splitting.forward(*factors), factors, [True] * len(sizes))


def loss_and_gradients(n, k, sizes, dtype, precision):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        target, core = empty(n, k, dtype=dtype), empty(k, *sizes, dtype=dtype)
        inputs = [empty(n, size, dtype=dtype) for size in sizes]
        multilinear_loss.loss_and_gradients(target, core, inputs, [True] * (2 + len(sizes)))
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("layout", ["rows", "columns"])
@pytest.mark.parametrize("case", FACE_SPLITTING[:1], ids=str)
def test_face_splitting(compiled, case, layout):
    product_and_gradients(*case, torch.float32, layout)


def test_multilinear_loss(compiled):
    loss_and_gradients(*LOSS[2], torch.float32, "highest")
    assert [launch.kernel for launch in compiled] == [
        "_residual_kernel",
        "_product_gradient_kernel",
        "_core_gradient_kernel",
        "_backward_kernel",
    ]


def test_one_pass(compiled):
    loss_and_gradients(*ONE_PASS[0], torch.float32, "highest")
    assert [launch.kernel for launch in compiled] == ["_one_pass_kernel", "_core_gradient_kernel", "_backward_kernel"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("compiled", "case", "layout", "dtype"),
    [
        *((90, case, "rows", torch.float32) for case in FACE_SPLITTING[1:]),
        *((90, case, "columns", torch.float32) for case in FACE_SPLITTING[4:]),
        (90, FACE_SPLITTING[0], "rows", torch.float16),
        *((90, case, "rows", torch.bfloat16) for case in FACE_SPLITTING[1:7:2]),
        (90, FACE_SPLITTING[5], "columns", torch.bfloat16),
        *((80, case, "rows", torch.float32) for case in FACE_SPLITTING[1:7:2]),
    ],
    indirect=["compiled"],
    ids=str,
)
def test_face_splitting_everywhere(compiled, case, layout, dtype):
    product_and_gradients(*case, dtype, layout)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("compiled", "case", "dtype", "precision"),
    [
        *((90, case, torch.float32, "highest") for case in [*LOSS[:2], *LOSS[3:], *ONE_PASS[1:]]),
        *((90, case, torch.float32, "high") for case in [*LOSS[:3], *ONE_PASS[:2]]),
        *((90, case, torch.bfloat16, "highest") for case in [*LOSS[:3], *ONE_PASS[:2]]),
        (90, LOSS[2], torch.float16, "highest"),
        *((80, case, torch.float32, "highest") for case in [LOSS[0], LOSS[3], *ONE_PASS[1:3]]),
    ],
    indirect=["compiled"],
    ids=str,
)
def test_multilinear_loss_everywhere(compiled, case, dtype, precision, monkeypatch):
    monkeypatch.setattr(face_splitting, "backward", lambda gradient, inputs, needed: [None] * len(inputs))
    loss_and_gradients(*case, dtype, precision)


@pytest.mark.parametrize(
    ("n", "k", "sizes", "fits"),
    [
        *((*case, True) for case in ONE_PASS),
        (17, 40, (4, 4), False),
        (16, 40, (3, 5), False),
        (16, 40, (2,) * 4, False),
    ],
    ids=str,
)
def test_one_pass_takes_what_was_compiled(n, k, sizes, fits):
    core, inputs = empty(k, *sizes).flatten(1), [empty(n, size) for size in sizes]
    assert multilinear_loss_one_pass.fits(core, inputs) == fits


def test_the_check_sees_spills(monkeypatch):
    """Four warps hold what eight should, in wider chunks."""
    monkeypatch.setattr(multilinear_loss_one_pass, "WARPS", 4)
    monkeypatch.setattr(multilinear_loss_one_pass, "WIDTH", 32)
    launches = compile_for(monkeypatch, 90)
    loss_and_gradients(*ONE_PASS[0], torch.float32, "highest")
    assert launches[0].stack > 0
    assert launches[0].instructions >= {"LDL", "STL"}
