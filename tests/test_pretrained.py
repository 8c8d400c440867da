"""Networks that were trained elsewhere: read from files of others, judged like our own."""

import argparse
import copy
import hashlib
import json
import os
import pickle
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from regbench import adopt, show
from regbench.analysis.comparisons import Judged, comparisons, leaders
from regbench.check import check, claims
from regbench.core.network import plain
from regbench.core.weights import trained
from regbench.errors import UserError
from regbench.experiment.cards import AnyCard, DataCard, ModelCard, PretrainedCard, card_of
from regbench.experiment.configfile import parse
from regbench.experiment.grid import resolve
from regbench.experiment.manifest import Declared, Manifest
from regbench.export import network_of
from regbench.models.small_cnn import SmallCNN
from regbench.prepare import open_data, prepare
from regbench.storage.foreign import fill, weights_of
from regbench.storage.seals import read_record

CPU = torch.device("cpu")


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """A small network for digits that is right about most of them."""
    torch.manual_seed(3)
    model = SmallCNN((1, 8, 8), 10, width=4)
    data = DataCard(source="regbench.data.digits", arguments={}, validation=97, split_seed=0)
    from regbench.experiment.members import build  # noqa: PLC0415

    images = build(data.source, {})(Path("nowhere"), False)
    x, y = torch.from_numpy(images.x_train).float() / images.scale, torch.from_numpy(images.y_train)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        rows = torch.randint(len(y), (128,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[rows]), y[rows].long()).backward()
        optimizer.step()
    return model.eval()


def as_itself(state, path):
    torch.save(state, path)


def as_checkpoint(state, path):
    torch.save({"epoch": 7, "state_dict": state, "optimizer": {"lr": 0.1}}, path)


def as_parallel(state, path):
    torch.save({"model": {f"module.{name}": one for name, one in state.items()}}, path)


def as_wrapped_twice(state, path):
    torch.save({f"module.model.{name}": one for name, one in state.items()}, path)


def as_half(state, path):
    torch.save(
        {name: one.half() if one.is_floating_point() else one for name, one in state.items()}, path
    )


WAYS = {
    "itself.pt": as_itself,
    "checkpoint.pth": as_checkpoint,
    "parallel.pt": as_parallel,
    "twice.pt": as_wrapped_twice,
    "plain.safetensors": save_file,
}


@pytest.mark.parametrize("name", WAYS)
def test_weights_are_read_however_they_are_stored(name, network, tmp_path):
    path = tmp_path / name
    WAYS[name](network.state_dict(), path)
    other = SmallCNN((1, 8, 8), 10, width=4)
    fill(other, weights_of(path, digest(path)), path)
    for key, value in network.state_dict().items():
        torch.testing.assert_close(other.state_dict()[key], value, rtol=0, atol=0)


def test_weights_in_half_precision_become_those_of_the_network(network, tmp_path):
    path = tmp_path / "half.pt"
    as_half(network.state_dict(), path)
    other = SmallCNN((1, 8, 8), 10, width=4)
    fill(other, weights_of(path, digest(path)), path)
    assert {one.dtype for one in other.parameters()} == {torch.float32}
    torch.testing.assert_close(other[0].weight, network[0].weight.half().float(), rtol=0, atol=0)


class Trap:
    """Runs something when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("sprung",)


def test_a_file_that_would_run_something_is_refused_and_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "trap.pt"
    torch.save({"state_dict": Trap()}, path)
    with pytest.raises(UserError, match="holds no weights that can be read safely"):
        weights_of(path, digest(path))
    assert not Path("sprung").exists()


FOREIGN = {
    "no file of PyTorch's": b"not a file of weights",
    "a pickle": pickle.dumps({"weight": [1.0]}),
    "nothing": b"",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_files_are_one_line(name, tmp_path):
    path = tmp_path / "weights.pt"
    path.write_bytes(FOREIGN[name])
    with pytest.raises(UserError, match=r"holds no weights .* expected what torch.save") as error:
        weights_of(path, digest(path))
    assert "\n" not in str(error.value)


def test_what_a_file_would_run_is_named_and_nobody_is_told_to_let_it(tmp_path):
    path = tmp_path / "checkpoint.pt"
    torch.save({"state_dict": {"a": torch.ones(2)}, "args": argparse.Namespace(lr=1)}, path)
    with pytest.raises(UserError, match=r"beside tensors it holds argparse\.Namespace") as error:
        weights_of(path, digest(path))
    assert "weights_only" not in str(error.value)
    assert "\x1b" not in str(error.value)


def within_itself():
    held = {}
    held["state_dict"] = held
    return held


@pytest.mark.parametrize(
    "held",
    [
        {},
        {"epoch": 3},
        [torch.ones(2)],
        {"a": torch.ones(2), "b": 3},
        {"a": torch.ones(2, dtype=torch.complex64)},
        within_itself(),
    ],
)
def test_what_is_no_state_dict_is_one_line(held, tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(held, path)
    with pytest.raises(UserError, match="not dense tensors by name"):
        weights_of(path, digest(path))


def test_another_file_than_the_checksum_is_of_is_refused(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save({"a": torch.ones(1)}, path)
    with pytest.raises(UserError, match=f"has sha256 {digest(path)}, the config says {'0' * 64}"):
        weights_of(path, "0" * 64)
    with pytest.raises(UserError, match=r"cannot read .*nowhere.pt': No such file"):
        weights_of(tmp_path / "nowhere.pt", "0" * 64)


def test_weights_of_another_network_are_told_by_name_and_shape(network, tmp_path):
    state = dict(network.state_dict())
    last = [name for name in state if name.endswith("weight")][-1]
    state["extra"] = state.pop(last)
    words = f"it lacks {last}; it has besides extra;"
    with pytest.raises(UserError, match=words):
        fill(SmallCNN((1, 8, 8), 10, width=4), state, tmp_path)
    with pytest.raises(
        UserError, match=r"another shape 0.weight \(4, 1, 3, 3\), here \(6, 1, 3, 3\)"
    ):
        fill(SmallCNN((1, 8, 8), 10, width=6), network.state_dict(), tmp_path)


class Normalised(SmallCNN):
    """As in RobustBench's zoo: constants that are buffers."""

    def __init__(self, shape, classes):
        super().__init__(shape, classes, width=4)
        self.register_buffer("mu", torch.full((1, 1, 1), 0.3))

    def forward(self, x):
        return super().forward(x - self.mu)


def test_constants_that_the_class_sets_may_be_missing(network, tmp_path):
    state, model = network.state_dict(), Normalised((1, 8, 8), 10)
    fill(model, state, tmp_path)
    x = torch.rand(5, 1, 8, 8)
    torch.testing.assert_close(model.eval()(x), network(x - 0.3), rtol=0, atol=0)
    fill(model, {**state, "mu": torch.full((1, 1, 1), 0.4)}, tmp_path)
    torch.testing.assert_close(model(x), network(x - 0.4), rtol=0, atol=0)


class OwnBatchNorm(nn.BatchNorm2d):
    """Not PyTorch's own class, as in timm."""


@pytest.mark.parametrize("kind", [nn.BatchNorm2d, OwnBatchNorm])
def test_what_training_found_may_not_be_missing(kind, tmp_path):
    state = kind(3).state_dict()
    del state["num_batches_tracked"]  # as PyTorch before 0.4.1 wrote it
    fill(kind(3), state, tmp_path)
    del state["running_var"]
    with pytest.raises(UserError, match="it lacks running_var;"):
        fill(kind(3), state, tmp_path)


class Around(nn.Module):
    """Holds its network under a name that wrappers have too."""

    def __init__(self):
        super().__init__()
        self.model = nn.Linear(3, 2)


@pytest.mark.parametrize("wrapper", ["", "module."])
def test_prefixes_that_are_the_networks_own_stay(wrapper, tmp_path):
    given, model = Around().state_dict(), Around()
    fill(model, {f"{wrapper}{name}": one for name, one in given.items()}, tmp_path)
    torch.testing.assert_close(model.model.bias, given["model.bias"], rtol=0, atol=0)


def test_numbers_of_another_kind_are_refused(tmp_path):
    whole = {name: one.to(torch.int8) for name, one in nn.Linear(3, 2).state_dict().items()}
    with pytest.raises(UserError, match=r"another kind of number bias torch\.int8, here"):
        fill(nn.Linear(3, 2), whole, tmp_path)


CONFIG = {
    "experiment": "given",
    "datasets": {
        "digits": {
            "epsilon": 0.2,
            "validation": 97,
            "attacks": {"white_box": {"clean": None, "fgsm": {"images": 100}}},
            "pretrained": {
                "theirs": {
                    "model": "small_cnn",
                    "width": 4,
                    "weights": "theirs.pt",
                    "sha256": "0" * 64,
                }
            },
        }
    },
}
DECLARED = {
    "natural": Declared("natural", "natural", "regbench.regularizers.natural", {}, lambda h, m: 1)
}
TRAINING = {"epochs": 1, "batch_size": 32, "learning_rate": 0.1}


def resolved(**digits: object) -> Manifest:
    """CONFIG with other entries of its data set."""
    config = copy.deepcopy(CONFIG)
    config["datasets"]["digits"].update(digits)
    if "models" in digits:
        config |= {"seeds": [0], "training": TRAINING, "regularizers": {"natural": None}}
    return resolve(parse(config), DECLARED)


def entry(**changes: object) -> dict[str, object]:
    return {**CONFIG["datasets"]["digits"]["pretrained"]["theirs"], **changes}


def test_a_pretrained_network_is_a_cell_without_a_training():
    (run,) = resolved().runs
    assert run.card == PretrainedCard(
        data=run.card.data,
        model=ModelCard(architecture="regbench.models.small_cnn", arguments={"width": 4}),
        epsilon=0.2,
        weights="0" * 64,
    )
    assert (run.model, run.regularizer, run.label, run.seed) == ("theirs", "theirs", "theirs", 0)
    assert run.folder == f"results/digits/theirs/pretrained/0-{run.card.key}"
    assert (run.cost, run.weights) == (None, "theirs.pt")
    assert run.verdicts.keys() == {"white_box"}


def test_where_its_file_lies_is_not_part_of_its_card():
    moved = resolved(pretrained={"theirs": entry(weights="elsewhere/theirs.pt")})
    assert moved.runs[0].card.key == resolved().runs[0].card.key
    other = resolved(pretrained={"theirs": entry(sha256="1" * 64)})
    assert other.runs[0].card.key != moved.runs[0].card.key


def test_it_stands_beside_the_networks_of_the_grid_and_takes_their_parameters():
    given = entry(model="ours", label="Theirs 2020")
    del given["width"]
    manifest = resolved(
        models={"ours": {"model": "small_cnn", "width": 6}}, pretrained={"theirs": given}
    )
    ours, theirs = manifest.runs
    assert (ours.regularizer, theirs.label) == ("natural", "Theirs 2020")
    assert ours.model == theirs.model == "ours"
    assert ours.card.model == theirs.card.model
    assert theirs.card.model.arguments == {"width": 6}


def test_attacks_may_craft_on_it_and_never_judge_itself_by_that():
    attacks = {
        "transfer": {"from_theirs": {"attack": "fgsm", "source": "theirs"}},
        "other": {"clean": None},
    }
    manifest = resolved(models={"small_cnn": None}, attacks=attacks)
    ours, theirs = manifest.runs
    card = manifest.suites[ours.verdicts["transfer"]].attacks["from_theirs"]
    assert card.source == theirs.card
    assert theirs.verdicts.keys() == {"other"}
    assert theirs.folder in {run.folder for run in manifest.sources}
    assert Manifest.read(manifest.text()) == manifest


def test_only_the_same_network_has_the_same_name():
    pretrained = {
        "same": entry(model="small_cnn"),
        "wider": entry(model="small_cnn", width=8, sha256="1" * 64),
        "bare": entry(model="model_d", sha256="2" * 64),
    }
    for name in ("same", "bare"):
        del pretrained[name]["width"]
    manifest = resolved(models={"small_cnn": {"width": 6}}, pretrained=pretrained)
    called = {run.regularizer: run.model for run in manifest.runs}
    assert called == {
        "natural": "small_cnn",
        "same": "small_cnn",
        "wider": "wider",
        "bare": "model_d",
    }


def test_trainings_need_seeds_and_networks_from_elsewhere_need_none():
    config = copy.deepcopy(CONFIG) | {"training": TRAINING, "regularizers": {"natural": None}}
    config["datasets"]["digits"]["models"] = {"small_cnn": None}
    with pytest.raises(UserError, match="'seeds' is missing, for natural on digits"):
        resolve(parse(config), DECLARED)
    config["regularizers"] = {"natural": {"seeds": [4]}}
    assert [run.seed for run in resolve(parse(config), DECLARED).runs] == [4, 0]


REFUSED = {
    "called as a network": (
        {"models": {"theirs": {"model": "small_cnn"}}},
        "pretrained.theirs is called as one of `models:` is",
    ),
    "labelled as a method": (
        {"models": {"small_cnn": None}, "pretrained": {"theirs": entry(label="natural")}},
        "'natural' and 'theirs' are both labelled 'natural'",
    ),
    "called as a regularizer": (
        {"models": {"small_cnn": None}, "pretrained": {"natural": entry()}},
        "pretrained.natural is called as one of `regularizers:`",
    ),
    "called as a source": (
        {"sources": {"theirs": {"model": "small_cnn"}}},
        "pretrained.theirs is called as one of `sources:`",
    ),
    "twice": (
        {"pretrained": {"theirs": entry(), "others": entry(weights="copy.pt")}},
        "'theirs' and 'others' on digits ask for the same weights; drop one",
    ),
    "no network at all": ({"pretrained": {}}, "datasets.digits has nothing to judge"),
    "a checksum that is none": (
        {"pretrained": {"theirs": entry(sha256="abc")}},
        "expected the 64 hexadecimal digits that `sha256sum FILE` prints, got 'abc'",
    ),
    "no checksum": (
        {"pretrained": {"theirs": {"model": "small_cnn", "weights": "theirs.pt"}}},
        "'datasets.digits.pretrained.theirs.sha256' is missing",
    ),
    "an unknown network": (
        {"pretrained": {"theirs": entry(model="small_cn")}},
        "did you mean 'small_cnn'?",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_line(case):
    digits, words = REFUSED[case]
    with pytest.raises(UserError) as error:
        resolved(**digits)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_does_not_fit_is_told_before_anything_runs(network, tmp_path, monkeypatch):
    monkeypatch.setenv("REGBENCH_DATA", str(tmp_path))
    path = tmp_path / "theirs.pt"
    torch.save(network.state_dict(), path)
    check(claims(resolved(pretrained={"theirs": entry(sha256=digest(path))})))
    with pytest.raises(UserError, match="is not of this network"):
        check(claims(resolved(pretrained={"theirs": entry(sha256=digest(path), width=6)})))
    with pytest.raises(UserError, match="the config says 0000"):
        check(claims(resolved()))
    path.unlink()
    with pytest.raises(UserError, match="No such file"):
        check(claims(resolved()))


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    """Digits, prepared."""
    path = tmp_path_factory.mktemp("digits") / "data.safetensors"
    prepare(resolved().runs[0].card.data, path.parent, False, path)
    return path


def adopted(network: nn.Module, digits: Path, folder: Path, monkeypatch) -> AnyCard:
    """Run the stage on a file of the network's weights, and return the card it was given."""
    path = folder / "theirs.pt"
    torch.save(network.state_dict(), path)
    (run,) = resolved(pretrained={"theirs": entry(sha256=digest(path))}).runs
    command = ["adopt", run.card.text(), "--weights", "theirs.pt", "--data-root", folder]
    command += ["--data", digits, "--out", folder / "run", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", [str(part) for part in command])
    adopt.main()
    return run.card


def test_the_stage_leaves_what_a_training_leaves(network, digits, tmp_path, monkeypatch):
    card = adopted(network, digits, tmp_path, monkeypatch)
    run, data = tmp_path / "run", open_data(digits)
    record = read_record(run / "run.json")
    assert (record["card"], record["status"], record["file"]) == (card.key, "ok", "theirs.pt")
    assert record["best_epoch"] is record["train_seconds"] is None
    assert pd.read_csv(run / "curve.csv").empty
    x = data.split("test", CPU).x[:50]
    with torch.no_grad():
        expected = network(x)
        for checkpoint in ("best", "last"):
            got = trained(run, data, checkpoint, CPU)(x)
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(network_of(run)(x), expected, rtol=0, atol=0)
    assert show.show(run)["card"] == json.loads(card.text())


def test_a_network_at_chance_is_called_collapsed(digits, tmp_path, monkeypatch):
    torch.manual_seed(0)
    untrained = SmallCNN((1, 8, 8), 10, width=4)
    untrained[-1].weight.data.zero_()
    untrained[-1].bias.data.zero_()
    adopted(untrained, digits, tmp_path, monkeypatch)
    assert read_record(tmp_path / "run/run.json")["status"].startswith("collapsed: ")


def test_what_is_no_network_is_one_line(monkeypatch):
    monkeypatch.setattr("regbench.core.network.build", lambda *_: None)
    with pytest.raises(UserError, match="'pkg:made' gives a NoneType, expected a torch"):
        plain(ModelCard(architecture="pkg:made", arguments={}), (1, 8, 8), 10)


def test_a_damaged_card_is_told_as_what_it_is(tmp_path):
    (tmp_path / "card.json").write_text('{"weights": "abc"}')
    with pytest.raises(UserError, match="not a PretrainedCard: data"):
        card_of(tmp_path)


def scored(**columns: list[int]) -> Judged:
    """Verdicts on four images; `theirs` was trained elsewhere."""
    correct = pd.DataFrame(
        {
            (name.partition("_")[0], seed): column
            for seed, (name, column) in enumerate(columns.items())
        }
    )
    methods = {name: name for name in correct.columns.get_level_values(0)}
    return Judged("digits", "net", "pgd", "PGD", methods, correct, frozenset({"theirs"}))


def test_a_network_from_elsewhere_is_held_against_each_seed():
    one = scored(ours_0=[1, 1, 0, 0], ours_1=[1, 0, 0, 0], theirs=[1, 1, 1, 0])
    assert one.scores("ours", "theirs").tolist() == [[0, 0], [0, -1], [-1, -1], [0, 0]]
    assert one.scores("theirs", "ours").tolist() == [[0, 0], [0, 1], [1, 1], [0, 0]]
    assert one.scores("theirs").shape == (4, 1)
    (row,) = comparisons([one], ["theirs"]).to_dict("records")
    assert (row["seeds"], row["difference"]) == (2, pytest.approx(-0.375))


def test_a_network_from_elsewhere_may_be_the_best():
    ours = {f"ours_{seed}": [1, 0, 0, 0] * 50 for seed in range(3)}
    one = scored(**ours, theirs=[1, 1, 1, 1] * 50)
    assert one.best == "theirs"
    assert leaders([one]) == {("digits", "net", "theirs", "pgd")}
