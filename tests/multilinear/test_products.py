import numpy as np
import pytest
import torch
from factories import assert_close, random_tensors
from torch.autograd import gradcheck, gradgradcheck

import multilinear as ml
from multilinear import reference

COLUMNS = [  # shapes (rows, rank): order 1 and size 1 first, then empty ones, then more than one operator holds
    [(3, 2)],
    [(1, 1), (1, 1)],
    [(3, 4), (2, 4)],
    [(2, 3), (5, 3), (4, 3)],
    [(2, 0), (3, 0)],
    [(0, 2), (3, 2)],
    [(2, 2), (1, 2), (3, 2), (2, 2)],
    [(2, 2), (1, 2), (3, 2), (2, 2), (2, 2), (1, 2)],
]
ROWS = [[(b, a) for a, b in shapes] for shapes in COLUMNS]
POINTWISE = [shapes for shapes in COLUMNS if all(np.prod(s) for s in shapes)]


class TestKhatriRao:
    @pytest.mark.parametrize("shapes", COLUMNS, ids=str)
    def test_matches_definition(self, shapes):
        matrices = random_tensors(shapes)
        assert_close(ml.khatri_rao(matrices), reference.khatri_rao(matrices))
        assert_close(ml.khatri_rao([m.numpy() for m in matrices]), reference.khatri_rao(matrices))

    @pytest.mark.parametrize("shapes", COLUMNS, ids=str)
    def test_weights(self, shapes):
        *matrices, weights = random_tensors([*shapes, (shapes[0][1],)])
        assert_close(ml.khatri_rao(matrices, weights=weights), reference.khatri_rao(matrices, weights))

    @pytest.mark.smoke
    def test_worked_example(self):
        a, b = torch.tensor([[1, 2], [3, 4]]), torch.tensor([[10, 100], [20, 200]])
        assert ml.khatri_rao([a, b]).tolist() == [[10, 200], [20, 400], [30, 400], [60, 800]]
        assert ml.khatri_rao([a, b]).dtype == torch.int64

    @pytest.mark.parametrize("shapes", POINTWISE, ids=str)
    def test_gradients(self, shapes):
        matrices = random_tensors(shapes, requires_grad=True)
        assert gradcheck(lambda *m: ml.khatri_rao(m), matrices)
        assert gradgradcheck(lambda *m: ml.khatri_rao(m), matrices)

    def test_gradients_with_weights(self):
        *matrices, weights = random_tensors([(2, 3), (4, 3), (3,)], requires_grad=True)
        assert gradcheck(lambda w, *m: ml.khatri_rao(m, weights=w), (weights, *matrices))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_gradients_of_many_16_bit_numbers(self, dtype):
        generator = torch.Generator().manual_seed(0)
        a, b, gradient = (torch.rand(n, 64, generator=generator).to(dtype) for n in (512, 512, 512 * 512))
        results = [
            torch.autograd.grad(ml.khatri_rao(factors), factors, gradient.to(factors[0].dtype))
            for factors in ([x.detach().to(to).requires_grad_() for x in (a, b)] for to in (dtype, torch.float64))
        ]
        for actual, expected in zip(*results, strict=True):
            assert_close(actual.double(), expected, rtol=2 * torch.finfo(dtype).eps, atol=0)

    def test_gram_identity(self):  # Kolda and Bader, sec. 2.6
        a, b = random_tensors([(5, 3), (7, 3)])
        c = ml.khatri_rao([a, b])
        assert_close(c.T @ c, (a.T @ a) * (b.T @ b))

    def test_columns_are_kronecker_products(self):
        matrices = random_tensors([(2, 3), (4, 3), (3, 3)])
        for r in range(3):
            assert_close(ml.khatri_rao(matrices)[:, r], ml.kronecker([m[:, r] for m in matrices]))

    def test_result_is_contiguous_and_single_matrix_not_copied(self):
        a, b = random_tensors([(2, 3), (4, 3)])
        assert ml.khatri_rao([a, b]).is_contiguous()
        assert ml.khatri_rao([a]) is a


class TestFaceSplitting:
    @pytest.mark.parametrize("shapes", ROWS, ids=str)
    def test_matches_definition(self, shapes):
        matrices = random_tensors(shapes)
        assert_close(ml.face_splitting(matrices), reference.face_splitting(matrices))
        assert_close(ml.face_splitting([m.numpy() for m in matrices]), reference.face_splitting(matrices))

    @pytest.mark.parametrize("shapes", [[s[::-1] for s in shapes] for shapes in POINTWISE], ids=str)
    def test_gradients(self, shapes):
        matrices = random_tensors(shapes, requires_grad=True)
        assert gradcheck(lambda *m: ml.face_splitting(m), matrices)
        assert gradgradcheck(lambda *m: ml.face_splitting(m), matrices)

    def test_is_the_transposed_khatri_rao_product(self):  # Slyusar 1998
        matrices = random_tensors([(4, 2), (4, 3), (4, 5)])
        assert_close(ml.face_splitting(matrices), ml.khatri_rao([m.T for m in matrices]).T)

    def test_non_contiguous(self):
        a, b = random_tensors([(6, 4), (3, 1)], requires_grad=True)
        f = lambda a, b: ml.face_splitting([a.T[:, ::2], b.T.expand(4, 3)])  # noqa: E731
        assert_close(f(a, b).detach(), reference.face_splitting([a.detach().T[:, ::2], b.detach().T.expand(4, 3)]))
        assert gradcheck(f, (a, b))

    def test_complex(self):
        matrices = random_tensors([(3, 2), (3, 4), (3, 2)], dtype=torch.complex128, requires_grad=True)
        assert_close(ml.face_splitting(matrices).detach(), reference.face_splitting([m.detach() for m in matrices]))
        assert gradcheck(lambda *m: ml.face_splitting(m), matrices)
        assert gradgradcheck(lambda *m: ml.face_splitting(m), matrices)

    def test_mixed_dtypes_promote(self):
        a, b = torch.ones(2, 3), torch.ones(2, 2, dtype=torch.float64, requires_grad=True)
        product = ml.face_splitting([a, b])
        assert product.dtype == torch.float64
        product.sum().backward()
        assert b.grad is not None and b.grad.dtype == torch.float64
        assert ml.face_splitting([a, torch.ones(2, 2, dtype=torch.int32)]).dtype == torch.float32

    def test_some_factors_without_gradient(self):
        a, b, c = random_tensors([(3, 2), (3, 4), (3, 2)])
        for wanted in (a, b, c):
            wanted.requires_grad_()
            ml.face_splitting([a, b, c]).sum().backward()
            others = [x.detach().sum(1) for x in (a, b, c) if x is not wanted]
            assert_close(wanted.grad, (others[0] * others[1])[:, None].expand_as(wanted))
            wanted.requires_grad_(False)


class TestKroneckerAndOuter:
    @pytest.mark.parametrize(
        "shapes", [[(2, 3)], [(1, 1), (2, 2)], [(2, 3), (4, 1)], [(2, 1), (2, 2), (1, 3)]], ids=str
    )
    def test_kronecker_matches_definition(self, shapes):
        matrices = random_tensors(shapes, requires_grad=True)
        assert_close(ml.kronecker(matrices).detach(), reference.kronecker([m.detach() for m in matrices]))
        assert gradcheck(lambda *m: ml.kronecker(m), matrices)

    def test_kronecker_of_vectors(self):
        a, b = random_tensors([(2,), (3,)])
        assert_close(ml.kronecker([a, b]), torch.kron(a, b))

    def test_mixed_product(self):  # Van Loan 2000: (A ⊗ B)(C ⊗ D) = AC ⊗ BD
        a, b, c, d = random_tensors([(2, 3), (4, 5), (3, 2), (5, 3)])
        assert_close(ml.kronecker([a, b]) @ ml.kronecker([c, d]), ml.kronecker([a @ c, b @ d]))

    @pytest.mark.parametrize("sizes", [[3], [1, 1], [2, 3], [2, 3, 4], [2, 1, 2, 2]], ids=str)
    def test_outer_matches_definition(self, sizes):
        vectors = random_tensors([(size,) for size in sizes], requires_grad=True)
        assert_close(ml.outer(vectors).detach(), reference.outer([v.detach() for v in vectors]))
        assert gradcheck(lambda *v: ml.outer(v), vectors)


class TestErrors:
    @pytest.mark.parametrize(
        ("call", "error", "message"),
        [
            (
                lambda a: ml.khatri_rao([a, a.T]),
                ValueError,
                r"khatri_rao: all matrices need the same number of columns, got \[3, 2\] from shapes \[\(2, 3\), "
                r"\(3, 2\)\]; pass matrices of shape \(rows, rank\), not \(rank, rows\)",
            ),
            (lambda a: ml.khatri_rao([]), ValueError, r"khatri_rao: matrices is empty"),
            (
                lambda a: ml.khatri_rao(a),
                TypeError,
                r"khatri_rao: matrices must be a list or tuple.*one array of shape",
            ),
            (lambda a: ml.khatri_rao(iter([a])), TypeError, r"khatri_rao: matrices must be a list or tuple"),
            (lambda a: ml.khatri_rao([a, 3]), TypeError, r"khatri_rao: matrices\[1\] must be an array.*got int"),
            (lambda a: ml.khatri_rao([a, a > 0]), TypeError, r"khatri_rao: matrices\[1\] is boolean"),
            (
                lambda a: ml.khatri_rao([a[0], a]),
                ValueError,
                r"khatri_rao: matrices\[0\] must have 2 modes, \(rows, rank\)",
            ),
            (lambda a: ml.khatri_rao([a, a.numpy()]), TypeError, r"khatri_rao: all arrays must come from one library"),
            (lambda a: ml.khatri_rao([a, a.to("meta")]), ValueError, r"khatri_rao: all tensors must be on one device"),
            (lambda a: ml.khatri_rao([a], weights=a), ValueError, r"khatri_rao: weights must have shape \(3,\)"),
            (lambda a: ml.khatri_rao([a], weights=[1]), TypeError, r"khatri_rao: weights must be an array"),
            (
                lambda a: ml.face_splitting([a, a.T]),
                ValueError,
                r"face_splitting: all matrices need the same number of rows, got \[2, 3\].*not \(size, samples\)",
            ),
            (lambda a: ml.face_splitting([a, a[0]]), ValueError, r"face_splitting: matrices\[1\] must have 2 modes"),
            (
                lambda a: ml.kronecker([a, a[0]]),
                ValueError,
                r"kronecker: all operands must be matrices, or all vectors",
            ),
            (lambda a: ml.outer([a]), ValueError, r"outer: vectors\[0\] must have 1 mode, \(size,\)"),
        ],
    )
    def test_message(self, call, error, message):
        with pytest.raises(error, match=message):
            call(torch.zeros(2, 3))

    def test_on_meta_tensors(self):
        a = torch.zeros(2, 3, device="meta")
        assert ml.khatri_rao([a, a]).shape == (4, 3)
        with pytest.raises(ValueError, match="same number of columns"):
            ml.khatri_rao([a, a.T])
