"""The harness of the benchmarks, and every case at tiny sizes: whoever is timed computes the same as the others."""

import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

pytest.importorskip("pytest_benchmark", reason="the extra `bench` is not installed")

from benchmarks import agreement, measure, memory, plots, registry, results, step, tables, targets, timing
from benchmarks.__main__ import COMMANDS, main
from benchmarks.case import AUTODIFF, FLOOR, OURS, Case, Floor, FloorRun, Prepared, Problem, Run, Unavailable
from benchmarks.summary import summaries

TINY = registry.cases(tiny=True) + [
    case for case in registry.cases(device="cuda", tiny=True) if "cpu" not in case.devices
]


def cube(x):
    return (x**3).sum()


def cube_by_products(x):
    return (x * x * x).sum()


def toy(**providers):
    return Case(
        name="toy",
        workload="small",
        shape="7",
        operands=lambda: (torch.randn(7).requires_grad_(),),
        providers={OURS: cube, "by products": cube_by_products, **providers},
        reference="by products",
        floor=Floor(forward=[(2, 3, 4)], backward_stream=5),
        memory_unit=7,
    )


def compiled(case):
    return tuple(name for name in case.providers if "compile" in name)


class TestCases:
    def test_names_are_unique(self):
        names = [case.name for case in registry.cases()]
        assert len(set(names)) == len(names) > 50
        assert {case.workload for case in registry.cases()} == set(registry.WORKLOADS)

    @pytest.mark.parametrize("case", TINY, ids=lambda case: case.name)
    def test_all_providers_agree(self, case):
        with registry.environment():
            problem = Problem.draw(case)
            runs, errors, refused = measure.admitted(case, problem, torch.float32, skip=compiled(case))
        assert not [reason for reason in refused.values() if reason.startswith(("wrong", "failed"))], refused
        assert OURS in runs or "compress" in refused[OURS]
        assert len(runs) > 1 or OURS not in runs
        assert all(error < 2e-5 for error in errors.values())

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["small-loss-100x5x8-n4", "w6-cp-loss-3way-r16"])
    @pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, while it compiles
    def test_compiled_providers_agree(self, name):
        case = registry.find(name, tiny=True)
        torch.compiler.reset()
        with registry.environment():
            runs, _, _ = measure.admitted(case, Problem.draw(case), torch.float32)
        assert "torch.compile" in runs

    def test_operands_have_the_sizes_that_are_named(self):
        case = registry.find("w10-hosvd-3way-r16")
        tensor, rank = case.operands()
        assert str(tuple(tensor.shape)) in case.shape and tensor.shape == (200,) * 3 and rank == 16

    def test_gradients_are_wanted_as_the_name_says(self):
        core = {case.name: Problem.draw(case).args[1].requires_grad for case in TINY if case.name.startswith("w7")}
        assert core == {"w7-video-core-n1000": True, "w7-video-frozen-n1000": False}
        lights = {case.name: Problem.draw(case).args[2][0].requires_grad for case in TINY if case.name.startswith("w3")}
        assert all(wanted == ("learned" in name) for name, wanted in lights.items())

    def test_operands_are_the_same_each_time(self):
        case = registry.find("w4-columns-15x80-n64", tiny=True)
        assert_close(Problem.draw(case).args, Problem.draw(case).args, rtol=0, atol=0)

    def test_names_are_found_by_pattern_and_beginning(self):
        found = [[case.name for case in registry.matching([pattern])] for pattern in ("w8", "w8-*", "w8-shape-n1")]
        assert found[0] == found[1] and len(found[0]) == 5 and found[2] == ["w8-shape-n1"]

    def test_an_unknown_name_is_refused(self):
        with pytest.raises(ValueError, match=r"no case is called 'w99\*'"):
            registry.matching(["w4*", "w99*"])


class TestAgreement:
    def test_a_wrong_value_is_found(self):
        assert "wrong: differs from by products by" in self.refused(lambda x: cube(x) * 1.001)

    def test_a_wrong_gradient_is_found(self):
        assert "wrong" in self.refused(lambda x: cube(x) + x.sum() - x.sum().detach())

    def test_a_wrong_shape_is_found(self):
        assert self.refused(lambda x: cube(x)[None]).startswith("failed: RuntimeError: Mismatch in shape")
        assert agreement.error([torch.ones(3, 1)], [torch.ones(3)]) == float("inf")

    def test_nan_is_found(self):
        assert "wrong" in self.refused(lambda x: cube(x) * float("nan"))

    def test_a_failing_rival_is_named(self):
        assert self.refused(lambda x: x @ torch.ones(3)).startswith("failed: RuntimeError")

    def test_a_missing_rival_is_named(self):
        def missing(x):
            raise Unavailable("not here")

        assert self.refused(missing) == "skipped: not here"
        assert self.refused("takes too long") == "left out: takes too long"

    def test_the_reference_is_computed_in_float64(self):
        problem = Problem.draw(toy())
        assert all(x.dtype == torch.float64 for x in agreement.expected(problem))
        assert problem.args[0].dtype == torch.float32

    def test_a_chunk_at_the_end_counts(self, monkeypatch):
        monkeypatch.setattr(agreement, "CHUNK", 3)
        wanted = [torch.arange(1.0, 8.0)]
        assert agreement.error([wanted[0] + torch.eye(7)[6] * 0.7], wanted) == pytest.approx(0.1)

    @staticmethod
    def refused(provider):
        case = toy(rival=provider)
        runs, _, refused = measure.admitted(case, Problem.draw(case), torch.float32)
        assert list(runs) == [OURS, "by products"]
        return refused["rival"]


class TestRuns:
    def test_gradients(self):
        problem = Problem.draw(toy())
        agreement.expected(problem)
        run = Run(cube, problem)
        (gradient,) = run.backward(run.record())
        assert_close(gradient, 3 * problem.args[0].detach() ** 2)

    def test_preparation_happens_once(self):
        prepared = []
        provider = Prepared(lambda x: (prepared.append(1) or x,), cube)
        problem = Problem.draw(toy())
        agreement.expected(problem)
        run = Run(provider, problem)
        for _ in range(3):
            run.backward(run.record())
        assert prepared == [1]

    def test_a_learning_step_leaves_the_numbers(self):
        case = registry.find("w2-shape-step-n16", tiny=True)
        problem = Problem.draw(case)
        agreement.expected(problem)
        before = [x.detach().clone() for x in problem.variables]
        run = Run(case.providers[OURS], problem)
        gradients = run.backward(run.record())
        assert_close([x.detach() for x in problem.variables], before, rtol=0, atol=0)
        assert all(g.abs().max() > 0 for g in gradients)

    def test_the_floor_counts_its_products(self):
        floor = Floor(forward=[(2, 3, 4)], backward=[(1, 5, 1)], operations=7)
        assert [floor.flops(mode) for mode in ("forward", "backward", "both")] == [55, 17, 65]


class TestTiming:
    def test_every_round_has_another_order(self):
        plan = timing.schedule(dict.fromkeys("abcdef", 30), "a", random.Random(0))
        assert all(sorted(names) == list("abcdef") for names in plan)
        assert len({tuple(names) for names in plan}) > 25
        assert {names[0] for names in plan} == set("abcdef")

    def test_slow_ones_sit_out_rounds_evenly_and_the_leader_none(self):
        plan = timing.schedule({"fast": 30, "slow": 3, "leader": 10}, "leader", random.Random(0))
        present = [number for number, names in enumerate(plan) if "slow" in names]
        assert len(plan) == 30 and len(present) == 3
        assert {b - a for a, b in pairwise(present)} == {10}
        assert all("leader" in names for names in plan)

    def test_a_fewest_number_of_rounds(self):
        assert timing.rounds_for(5.0, share=1.0) == 3
        assert timing.rounds_for(0.2, share=1.0) == 5
        assert timing.rounds_for(0.1, share=1.0) == 10
        assert timing.rounds_for(1e-6, share=1.0) == timing.MOST_ROUNDS

    def test_percentiles(self):
        spread = timing.Spread.of([5.0, 1.0, 4.0, 2.0, 3.0, 6.0])  # places 1, 2.5 and 4 of 0 to 5
        assert (spread.p20, spread.median, spread.p80) == (2.0, 3.5, 5.0)

    def test_the_ratio_is_taken_within_rounds(self):
        ours, rival = timing.Samples(), timing.Samples()
        for number, (mine, theirs) in enumerate([(1.0, 2.0), (10.0, 20.0), (1.0, None), (3.0, 3.3)]):
            ours.add(number, {"both": (mine, 2 * mine)})
            if theirs:
                rival.add(number, {"both": (theirs, theirs)})
        rival.add(9, {"both": (99.0, 99.0)})  # a round without ours
        assert timing.ratio(rival, ours, "both", 0) == pytest.approx(2.0)
        assert timing.ratio(rival, ours, "both", 1) == pytest.approx(1.0)

    def test_a_turn_measures_forward_backward_and_both(self):
        problem = Problem.draw(toy())
        agreement.expected(problem)
        turn = timing.turn(Run(cube, problem), StepClock(), calls=2)
        assert turn == {"forward": (1.0, 1.0), "backward": (1.0, 1.0), "both": (2.0, 2.0)}
        assert timing.seconds(turn) == 3.0

    def test_interleaved_rounds(self):
        problem = Problem.draw(toy())
        agreement.expected(problem)
        runs = {OURS: Run(cube, problem), "by products": Run(cube_by_products, problem)}
        runs[FLOOR] = FloorRun(problem.case.floor, device="cpu", dtype=torch.float32, trains=True)
        samples = timing.interleave(runs, StepClock(), leader=OURS, budget=30)
        assert all(set(sample.by_mode) == {"forward", "backward", "both"} for sample in samples.values())
        assert len(samples[OURS].by_mode["both"]) >= 3

    def test_estimates_of_slow_runs_are_rounds_only_if_ours_is_one_too(self):
        """A run on this clock takes three seconds, so that all are slow, or the leader takes none."""
        problem = Problem.draw(toy())
        agreement.expected(problem)
        both = {OURS: Run(cube, problem), "by products": Run(cube_by_products, problem)}
        samples = timing.interleave(both, StepClock(), leader=OURS, budget=0)
        assert all(sorted(sample.by_mode["both"]) == [-1, 0, 1] for sample in samples.values())

        class OursIsFast(StepClock):
            def prepare(self):
                self.fast = turning[-1] is both[OURS]

            def between(self, start, end):
                return (1e-3, 1e-3) if self.fast else super().between(start, end)

        turning, plain = [], timing.turn

        def turn(run, *args, **kwargs):
            turning.append(run)
            return plain(run, *args, **kwargs)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(timing, "turn", turn)
            samples = timing.interleave(both, OursIsFast(), leader=OURS, budget=0)
        assert len(samples["by products"].by_mode["both"]) == 3
        assert -1 not in samples["by products"].by_mode["both"]

    def test_events_on_a_gpu(self, monkeypatch):
        """Exercised with a stand-in: there may be no device."""
        clock = StepClock()

        class Event:
            def __init__(self, enable_timing):
                assert enable_timing

            def record(self):
                self.at = clock.mark()

            def synchronize(self):
                pass

            def elapsed_time(self, other):
                return 1e3 * (other.at - self.at)

        synchronized = []
        monkeypatch.setattr(torch.cuda, "Event", Event)
        monkeypatch.setattr(torch.cuda, "synchronize", lambda: synchronized.append(1))
        problem = Problem.draw(toy())
        agreement.expected(problem)
        turn = timing.turn(Run(cube, problem), timing.CudaClock("cpu"), calls=2)
        assert {mode: wall for mode, (wall, _) in turn.items()} == {"forward": 1.0, "backward": 1.0, "both": 2.0}
        assert len(synchronized) == 2


class StepClock:
    """A second passes at every mark."""

    def __init__(self):
        self.now = 0.0

    def prepare(self):
        pass

    def mark(self):
        self.now += 1
        return self.now

    def between(self, start, end):
        return end - start, end - start


class TestMemory:
    @pytest.mark.slow
    def test_peak_is_that_of_the_result_and_the_gradients(self, monkeypatch):
        peak = memory.peak("w4-rows-100x100-n1000", "by hand", device="cpu", dtype=torch.float32, threads=1)
        product = 4 * 100 * 100 * 1000
        assert peak is not None
        assert 0.9 * product < peak < 4 * product

    def test_peak_on_a_gpu(self, monkeypatch):
        problem = Problem.draw(toy())
        agreement.expected(problem)
        for name, result in (("synchronize", None), ("reset_peak_memory_stats", None)):
            monkeypatch.setattr(torch.cuda, name, lambda result=result: result)
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 100)
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 350)
        assert memory._of_cuda(Run(cube, problem)) == 250

    def test_an_unknown_provider_has_no_peak(self, monkeypatch):
        monkeypatch.setattr(memory, "_measure", no_answer)
        assert memory.peak("w4", "nobody", device="cpu", dtype=torch.float32, threads=1) is None


def no_answer(sender, *_):
    sender.close()


@pytest.fixture(scope="module")
def measured():
    """Rows of the toy and of one real case, without memory."""
    quiet = {"budget": 0.01, "with_memory": False, "say": lambda line: None}
    case = registry.find("w2-shape-n16", tiny=True)
    case = Case(**{**vars(case), "providers": {k: v for k, v in case.providers.items() if "compile" not in k}})
    return [measure.measure(toy(rival="takes too long"), **quiet), measure.measure(case, **quiet)]


@pytest.fixture(scope="module")
def conditions():
    return results.Conditions.now(device="cpu", threads=1, dtype="float32")


class TestResults:
    def test_rows_hold_what_was_measured(self, measured):
        rows = {(row.provider, row.mode): row for row in measured[0]}
        assert {mode for provider, mode in rows if provider == "by products"} == {"forward", "backward", "both"}
        row = rows["by products", "both"]
        assert row.wall_p20 <= row.wall <= row.wall_p80
        assert row.ratio > 0 and row.rounds >= 5 and row.calls >= 1 and row.memory_unit == 28
        assert rows[OURS, "both"].ratio == 1
        assert rows["rival", ""].status == "left out: takes too long"

    def test_a_case_replaces_its_old_rows_and_no_others(self, tmp_path, measured, conditions):
        path = tmp_path / "rows.csv"
        for rows in (*measured, measured[1][:4]):
            results.replace(path, conditions, rows)
        read = results.read(path)
        assert sum(row["case"] == "toy" for row in read) == len(measured[0])
        assert sum(row["case"] == "w2-shape-n16" for row in read) == 4
        assert [p.name for p in tmp_path.iterdir()] == ["rows.csv"]

    def test_other_threads_stand_beside(self, tmp_path, measured, conditions):
        path = tmp_path / "rows.csv"
        results.replace(path, conditions, measured[0])
        results.replace(path, results.Conditions.now(device="cpu", threads=2, dtype="float32"), measured[0])
        assert len(results.read(path)) == 2 * len(measured[0])

    def test_a_kill_leaves_the_old_file(self, tmp_path, measured, conditions, monkeypatch):
        path = tmp_path / "rows.csv"
        results.replace(path, conditions, measured[0])
        before = path.read_text()

        def killed(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(results.os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            results.replace(path, conditions, measured[1])
        assert path.read_text() == before
        assert [p.name for p in tmp_path.iterdir()] == ["rows.csv"]

    def test_conditions_say_what_it_ran_on(self, conditions):
        assert conditions.torch == torch.__version__.split("+")[0] or conditions.torch == torch.__version__
        assert "cores" in conditions.device
        assert results.slug("AMD EPYC, 2 cores") == "amd-epyc-2-cores"


def row(provider, ratio, *, case="w5-x-mode1-r4", mode="both", memory="", **more):
    """A row as the CSV gives it."""
    base = dict.fromkeys(results.COLUMNS, "")
    settings = {"threads": "1", "dtype": "float32", "huge_pages": "False", "device": "some CPU, 2 cores", "load": "0.5"}
    labels = {"workload": case[:2].upper(), "case": case, "shape": f"shape of {case}", "timestamp": "2026-01-02T03:04"}
    times = {"wall": "0.004", "cpu": "0.002", "cpu_p20": "0.001", "cpu_p80": "0.003", "flops": "1e6", "bytes": "1e6"}
    values = {"provider": provider, "mode": mode, "ratio": str(ratio), "floor": "0.75", "memory": str(memory)}
    return {**base, **settings, **labels, **times, **values, **more}


ROWS = [
    row(OURS, 1, memory=1 << 20),
    row("einsum", 1.25, memory=3 << 20),
    row("TensorLy", 2.5),
    row(AUTODIFF, 0.9),
    row(FLOOR, 0.75),
    row("pyttb", "", mode="", status="skipped: pyttb is not installed"),
    row(OURS, 1, case="w5-y-mode0-r4"),
    row("einsum", 0.5, case="w5-y-mode0-r4"),
    row("matrix product", "", case=measure.MACHINE, mode="forward", flops="7e9", wall="0.1", workload=""),
    row("copy", "", case=measure.MACHINE, mode="forward", bytes="5e8", wall="0.1", workload=""),
]


class TestSummary:
    def test_best_rival(self):
        first, second = summaries(ROWS)
        assert (first.best, first.rivals["einsum"], first.autodiff) == ("einsum", 1.25, 0.9)
        assert second.rivals == {"einsum": 0.5}

    def test_table(self):
        lines = tables.table(summaries(ROWS)).splitlines()
        assert lines[2] == (
            "| shape of w5-x-mode1-r4 | 2.00 (1.00-3.00) | 0.75 | **0.90** ▼ "
            "| einsum | 1.25 | TensorLy 2.50 |  | 1.0 | 3.0 |"
        )
        assert "**0.50** ▼" in lines[3]

    def test_who_is_absent_is_said(self):
        assert "- pyttb, skipped: pyttb is not installed (w5-x-mode1-r4)" in tables.absent(summaries(ROWS))

    def test_the_readme_is_rewritten_between_the_markers_only(self, tmp_path):
        readme = tmp_path / "README.md"
        start, end = tables.MARKERS["cpu"]
        readme.write_text(f"before\n{start}\nold\n{end}\nafter\n")
        for _ in range(2):
            tables.write(ROWS, readme)
        text = readme.read_text()
        assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
        assert text.count("### W5: Mode-n product") == 1 and "some CPU, 2 cores" in text

    def test_targets(self):
        report = targets.report(ROWS)
        assert "| W5, middle modes: time | ≥ 1.5 | w5-x-mode1-r4 | 1.25 | no (0 of 1) |" in report
        assert "| W7: over the chain by hand | ≥ 2.2 | not measured | | |" in report

    def test_every_target_is_about_some_case(self):
        names = [case.name for case in registry.cases()]
        for target in targets.TARGETS:
            assert any(targets.fnmatch(name, pattern) for name in names for pattern in target.cases), target.text

    def test_a_variant_of_ours_is_no_rival(self):
        rows = [row("einsum", 8, case="w8-shape-n1"), row("multilinear, compressed", 0.4, case="w8-shape-n1")]
        (summary,) = summaries([row(OURS, 1, case="w8-shape-n1"), *rows])
        assert summary.best == "einsum"
        assert "| W8, frozen shape core, after compressing it | ≥ 20 | w8-shape-n1 | 20.00 | yes |" in targets.report(
            [row(OURS, 1, case="w8-shape-n1"), *rows]
        )

    def test_memory_targets(self):
        target = targets.Target("", ("w5-x*",), 0.5, rivals=("einsum",), memory_of="rivals")
        (value,) = target.values(summaries(ROWS)).values()
        assert value == pytest.approx(1 / 3) and target.met(value) and not target.met(0.6)

    @pytest.mark.filterwarnings("ignore::DeprecationWarning:.*")  # of matplotlib's own imports
    def test_pictures(self, tmp_path):
        paths = plots.draw(ROWS, tmp_path)
        assert [path.name for path in paths] == ["some-cpu-2-cores-w5.png", "some-cpu-2-cores-roofline.png"]
        assert all(path.stat().st_size > 5000 for path in paths)


class TestCommands:
    def test_list(self, capsys):
        assert main(["list"]) == 0
        assert "w1-texture-n16 " in capsys.readouterr().out

    def test_errors_are_one_line(self, capsys, tmp_path):
        assert main(["w99"]) == 2
        assert main(["targets", "--results", str(tmp_path / "none.csv")]) == 2
        error = capsys.readouterr().err
        assert "no case is called 'w99'" in error and "nothing is measured" in error

    @pytest.mark.parametrize("command", ["ceiling", "refinement", "separation"])
    def test_errors_of_other_kinds_are_one_line(self, capsys, tmp_path, command):
        assert main([command, str(tmp_path / "none")]) == 2
        assert capsys.readouterr().err.startswith(f"{tmp_path}/none is not a prepared set")

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
    def test_without_a_cuda_device(self, capsys):
        assert main(["all", "--device", "cuda"]) == 2
        assert "no CUDA device" in capsys.readouterr().err

    def test_a_case_from_the_command_line(self, tmp_path, capsys):
        path = tmp_path / "rows.csv"
        assert main(["small-columns-5x8-n4", "--seconds", "0.01", "--no-memory", "--results", str(path)]) == 0
        assert {r["case"] for r in results.read(path)} == {"machine", "small-columns-5x8-n4"}
        assert main(["targets", "--results", str(path)]) == 0
        assert "W4, below 1e5 elements" in capsys.readouterr().out

    def test_commands_are_no_case_names(self):
        assert not set(COMMANDS) & {case.name for case in registry.cases()}

    def test_the_readme_has_room_for_the_tables(self):
        text = Path(results.ROOT, "README.md").read_text()
        assert all(text.count(marker) == 1 for pair in tables.MARKERS.values() for marker in pair)


def test_thresholds_cover_the_table_of_the_dispatch(tmp_path, monkeypatch):
    from benchmarks import thresholds
    from multilinear.autograd import _dispatch

    smallest = {problem[0]: problem for problem in sorted(thresholds.problems(), key=lambda p: -p[1])}
    assert set(smallest) == set(_dispatch.SMALL)
    monkeypatch.setattr(thresholds, "problems", lambda device="cpu": iter(smallest.values()))
    monkeypatch.setattr(thresholds, "FRESH", (10, 10))
    assert thresholds.main(["--rounds", "1", "--out", str(tmp_path / "t.csv")]) == 0
    lines = (tmp_path / "t.csv").read_text().splitlines()
    assert len(lines) == 2 + len(smallest) and lines[0] == "operator,elements,analytic_ms,autodiff_ms,ratio"


TINY_NETWORK = {
    "channels": (6, 5, 4),
    "intermediate": 16,
    "background": 7,
    "mask": 6,
    "identity": 9,
    "expression": 6,
    "morphable_identity": 5,
    "morphable_expression": 3,
    "vertices": 12,
}


class TestStep:
    """The training step's benchmark, with a network of the same parts and few filters."""

    @pytest.mark.parametrize("name", ["paper", "small"])
    def test_all_operators_compute_the_same_step(self, name):
        objectives = {}
        for rival, setting in step.RIVALS.items():
            setting = replace(setting, preset=name, precision="no")
            trainer = step.Trainer(setting, sizes=TINY_NETWORK, count=4)
            objectives[rival] = torch.tensor([trainer.step() for _ in range(3)])
        assert_close(objectives["autodiff"], objectives["multilinear"], rtol=1e-4, atol=1e-4)
        assert_close(objectives["by hand"], objectives["multilinear"], rtol=1e-4, atol=1e-4)
        assert objectives["multilinear"].diff().abs().min() > 0

    @pytest.mark.parametrize("changes", [change for rows in step.CHOICES.values() for change in rows.values()], ids=str)
    def test_choices(self, changes):
        trainer = step.Trainer(step.Setting("small", **changes), sizes=TINY_NETWORK, count=4)
        assert trainer.step() > 0

    def test_a_profile_accounts_for_the_whole_step(self):
        trainer = step.Trainer(step.Setting("paper"), sizes=TINY_NETWORK, count=4)
        parts = step.profile_step("paper", steps=1, trainer=trainer)
        both = {"encoder", "normals", "albedo", "mask", "background", "stream 1", "stream 3"}
        assert all(set(parts[part]) == {"forward", "backward"} for part in both)
        others = {"discriminator's judgement", "discriminator's own step", "clipping", "optimiser"}
        assert set(parts) == both | others | {"losses, shading and the rest"}
        assert all(value > 0 for phases in parts.values() for value in phases.values())

    def test_parameters(self):
        sizes = step.sizes()
        assert sizes["paper"]["frontal_core"] == 12288 * 10800 and sizes["default"]["shape_core"] == 185 * 1200

    def test_tables(self, tmp_path):
        row = {"seconds": 2.0, "slowest": 3.0, "images_per_second": 16.0, "time_over_ours": 1.25}
        record = {
            "machine": "a machine",
            "torch": "2",
            "date": "today",
            "commit": "abc",
            "load": 1.5,
            "speed": {"paper": {"1": dict.fromkeys(step.RIVALS, row)}},
            "profile": {"paper": {"encoder": {"forward": 10.0, "backward": 20.0}, "optimiser": {"step": 3.0}}},
            "choices": {"paper": {"as trained": row}},
            "sizes": step.sizes(),
        }
        readme = tmp_path / "README.md"
        readme.write_text(f"before\n{step.START}\nold\n{step.END}\nafter\n")
        step.write({"a machine": record}, tmp_path / "step.json", readme)
        text = readme.read_text()
        assert "old" not in text and text.startswith("before") and text.endswith("after\n")
        assert "| paper | 1 | 16.0 | 16.0 (1.25) | 16.0 (1.25) |" in text
        assert "| encoder | 10 + 20 |" in text and "| all | 33 |" in text
        assert "| frontal_core | 132,710,400 |" in text and "| weights, float32 | 686 MB |" in text

    def test_the_readme_has_its_place(self):
        text = step.README.read_text()
        assert text.count(step.START) == text.count(step.END) == 1
