"""The GPU kernels, in Triton: one forward and backward pair a file, with the names and meanings of `autograd`.

Importing anything here imports triton; `autograd` does so when a CUDA tensor arrives for which a kernel is wanted
(`autograd/_dispatch.py`). All results are deterministic: there are no atomic additions, and where a sum is split, its
parts lie side by side and are added in a fixed order. Tensors come with their strides, offsets are 64-bit.

What is proven, and how (`tests/multilinear/test_kernels*.py`):

    interpreted     Every kernel against float64 formulas, in float32, float16 and bfloat16, on awkward sizes,
                    transposed inputs and poisoned memory. This shows that indices, masks and sums are right. It cannot
                    show races or the rounding of the tensor cores.
    compiled        Every block shape that the host code chooses, for sm_80 and sm_90: it fits the shared memory,
                    nothing spills, and the products are on the tensor cores.
    on a GPU        The same tests on an H100. `benchmarks/results/thresholds-*.csv` says from which size on a kernel
                    wins; from there on it runs by itself (`KERNELS` in `_dispatch.py`), else `use("triton")` asks.
                    In graphs of torch.compile, which hold kernels under `use("triton")` alone, none has run there yet.

What each has to move and to multiply at least, in bytes and operations, for n samples, C columns of the product,
k outputs and s bytes an element (small terms left out):

    face_splitting forward      s n C written                   M n C operations
    face_splitting backward     s n C read, once                4 n C for each gradient at most
    multilinear_loss            2 s k C read                    4 n k C, of which 2 n k C count threefold (3xTF32)
      in one pass               s k C read                      the same
      with the core's gradient  s k C more, written             2 n k C more
"""
