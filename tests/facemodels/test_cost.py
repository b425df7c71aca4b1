import json

import torch

from facemodels.evaluation.cost import cost


def test_counts_and_times(model):
    result = cost(model, seconds=0.001)
    assert result.total == sum(weight.numel() for weight in model.parameters())
    assert result.weights["shape_core"] == sum(weight.numel() for weight in model.shape_core.parameters())
    times = (result.encode_ms, result.decode_ms, result.edit_ms, result.encode_batch_ms, result.decode_batch_ms)
    assert all(0 < value < 60_000 for value in times)
    assert result.threads == torch.get_num_threads() and result.device == "cpu"
    assert json.loads(json.dumps(result.to_dict()))["total"] == result.total
