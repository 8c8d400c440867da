"""A training that was cut off and taken up again is, to the byte, one that was not."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from regbench import train as stage
from regbench.ascent import cross_entropy
from regbench.attack import asked, parts_key
from regbench.errors import UserError
from regbench.evaluation import trial as trials
from regbench.evaluation.parts import Parts
from regbench.evaluation.trial import Trial
from regbench.experiment.cards import AttackCard, DataCard, RunCard, SuiteCard
from regbench.experiment.cells import PAPER_TRAINING
from regbench.prepare import Split, open_data, prepare
from regbench.regularizers.sat_r2 import SATR2
from regbench.step import Objective, Step
from regbench.training import keeper as keeping
from regbench.training.descent import TrainingLoss
from regbench.training.keeper import Keeper
from regbench.training.loop import Trained, fit

STEPS = 3 * 4  # epochs, steps of an epoch


def card(cyclic: float = 0) -> RunCard:
    training = {
        **PAPER_TRAINING, "epochs": 3, "batch_size": 8, "learning_rate": 0.1,
        "crop_padding": 1, "flip": True, "cyclic": cyclic,
    }  # fmt: skip
    return RunCard.model_validate(
        {
            "data": {"source": "x", "arguments": {}, "validation": 1, "split_seed": 0},
            "model": {"architecture": "x", "arguments": {}},
            "regularizer": {"loss": "x", "hyperparameters": {}},
            "epsilon": 0.1,
            "training": training,
            "seed": 3,
        }
    )


def network() -> nn.Module:
    """Everything that moves: statistics, dropout, momentum."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3),
        nn.Flatten(), nn.Linear(64, 2),
    )  # fmt: skip


def split(count: int) -> Split:
    generator = torch.Generator().manual_seed(count)
    x = torch.rand(count, 1, 4, 4, generator=generator)
    return Split(x, (x.mean((1, 2, 3)) > 0.5).long())


def train(
    keeper: Keeper | None = None, loss: TrainingLoss | None = None, cyclic: float = 0
) -> Trained:
    loss = loss or SATR2(weight=1.0, alpha=0.05, projected=False)
    return fit(card(cyclic), network(), loss, split(30), split(20), lambda row: None, keeper)


class Cut(Keeper):
    """Keeps the state after one step, given by its number over all epochs, and dies."""

    def __init__(self, path: Path, at: int, key: str = "k") -> None:
        super().__init__(path, key)
        self._left = at

    def after_step(self, course: object) -> None:
        self._left -= 1
        if self._left == 0:
            self._write(course)
            raise KeyboardInterrupt


def same(one: Trained, other: Trained) -> bool:
    weights = [
        torch.equal(mine[name], theirs[name])
        for mine, theirs in ((one.best, other.best), (one.last, other.last))
        for name in mine
    ]
    rows = [[{**row, "seconds": 0} for row in trained.curve] for trained in (one, other)]
    return all(weights) and rows[0] == rows[1] and one.best_epoch == other.best_epoch


def test_threads_of_the_cpu_are_nothing_to_a_gpus_state():
    keys = {"cpu": set(), "cuda": set()}
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            for device, found in keys.items():
                found.add(keeping.key("card", "code", "data", torch.device(device)))
    finally:
        torch.set_num_threads(before)
    assert {device: len(found) for device, found in keys.items()} == {"cpu": 2, "cuda": 1}


def test_of_other_images_neither_state_nor_verdicts_are_taken_up(
    digits, uninterrupted_run, monkeypatch
):
    """A repaired loader has the same card: what it read is told by the images' digest alone."""
    data, cpu = open_data(digits / "data"), torch.device("cpu")
    other, kept = data._replace(seal="0" * 64), []
    monkeypatch.setattr(stage, "Keeper", lambda _, key: kept.append(key) or pytest.fail("kept"))
    run = RunCard.read(str(digits / "card.json"))
    for images in (data, data, other):
        with pytest.raises(pytest.fail.Exception):
            stage.run(run, images, cpu, digits)
    assert kept[0] == kept[1] != kept[2]
    assert stage.there(uninterrupted_run, run, data)
    assert not stage.there(uninterrupted_run, run, other)
    clean = AttackCard(attack="regbench.attacks.clean", arguments={"epsilon": 0.1}, images=40)
    suite = SuiteCard(
        attacks={"clean": clean}, checkpoint="best", split="test", batch_size=16, seed=0
    )
    keys = [parts_key(suite, images, uninterrupted_run, (), cpu) for images in (data, data, other)]
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.parametrize("at", range(1, STEPS + 1))
def test_a_training_cut_after_any_step_ends_as_if_it_had_not_been(at, tmp_path):
    whole = train()
    torch.manual_seed(99)  # another process has another global stream
    with pytest.raises(KeyboardInterrupt):
        train(Cut(tmp_path / "state", at))
    torch.manual_seed(98)
    assert same(train(Keeper(tmp_path / "state", "k")), whole)


@pytest.mark.parametrize("at", [1, 4, 5, STEPS])
def test_a_cyclic_rate_goes_on_after_a_kill(at, tmp_path):
    whole = train(cyclic=0.4)
    assert not same(whole, train())
    with pytest.raises(KeyboardInterrupt):
        train(Cut(tmp_path / "state", at), cyclic=0.4)
    assert same(train(Keeper(tmp_path / "state", "k"), cyclic=0.4), whole)


class Average(nn.Module):
    """A penalty that depends on a moving average, kept as a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, step: Step) -> Objective:
        loss = cross_entropy(step.logits(step.x), step.y)
        self.mean.lerp_(loss.detach(), 0.1)
        return Objective(loss, self.mean * loss)


@pytest.mark.parametrize("at", [1, 4, 5, STEPS - 1])
def test_what_a_loss_carries_in_a_buffer_outlives_a_kill(at, tmp_path):
    whole = train(loss=Average())
    with pytest.raises(KeyboardInterrupt):
        train(Cut(tmp_path / "state", at), Average())
    assert same(train(Keeper(tmp_path / "state", "k"), Average()), whole)


def test_progress_goes_from_0_to_the_last_step_over_a_kill(tmp_path):
    def hearing(told: list[float]) -> TrainingLoss:
        def loss(step: Step) -> Objective:
            told.append(step.progress.item())
            return Objective(cross_entropy(step.logits(step.x), step.y) * step.progress, 0.0)

        return loss

    whole: list[float] = []
    trained = train(loss=hearing(whole))
    assert whole == pytest.approx([step / STEPS for step in range(STEPS)])
    parts: list[float] = []
    with pytest.raises(KeyboardInterrupt):
        train(Cut(tmp_path / "state", 6), hearing(parts))
    assert same(train(Keeper(tmp_path / "state", "k"), hearing(parts)), trained)
    assert parts == whole


def test_a_training_may_be_cut_many_times(tmp_path):
    whole = train()
    for _ in range(STEPS - 1):
        with pytest.raises(KeyboardInterrupt):
            train(Cut(tmp_path / "state", at=1))
    assert same(train(Keeper(tmp_path / "state", "k")), whole)


def damaged(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize(
    ("change", "key", "words"),
    [
        (damaged, "k", "it is damaged"),
        (lambda content: content[:-1], "k", "it is damaged"),
        (lambda content: b"", "k", "it is damaged"),
        (lambda content: b"something else", "k", "it is damaged"),
        (lambda content: content, "another", "it is of another card, code, data or version"),
    ],
    ids=["flipped", "torn", "empty", "foreign", "another key"],
)
def test_a_state_that_is_not_ours_is_refused_in_one_line(tmp_path, capsys, change, key, words):
    state = tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        train(Cut(state, at=6))
    state.write_bytes(change(state.read_bytes()))
    assert same(train(Keeper(state, key)), train())
    (line,) = [one for one in capsys.readouterr().err.splitlines() if "taken up" in one]
    assert words in line
    assert line.endswith("beginning afresh")


def test_a_full_disk_stops_no_training(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(keeping, "INTERVAL", 0.0)

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert same(train(Keeper(tmp_path / "state", "k")), train())
    assert "the state could not be kept" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


# --- real processes -------------------------------------------------------------------------------

PROGRAM = """
import resource, sys
import regbench.training.keeper
from regbench.errors import program
from regbench.train import main
regbench.training.keeper.INTERVAL = 0.0
full = sys.argv.pop()
if full == "full":  # what a disk with room for so many bytes does to each file
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
program(main)
"""


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A folder with prepared digits and the card of a training of a few seconds."""
    folder = tmp_path_factory.mktemp("digits")
    data = DataCard(source="regbench.data.digits", arguments={}, validation=97, split_seed=0)
    prepare(data, Path("unused"), False, folder / "data")
    run = card().model_dump() | {"data": data.model_dump()}
    run["model"] = {"architecture": "regbench.models.small_cnn", "arguments": {"width": 2}}
    run["regularizer"] = {"loss": "regbench.regularizers.natural", "hyperparameters": {}}
    run["training"] = {**run["training"], "epochs": 4, "batch_size": 16}
    (folder / "card.json").write_text(json.dumps(run))
    return folder


def start(digits: Path, out: Path, disk: str = "with room") -> subprocess.Popen:
    command = [sys.executable, "-c", PROGRAM, digits / "card.json", "--data", digits / "data"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, "--out", out, disk], env=environment, stderr=subprocess.PIPE, text=True
    )


@pytest.fixture(scope="module")
def uninterrupted_run(digits, tmp_path_factory):
    """The folder of a training that nobody disturbed."""
    out = tmp_path_factory.mktemp("whole")
    process = start(digits, out)
    _, told = process.communicate()
    assert process.returncode == 0, told
    assert not (out / "state").exists()
    return out


@pytest.fixture(scope="module")
def uninterrupted(uninterrupted_run):
    """Its weights."""
    names = ("best.safetensors", "last.safetensors")
    return {name: (uninterrupted_run / name).read_bytes() for name in names}


# --- a suite of attacks ---------------------------------------------------------------------------


@pytest.fixture
def suite(digits, uninterrupted_run, tmp_path):
    """`suite(name=…)`: judge the trained digits by three attacks; other arguments as Parts' key."""
    attacks = {
        "clean": AttackCard(attack="regbench.attacks.clean", arguments={"epsilon": 0.1}, images=40),
        "pgd": AttackCard(
            attack="regbench.attacks.pgd", arguments={"epsilon": 0.1, "steps": 3}, images=40
        ),
        "pgd@0.2": AttackCard(
            attack="regbench.attacks.pgd", arguments={"epsilon": 0.2, "steps": 3}, images=40
        ),
    }
    card = SuiteCard(attacks=attacks, checkpoint="best", split="test", batch_size=16, seed=0)
    data, out = open_data(digits / "data"), tmp_path / "suite.parquet"

    def judged(key: str = "k", parts: bool = True):
        kept = Parts(out, key) if parts else None
        return Trial(card, uninterrupted_run, data, torch.device("cpu"), (), kept).table()[0]

    return judged


def verdicts(table):
    return table.to_pydict()


def test_a_suite_that_is_cut_off_goes_on_behind_its_last_attack(suite, monkeypatch):
    whole = verdicts(suite(parts=False))
    original, tried = Trial.tried, []

    def cut(trial, name, *rest):
        tried.append(name)
        if len(tried) == 3:
            raise KeyboardInterrupt
        return original(trial, name, *rest)

    monkeypatch.setattr(Trial, "tried", cut)
    with pytest.raises(KeyboardInterrupt):
        suite()
    assert verdicts(suite()) == whole
    assert tried == ["clean", "pgd", "pgd@0.2", "pgd@0.2"]


@pytest.mark.parametrize(
    ("change", "key"),
    [(damaged, "k"), (lambda content: content[:-9], "k"), (lambda content: content, "another")],
    ids=["flipped", "torn", "other weights"],
)
def test_a_part_that_is_not_ours_is_made_anew(suite, tmp_path, change, key, monkeypatch):
    whole = verdicts(suite())
    for part in (tmp_path / "suite.parts").iterdir():
        part.write_bytes(change(part.read_bytes()))
    assert verdicts(suite(key)) == whole


CUT = {
    "pgd": AttackCard(
        attack="regbench.attacks.pgd",
        arguments={"epsilon": 0.05, "steps": 1, "restarts": 2, "step_size": 0.01},
        images=50,
        pieces=3,
    ),
    "autoattack": AttackCard(
        attack="regbench.attacks.autoattack",
        arguments={"epsilon": 0.3, "batch_size": 4},
        images=16,
        pieces=2,
    ),
    "fgsm": AttackCard(attack="regbench.attacks.fgsm", arguments={"epsilon": 0.2}, images=10),
}


@pytest.fixture
def cut(digits, uninterrupted_run, tmp_path, monkeypatch):
    """`cut(attacks)`: a trial of a linear classifier; with parts, as a process of its own has."""
    data, out = open_data(digits / "data"), tmp_path / "cut.parquet"
    x, y = data.split("train", torch.device("cpu"))
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10, bias=False)).requires_grad_(False)
    wanted = 20 * torch.eye(10)[y] - 2
    # by SVD: pixels that are always 0 make the default driver of some versions fail
    solved = torch.linalg.lstsq(x.flatten(1), wanted, driver="gelsd")
    model[1].weight.copy_(solved.solution.T)
    monkeypatch.setattr(trials, "trained", lambda *given: model.eval())

    def trial(attacks=CUT, parts=True):
        card = SuiteCard(attacks=attacks, checkpoint="best", split="test", batch_size=16, seed=0)
        kept = Parts(out, "k") if parts else None
        return Trial(card, uninterrupted_run, data, torch.device("cpu"), (), kept)

    return trial


def test_pieces_give_the_same_verdicts_by_other_processes_in_any_order(cut, monkeypatch):
    whole, told_of_whole = cut(parts=False).table()
    for name, index in [("autoattack", 1), ("pgd", 2), ("pgd", 0), ("autoattack", 0), ("pgd", 1)]:
        cut().piece(name, index)
    original, tried = Trial.tried, []
    monkeypatch.setattr(
        Trial, "tried", lambda trial, *rest: tried.append(rest[:2]) or original(trial, *rest)
    )
    gathered, told = cut().table()
    assert tried == [("fgsm", 0)], "what other processes found is not done again"
    assert verdicts(gathered) == verdicts(whole)
    assert gathered.schema.equals(whole.schema)
    for name in ("status", "batch_size", "accuracy_after", "warnings"):
        one, other = (
            {attack: known[name] for attack, known in about["attacks"].items()}
            for about in (told, told_of_whole)
        )
        assert one == other


def test_a_piece_is_judged_as_a_suite_of_its_own(cut):
    rows = cut(parts=False).table()[0].to_pandas()
    pgd = rows[rows["attack"] == "pgd"]
    assert list(pgd["image"]) == list(range(50))
    first = CUT["pgd"].model_copy(update={"images": 16, "pieces": 1})
    alone = cut({"pgd": first}, parts=False).table()[0].to_pandas()
    columns = ["prediction", "correct", "distance", "loss"]
    assert alone[columns].equals(pgd[columns][:16])
    undivided = CUT["pgd"].model_copy(update={"pieces": 1})
    other = cut({"pgd": undivided}, parts=False).table()[0].to_pandas()
    assert not other["loss"].equals(pgd["loss"]), "each piece draws its noise from the start"


def test_the_accuracy_after_each_attack_is_told_of_an_ensemble(cut):
    table, told = cut(parts=False).table()
    rows = table.to_pandas()
    rows = rows[rows["attack"] == "autoattack"]
    after = told["attacks"]["autoattack"]["accuracy_after"]
    assert list(after) == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert after["square"] == pytest.approx(rows["correct"].mean())
    by_ce = (rows["fooled_by"] == "apgd-ce").sum()
    assert by_ce > 0
    already = (~rows["correct"] & rows["fooled_by"].isna()).sum()
    assert after["apgd-ce"] == pytest.approx(1 - (by_ce + already) / 16)
    assert told["attacks"]["fgsm"]["accuracy_after"] == {}


def test_more_pieces_than_images_is_one_line(cut):
    few = CUT["pgd"].model_copy(update={"images": 2})
    with pytest.raises(UserError, match="2 images cannot be cut into 3 pieces"):
        cut({"pgd": few}).table()


@pytest.mark.parametrize(
    ("name", "index", "words"),
    [
        ("pgdd", "0", "no attack 'pgdd' here; did you mean 'pgd'"),
        ("pgd", "3", "'pgd' has the pieces 0 to 2, got '3'"),
        ("fgsm", "one", "'fgsm' has the pieces 0 to 0, got 'one'"),
    ],
)
def test_a_piece_that_there_is_not_is_one_line(cut, name, index, words):
    with pytest.raises(UserError, match=words):
        asked(cut().card, name, index)


class Full(nn.Module):
    """Has no memory for a gradient, of however few images."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.requires_grad:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return self.model(x)


def test_a_suite_goes_on_when_an_attack_does_not_fit_in_memory(cut, monkeypatch, capsys):
    clean = AttackCard(
        attack="regbench.attacks.clean", arguments={"epsilon": 0.0}, images=10, pieces=2
    )
    trained = trials.trained
    monkeypatch.setattr(trials, "trained", lambda *given: Full(trained(*given)))
    table, told = cut({"pgd": CUT["pgd"], "clean": clean}).table()
    status = {name: one["status"] for name, one in told["attacks"].items()}
    assert status == {"pgd": "out of memory", "clean": "ok"}
    assert set(table["attack"].to_pylist()) == {"clean"}
    heard = capsys.readouterr()
    assert "pgd: out of memory" in heard.out
    assert "torch.OutOfMemoryError: CUDA out of memory." in heard.err
    assert "in forward" in heard.err, "the traceback is kept"


def test_a_full_disk_is_one_line_and_the_next_try_leaves_the_same_bytes(
    digits, uninterrupted, tmp_path
):
    process = start(digits, tmp_path, "full")
    _, told = process.communicate()
    assert process.returncode == 1, told
    *kept, last = told.splitlines()
    assert last.startswith("regbench: error: cannot write")
    assert any("the state could not be kept" in line for line in kept)
    assert "Traceback" not in told
    assert [path.name for path in tmp_path.iterdir()] == ["card.json"]
    again = start(digits, tmp_path)
    _, told = again.communicate()
    assert again.returncode == 0, told
    for name, content in uninterrupted.items():
        assert (tmp_path / name).read_bytes() == content


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_killed_process_goes_on_and_leaves_the_same_bytes(
    number, digits, uninterrupted, tmp_path
):
    process = start(digits, tmp_path)
    while not (tmp_path / "state").exists() and process.poll() is None:
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(number)
    _, told = process.communicate()
    assert process.returncode != 0, told
    assert "Traceback" not in told
    assert not (tmp_path / "last.safetensors").exists()
    again = start(digits, tmp_path)
    _, told = again.communicate()
    assert again.returncode == 0, told
    assert "going on in epoch" in told
    assert not (tmp_path / "state").exists()
    for name, content in uninterrupted.items():
        assert (tmp_path / name).read_bytes() == content
