"""What is told before a run, and what is handed on after it."""

import hashlib
import importlib
import io
import math
import sys
import warnings
from collections import Counter
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from matplotlib import pyplot as plt
from robustbench.model_zoo.architectures.resnet import BasicBlock, PreActBlock, PreActResNet, ResNet
from robustbench.model_zoo.architectures.wide_resnet import WideResNet
from torch import nn

from regbench import export, forecast, train
from regbench.analysis.rows import SHOWN, Rows
from regbench.collect import collect
from regbench.core.misfit import MisfitError, refuse_misfit
from regbench.core.network import layout, plain
from regbench.core.weights import trained
from regbench.errors import UserError
from regbench.evaluation.diagnosis import diagnose
from regbench.evaluation.gallery import gallery
from regbench.experiment import members
from regbench.experiment.beyond import beyond
from regbench.experiment.cards import (
    AttackCard,
    DataCard,
    DiagnosisCard,
    ModelCard,
    RegularizerCard,
    RunCard,
    SuiteCard,
    TrainingCard,
)
from regbench.experiment.cells import PAPER_TRAINING
from regbench.experiment.manifest import AttackEntry, Manifest, Run
from regbench.experiment.sizes import size
from regbench.figures.gallery import gallery as drawn
from regbench.prepare import Data, Split, open_data, prepare
from regbench.storage import tensors
from regbench.storage.seals import read_record, read_table, write_record, write_table
from regbench.training import assembly

DIGITS = DataCard(source="regbench.data.digits", arguments={}, validation=97, split_seed=0)
MNIST = DataCard(source="regbench.data.mnist", arguments={}, validation=10_000, split_seed=0)
CIFAR = DataCard(source="regbench.data.cifar10", arguments={}, validation=10_000, split_seed=0)
DIAGNOSIS = DiagnosisCard(
    images=1000, split="test", checkpoint="best", batch_size=32, seed=0, epsilon=0.3, points=5
)


def run_card(data: DataCard, model: str, **arguments: object) -> RunCard:
    training = {**PAPER_TRAINING, "epochs": 20, "batch_size": 32, "learning_rate": 0.1}
    return RunCard(
        data=data,
        model=ModelCard(architecture=f"regbench.models.{model}", arguments=arguments),
        regularizer=RegularizerCard(loss="regbench.regularizers.fgsm_at", hyperparameters={}),
        epsilon=0.3,
        training=TrainingCard(**training),
        seed=0,
    )


def manifest(*cards: RunCard) -> Manifest:
    """FGSM-AT on each card, judged by FGSM on 1,000 images and PGD-10, twice, on all."""
    attacks = {
        "fgsm": AttackCard(attack="regbench.attacks.fgsm", arguments={"epsilon": 0.3}, images=1000),
        "pgd": AttackCard(
            attack="regbench.attacks.pgd",
            arguments={"epsilon": 0.3, "steps": 10, "restarts": 2},
            images=None,
        ),
    }
    suite = SuiteCard(attacks=attacks, checkpoint="best", split="test", batch_size=500, seed=0)
    runs = tuple(
        Run(
            dataset="d", model="m", regularizer="r", rule="r", label="r", seed=0, cost=2,
            folder=f"results/{index}", data="x", verdicts={"s": f"results/{index}/s.parquet"},
            card=card,
        )
        for index, card in enumerate(cards)
    )  # fmt: skip
    suites = {run.verdicts["s"]: suite for run in runs}
    return Manifest(experiment="e", runs=runs, sources=(), attacks={}, suites=suites, diagnoses={})


def diagnosed(known: Manifest, card: DiagnosisCard) -> Manifest:
    """The manifest, each of its runs diagnosed."""
    paths = [f"{run.folder}/diagnostics-d.parquet" for run in known.runs]
    runs = [
        run.model_copy(update={"diagnosis": path})
        for run, path in zip(known.runs, paths, strict=True)
    ]
    return known.model_copy(update={"runs": tuple(runs), "diagnoses": dict.fromkeys(paths, card)})


def test_the_size_of_a_known_data_set_is_told_without_reading_it(monkeypatch, tmp_path):
    monkeypatch.setenv("REGBENCH_DATA", str(tmp_path))
    assert size(MNIST) == (60_000, 10_000, (1, 28, 28), 10)
    assert size(DIGITS) == (1297, 500, (1, 8, 8), 10)
    other = DataCard(
        source="regbench.data.npz",
        arguments={"path": "none.npz", "sha256": "0" * 64},
        validation=1,
        split_seed=0,
    )
    with pytest.raises(UserError, match="cannot read"):
        size(other)


def test_the_sizes_that_classes_state_are_true_of_the_files(mnist_root):
    images = members.build("regbench.data.mnist", {})(Path(mnist_root), False)
    told = size(MNIST)
    assert (len(images.x_train), len(images.x_test)) == (told.train, told.test)
    assert (images.x_train.shape[1:], images.classes) == (told.shape, told.classes)


def test_work_is_counted_in_forward_passes():
    known = manifest(run_card(MNIST, "lenet_plus"), run_card(DIGITS, "small_cnn"))
    targets = {"results/0/best.safetensors", "results/1/s.parquet", "results/9/best.safetensors"}
    targets |= {"results/1/s.parts/pgd-0.parquet"}  # part of the suite, not another one
    (trained,) = forecast.trainings(known, targets)
    # FGSM-AT: 2 F for the attack, 3 F for the update; validation: 3 gradients, 2 looks; of 1,000
    # images 3 gradients more and 4 losses
    assert trained.passes == 20 * (50_000 * 5 + 10_000 * 8 + 1_000 * 10)
    (judged,) = forecast.attacks(known, targets)
    assert judged.network.architecture == "regbench.models.small_cnn"
    assert judged.passes == 500 * 3 + 500 * 2 * 21  # all 500 test images, though 1,000 are asked


def test_of_a_suite_what_tells_its_cost_is_counted(monkeypatch):
    monkeypatch.setattr("regbench.attacks.fgsm.FGSM.passes", math.nan)
    forecast._suite.cache_clear()
    (judged,) = forecast.attacks(manifest(run_card(DIGITS, "small_cnn")), {"results/0/s.parquet"})
    forecast._suite.cache_clear()
    assert (judged.passes, judged.unknown) == (500 * 2 * 21, 1)


def counted(count, layer, given, made):
    """Count the images that go through a layer, and those whose gradient comes back."""
    count["forward"] += len(made)
    if made.requires_grad:
        made.register_hook(lambda gradient: count.update(back=len(gradient)))


@pytest.mark.parametrize(("images", "split"), [(40, "test"), (70, "test"), (97, "validation")])
def test_a_diagnosis_costs_what_a_network_counts(images, split):
    card = DIAGNOSIS.model_copy(update={"images": images if split == "test" else 1000})
    card = card.model_copy(update={"split": split, "gallery": 3})
    known = diagnosed(manifest(run_card(DIGITS, "small_cnn", width=2)), card)
    (work,) = forecast.diagnoses(known, {*known.diagnoses})
    network = plain(work.network, (1, 8, 8), 10).eval().requires_grad_(False)
    counts = {name: Counter() for name, layer in network.named_modules() if not [*layer.children()]}
    for name, count in counts.items():
        network.get_submodule(name).register_forward_hook(partial(counted, count))
    x = torch.rand(images, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    those = Split(x, torch.arange(images) % 10)
    diagnose(card, network, those, card.batch_size)
    gallery(card, network, those, card.batch_size)
    assert counts
    assert {count.total() for count in counts.values()} == {work.passes}
    assert work.passes > 121 * min(images, 64)  # the surface alone, of the first 64 images


def test_only_the_diagnoses_that_are_to_be_made_are_counted():
    cards = (run_card(DIGITS, "small_cnn"), run_card(DIGITS, "small_cnn", width=4))
    known = diagnosed(manifest(*cards), DIAGNOSIS)
    targets = {"results/1/diagnostics-d.parquet", "results/0/best.safetensors"}
    (work,) = forecast.diagnoses(known, targets)
    assert work.network.arguments == {"width": 4}


def test_flops_are_counted_and_the_rate_is_measured(monkeypatch):
    monkeypatch.setattr(forecast, "SECONDS", 0.0)
    card = run_card(MNIST, "lenet_plus")
    rate = forecast.rate(card.model.text(), card.data.text(), "fp32", torch.device("cpu"))
    by_hand = 2 * (28 * 28 * 25 * 32 + 14 * 14 * 25 * 32 * 64 + 3136 * 1024 + 1024 * 10)
    assert rate.flop == by_hand
    assert 1e8 < rate.per_second < 1e13


MISFITS = {
    "narrow": (lambda shape, classes: nn.Linear(99, classes), "does not take images of shape"),
    "few": (lambda shape, classes: nn.Sequential(nn.Flatten(), nn.Linear(64, 7)), r"\(2, 7\)"),
    "pair": (
        lambda shape, classes: nn.Sequential(nn.Flatten(2, 3), nn.LSTM(64, 8)),
        "gives tuple for 2 images",
    ),
}


@pytest.mark.parametrize("name", MISFITS)
def test_a_network_of_another_data_set_is_one_line_before_anything_runs(
    name, monkeypatch, tmp_path
):
    made, told = MISFITS[name]
    foreign = ModuleType("foreign")
    foreign.network = made
    monkeypatch.setitem(sys.modules, "foreign", foreign)
    card = run_card(DIGITS, "small_cnn")
    card = card.model_copy(
        update={"model": ModelCard(architecture="foreign:network", arguments={})}
    )
    path = tmp_path / "manifest.json"
    path.write_text(manifest(card).text())
    monkeypatch.setattr(sys, "argv", ["forecast", str(path), "--device", "cpu"])
    monkeypatch.setattr(sys, "stdin", io.StringIO("results/0/best.safetensors"))
    with pytest.raises(MisfitError, match=told):
        forecast.main()
    data = Data(tmp_path, (1, 8, 8), 10, 97)
    with pytest.raises(MisfitError, match="'foreign:network'"):
        train.train(card, data, torch.device("cpu"))


class Noisy(nn.Module):
    """Draws noise, in eval mode too."""

    def forward(self, x):
        return x + torch.rand_like(x)


def test_to_try_a_network_leaves_no_trace():
    frozen = nn.BatchNorm1d(4)
    model = nn.Sequential(nn.Flatten(), frozen, nn.BatchNorm1d(4), Noisy(), nn.Linear(4, 3))
    frozen.eval()
    before = [one.clone() for one in model.state_dict().values()]
    noise = torch.get_rng_state()
    refuse_misfit(model, "own", (1, 2, 2), 3, torch.device("cpu"))
    assert model.training
    assert not frozen.training
    assert torch.equal(torch.get_rng_state(), noise)
    assert all(map(torch.equal, before, model.state_dict().values()))


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("CUDA error: unspecified launch failure")]
)
def test_what_the_machine_lacks_is_not_the_networks_fault(error):
    model = nn.Linear(1, 1)
    model.register_forward_pre_hook(lambda *given: (_ for _ in ()).throw(error))
    with pytest.raises(type(error)):
        refuse_misfit(model, "own", (1, 2, 2), 3, torch.device("cpu"))


@pytest.mark.parametrize(
    ("device", "precision", "expected"),
    [
        ("cuda", "fp32", torch.contiguous_format),
        ("cuda", "tf32", torch.channels_last),
        ("cuda", "bf16", torch.channels_last),
        ("cpu", "fp32", torch.channels_last),
        ("cpu", "bf16", torch.channels_last),
    ],
)
def test_networks_lie_as_the_device_computes_fastest(device, precision, expected):
    assert layout(torch.device(device), precision) is expected


def test_a_network_is_laid_out_for_its_training_and_for_what_judges_it(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(
        "regbench.core.network.layout", lambda *given: asked.append(given[1]) or torch.channels_last
    )
    card = run_card(DIGITS, "small_cnn")
    card = card.model_copy(
        update={"training": card.training.model_copy(update={"precision": "bf16"})}
    )
    data, device = Data(tmp_path, (1, 8, 8), 10, 97), torch.device("cpu")
    monkeypatch.setattr(Data, "split", lambda *_: None)
    monkeypatch.setattr(assembly, "fit", lambda *_: None)
    train.train(card, data, device)
    (tmp_path / "card.json").write_text(card.model_dump_json())
    monkeypatch.setattr(Data, "holding", lambda data, card: data)
    with pytest.raises(UserError, match=r"best\.safetensors"):
        trained(tmp_path, data, "best", device)
    with pytest.raises(UserError, match=r"best\.safetensors"):
        trained(tmp_path, data, "best", device, "tf32")
    assert asked == ["bf16", "fp32", "tf32"]


def test_the_rate_is_of_as_many_images_as_fit(monkeypatch):
    def seconds(model, x, y):
        if len(x) > 8:
            raise MemoryError
        return len(x) / 100

    monkeypatch.setattr(forecast, "_seconds", seconds)
    card = run_card(DIGITS, "small_cnn", width=3)
    rate = forecast.rate(card.model.text(), card.data.text(), "fp32", torch.device("cpu"))
    assert rate.per_second == pytest.approx(2 * rate.flop * 100)


def test_the_rate_is_that_of_the_precision(monkeypatch):
    monkeypatch.setattr(forecast, "_seconds", lambda *_: 1.0 + torch.is_autocast_enabled("cpu"))
    card, device = run_card(DIGITS, "small_cnn", width=5), torch.device("cpu")
    rates = [
        forecast.rate(card.model.text(), card.data.text(), precision, device).per_second
        for precision in ("fp32", "bf16")
    ]
    assert rates[0] == 2 * rates[1]
    card = card.model_copy(
        update={"training": card.training.model_copy(update={"precision": "bf16"})}
    )
    (work,) = forecast.trainings(manifest(card), {"results/0/best.safetensors"})
    assert work.precision == "bf16"


def test_the_forecast_adds_up_and_leaves_the_unknown_out(monkeypatch):
    monkeypatch.setattr(forecast, "rate", lambda *_: forecast.Rate(100.0, 1000.0))
    card = run_card(MNIST, "lenet_plus")
    work = forecast.Work(card.model, card.data, 50.0)
    unknown = work._replace(unknown=3)
    device = torch.device("cpu")
    assert forecast.forecast([work, work, unknown], device) == pytest.approx(15.0)
    told = forecast.sentence([work] * 100, [work, unknown], [work] * 6, device, jobs=2)
    assert told == (
        "regbench: 100 trainings, about 4 min, 2 suites of attacks, at most 5 s (3 attacks of"
        " unknown cost left out), and 6 diagnoses, about 15 s of arithmetic: 2 at a time on the CPU"
    )
    long = forecast.sentence([work] * 100_000, [], [], device, jobs=1)
    assert "about 6 days" in long
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "H100")
    shared = forecast.sentence([work] * 100, [], [], torch.device("cuda"), jobs=2)
    assert "about 4 min" in shared
    assert shared.endswith(": on 2 × H100")
    assert "cost less, as do smaller files of config/" in long


def test_lengths_beyond_the_radius_are_told_and_no_others():
    lengths = {"alpha": 0.01, "epsilon_low": 0.1, "epsilon_high": 0.3}
    loss = RegularizerCard(
        loss="regbench.regularizers.sat_r3:SATR3",
        hyperparameters={"weight": 1, "tau": 0.4, "projected": False, **lengths},
    )
    card = run_card(MNIST, "lenet_plus").model_copy(update={"regularizer": loss})
    assert beyond(manifest(card).runs) == []
    (told,) = beyond(manifest(card.model_copy(update={"epsilon": 0.1})).runs)
    assert told == "r on d is trained with epsilon_high = 0.3, more than ε = 0.1"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(3, "3 s"), (600, "10 min"), (9000, "2.5 h"), (864_000, "10 days")],
)
def test_durations_are_what_a_person_plans_by(seconds, words):
    assert forecast.duration(seconds) == words


# --- collected rows -------------------------------------------------------------------------------


def test_verdicts_from_before_a_column_are_collected(tmp_path):
    run = run_card(DIGITS, "small_cnn")
    known = manifest(run)
    (cell,) = known.runs
    (path,) = cell.verdicts.values()
    cell = cell.model_copy(update={"folder": str(tmp_path), "verdicts": {"s": str(tmp_path / "s")}})
    entry = AttackEntry(
        name="fgsm", label="FGSM", suite="s", card=known.suites[path].attacks["fgsm"]
    )
    suites = {str(tmp_path / "s"): known.suites[path]}
    about = {"card": known.suites[path].model_dump()}
    attacks = {cell.dataset: (entry,)}
    known = known.model_copy(update={"runs": (cell,), "attacks": attacks, "suites": suites})
    (tmp_path / "curve.csv").write_text("epoch\n1\n")
    write_record(tmp_path / "run.json", {"card": cell.card.key, "files": {}})
    told = {"arguments": {}, "seconds": 1.0, "warnings": []}
    about |= {"attacks": {"fgsm": told}}
    table = pa.table({"attack": ["fgsm"] * 3, "image": [0, 1, 2], "correct": [True, False, True]})
    write_table(tmp_path / "s", table, about)
    tables = collect(known)
    assert list(tables["verdicts"]["fooled_by"].isna()) == [True] * 3
    (row,) = tables["evaluations"].itertuples()
    assert row.status == "ok"
    assert row.batch_size is pd.NA
    assert row.accuracy_after is pd.NA


@pytest.mark.parametrize("counts", [(0, 0), (0, 2), (2, 3)])
def test_the_images_that_were_kept_are_collected_and_read(tmp_path, counts, monkeypatch):
    monkeypatch.chdir(tmp_path)
    known = manifest(run_card(DIGITS, "small_cnn"), run_card(DIGITS, "small_cnn", width=2))
    known = known.model_copy(
        update={
            "runs": tuple(
                run.model_copy(update={"verdicts": {}, "gallery": f"{run.folder}/gallery"})
                for run in known.runs
            )
        }
    )
    images = Split(torch.rand(8, 1, 3, 3), torch.arange(8))
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(9, 8))
    for run, count in zip(known.runs, counts, strict=True):
        Path(run.folder).mkdir(parents=True)
        Path(run.folder, "curve.csv").write_text("epoch\n1\n")
        write_record(Path(run.folder, "run.json"), {"card": run.card.key, "files": {}})
        asked = DiagnosisCard(
            images=8, split="test", checkpoint="best", batch_size=4, seed=0, epsilon=0.1, points=3,
            gallery=count,
        )  # fmt: skip
        write_table(Path(run.gallery), gallery(asked, network, images, 4), {"status": "ok"})
    found = collect(known)["gallery"]
    write_table(tmp_path / "all", pa.Table.from_pandas(found, preserve_index=False), {})
    stored = read_table(tmp_path / "all")[0].to_pandas()
    # an empty column has no type
    pd.testing.assert_frame_equal(stored, found, check_dtype=False, check_categorical=False)
    assert list(found.columns[5:]) == [*SHOWN, "diagnosis_card"]
    assert len(found) == 3 * sum(counts)
    assert set(found["under"]) <= {"clean", "FGSM", "PGD-50"}
    assert drawn(Rows(*[pd.DataFrame()] * 5, found)).axes
    plt.close("all")


# --- export to RobustBench ------------------------------------------------------------------------

ROBUSTBENCH = {
    "resnet18": lambda: ResNet(BasicBlock, [2, 2, 2, 2]),
    "preact_resnet18": lambda: PreActResNet(PreActBlock, [2, 2, 2, 2]),
    "wrn_16_1": lambda: WideResNet(depth=16, widen_factor=1),
    "wrn_28_10": lambda: WideResNet(depth=28, widen_factor=10),
    "wrn_34_10": lambda: WideResNet(depth=34, widen_factor=10),
}


def untrained(name, folder):
    """Return a network on CIFAR-10 as it begins, and make `folder` that of its run."""
    card = run_card(CIFAR, name)
    torch.manual_seed(0)
    ours = members.build(card.model.architecture, {"shape": (3, 32, 32), "classes": 10})
    (folder / "card.json").write_text(card.model_dump_json())
    tensors.write(folder / "best.safetensors", ours.state_dict(), {"card": card.key})
    return ours.eval()


@pytest.mark.parametrize("name", ROBUSTBENCH)
def test_exported_weights_give_the_same_logits_in_robustbenchs_class(name, tmp_path, monkeypatch):
    ours = untrained(name, tmp_path)
    out = tmp_path / "model.pt"
    monkeypatch.setattr("sys.argv", ["export", str(tmp_path), "--out", str(out)])
    export.main()
    theirs = ROBUSTBENCH[name]().eval()
    theirs.load_state_dict(torch.load(out, weights_only=True))
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = ours(x)
        torch.testing.assert_close(theirs(x), expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(export.network_of(tmp_path)(x), expected, rtol=0, atol=1e-4)


def test_robustbenchs_benchmark_judges_a_network_of_ours(tmp_path, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluation = importlib.import_module("robustbench.eval")
    ours = untrained("wrn_16_1", tmp_path)
    x = torch.rand(6, 3, 32, 32)
    with torch.no_grad():
        taken_for = ours(x).argmax(1)
    y = torch.where(torch.arange(6) < 4, taken_for, (taken_for + 1) % 10)
    monkeypatch.setattr(evaluation, "load_clean_dataset", lambda *rest: (x, y))
    monkeypatch.setattr(evaluation, "get_preprocessing", lambda *rest: None)
    model = export.network_of(tmp_path)
    clean, robust = evaluation.benchmark(model, n_examples=6, eps=0.5, batch_size=6)
    assert clean == pytest.approx(4 / 6)
    assert robust == 0.0


@pytest.mark.parametrize("name", ROBUSTBENCH)
def test_robustbenchs_classes_say_what_images_they_take(name):
    told = rf"{name} takes images of shape \(3, 32, 32\), got \(1, 28, 28\)"
    with pytest.raises(UserError, match=told):
        members.build(f"regbench.models.{name}", {"shape": (1, 28, 28), "classes": 10})


@pytest.fixture
def without_data(tmp_path, monkeypatch):
    """The folder of a run on an .npz of 3 classes that lies nowhere any more."""
    generator = np.random.default_rng(0)
    arrays = {
        f"{kind}_{part}": generator.integers(0, 256, (12, 4, 4), np.uint8)
        if kind == "x"
        else np.arange(12) % 3
        for kind in "xy"
        for part in ("train", "test")
    }
    file = tmp_path / "mine.npz"
    np.savez(file, **arrays)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    source = {"path": "mine.npz", "sha256": digest}
    data = DataCard(source="regbench.data.npz", arguments=source, validation=4, split_seed=0)
    prepare(data, tmp_path, download=False, out=tmp_path / "data")
    file.unlink()
    card = run_card(data, "small_cnn", width=2)
    card = card.model_copy(
        update={
            "training": card.training.model_copy(update={"epochs": 1, "batch_size": 8}),
            "regularizer": RegularizerCard(
                loss="regbench.regularizers.natural", hyperparameters={}
            ),
        }
    )
    train.run(card, open_data(tmp_path / "data"), torch.device("cpu"), tmp_path)
    monkeypatch.setenv("REGBENCH_DATA", str(tmp_path / "nowhere"))
    return tmp_path


def test_a_network_is_exported_without_its_data_set(without_data):
    model = export.network_of(without_data)
    assert model(torch.rand(2, 1, 4, 4)).shape == (2, 3)
    assert not model.training
    assert not any(one.requires_grad for one in model.parameters())
    # none that keeps copies of its weights: whoever prunes or quantises writes to `.data`
    assert all(
        not type(one).__module__.startswith("regbench.core.layers") for one in model.modules()
    )


def test_a_run_that_does_not_tell_its_shape_is_exported_by_its_data_set(without_data):
    record = read_record(without_data / "run.json")
    del record["shape"], record["classes"]
    write_record(without_data / "run.json", record)
    with pytest.raises(UserError, match=r"cannot read .*nowhere/mine\.npz"):
        export.network_of(without_data)


def test_a_folder_without_a_run_is_one_line(tmp_path):
    with pytest.raises(UserError, match="cannot read the card"):
        export.network_of(tmp_path)
