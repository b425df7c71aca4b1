"""Which CPUs compute faster in bfloat16."""

import platform

import pytest
import torch

from facemodels import precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("maker", "tiles", "halves", "fast"),
    [
        ("AuthenticAMD", False, True, True),
        ("AuthenticAMD", False, False, False),
        ("GenuineIntel", False, True, False),  # slower than float32
        ("GenuineIntel", True, True, True),
        ("", False, False, False),
    ],
)
def test_bfloat16_is_fast_with_tiles_and_on_amd(monkeypatch, maker, tiles, halves, fast):
    monkeypatch.setattr(precision, "_maker", lambda: maker)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tiles)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: halves)
    assert precision.fast_bfloat16(CPU) is fast


def test_the_maker_is_read_where_the_system_tells(monkeypatch, tmp_path):
    maker = precision._maker.__wrapped__
    information = tmp_path / "cpuinfo"
    monkeypatch.setattr(precision, "Path", lambda _: information)
    monkeypatch.setattr(platform, "processor", lambda: "AMD64 Family 25 Model 97 Stepping 2, AuthenticAMD")
    assert maker() == "AuthenticAMD"
    information.write_text("processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\n")
    assert maker() == "GenuineIntel"
    information.write_text("processor\t: 0\nBogoMIPS\t: 100.00\n")
    assert maker() == ""
