"""Running the kernels' host code without a GPU: interpreted on CPU tensors, or compiled for a GPU that is not there."""

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import triton
import triton.backends.nvidia
import triton.experimental.gluon  # the interpreter imports it, and would find the functions replaced below
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.runtime.interpreter import InterpretedFunction
from triton.runtime.jit import JITFunction

from multilinear.kernels import _factors, face_splitting, multilinear_loss, multilinear_loss_one_pass

MODULES = (_factors, face_splitting, multilinear_loss, multilinear_loss_one_pass)
CUOBJDUMP = Path(triton.backends.nvidia.__file__).parent / "bin" / "cuobjdump"


def interpret(monkeypatch) -> None:
    """Replaces every Triton function by an interpreted one, which TRITON_INTERPRET would do for the whole process."""
    _keep_language(monkeypatch)
    for module in (tl, tl.standard, *MODULES):
        for name, function in list(vars(module).items()):
            if isinstance(function, JITFunction):
                monkeypatch.setattr(module, name, InterpretedFunction(function.fn))


def _keep_language(monkeypatch) -> None:
    """What a kernel calls leaves the interpreter's operations in Triton's language; they go with the test."""
    for owner in (tl, tl.core, tl.math, tl.core.tensor, tl.core.tensor_descriptor_base):
        for name, value in list(vars(owner).items()):
            if callable(value) or isinstance(value, property):
                monkeypatch.setattr(owner, name, value)
    for name in {"__index__", "__bool__", "__repr__", "__str__", "T"} - vars(tl.core.tensor).keys():
        monkeypatch.setattr(tl.core.tensor, name, None, raising=False)


@dataclass
class Compiled:
    """What a launch compiled to."""

    kernel: str
    registers: int
    stack: int  # bytes of spilled registers
    shared: int  # bytes of dynamic shared memory, which ptxas does not report
    instructions: set[str]


def compile_for(monkeypatch, capability: int) -> list[Compiled]:
    """Makes every launch compile its kernel for a compute capability, such as 90, and returns the list it adds to."""
    compiled: list[Compiled] = []
    monkeypatch.setattr(triton.runtime.driver, "_active", _Driver(capability))
    for module in MODULES:
        for name, function in list(vars(module).items()):
            if isinstance(function, JITFunction) and name.endswith("_kernel"):
                monkeypatch.setattr(module, name, _Compiler(function, compiled))
    return compiled


class _Driver:
    """As much of a driver as compiling needs."""

    def __init__(self, capability: int):
        self.capability = capability

    def get_current_device(self) -> int:
        return self.capability  # the key under which triton keeps what it has compiled

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)


class _Compiler:
    def __init__(self, kernel: JITFunction, compiled: list[Compiled]):
        self.kernel = kernel
        self.compiled = compiled

    def __getitem__(self, grid):
        assert all(0 < size < 2**31 for size in grid[:1]) and all(0 < size < 2**16 for size in grid[1:])

        def launch(*arguments, **options):
            binary = self.kernel.warmup(*arguments, grid=grid, **options)
            with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
                file.write(binary.asm["cubin"])
                file.flush()
                command = [CUOBJDUMP, "--dump-resource-usage", "--dump-sass", file.name]
                dump = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            registers, stack = re.search(r"REG:(\d+) STACK:(\d+)", dump).groups()
            instructions = set(re.findall(r"\b(HGMMA|HMMA|LDL|STL)\b", dump))
            self.compiled.append(
                Compiled(self.kernel.__name__, int(registers), int(stack), binary.metadata.shared, instructions)
            )

        return launch
