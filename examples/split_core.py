"""A core split over processes: each holds some rows and learns them; one process or many end with the same numbers.

python examples/split_core.py
torchrun --standalone --nproc-per-node 2 examples/split_core.py
"""

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor.parallel import parallelize_module

import multilinear as ml
from multilinear.distributed import OutputParallel, report_lost_process

SIZES, OUTPUTS, SAMPLES = (4, 6), 1000, 256


def main() -> float:
    if not dist.is_torchelastic_launched():
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    else:
        dist.init_process_group("gloo")
    try:
        mesh = init_device_mesh("cpu", (dist.get_world_size(),))
        with report_lost_process():
            error = train(mesh)
            dist.barrier()  # gloo's threads must be done with the tensors before Python ends
            return error
    finally:
        dist.destroy_process_group()


def train(mesh: dist.DeviceMesh) -> float:
    torch.manual_seed(0)
    truth = torch.randn(OUTPUTS, *SIZES)
    inputs = [torch.randn(SAMPLES, size) for size in SIZES]
    own = truth.chunk(mesh.size())[mesh.get_local_rank()]  # what this process knows of the truth
    target = ml.multilinear_map(own, inputs)

    layer = ml.nn.Multilinear(SIZES, OUTPUTS, device="meta")
    parallelize_module(layer, mesh, OutputParallel()).to_empty(device="cpu").reset_parameters()
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.05, weight_decay=0)
    for _ in range(200):
        optimizer.zero_grad()
        (layer(*inputs) - target).square().sum().backward()
        optimizer.step()
    rows = layer.weight.to_local()
    error = (rows - own).square().sum()
    dist.all_reduce(error)
    print(f"process {dist.get_rank()}: {len(rows)} of {OUTPUTS} rows; error of all {error.item():.3e}")
    return error.item()


if __name__ == "__main__":
    main()
