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
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = ["products", "contractions", "maps", "cp", "tucker", "paper_equations", "nn", "dispatch", "derivatives"]
OF_DISTRIBUTED = ["distributed"]
OF_DECOMPOSITION = [f"decomposition_{name}" for name in ("tucker", "cp", "tensorfaces", "khatri_rao")]

MUTANTS = {
    "autograd/face_splitting.py": [
        ("(a.unsqueeze(-1 - after) * b.unsqueeze(-2 - after))", "(a.unsqueeze(-2 - after) * b.unsqueeze(-1 - after))"),
        ("    factors = [factor.conj() for factor in factors]\n    if _samples", "    if _samples"),
        ("(matrices * q.unsqueeze(-2 - after)).sum(-1 - after)", "(matrices * q.unsqueeze(-2 - after)).sum(-1 - after) * 2"),
        ("(matrices * q.unsqueeze(-2 - after)).sum(-1 - after)", "matrices.sum(-1 - after)"),
        ("return [gradient]", "return [-gradient]"),
        ("(matrices * p.unsqueeze(-1 - after)).sum(-2 - after)", "matrices.sum(-2 - after)"),
        ("return [None if result is None else result.mT for result in results]", "return results"),
        ("    factors = [factor.conj() for factor in factors]\n    after", "    after"),
        ("torch.mul(matrix, q[of_block], out=product)", "torch.mul(matrix, q[block] if not after else -q, out=product)"),
        ("torch.mul(matrix, p[block], out=product)", "product.copy_(matrix)"),
        ("of_right[of_block] += product", "of_right[of_block] = product"),
        ("slice(None) if after else block", "block"),
        ("_lie_like(like, result.mT if after else result)", "_lie_like(like, result)"),
        ("result = result.mT if after else result", "pass"),
        ("return _product(matrices, 1)", "return -_product(matrices, 1)"),
        ("else face_splitting_backward(of_tail, tail, tail_needed)", "else face_splitting_backward(-of_tail, tail, tail_needed)"),
        ("[*head, face_splitting(tail)]", "[*head, 2 * face_splitting(tail)]"),
        ("[OPERATORS[LARGEST](*factors[:LARGEST]), *factors[LARGEST:]]", "[*factors[LARGEST:], OPERATORS[LARGEST](*factors[:LARGEST])]"),
    ],
    "autograd/multilinear_loss.py": [
        ("product, core_rows.mT, beta=-1)", "product, core_rows.mT)"),
        ("residual *= 2 * scale", "residual *= 2"),
        ("torch.neg(residual, out=", "torch.abs(residual, out="),
        ("of_product.addmm_(residual, core_rows)", "of_product = residual @ core_rows"),
        ("of_matrix is not None and part == 0", "of_matrix is not None"),
        ("result[of_samples] = gradient", "result[: len(gradient)] = gradient"),
        (".sum().mul(scale)", ".sum()"),
        ("norms = target.new_zeros", "norms = target.new_ones"),
        ("gradients, ctx.gradients = ctx.gradients, None", "gradients = ctx.gradients"),
        ("if torch.is_grad_enabled() or", "if"),
        ("residual = (2 * ctx.scale * gradient)", "residual = (ctx.scale * gradient)"),
        ("number.item() == 1", "True"),
        ("return None, -residual if", "return None, residual if"),
        ("and all(x.dtype == core.dtype for x in operands)", ""),
    ],
    "autograd/_dispatch.py": [
        ("elements < small[operator]", "elements >= small[operator]"),
        ("SMALL_ON_CUDA if tensors[0].is_cuda else SMALL", "SMALL if tensors[0].is_cuda else SMALL_ON_CUDA"),
        ('return _backend == "autodiff"', "return False"),
        ("_backend = previous", "pass"),
        ("type(tensor) in (Tensor, Parameter)", "True"),
    ],
    "autograd/_memory.py": [
        (">= LARGE", "> LARGE"),
        ("count=elements)", "count=elements).clone()"),
        ('and like.device.type == "cpu"', ""),
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
        ("matrix.unsqueeze(-3)).matmul(tensor)", "matrix.unsqueeze(-3)).matmul(tensor) / 2"),
        ("return matrix.expand(left, 1, size).bmm(tensor)", "return -matrix.expand(left, 1, size).bmm(tensor)"),
        ("torch.mul(tensor, matrix, out=result)", "torch.add(tensor, matrix, out=result)"),
        ("torch.mm(tensor.squeeze(-1), matrix.mT, out", "torch.mm(-tensor.squeeze(-1), matrix.mT, out"),
        ("torch.mm(matrix, tensor.squeeze(0), out", "torch.mm(-matrix, tensor.squeeze(0), out"),
        ("torch.bmm(matrix.expand(left, rows, size), tensor, out", "torch.bmm(-matrix.expand(left, rows, size), tensor, out"),
        ("tensor.matmul(gradient.mT).sum(-3).mT", "tensor.matmul(gradient.mT).mean(-3).mT"),
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
        ("        if forward_mode_active() or", "        if"),
        ("        if functorch_active() or _traces_subclasses(tensors):\n            return self.formula", "        if False:\n            return self.formula"),
    ],
    "maps.py": [
        ("residual = prediction.to(dtype) - target.to(dtype)", "residual = prediction.to(dtype) + target.to(dtype)"),
        ("residual.square().sum()", "residual.square().sum() / 2"),
        ("residual.square().sum(-1) if per_sample", "residual.square().mean(-1) if per_sample"),
        ("orthonormal.conj()", "orthonormal"),
        ("return coordinates, small.reshape", "return -coordinates, small.reshape"),
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
        ("_unit_variance(factor.shape[0]) if mode", "_unit_variance(factor.shape[1]) if mode"),
        ("a=-1 / math.sqrt(fan_in), b=1 / math.sqrt(fan_in)", "a=-1.2 / math.sqrt(fan_in), b=1.2 / math.sqrt(fan_in)"),
        ("yield self.bias, partial(init.uniform_, a=-bound, b=bound)", "yield self.bias, partial(init.uniform_, a=-2 * bound, b=2 * bound)"),
        ("result = components @ output.mT", "result = 2 * components @ output.mT"),
        ("return result @ factors[0].mT if 0 in factors else result", "return -result @ factors[0].mT if 0 in factors else result"),
    ],
    "distributed.py": [
        ("Shard(0) if name in _names_with_outputs(module) else Replicate()", "Replicate()"),
        ("Shard(0) if name in _names_with_outputs(module) else Replicate()", "Shard(0)"),
        ('{"factors.0" if factored else "weight", "bias"}', '{"factors.0" if factored else "weight"}'),
        ("and 0 in layer.factored_modes", ""),
        ("_reduced(Parameter(split, parameter.requires_grad))", "Parameter(split, parameter.requires_grad)"),
        ("Parameter(split, parameter.requires_grad)", "Parameter(split)"),
        ("[layout if z.ndim > 1 else Replicate()]", "[layout]"),
        ("return z.redistribute(placements=[Replicate()])", "return z"),
        ("output = output.redistribute(placements=[self.output_layouts])", "pass"),
        ("return output.to_local() if self.use_local_output else output", "return output.to_local()"),
        ("generator.manual_seed(seed + number)", "generator.manual_seed(seed)"),
        ("if not is_lost_process(error):", "if False:"),
        ("if device_mesh.ndim != 1:", "if False:"),
        ("module.out_features < device_mesh.size()", "False"),
        ("(isinstance(p, Shard) and p.dim)", "False"),
    ],
    "autograd/_sharding.py": [
        ("_along(index, result, batch + len(result)) or Partial()", "_along(index, result, batch + len(result)) or Replicate()"),
        ("_along(index, term, batch + len(term)) or Partial()", "_along(index, term, batch + len(term)) or Replicate()"),
        ("_along(index, result, len(gradient)) or Replicate(), *split", "Replicate(), *split"),
        ("placement if need else Replicate()", "placement"),
        ("sums[position - 1] = Replicate()", "pass"),
        ("if index not in merged", ""),
        ("dim >= 0 and shape[dim] > 1", "dim >= 0"),
        ("ndim - len(dimensions) + dimensions.index(index)", "dimensions.index(index)"),
        ("len(shape) - len(term) - place", "len(shape) - place"),
        ("(_along(i, term, len(term)) or otherwise) if i else Replicate()", "(_along(i, term, len(term)) or Replicate()) if i else Replicate()"),
        ('indices.append("o")', 'indices.append("n")'),
        ("math.prod(shape[dim + 1 :])", "math.prod(shape[dim:])"),
    ],
    "decomposition/_solve.py": [
        ("torch.where(values > smallest, 1 / values", "torch.where(values > -1, 1 / values"),
        ("total.addmm_(block, block.mT)", "total = block @ block.mT"),
        ("torch.linalg.qr(torch.cat([total, block.mT])", "torch.linalg.qr(torch.cat([block.mT, block.mT])"),
        ("return vectors * signs_of(vectors), values", "return vectors, values"),
        ("for _ in range(rounds):", "for _ in range(0):"),
    ],
    "decomposition/_iterations.py": [
        ("abs(errors[-2] - error) <= stopping.tolerance", "abs(errors[-2] - error) < 0"),
        ("except StopIteration:", "except KeyboardInterrupt:"),
        ("if not math.isfinite(total):", "if False:"),
    ],
    "decomposition/_hosvd.py": [
        ('core if truncation == "sequential" else tensor', "tensor"),
        ("core = mode_dot(core, vectors.mT, mode)", "core = mode_dot(core, vectors.mT, mode) * 1.01"),
        ("tolerance**2 * norm / len(ranks)", "tolerance**2 * norm"),
        ("left_out > allowed", "left_out >= allowed"),
    ],
    "decomposition/_tucker_error.py": [
        ("if loss > CANCELLED", "if True or loss > CANCELLED"),
    ],
    "decomposition/_hooi.py": [
        ("for group in (range(split), range(split, order)):", "for group in (range(split), range(split, order - 1)):"),
        ("if best is None or trace.errors[-1] < best.error:", "if True:"),
    ],
    "decomposition/_cp_als.py": [
        ("if m != mode))", "if m != 0))"),
        ("if new < loss:", "if True:"),
        ("x + stride * (x - y)", "x"),
        ("grams[mode] = factors[mode].mT @ factors[mode]", "pass"),
        ("if loss > CANCELLED", "if True or loss > CANCELLED"),
        ("if best is None or trace.errors[-1] < best.error:", "if True:"),
    ],
    "decomposition/_cp_gradient.py": [
        ("loss + self.ridge * penalty", "loss"),
        ("if best is None or run.lowest < lowest:", "if True:"),
        ("[factor * share for factor in run.best]", "[factor for factor in run.best]"),
    ],
    "decomposition/_codes.py": [
        ("torch.where(better, old, new)", "new"),
        ("code[moving] = better", "pass"),
        ("torch.where(along.abs() > 0.05 * length, along, sign * length)", "along"),
        ("codes[mode], flips = codes[mode] * signs, flips * signs", "codes[mode] = codes[mode] * signs"),
    ],
    "decomposition/_tensorfaces.py": [
        ("tensor = flat[cell.argsort()]", "tensor = flat"),
        ("/ counts.unsqueeze(1)", "/ 1"),
        ("pixels = pixels @ self.basis.mT", "pass"),
        ("rows = torch.nn.functional.normalize(self.factors[name][:, known], dim=1)", "rows = self.factors[name][:, known]"),
    ],
    "decomposition/_khatri_rao.py": [
        ("basis = polar(data.mT @ product)", "basis = data.mT @ product"),
        ("data = torch.where(self.mask, self.data, model)", "pass"),
        ("torch.where(self.mask, self.data - model, 0)", "(self.data - model)"),
        ("if trace.errors[-1] < self.errors_[-1]:", "if True:"),
        ("return vectors * signs_of(self.grow(vectors))", "return vectors"),
        ("return basis if self.span is None else self.span @ basis", "return basis"),
    ],
}  # fmt: skip


def sandbox(folder: Path) -> None:
    """A copy of the package and its tests."""
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "multilinear", folder / "multilinear", ignore=ignore)
    shutil.copytree(ROOT / "tests" / "multilinear", folder / "tests" / "multilinear", ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", folder)


def tests_of(name: str) -> list[str]:
    """The tests that must notice a mutant of this file."""
    if name in ("distributed.py", "autograd/_sharding.py"):
        return OF_DISTRIBUTED
    return OF_DECOMPOSITION if name.startswith("decomposition") else TESTS


def is_killed(folder: Path, names: Sequence[str]) -> bool:
    """Whether one of the tests fails on the package in the folder."""
    tests = [f"tests/multilinear/test_{name}.py" for name in names]
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
        if any(is_killed(folder, tests) for tests in {tuple(tests_of(name)) for name, *_ in cases}):
            raise RuntimeError("the tests fail without a mutant")
        for name, old, new in cases:
            path = folder / "multilinear" / name
            source = path.read_text()
            path.write_text(source.replace(old, new, 1))
            killed = is_killed(folder, tests_of(name))
            path.write_text(source)
            survivors += not killed
            print(f"{'killed  ' if killed else 'SURVIVED'} {name}: {old!r} -> {new!r}", flush=True)
    print(f"{len(cases) - survivors} of {len(cases)} mutants killed")
    return min(survivors, 1)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
