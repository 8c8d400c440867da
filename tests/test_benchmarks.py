"""The programs of benchmarks/, each one round of the least, and what their figures rest on."""

import dataclasses
import json
import os
import subprocess
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import record_function

from regbench.experiment import members
from regbench.experiment.cards import DataCard, RunCard
from regbench.prepare import open_data, prepare
from regbench.train import run

ROOT = Path(__file__).parents[1]

HIDDEN = """
import sys
class Blocked:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in {"robustbench", "snakemake", "autoattack", "pyautoattack"}:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
sys.meta_path = [Blocked] + [one for one in sys.meta_path if "editable" not in repr(one).lower()]
"""
"""A sitecustomize.py: regbench is not installed, and so aren't packages that only it needs."""


def benchmark(name, out, *options, environment=None):
    """Run a program of benchmarks/, warnings being errors; return what it printed and its JSON."""
    command = [sys.executable, "-W", "error", ROOT / f"benchmarks/{name}.py", "--out", out]
    done = subprocess.run(
        [*command, *map(str, options)], capture_output=True, text=True, check=False,
        env={**os.environ, **(environment or {})},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, json.loads((out / f"{name}.json").read_text())


def test_steps_runs_where_regbench_is_not_installed(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(HIDDEN)
    printed, told = benchmark(
        "steps", tmp_path, "--networks", "lenet_plus", "resnet18", "--methods", "natural",
        "--batch", 2, "--steps", 2, "--rounds", 1, "--threads", 1, "--device", "cpu",
        environment={"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert [(row["structure"], row["precision"]) for row in told["rows"]] == [
        ("plain", "fp32"), ("ours", "fp32"), ("ours", "bf16"),
    ]  # fmt: skip
    for row in told["rows"]:
        assert row["network"] == "lenet_plus"
        assert 0 < row["floor_share"] < 3
        assert row["images_per_second"] > 0
        assert row["peak_memory"] > 0
        assert 20 < row["operations_per_step"] < 200
    plain, *ours = told["rows"]
    assert "speedup" not in plain
    for row in ours:
        assert row["speedup"] > 0
        assert 0.1 < row["over_natural"] < 10  # natural training against itself
    (left_out,) = told["left_out"]
    assert left_out.startswith("resnet18, natural: ")
    assert "No module named 'robustbench'" in left_out
    assert f"left out: {left_out}" in printed.splitlines()
    assert (tmp_path / "steps.png").stat().st_size > 0


def asked(*methods, **options):
    """What the command line of steps.py says."""
    return SimpleNamespace(
        networks=["lenet_plus"], methods=methods, precisions=["fp32"], batch=2, steps=1, **options
    )


def test_methods_that_are_timed_abreast_share_natural_training(modules, monkeypatch):
    steps, structures = modules("steps"), modules("structures")
    first, second = steps.groups(asked("natural", "fgsm_at", "sat_r3", abreast=2), "cpu")
    assert [one.plain.method for one in first] == ["natural", "fgsm_at"]
    assert [one.plain.method for one in second] == ["sat_r3"]

    def in_turn(cases, *rest):
        assert len(cases) == len(set(cases)) == 4  # plain and ours of each
        return dict.fromkeys(cases, steps.Timed([structures.Window(0.0, 1.0)], 0, None))

    monkeypatch.setattr(steps, "in_turn", in_turn)
    for rows in steps.measured(first, 1, torch.device("cpu"), 1).values():
        assert [row["structure"] for row in rows] == ["plain", "ours"]


def test_a_case_that_fails_leaves_only_its_method_out(modules, monkeypatch):
    steps, worker, structures = modules("steps"), modules("worker"), modules("structures")
    (group,) = steps.groups(asked("natural", "sat_r3", abreast=2), "cpu")
    good = steps.Timed([structures.Window(0.0, 1.0)], 0, None)

    def in_turn(cases, *rest):
        died = worker.NotMeasuredError("its process died")
        return {case: died if case in group[1].ours else good for case in cases}

    monkeypatch.setattr(steps, "in_turn", in_turn)
    natural, sat_r3 = steps.measured(group, 1, torch.device("cpu"), 1).values()
    assert [row["structure"] for row in natural] == ["plain", "ours"]
    assert str(sat_r3) == "its process died"


def test_a_case_that_cannot_be_built_stops_no_other(modules):
    steps, worker, cases = modules("steps"), modules("worker"), modules("cases")
    good = cases.Case("ours", "small_cnn", "natural", "fp32", 2, 1, 2)
    bad = dataclasses.replace(good, structure="plain")  # plain.py has no small CNN
    found = steps.in_turn([bad, good], 1, "cpu", 1)
    assert isinstance(found[bad], worker.NotMeasuredError)
    assert isinstance(found[good], steps.Timed)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--precisions", "tf32"], "on cpu there are fp32, bf16"),
        (["--abreast", "0"], "invalid"),
        (["--rounds", "0"], "argument --rounds: expected at least 1, got 0"),
    ],
)
def test_options_of_steps_that_measure_nothing_are_one_line(options, told, tmp_path):
    command = [sys.executable, ROOT / "benchmarks/steps.py", "--device", "cpu", "--out", tmp_path]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert told in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("program", "environment", "told"),
    [
        (["kernels.py"], {}, "kernels.py needs a GPU"),
        (["gains.py", "kernels"], {"CC": "false"}, "gains.py kernels needs a C compiler"),
    ],
)
def test_kernels_that_cannot_be_here_are_one_line(program, environment, told):
    name, *arguments = program
    command = [sys.executable, ROOT / "benchmarks" / name, *arguments]
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": "", **environment}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=hidden)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert told in line
    assert "Traceback" not in line


@pytest.mark.filterwarnings("ignore::UserWarning")  # that there is no CUDA to be profiled
def test_kernels_are_those_of_a_step_alone(modules, monkeypatch):
    """With the operations of a CPU in their place, a millisecond each."""
    kernels, cases = modules("kernels"), modules("cases")
    monkeypatch.setattr(kernels, "DeviceType", SimpleNamespace(CUDA=DeviceType.CPU))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(FunctionEvent, "device_time", 1000.0, raising=False)
    case = cases.Case("ours", "small_cnn", "natural", "fp32", 2, 4, 2)
    one, other = (
        kernels.measured(dataclasses.replace(case, steps=steps), torch.device("cpu"))
        for steps in (4, 8)
    )
    # neither the recording of a step nor the judging after an epoch, which a step has no part in
    assert one["kernels_per_step"] == pytest.approx(other["kernels_per_step"])
    assert one["ms_of_kernels"] == pytest.approx(one["kernels_per_step"])
    assert one["ms_per_step"] > 0
    each = [kernel["ms"] for kernel in one["longest"]]
    assert each == sorted(each, reverse=True)
    assert len(each) == kernels.LONGEST


@pytest.mark.long
def test_scaling_measures_each_size_and_method(tmp_path):
    _, told = benchmark(
        "scaling", tmp_path, "--methods", "natural", "--batches", 2, "--widths", 1, "--runs", 2,
        "--steps", 2, "--rounds", 1, "--threads", 1, "--device", "cpu",
    )  # fmt: skip
    assert told["left_out"] == []
    points = [(row["what"].partition(",")[0], row["value"], row["method"]) for row in told["rows"]]
    assert points == [
        ("batch size", 2, "natural"), ("width", 1, "natural"), ("runs side by side", 2, "natural"),
    ]  # fmt: skip
    assert all(row["seconds"] > 0 for row in told["rows"])
    assert (tmp_path / "scaling.png").stat().st_size > 0


def test_a_ratio_of_steps_is_of_pairs(modules):
    """The machine grows slower from round to round; both do, and their ratio stays."""
    steps, structures = modules("steps"), modules("structures")
    one, other = (
        steps.Timed([structures.Window(9.0, 9.0 + slow * seconds) for slow in (1, 2, 5)], 0, None)
        for seconds in (3.0, 2.0)
    )
    assert one.over(other) == pytest.approx(1.5)


def test_a_profiler_that_sees_no_launch_says_so(modules, monkeypatch):
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that there is no CUDA to be profiled
        with pytest.raises(RuntimeError, match="CUPTI"):
            modules("launches").launches(lambda: None)


def test_mps_that_does_not_start_leaves_its_points_out(modules, monkeypatch):
    mps, worker = modules("mps"), modules("worker")
    monkeypatch.setattr(mps, "CONTROL", "false")
    with pytest.raises(worker.NotMeasuredError, match="does not start"), mps.service():
        pytest.fail("it has started")


def test_mps_without_cuda_is_one_line(tmp_path):
    command = [sys.executable, ROOT / "benchmarks/scaling.py", "--mps", "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "--mps needs CUDA" in line


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A prepared data set and the folder of a small CNN that has been trained on it."""
    folder = tmp_path_factory.mktemp("digits")
    data = folder / "data.safetensors"
    about = DataCard(source="regbench.data.digits", arguments={}, validation=897, split_seed=0)
    prepare(about, folder, download=False, out=data)
    card = RunCard.model_validate({
        "data": about.model_dump(),
        "model": {"architecture": "regbench.models.small_cnn", "arguments": {"width": 2}},
        "regularizer": {"loss": "regbench.regularizers.natural", "hyperparameters": {}},
        "epsilon": 0.5,  # so large that AutoAttack is soon done
        "training": {
            "epochs": 3, "batch_size": 64, "learning_rate": 0.1, "momentum": 0.9,
            "weight_decay": 0, "milestones": [0.5], "decay": 0.2, "crop_padding": 0,
            "flip": False, "selection_steps": 1, "precision": "fp32",
        },
        "seed": 0,
    })  # fmt: skip
    out = folder / "natural" / "0-run"
    out.mkdir(parents=True)
    run(card, open_data(data), torch.device("cpu"), out)
    return data, out


@pytest.mark.long
def test_evaluation_judges_the_same_images_in_each_round(digits, tmp_path):
    data, trained = digits
    _, told = benchmark(
        "evaluation", tmp_path, trained, "--data", data, "--images", 4, "--rounds", 2,
        "--device", "cpu",
    )  # fmt: skip
    assert told["images"] == 4
    assert told["verdicts_that_differ"] == 0
    assert told["withstand"]["plain"] == told["withstand"]["ours"] <= 4
    assert {name: len(one) for name, one in told["seconds"].items()} == {"plain": 2, "ours": 2}
    plain, ours = (told["seconds"][name] for name in ("plain", "ours"))
    assert min(*plain, *ours) > 0
    assert told["speedup"] == pytest.approx(sum(plain) / sum(ours))


def test_evaluation_times_each_first_in_turn(modules):
    evaluation, calls = modules("evaluation"), []

    def judge(name, seconds):
        def judged(part):
            calls.append((name, part))
            return [place > 1 for place in range(*part)], seconds

        return judged

    judges = {"plain": judge("plain", 3.0), "ours": judge("ours", 2.0)}
    told = evaluation.compare(judges, 5, 2)
    assert calls == [("plain", (0, 2)), ("ours", (0, 2)), ("ours", (2, 5)), ("plain", (2, 5))]
    assert told["withstand"] == {"plain": 3, "ours": 3}
    assert told["speedup"] == 1.5


def test_gradient_signs_compares_each_run(digits, tmp_path):
    data, trained = digits
    _, told = benchmark(
        "gradient_signs", tmp_path, trained, "--data", data, "--images", 20, "--device", "cpu"
    )
    (row,) = told["rows"]
    assert (row["method"], row["precision"]) == ("natural", "bf16")
    assert 50 < row["same sign (%)"] <= 100
    assert 90 < row["of ∇'s L1 norm (%)"] <= 100  # it is small gradients that flip


@pytest.mark.long
@pytest.mark.workflow
def test_harness_divides_by_the_jobs_of_the_dry_run(modules, tmp_path):
    printed, told = benchmark("harness", tmp_path, "--seeds", 1, "--cells", 2)
    assert all(seconds > 0 for seconds in told["seconds"].values())
    assert len(printed.splitlines()) == len(told["seconds"]) == 5
    harness, folder = modules("harness"), tmp_path / "copy"
    folder.mkdir()
    harness.copy_to(folder, seeds=1, cells=2)
    plan = harness.run(folder, "-n", "--configfile", "config/tiny.yaml")
    jobs = [
        line.split()[-1] for line in plan.splitlines() if line.startswith(("rule ", "localrule "))
    ]
    assert told["jobs"] == len([name for name in jobs if name != "all:"])


# --- what the figures rest on ---------------------------------------------------------------------


@pytest.fixture
def modules(monkeypatch):
    """`modules(name)`: a module of benchmarks/, imported as its programs do."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return __import__


def small(modules, method="natural", steps=2):
    return modules("cases").Case("ours", "small_cnn", method, "fp32", 8, steps, width=2)


def test_squares_times_both_on_the_same_images(modules):
    rows = modules("squares").measured("small_cnn", 4, 2, torch.device("cpu"))
    assert [row["side"] for row in rows] == [6, 4, 3, 2, 1]  # what fits in 8×8
    assert all(row["whole"] > 0 and row["renewed"] > 0 for row in rows)


def test_squares_are_kept_by_some_images(modules):
    best = torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    before = best.clone()
    for x in modules("squares").tried(best, 3, 5):
        where = (x != best).any(0).any(0).nonzero()
        assert (where.max(0).values - where.min(0).values < 3).all()
    assert 0 < (best != before).flatten(1).any(1).sum() < 60


def test_runs_side_by_side_are_timed_at_the_same_time(modules):
    worker, scaling = modules("worker"), modules("scaling")
    with worker.started(2, "cpu", 1, together=True) as both:
        for one in both:
            one.prepare(small(modules, steps=100))
        with scaling.ThreadPoolExecutor(2) as pool:
            windows = list(pool.map(worker.Worker.window, both))
    first, second = windows
    overlap = min(first.ended, second.ended) - max(first.began, second.began)
    assert overlap > 0
    assert scaling.span(windows) >= max(one.ended - one.began for one in windows)


def test_points_that_share_the_device_alike_share_processes_until_one_fails(modules, monkeypatch):
    worker, scaling, begun = modules("worker"), modules("scaling"), []

    @contextmanager
    def started(count, *_, **__):
        begun.append(count)
        yield [None] * count

    def epoch(case, workers, rounds):
        if case.method == "sat_r1":
            raise worker.NotMeasuredError("why")
        return 1.0

    monkeypatch.setattr(scaling, "started", started)
    monkeypatch.setattr(scaling, "epoch", epoch)
    points = [
        scaling.Point("what", value, small(modules, method), 1, runs)
        for runs, value, method in (
            (1, 1, "natural"), (1, 2, "natural"), (1, 3, "sat_r1"), (1, 4, "natural"),
            (2, 5, "natural"), (2, 6, "sat_r1"),
        )
    ]  # fmt: skip
    found = {point.value: told for point, told in scaling.measured(points, "cpu", 1)}
    assert begun == [1, 1, 2]
    assert [value for value, told in found.items() if told == 1.0] == [1, 2, 4, 5]
    assert {str(found[value]) for value in (3, 6)} == {"why"}


def test_the_span_is_from_the_first_beginning_to_the_last_end(modules):
    scaling, structures = modules("scaling"), modules("structures")
    windows = [structures.Window(1, 4), structures.Window(2, 7), structures.Window(3, 5)]
    assert scaling.span(windows) == 6


def test_a_case_that_fails_is_told_and_nobody_waits_for_it(modules):
    worker, cases = modules("worker"), modules("cases")
    with worker.started(2, "cpu", 1, together=True) as (sound, broken):
        sound.prepare(small(modules))
        with pytest.raises(worker.NotMeasuredError, match="nowhere"):
            broken.prepare(cases.Case("ours", "nowhere", "natural", "fp32", 8, 2))
        with pytest.raises(worker.NotMeasuredError, match="Barrier"):
            sound.window()


@pytest.mark.parametrize(("structure", "network"), [("ours", "small_cnn"), ("plain", "lenet_plus")])
def test_launches_are_those_of_one_step(modules, monkeypatch, structure, network):
    cases, structures = modules("cases"), modules("structures")
    plain, calls = modules("plain"), []

    def counting(loss):
        return lambda *arguments: calls.append(loss) or loss(*arguments)

    def count(work):
        calls.clear()
        work()
        return len(calls)

    monkeypatch.setitem(plain.LOSSES, "natural", counting(plain.natural))
    case = cases.Case(structure, network, "natural", "fp32", 8, 1)
    built = structures.STRUCTURES[structure](case, torch.device("cpu"))
    if structure == "ours":
        built._built = built._built._replace(loss=counting(built._built.loss))
    assert built.launches(count) == 1


def test_kernels_and_graphs_are_launches_and_copies_are_not(modules, monkeypatch):
    launches = modules("launches")
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)

    def work():
        for name in ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernelEx",
                     "cudaGraphLaunch", "cudaGraphLaunch", "cudaMemcpyAsync"):  # fmt: skip
            with record_function(name):
                pass

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that there is no CUDA to be profiled
        assert launches.launches(work) == 5


def test_fp32_of_the_plain_structure_is_not_tf32(modules):
    backends = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [one.allow_tf32 for one in backends]
    try:
        for one in backends:
            one.allow_tf32 = True
        modules("structures")._plain_device("cpu")
        assert [one.allow_tf32 for one in backends] == [False, False]
    finally:
        for one, allowed in zip(backends, before, strict=True):
            one.allow_tf32 = allowed


def test_the_ceiling_casts_nothing(modules, monkeypatch):
    floor, operations = modules("floor"), modules("launches").operations
    monkeypatch.setattr(floor, "_rate", lambda run, flop: operations(run))
    cpu = torch.device("cpu")
    assert floor.ceiling("bf16", cpu) == floor.ceiling("fp32", cpu)


def test_mps_is_started_and_stopped(modules, monkeypatch, tmp_path):
    log, control = tmp_path / "log", tmp_path / "nvidia-cuda-mps-control"
    control.write_text(f'#!/bin/sh\necho "$CUDA_MPS_PIPE_DIRECTORY" "${{1:-$(cat)}}" >> {log}\n')
    control.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_MPS_PIPE_DIRECTORY", raising=False)
    mps = modules("mps")
    mps.check(torch.device("cuda"))
    with mps.service():
        folder = os.environ["CUDA_MPS_PIPE_DIRECTORY"]
    assert log.read_text().splitlines() == [f"{folder} -d", f"{folder} quit"]
    assert "CUDA_MPS_PIPE_DIRECTORY" not in os.environ


def test_a_part_is_in_every_other_step_and_its_gain_is_that_of_the_pairs(modules, monkeypatch):
    gains, cases, structures = modules("gains"), modules("cases"), modules("structures")
    seen = []

    class Timed:
        def __init__(self, case, device):
            model = cases.built(case, device).model
            kinds = {type(layer).__name__ for layer in model.modules()}
            seen.append("ScalingBatchNorm2d" in kinds)
            assert seen[-1] is not ("BatchNorm2d" in kinds)

        def block(self, ready):
            return structures.Window(0, [3.0, 2.0, 4.0, 2.0, 5.0, 1.0, 1.0, 1.0][len(seen) - 1])

    monkeypatch.setattr(gains, "Ours", Timed)
    told = gains.compare(gains.PARTS["normalisation"], small(modules), torch.device("cpu"), 4)
    assert seen == [False, True, True, False, False, True, True, False]
    assert told["ms_per_step"] == {
        "without": [1500, 1000, 2500, 500],
        "with": [1000, 2000, 500, 500],
    }
    assert told["gain"] == 1.25


def test_a_network_is_compiled_in_every_other_step(modules):
    gains, cases = modules("gains"), modules("cases")
    for there in (False, True):
        with gains.PARTS["compiler"](there):
            assert cases.card(small(modules)).training.compiled is there
    assert not cases.card(small(modules)).training.compiled


def test_kernels_are_asked_for_in_every_other_step(modules, monkeypatch):
    gains = modules("gains")
    seen = []
    monkeypatch.setattr(gains.kernels, "take", lambda *_: seen.append(gains.kernels.OWN))
    told = gains.compare(gains.PARTS["kernels"], small(modules, "fgsm_at"), torch.device("cpu"), 1)
    assert len(told["ms_per_step"]["with"]) == 1
    half = len(seen) // 2
    assert half > 0
    assert seen == [False] * half + [True] * half
    assert gains.kernels.OWN


def test_a_part_that_is_in_no_step_is_refused(modules):
    gains, cases = modules("gains"), modules("cases")
    case = cases.Case("ours", "lenet_plus", "natural", "fp32", 2, 1)
    with pytest.raises(gains.UserError, match="lenet_plus has no batch normalisation"):
        gains.refuse_absent("normalisation", case, torch.device("cpu"))
    gains.refuse_absent("normalisation", small(modules), torch.device("cpu"))


def test_kernels_of_a_cpu_are_for_a_pooled_image_layer(modules, monkeypatch):
    gains, cases = modules("gains"), modules("cases")
    monkeypatch.setattr(gains.native, "target", lambda: "a compiler")
    with pytest.raises(gains.UserError, match="small_cnn has no layers for them"):
        gains.refuse_absent("kernels", small(modules), torch.device("cpu"))
    case = cases.Case("ours", "lenet_plus", "natural", "fp32", 2, 1)
    gains.refuse_absent("kernels", case, torch.device("cpu"))


@pytest.mark.parametrize("name", members.names("regularizers"))
def test_arithmetic_is_that_of_a_whole_step(modules, name):
    """Counted for two and three images; these nine go back to the image on another way."""
    floor = modules("floor")
    case = dataclasses.replace(small(modules, name), batch=9)
    assert floor.arithmetic(case) == floor._counted(case, 9) > 0
