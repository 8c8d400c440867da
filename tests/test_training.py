"""The training loop: seeds, schedule, selection, failure, augmentation."""

import subprocess
import sys
from itertools import pairwise

import pytest
import torch
from torch import nn

from regbench import train as stage
from regbench.core.memory import AMBIGUOUS, FULL, exhausted
from regbench.core.validation import accuracy, ifgsm
from regbench.experiment.cards import RegularizerCard, RunCard, TrainingCard
from regbench.experiment.cells import PAPER_TRAINING
from regbench.prepare import Split
from regbench.regularizers.natural import Natural
from regbench.step import Objective
from regbench.train import status
from regbench.training import assembly
from regbench.training import loop as training
from regbench.training.keeper import Keeper
from regbench.training.loop import Trained, augment, fit
from regbench.training.properties import losses


@pytest.fixture
def card():
    return RunCard.model_validate(
        {
            "data": {"source": "x", "arguments": {}, "validation": 1, "split_seed": 0},
            "model": {"architecture": "x", "arguments": {}},
            "regularizer": {"loss": "x", "hyperparameters": {}},
            "epsilon": 0.1,
            "training": {**PAPER_TRAINING, "epochs": 4, "batch_size": 8, "learning_rate": 0.1},
            "seed": 3,
        }
    )


@pytest.fixture
def split():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(20, 1, 4, 4, generator=generator)
    return Split(x, (x.mean((1, 2, 3)) > 0.5).long())


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 2))


def run(card, split, loss=None, keeper=None):
    return fit(card, network(), loss or Natural(), split, split, lambda row: None, keeper)


def test_the_same_card_gives_the_same_weights_and_another_seed_others(card, split):
    one, two = run(card, split), run(card, split)
    other = run(card.model_copy(update={"seed": 4}), split)
    assert all(torch.equal(one.last[name], two.last[name]) for name in one.last)
    assert not all(torch.equal(one.last[name], other.last[name]) for name in one.last)


def test_every_image_is_seen_once_per_epoch(card, split):
    seen = []

    def loss(step):
        seen.append(step.x)
        return Natural()(step)

    run(card, split, loss)
    assert [len(x) for x in seen[:3]] == [8, 8, 4]
    epoch = torch.cat(seen[:3]).flatten(1)
    assert sorted(epoch.sum(1).tolist()) == pytest.approx(
        sorted(split.x.flatten(1).sum(1).tolist())
    )


def test_a_cyclic_rate_is_followed_step_by_step(card, split):
    """Of a loss that is a weight itself each step goes as far as its rate says."""
    settings = {"cyclic": 0.25, "momentum": 0.0, "weight_decay": 0.0}
    card = card.model_copy(update={"training": card.training.model_copy(update=settings)})
    seen = []

    def loss(step):
        weight = step.model[1].bias[0]
        seen.append(weight.item())
        return Objective(weight.clone(), 0.0)

    trained = run(card, split, loss)
    walked = [
        before - after for before, after in pairwise([*seen, trained.last["1.bias"][0].item()])
    ]
    middles = [(step + 0.5) / 12 for step in range(12)]  # four epochs of three steps
    rates = [0.1 * min(at / 0.25, (1 - at) / 0.75) for at in middles]
    assert walked == pytest.approx(rates, abs=1e-6)
    assert [row["learning_rate"] for row in trained.curve] == pytest.approx(rates[2::3])


def test_the_curve_holds_means_over_images(card, split):
    def loss(step):
        value = step.logits(step.x).sum() * 0 + len(step.y)  # 8, 8 and 4 for 20 images
        return Objective(value, value * 0 + 1)

    row = run(card, split, loss).curve[0]
    assert row["cross_entropy"] == pytest.approx((8 * 8 + 8 * 8 + 4 * 4) / 20)
    assert row["penalty"] == pytest.approx(1)
    assert row["loss"] == pytest.approx(row["cross_entropy"] + 1)


def test_losses_under_attack_are_those_of_a_linear_network_by_hand():
    """Two classes, no clipping: the margin falls by the radius times ‖w₁ − w₀‖₁."""
    generator = torch.Generator().manual_seed(1)
    x = 0.4 + 0.2 * torch.rand(600, 1, 2, 2, generator=generator, dtype=torch.float64)
    y = torch.randint(2, (600,), generator=generator)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).double()
    epsilon, noise = 0.2, torch.Generator().manual_seed(7)
    attacked = ifgsm(model, Split(x, y), epsilon, 4)
    found = losses(model, Split(x, y), attacked.x, epsilon, noise)

    difference = (model[1].weight[1] - model[1].weight[0]).detach()
    offset = (model[1].bias[1] - model[1].bias[0]).detach()
    side = 2.0 * y - 1
    corner = torch.empty_like(x).normal_(generator=torch.Generator().manual_seed(7)).sign()

    def by_hand(images, radius):
        margin = side * (images.flatten(1) @ difference + offset)
        return torch.log1p((radius * difference.abs().sum() - margin).exp()).mean().item()

    assert found == pytest.approx(
        {
            "half_fgsm": by_hand(x, epsilon / 2),
            "fgsm": by_hand(x, epsilon),
            "rfgsm": by_hand(x + epsilon / 2 * corner, epsilon / 2),
            "ifgsm": by_hand(x, epsilon),
        },
        rel=1e-5,  # summed in float32
    )


def test_losses_are_of_the_first_thousand_images(split):
    x, y = split.x.repeat(60, 1, 1, 1), split.y.repeat(60)
    few = Split(x[:1000], y[:1000])
    told = [
        losses(network(), images, images.x, 0.1, torch.Generator().manual_seed(0))
        for images in (Split(x, y), few)
    ]
    assert told[0] == told[1]


def test_judging_moves_nothing_that_training_draws_from(card, split, monkeypatch):
    judged = run(card, split)
    row = {"validation_clean": 0.0, "validation_ifgsm": 0.0}
    monkeypatch.setattr(training, "judge", lambda *rest: row)
    unjudged = run(card, split)
    assert all(torch.equal(judged.last[name], unjudged.last[name]) for name in judged.last)


@pytest.mark.parametrize("selection", ["ifgsm", "clean"])
def test_the_first_best_epoch_is_kept(card, split, monkeypatch, selection):
    settings = card.training.model_copy(update={"selection": selection})
    card = card.model_copy(update={"training": settings})
    falling = [0.4, 0.3, 0.2, 0.1]
    told = {f"validation_{name}": iter(falling) for name in ("ifgsm", "clean")}
    told[f"validation_{selection}"] = iter([0.2, 0.7, 0.7, 0.1])
    monkeypatch.setattr(
        training, "judge", lambda *rest: {name: next(values) for name, values in told.items()}
    )
    weights = []
    model = network()
    trained = fit(
        card, model, Natural(), split, split,
        lambda row: weights.append({k: v.clone() for k, v in model.state_dict().items()}),
    )  # fmt: skip
    assert all(torch.equal(trained.best[name], weights[1][name]) for name in weights[1])
    assert all(torch.equal(trained.last[name], weights[3][name]) for name in weights[3])


def test_a_loss_that_is_no_number_ends_the_run_as_a_result(card, split):
    def loss(step):
        value = step.logits(step.x).sum() * float("nan")
        return Objective(value, value)

    trained = run(card, split, loss)
    assert trained.status == "diverged: the loss is nan in epoch 1"
    assert len(trained.curve) == 1
    assert all(tensor.isfinite().all() for tensor in trained.best.values())


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("CUDA driver error: out of memory"),
        MemoryError(),
    ],
)
def test_memory_that_does_not_suffice_ends_the_run_as_a_result(card, split, error):
    trained = run(card, split, failing(error, at=1))
    assert trained.status == "out of memory in epoch 1, with batches of 8"
    assert trained.best_epoch == len(trained.curve) == 0


def failing(error, at):
    """A loss whose step number `at`, from 0 on, fails; an epoch has three."""
    steps = iter(range(100))

    def loss(step):
        if next(steps) == at:
            raise error
        return Natural()(step)

    return loss


def test_memory_that_sufficed_for_an_epoch_is_another_process_s_fault(card, split, tmp_path):
    whole, cut = run(card, split, Natural()), Keeper(tmp_path / "state", "key")
    cut._next = 0  # kept from the first step on
    full = torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(OSError, match="in epoch 2, with batches of 8, which sufficed"):
        run(card, split, failing(full, at=4), keeper=cut)
    resumed = run(card, split, Natural(), keeper=Keeper(tmp_path / "state", "key"))
    assert resumed.status == whole.status == "ok"
    torch.testing.assert_close(resumed.last, whole.last, rtol=0, atol=0)


@pytest.mark.parametrize("word", AMBIGUOUS)
@pytest.mark.parametrize(("free", "full"), [(FULL - 1, True), (FULL, False)])
def test_what_may_be_lack_of_memory_is_so_on_a_full_gpu(monkeypatch, word, free, full):
    assert not exhausted(RuntimeError(word))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (free, 2**40))
    assert exhausted(RuntimeError(f"it says: {word}")) is full
    assert not exhausted(RuntimeError("a mistake"))


def test_another_error_is_no_result(card, split):
    def loss(step):
        raise RuntimeError("a mistake in the loss")

    with pytest.raises(RuntimeError, match="a mistake in the loss"):
        run(card, split, loss)


def test_time_that_is_up_ends_the_run_as_a_result(card, split):
    trained = fit(card, network(), Natural(), split, split, lambda row: None, limit=1e-12)
    assert trained.status == "out of time: 1 epochs took more than 1e-12 h"
    assert len(trained.curve) == 1


def test_memory_that_does_not_suffice_to_count_passes_loses_no_training(card, split, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    class Images:
        def split(self, *_):
            return split.x, split.y

    monkeypatch.setattr(stage, "network", full)
    loss = RegularizerCard(loss="regbench.regularizers.natural", hyperparameters={})
    card = card.model_copy(update={"regularizer": loss})
    assert stage.cost(card, Images(), torch.device("cpu")) is None


def test_the_passes_of_a_loss_that_carries_something_are_counted(card, split, monkeypatch):
    """On the device of the data, where there is another."""
    moved = []
    loss = RegularizerCard(loss="tests", hyperparameters={})
    card = card.model_copy(update={"regularizer": loss})

    class Average(nn.Module):
        def to(self, device):
            moved.append(device)
            return self

    monkeypatch.setattr(assembly, "build", lambda *_: Average())
    assembly.loss_of(card, torch.device("meta"))
    assert moved == [torch.device("meta")]


def test_a_run_that_is_finished_is_not_out_of_time(card, split):
    settings = card.training.model_copy(update={"epochs": 1})
    whole = card.model_copy(update={"training": settings})
    trained = fit(whole, network(), Natural(), split, split, lambda row: None, limit=1e-12)
    assert trained.status == "ok"


@pytest.mark.parametrize(
    ("clean", "commonest", "words"),
    [
        (0.12, 40, "collapsed: 12.0% of the validation images right, by chance 10.0%"),
        (0.2, 40, "ok"),
        (0.2, 80, "collapsed: 20.0% of the validation images right, by chance 20.0%"),
    ],
)
def test_a_network_no_better_than_its_commonest_answer_has_collapsed(clean, commonest, words):
    row = {"validation_clean": clean, "validation_ifgsm": 0.0}
    trained = Trained({}, {}, [{"validation_clean": 0.9}, row], 2, "ok")
    others = 1 + torch.arange(400 - commonest) % 9
    labels = torch.cat([torch.zeros(commonest, dtype=torch.int64), others])
    assert status(trained, labels) == words


def test_a_network_that_answers_nan_is_right_about_nothing(split):
    broken = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    nn.init.constant_(broken[1].weight, float("nan"))
    assert accuracy(broken, split) == 0.0


def test_ifgsm_stays_in_the_ball_and_hurts(split):
    model = network()
    attacked = ifgsm(model, split, epsilon=0.1, steps=3)
    assert (attacked.x - split.x).abs().max() <= 0.1 + 1e-6
    assert attacked.x.min() >= 0
    assert attacked.x.max() <= 1
    assert accuracy(model, attacked) <= accuracy(model, split)


def test_augmentation_crops_and_flips_whole_images():
    x = torch.arange(1.0, 33.0).reshape(2, 1, 4, 4).repeat(512, 2, 1, 1)
    card = TrainingCard(
        **{**PAPER_TRAINING, "crop_padding": 1, "flip": True},
        epochs=1, batch_size=1, learning_rate=1,
    )  # fmt: skip
    out = augment(x, card, torch.Generator().manual_seed(0))
    assert out.shape == x.shape
    padded = nn.functional.pad(x, (1, 1, 1, 1))
    views = torch.stack(
        [
            view
            for top in range(3)
            for left in range(3)
            for crop in [padded[:, :, top : top + 4, left : left + 4]]
            for view in (crop, crop.flip(3))
        ]
    )
    matches = (views == out).flatten(2).all(2)
    assert matches.any(0).all(), "an image that is no crop of its padded self"
    assert matches.any(1).all(), "a crop or flip that never happens"


def test_the_peak_is_of_this_program_not_of_the_one_that_started_it():
    child = "import torch; from regbench.core.memory import peak"
    child += "; print(peak(torch.device('cpu'))['peak_memory'])"
    parent = "import os; from sys import executable as me; held = b'1' * (1 << 30)"
    parent += f"; os.execv(me, [me, '-c', {child!r}])"
    peaks = [
        int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
        for code in (child, parent)
    ]
    assert 50e6 < peaks[0] < 1e9
    assert peaks[1] == pytest.approx(peaks[0], rel=0.2)


class Probing(nn.Module):
    """Measures its features by an image, in eval mode, as it is made."""

    def __init__(self, shape, classes):
        super().__init__()
        self.features = nn.Sequential(nn.BatchNorm2d(shape[0]), nn.Flatten())
        size = self.features.eval()(torch.zeros(1, *shape)).shape[1]
        self.head = nn.Linear(size, classes)

    def forward(self, x):
        return self.head(self.features(x))


def test_the_whole_network_is_trained_in_train_mode(card, split):
    model = Probing((1, 4, 4), 2)
    assert model.training
    assert not model.features.training
    once = card.model_copy(update={"training": card.training.model_copy(update={"epochs": 1})})
    fit(once, model, Natural(), split, split, lambda row: None)
    assert model.features[0].num_batches_tracked == 3  # batches of 20 images
