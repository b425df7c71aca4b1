"""Sets written in shards: resumed exactly, nothing lost, nothing half-written."""

import errno
import hashlib
import os
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
from tiny import make_rows

from facemodels.data import shards
from facemodels.data.shards import write_shards
from facemodels.errors import InputError

INFO = {"source": "made for tests", "seed": 7}
TOTAL, SIZE = 10, 4


def make(number):
    rows = list(make_rows(TOTAL, seed=7, held_out=3))
    return rows[number * SIZE : (number + 1) * SIZE]


def full_disk(number):
    if number == 1:
        raise OSError(errno.ENOSPC, "No space left on device")
    return make(number)


def write(out, morphable, make=make, info=INFO, **options):
    return write_shards(out, make, 3, morphable, info, total=TOTAL, **options)


def counting(calls, number):
    calls.append(number)
    return make(number)


def content(folder):
    """Bytes of the rows of a set."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.arrow")}


class TestWriteShards:
    def test_holds_the_rows_in_their_order(self, tmp_path, morphable):
        prepared = write(tmp_path / "set", morphable)
        assert prepared.table["name"][:] == [f"{number:06d}.jpg" for number in range(TOTAL)]
        assert prepared.info == {"faces": TOTAL, **INFO}
        assert os.listdir(tmp_path) == ["set"]

    def test_goes_on_where_it_was(self, tmp_path, morphable):
        whole = write(tmp_path / "whole", morphable)
        with pytest.raises(InputError, match=r"disk of .* is full; .*again\.partial keeps what is done"):
            write(tmp_path / "again", morphable, full_disk)
        assert sorted(os.listdir(tmp_path / "again.partial")) == ["settings.json", "shard-00000.arrow"]
        calls = []
        write(tmp_path / "again", morphable, partial(counting, calls))
        assert calls == [1, 2]
        assert content(tmp_path / "again") == content(whole.path)
        assert sorted(os.listdir(tmp_path)) == ["again", "whole"]

    def test_a_finished_set_is_left_alone(self, tmp_path, morphable):
        write(tmp_path / "set", morphable)
        (tmp_path / "set.partial").mkdir()  # killed between the last two steps
        calls = []
        assert len(write(tmp_path / "set", morphable, partial(counting, calls))) == TOTAL
        assert calls == [] and os.listdir(tmp_path) == ["set"]

    def test_refuses_other_settings(self, tmp_path, morphable):
        with pytest.raises(InputError, match="is full"):
            write(tmp_path / "set", morphable, full_disk)
        with pytest.raises(InputError, match=r"set\.partial holds an unfinished set with seed 7 instead of 8"):
            write(tmp_path / "set", morphable, info={**INFO, "seed": 8})
        write(tmp_path / "set", morphable)
        with pytest.raises(InputError, match="exists already"):
            write(tmp_path / "set", morphable, info={**INFO, "seed": 8})

    def test_a_shard_is_whole_or_absent(self, tmp_path, morphable, monkeypatch):
        def stopped(path, rows):
            path.write_bytes(b"half")
            raise KeyboardInterrupt

        monkeypatch.setattr(shards, "write_rows", stopped)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "set", morphable)
        assert os.listdir(tmp_path / "set.partial") == ["settings.json"]

    def test_other_errors_pass(self, tmp_path, morphable):
        def broken(number):
            raise OSError(errno.EIO, "input/output error")

        with pytest.raises(OSError, match="input/output error"):
            write(tmp_path / "set", morphable, broken)

    @pytest.mark.slow
    def test_processes_write_the_same(self, tmp_path, morphable):
        write(tmp_path / "one", morphable)
        write(tmp_path / "two", morphable, workers=2)
        assert content(tmp_path / "one") == content(tmp_path / "two")


@pytest.mark.slow
def test_killed_command_goes_on_and_ends_the_same(tmp_path):
    """`kill -9` in the middle of `facemodels synthesise`, then the same command again."""
    command = [sys.executable, "-m", "facemodels", "synthesise", "--count", "576", "--workers", "2"]
    killed = subprocess.Popen([*command, "killed"], cwd=tmp_path, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 600
    while not list(tmp_path.glob("killed.partial/shard-0000?.arrow")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    done = list(tmp_path.glob("killed.partial/shard-0000?.arrow"))
    assert 0 < len(done) < 3 and not (tmp_path / "killed").exists()
    deadline = time.monotonic() + 600
    while _group_lives(killed.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _group_lives(killed.pid), "the processes that render outlive their parent"
    subprocess.run([*command, "killed"], cwd=tmp_path, check=True, capture_output=True)
    subprocess.run([*command, "whole"], cwd=tmp_path, check=True, capture_output=True)
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
    assert sorted(os.listdir(tmp_path)) == ["killed", "whole"]


def _group_lives(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
