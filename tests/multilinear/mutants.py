# ruff: noqa: E501  (one mutant a line)
"""Every analytic formula, broken once: some test must notice.

`python tests/multilinear/mutants.py [file]` tries them, a quarter of a minute each: a mutant is a copy of the package with
one piece of text replaced, on which the tests below run until the first failure. `test_mutants.py` keeps this list up
with the code.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = ["products", "contractions", "maps", "cp", "tucker", "paper_equations", "nn", "derivatives"]

MUTANTS = {
    "autograd/face_splitting.py": [
        ("(a.unsqueeze(-1) * b.unsqueeze(-2))", "(a.unsqueeze(-2) * b.unsqueeze(-1))"),
        ("[factor.conj() for factor in factors]", "list(factors)"),
        ("(by_factor * factors[m].unsqueeze(-2)).sum(-1)", "(by_factor * factors[m].unsqueeze(-2)).sum(-1) * 2"),
        ("(by_factor * factors[m].unsqueeze(-2)).sum(-1)", "by_factor.sum(-1)"),
        ("results[m] = rest[m]", "results[m] = -rest[m]"),
        ("(by_left * left.unsqueeze(-1)).sum(-2)", "by_left.sum(-2)"),
        ("(by_left * left.unsqueeze(-1)).sum(-2)", "(by_left * left.unsqueeze(-1)).sum(-2) / 2"),
        ("else _row_product(left, factors[m])", "else _row_product(factors[m], left)"),
        ("else face_splitting_backward(of_tail, tail, tail_needed)", "else face_splitting_backward(-of_tail, tail, tail_needed)"),
        ("[*head, face_splitting(tail)]", "[*head, 2 * face_splitting(tail)]"),
        ("[OPERATORS[LARGEST](*factors[:LARGEST]), *factors[LARGEST:]]", "[*factors[LARGEST:], OPERATORS[LARGEST](*factors[:LARGEST])]"),
    ],
    "autograd/multilinear_map.py": [
        ("face_splitting.forward(*inputs).matmul(matrix.mT)", "2 * face_splitting.forward(*inputs).matmul(matrix.mT)"),
        ("gradient.mT.matmul(product)", "(-gradient).mT.matmul(product)"),
        ("face_splitting.forward(*inputs).conj()", "face_splitting.forward(*inputs)"),
        ("_as_matrix(core, len(inputs)).conj()", "_as_matrix(core, len(inputs))"),
        ("gradient_product = gradient.matmul(", "gradient_product = 2 * gradient.matmul("),
        ("face_splitting.face_splitting(inputs[LARGEST - 1 :])", "face_splitting.face_splitting(inputs[LARGEST - 1 :][::-1])"),
    ],
    "autograd/mode_dot.py": [
        ("return tensor.squeeze(-1).matmul(matrix.mT).unsqueeze(-1)", "return 2 * tensor.squeeze(-1).matmul(matrix.mT).unsqueeze(-1)"),
        ("return matrix.matmul(tensor.squeeze(-3)).unsqueeze(-3)", "return -matrix.matmul(tensor.squeeze(-3)).unsqueeze(-3)"),
        ("return matrix.unsqueeze(-3).matmul(tensor)", "return matrix.unsqueeze(-3).matmul(tensor) / 2"),
        ("matrix.mT.conj()", "matrix.mT"),
        ("tensor.conj()", "tensor"),
        ("gradient.squeeze(-3).matmul(tensor.squeeze(-3).mT)", "-gradient.squeeze(-3).matmul(tensor.squeeze(-3).mT)"),
        ("gradient.squeeze(-1).mT.matmul(tensor.squeeze(-1))", "gradient.squeeze(-1).mT.matmul(tensor.squeeze(-1)) * 2"),
        ("gradient.matmul(tensor.mT).sum(-3)", "gradient.matmul(tensor.mT).mean(-3)"),
        ("return gradient.transpose(-3, -2)", "return 2 * gradient.transpose(-3, -2)"),
    ],
    "autograd/cp.py": [
        ("_product(factors[:split]).mT.matmul(", "2 * _product(factors[:split]).mT.matmul("),
        ("of_left = _product(right).conj()", "of_left = _product(right)"),
        ("of_right = _product(left).conj()", "of_right = _product(left)"),
        ("of_left = _product(right)", "of_left = -_product(right)"),
        ("of_right = _product(left)", "of_right = 2 * _product(left)"),
        ("return [*factors[: LARGEST - 1], tail]", "return [*factors[: LARGEST - 1], 2 * tail]"),
        ("face_splitting_backward(of_tail.mT,", "face_splitting_backward(-of_tail.mT,"),
    ],
    "autograd/cp_loss.py": [
        ("(first * factors[0]).sum()", "2 * (first * factors[0]).sum()"),
        ("factor.mT @ factor", "factor.abs().mT @ factor"),
        ("of_tensor = gradient * cp", "of_tensor = cp"),
        ("None if result is None else gradient * result", "None if result is None else result"),
        ("if torch.is_grad_enabled():", "if False:"),
        ("norm - 2 * inner + grams.sum()", "norm - inner + grams.sum()"),
        ("cp.backward(2 * residual,", "cp.backward(residual,"),
        ("(of_factor[block] if position == 0 else of_factor)", "of_factor"),
        ("sums[0][block] = -2 * residual", "sums[0][block] = 2 * residual"),
        ("if not torch.is_grad_enabled():", "if True:"),
        ("residual = 2 * gradient * (cp", "residual = gradient * (cp"),
    ],
    "autograd/_operator.py": [
        ("need and j != i", "need"),
        ("[*tensors[:i], cotangent, *tensors[i + 1 :]]", "list(tensors)"),
        ("[self(*replaced) if needs[0] else None]", "[-self(*replaced) if needs[0] else None]"),
        ("[self(*replaced) if needs[0] else None]", "[None]"),
        ("else a + b", "else a"),
        ("x.unsqueeze(0) if d is None else x.movedim(d, 0)", "x.unsqueeze(-1) if d is None else x.movedim(d, 0)"),
        ("x.unsqueeze(0) if d is None else x.movedim(d, 0)", "x.unsqueeze(0) if d is None else x"),
        ("return tensor.expand(size, *tensor.shape) if in_dim is None", "return tensor.unsqueeze(0) if in_dim is None"),
        ("        if forward_mode_active():\n            return self.formula", "        if False:\n            return self.formula"),
        ("        if functorch_active():\n            return self.formula", "        if False:\n            return self.formula"),
    ],
    "maps.py": [
        ("residual = prediction.to(dtype) - target.to(dtype)", "residual = prediction.to(dtype) + target.to(dtype)"),
        ("residual.square().sum()", "residual.square().sum() / 2"),
        ("residual.square().sum(-1) if per_sample", "residual.square().mean(-1) if per_sample"),
        ('total if reduction == "sum" else total /', 'total if reduction == "sum" else total *'),
        ("core = _mode_dot.mode_dot(core, vector.unsqueeze(0), mode)", "core = _mode_dot.mode_dot(core, -vector.unsqueeze(0), mode)"),
        ("if z.requires_grad or", "if"),
    ],
    "contractions.py": [
        ("[factor.conj() for factor in filled]", "filled"),
        ("return result if weights is None else result * weights", "return result"),
        ("mode - sum(d < mode for d in dropped)", "mode"),
    ],
    "cp.py": [
        ("eps ** 0.25", "eps ** 4"),
        ("[factors[0] * weights, *factors[1:]]", "factors"),
    ],
    "products.py": [
        ("matrices = [first * weights, *matrices[1:]]", "pass"),
    ],
    "nn.py": [
        ("return result if self.bias is None else result + self.bias", "return result if self.bias is None else result - self.bias"),
        ("result = components @ output.mT", "result = 2 * components @ output.mT"),
        ("return result @ factors[0].mT if 0 in factors else result", "return -result @ factors[0].mT if 0 in factors else result"),
    ],
}  # fmt: skip


def sandbox(folder: Path) -> None:
    """A copy of the package and its tests."""
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "multilinear", folder / "multilinear", ignore=ignore)
    shutil.copytree(ROOT / "tests" / "multilinear", folder / "tests" / "multilinear", ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", folder)


def is_killed(folder: Path) -> bool:
    """Whether some test fails on the package in the folder."""
    tests = [f"tests/multilinear/test_{name}.py" for name in TESTS]
    options = ["-x", "-q", "-p", "no:cacheprovider", "-m", "not slow"]
    run = subprocess.run(
        [sys.executable, "-B", "-m", "pytest", *options, *tests], cwd=folder, capture_output=True, text=True
    )
    if run.returncode not in (0, 1):
        raise RuntimeError(f"the tests did not run: {run.stdout[-2000:]}{run.stderr[-2000:]}")
    return run.returncode == 1


def main(only: str = "") -> int:
    """Tries every mutant of the files whose name holds `only`; 0 if all are killed."""
    cases = [(name, *change) for name, changes in MUTANTS.items() if only in name for change in changes]
    survivors = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        sandbox(folder)
        if is_killed(folder):
            raise RuntimeError("the tests fail without a mutant")
        for name, old, new in cases:
            path = folder / "multilinear" / name
            source = path.read_text()
            path.write_text(source.replace(old, new, 1))
            killed = is_killed(folder)
            path.write_text(source)
            survivors += not killed
            print(f"{'killed  ' if killed else 'SURVIVED'} {name}: {old!r} -> {new!r}", flush=True)
    print(f"{len(cases) - survivors} of {len(cases)} mutants killed")
    return min(survivors, 1)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
