"""The tables of docs/distributed.md: their arithmetic by hand, and that they are the ones that the code makes."""

import dataclasses
import shutil

import pytest

from benchmarks import split_cores
from benchmarks.split_cores import CORES, FLOAT32, MIXED, Core, Estimate, Hardware

SMALL = Estimate(Core(10, (3, 4)), 4, FLOAT32, samples=2)


def test_the_fullest_process_by_hand():
    assert SMALL.rows == 3 and SMALL.part == 36
    assert SMALL.products == 3 * 2 * 12 * 4
    assert SMALL.outputs == 2 * 2 * 3 * 4
    assert SMALL.bytes == 36 * 16 + 288 + 48
    # 8 bytes by the loss and 28 by AdamW for each number; K written and read twice, dK once; target, residual each way
    assert SMALL.moved == 36 * 36 + 5 * 2 * 12 * 4 + 2 * 48
    assert SMALL.operations == 6 * 2 * 36


def test_what_is_sent_by_hand():
    assert SMALL.sent == 2 * 3 / 4 * (2 * 7 * 4)
    assert SMALL.sent_gathered == 3 / 4 * (2 * 10 * 4)
    assert SMALL.sent_outputs == 2 * 3 / 4 * (2 * 10 * 4) / 4
    assert SMALL.sent_by_fsdp == 3 / 4 * (3 * 120 * 4)
    alone = dataclasses.replace(SMALL, processes=1)
    assert alone.sent == alone.sent_gathered == alone.sent_outputs == alone.sent_by_fsdp == 0


def test_bytes_of_a_number():
    assert (FLOAT32.kept, FLOAT32.moved) == (16, 36)
    assert (MIXED.kept, MIXED.moved) == (20, 46)


def test_more_samples_read_the_core_again():
    core, few = CORES[0], Estimate(CORES[0], 8, FLOAT32)
    more = dataclasses.replace(few, samples=2 * few.samples)
    assert more.moved - few.moved == 12 * few.part + 5 * 1024 * core.columns * 4 + 2 * few.outputs
    assert more.products == few.products and more.operations == 2 * few.operations


def test_times_are_over_the_slowest_link():
    hardware = Hardware()
    assert hardware.link(8) == 450e9 and hardware.link(9) == 50e9
    assert Estimate(CORES[1], 64, FLOAT32).network_time(50e9) == 1
    assert Estimate(CORES[0], 8, FLOAT32).memory_time == pytest.approx(4.91e9 / 3.35e12, rel=1e-3)
    assert Estimate(CORES[0], 8, MIXED).arithmetic_time == pytest.approx(6 * 1024 * 1.25e8 / 989e12)


@pytest.mark.parametrize("core", CORES)
def test_fewest_processes_are_the_fewest(core):
    fewest = split_cores.fewest_processes(core, FLOAT32)
    assert Estimate(core, fewest, FLOAT32).fits
    assert fewest == 1 or not Estimate(core, fewest - 1, FLOAT32).fits


def test_numbers_of_the_cores():
    assert [core.numbers for core in CORES] == [10**9, 10**12]


def test_the_document_holds_these_tables(tmp_path):
    copy = shutil.copy(split_cores.DOCUMENT, tmp_path)
    before = split_cores.DOCUMENT.read_text()
    split_cores.write(tmp_path / "distributed.md")
    assert (tmp_path / "distributed.md").read_text() == before, f"{copy}: run python -m benchmarks split"
