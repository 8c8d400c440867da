"""What is measured of a trained network: each quantity against its closed form."""

import json
import re
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from regbench.ascent import input_gradient
from regbench.diagnostics import Measured, Probe, summed_cross_entropy
from regbench.errors import UserError
from regbench.evaluation import diagnosis
from regbench.evaluation.diagnosis import SCHEMA, Diagnosis, diagnose, radii
from regbench.experiment.cards import DiagnosisCard
from regbench.experiment.members import load, names
from regbench.prepare import Split
from regbench.storage import tensors
from regbench.storage.seals import read_table

EPSILON = 0.05
IMAGES = 40
PIXELS = 9


def card(**told: object) -> DiagnosisCard:
    fixed = {
        "images": IMAGES, "split": "test", "checkpoint": "best", "batch_size": 16, "seed": 3,
        "epsilon": EPSILON, "points": 5,
    }  # fmt: skip
    return DiagnosisCard.model_validate({**fixed, **told})


def stream(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Linear:
    """Two classes told apart by w·x + b, and 40 images that no step of 2ε takes out of (0, 1).

    Of an image with the margin m, which is negative if it is wrong, the cross entropy is
    log(1 + exp(−m)), and its gradient −w / (1 + exp(m)) towards class 1.
    """

    def __init__(self) -> None:
        generator = stream(1)
        self.w = torch.randn(PIXELS, dtype=torch.float64, generator=generator)
        self.w[4] = 0
        x = 0.2 + 0.6 * torch.rand(IMAGES, 1, 3, 3, dtype=torch.float64, generator=generator)
        self.bias = -(x.flatten(1) @ self.w).mean()
        self.x = x
        self.y = (self.score(x) > 0).long()
        self.y[:6] = 1 - self.y[:6]  # some are wrong from the start
        self.sign = 2.0 * self.y - 1

    def score(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.w + self.bias

    def __call__(self, x: Tensor) -> Tensor:
        return torch.stack([torch.zeros(len(x), dtype=x.dtype), self.score(x)], 1)

    @property
    def margin(self) -> Tensor:
        return self.sign * self.score(self.x)

    @property
    def reach(self) -> Tensor:
        """By how much a step of 1 along the sign of the gradient lowers each margin."""
        return self.w.abs().sum()

    def probe(self, model: Callable[[Tensor], Tensor] | None = None) -> Probe:
        return Probe(model or self, self.x, self.y, EPSILON, radii(card()))


def loss(margin: Tensor) -> Tensor:
    return torch.log1p(torch.exp(-margin))


def close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one.double(), other.double(), rtol=1e-9, atol=1e-9)


def measured(name: str, probe: Probe, seed: int = 3) -> dict[str, Tensor]:
    """What a diagnostic says, by quantity, of those that have no points."""
    found = load(f"regbench.diagnostics.{name}")(probe, stream(seed))
    return {one.quantity: one.values for one in found if one.along is None}


def curve(name: str, quantity: str, probe: Probe) -> dict[float, Tensor]:
    found = load(f"regbench.diagnostics.{name}")(probe, stream())
    return {one.along: one.values for one in found if one.quantity == quantity}


# --- each quantity --------------------------------------------------------------------------------


def test_the_loss_along_fgsm_rises_by_the_l1_norm_on_a_linear_model():
    linear = Linear()
    losses = curve("loss_along_fgsm", "loss_along_fgsm", linear.probe())
    assert list(losses) == pytest.approx([0, EPSILON / 2, EPSILON, 3 * EPSILON / 2, 2 * EPSILON])
    right = curve("loss_along_fgsm", "accuracy_along_fgsm", linear.probe())
    for radius in losses:
        close(losses[radius], loss(linear.margin - radius * linear.reach))
        assert right[radius].equal(linear.margin > radius * linear.reach)
    for quantity in ("not_rising", "falling"):
        assert not measured("loss_along_fgsm", linear.probe())[quantity].any()


def parabola(linear: Linear, bottom: float, steep: float = 1) -> Callable[[Tensor], Tensor]:
    """Class 1 by steep (w·x + b − bottom)²: its loss rises up to the bottom, then falls."""
    return lambda x: torch.stack(
        [torch.zeros(len(x), dtype=x.dtype), steep * (linear.score(x) - bottom).square()], 1
    )


def test_a_loss_that_falls_within_epsilon_does_not_rise():
    linear = Linear()
    linear.y[:] = 1
    score = linear.score(linear.x)
    start = float(score.min()) - 0.6 * EPSILON * float(linear.reach)
    past = (score - start) < 0.75 * EPSILON * float(linear.reach)  # the way there is known
    found = measured("loss_along_fgsm", linear.probe(parabola(linear, start)))["not_rising"]
    assert past.any()
    assert not past.all()
    assert found.equal(past)


STEEP = 20.0


def test_a_loss_falls_by_more_than_a_hundredth_from_its_highest_so_far():
    linear = Linear()
    linear.y[:] = 1
    score, reach = linear.score(linear.x), float(linear.reach)
    start = float(score.min()) - 0.6 * EPSILON * reach
    at_image, halfway, at_epsilon = (
        torch.log1p((-STEEP * (score - radius * reach - start) ** 2).exp())
        for radius in (0, EPSILON / 2, EPSILON)
    )
    falls = torch.maximum(at_image - halfway, torch.maximum(at_image, halfway) - at_epsilon)
    found = measured("loss_along_fgsm", linear.probe(parabola(linear, start, STEEP)))
    assert found["falling"].equal(falls > 0.01)
    assert (found["not_rising"] & ~found["falling"]).any()  # by less
    assert found["falling"].any()


def test_without_a_gradient_nothing_rises_or_falls():
    linear = Linear()
    flat = measured("loss_along_fgsm", linear.probe(lambda x: 0 * linear(x)))
    assert flat["not_rising"].all()
    assert not flat["falling"].any()


def test_rfgsm_falls_short_of_fgsm_by_what_its_random_step_wastes():
    linear = Linear()
    found = measured("random_start", linear.probe())
    noise = torch.empty_like(linear.x).normal_(generator=stream()).sign().flatten(1)
    alpha = EPSILON / 2
    wasted = linear.sign * (noise @ linear.w) * alpha
    fgsm = linear.margin - EPSILON * linear.reach
    rfgsm = linear.margin + wasted - (EPSILON - alpha) * linear.reach
    close(found["fgsm_minus_rfgsm_loss"], loss(fgsm) - loss(rfgsm))
    close(found["fgsm_to_rfgsm_logits"], (fgsm - rfgsm).abs())
    assert (found["fgsm_minus_rfgsm_loss"] > 0).all()


def test_on_a_linear_model_ten_steps_are_one():
    found = measured("several_steps", Linear().probe())
    close(found["fgsm_minus_ifgsm_loss"], torch.zeros(IMAGES))
    close(found["fgsm_to_ifgsm_logits"], torch.zeros(IMAGES))


def test_small_steps_stop_at_the_top_that_one_step_jumps_over():
    linear = Linear()
    linear.y[:] = 1
    score = linear.score(linear.x)
    bottom = score - 0.45 * EPSILON * linear.reach  # of each image its own
    model = lambda x: torch.stack(  # noqa: E731
        [torch.zeros(len(x), dtype=x.dtype), (linear.score(x) - bottom).square()], 1
    )
    found = measured("several_steps", linear.probe(model))
    # from the fifth step on it swings around the top, half a step to either side
    beside, behind = (loss((part * EPSILON * linear.reach).square()) for part in (0.05, 0.55))
    close(found["fgsm_minus_ifgsm_loss"], (behind - beside).expand(IMAGES))


def test_the_linearity_error_is_the_bregman_divergence_at_a_corner():
    linear = Linear()
    probe = linear.probe()
    found = measured("local_linearity", probe)
    slope = -1 / (1 + torch.exp(linear.margin))  # of the loss over the margin
    corners = torch.stack(
        [
            loss(linear.margin + move) - loss(linear.margin) - slope * move
            for move in (EPSILON * linear.reach, -EPSILON * linear.reach)
        ]
    )
    nearest = (corners - found["linearity_error"]).abs().amin(0)
    close(nearest, torch.zeros(IMAGES))
    assert found["linearity_error_worst"].equal(found["linearity_error"])


def test_gradients_of_a_linear_model_agree_and_those_over_a_kink_do_not():
    linear = Linear()
    close(measured("gradient_alignment", linear.probe())["gradient_alignment"], torch.ones(IMAGES))
    bottom = float(linear.score(linear.x).median())
    model = parabola(linear, bottom)
    noise = torch.empty_like(linear.x).uniform_(-EPSILON, EPSILON, generator=stream())
    sides = [(linear.score(x) - bottom).sign() for x in (linear.x, linear.x + noise)]
    found = measured("gradient_alignment", linear.probe(model))["gradient_alignment"]
    close(found, sides[0] * sides[1])
    assert -1 <= found.mean() < 1


def test_a_tiny_gradient_has_a_direction_and_none_has_not():
    linear = Linear()
    tiny = measured("gradient_alignment", linear.probe(lambda x: 1e-30 * linear(x)))
    close(tiny["gradient_alignment"], torch.ones(IMAGES))
    none = measured("gradient_alignment", linear.probe(lambda x: 0 * linear(x)))
    close(none["gradient_alignment"], torch.zeros(IMAGES))


def test_zero_gradients_are_counted():
    linear = Linear()
    found = measured("zero_gradient", linear.probe())
    assert not found["zero_gradient"].any()
    close(found["zero_entries"], torch.full((IMAGES,), 1 / PIXELS))
    scaled = Probe(
        lambda x: 1e6 * linear(x.double()).float(), linear.x.float(), linear.y, EPSILON, (0.0,)
    )
    vanished = measured("zero_gradient", scaled)["zero_gradient"]
    assert vanished.equal(linear.margin > 110 / 1e6)  # exp(−110) is 0 in float32
    assert 0 < vanished.sum() < IMAGES


def test_the_surface_is_the_plane_it_should_be():
    linear = Linear()
    found = list(load("regbench.diagnostics.loss_surface")(linear.probe(), stream()))
    corner = torch.empty_like(linear.x).normal_(generator=stream()).sign().flatten(1)
    across = linear.sign * (corner @ linear.w)
    assert len(found) == 11 * 11
    assert sorted({one.along for one in found}) == pytest.approx(
        [EPSILON * k / 10 for k in range(11)]
    )
    for one in found:
        expected = loss(linear.margin - one.along * linear.reach + one.across * across)
        close(one.values, expected)


def test_the_surface_is_of_the_first_images_only():
    linear = Linear()
    for first, count in ((0, IMAGES), (50, 14), (64, 0)):
        probe = Probe(linear, linear.x, linear.y, EPSILON, (0.0,), first)
        found = list(load("regbench.diagnostics.loss_surface")(probe, stream()))
        assert {len(one.values) for one in found} == ({count} if count else set())


def test_a_gradient_is_that_of_the_image_and_not_of_the_batch():
    linear = Linear()
    together = linear.probe().slope
    alone = input_gradient(linear, linear.x[7:8], linear.y[7:8], summed_cross_entropy)
    close(together[7:8], alone)


# --- the stage ------------------------------------------------------------------------------------


def test_each_diagnostic_says_what_it_measures_and_who_says_so():
    for name in names("diagnostics"):
        diagnostic = load(f"regbench.diagnostics.{name}")
        assert "arXiv" in diagnostic.__doc__, name
        for one in diagnostic(Linear().probe(), stream()):
            assert isinstance(one, Measured)
            assert f"`{one.quantity}`" in diagnostic.__doc__, one.quantity


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (lambda x: Measured("bad", x.mean()), "gave values of shape ()"),
        (lambda x: Measured("bad", x.flatten(1)), "gave values of shape (7, 9)"),
        (lambda x: Measured("bad", 0.5), "gave a float"),
        (lambda x: x.mean(1), "gave values of shape (7,"),
    ],
)
def test_a_diagnostic_that_gives_something_else_is_named(given, words, monkeypatch):
    def mine(probe: Probe, generator: torch.Generator):
        yield given(probe.x)

    monkeypatch.setattr(diagnosis, "load", lambda module: mine)
    linear = Linear()
    with pytest.raises(UserError, match=re.escape(f"the diagnostic 'mine' {words}")):
        diagnose(card(), linear, Split(linear.x, linear.y), 7)


def test_batches_are_put_together():
    linear = Linear()
    images = Split(linear.x, linear.y)
    whole, parts = (diagnose(card(), linear, images, size).to_pandas() for size in (IMAGES, 7))
    assert set(whole["n"]) == {IMAGES}
    for quantity in ("loss_along_fgsm", "fgsm_minus_ifgsm_loss", "zero_entries"):
        one, other = (
            frame[frame["quantity"] == quantity]["value"].to_numpy() for frame in (whole, parts)
        )
        assert one == pytest.approx(other, rel=1e-12, abs=1e-12)
    losses = loss(linear.margin - EPSILON * linear.reach)
    found = whole[whole["quantity"] == "loss_along_fgsm"].set_index("along")["value"]
    assert found[EPSILON] == pytest.approx(losses.mean().item(), rel=1e-12)


def test_the_worst_is_of_all_batches():
    linear = Linear()
    table = diagnose(card(), linear, Split(linear.x, linear.y), 7).to_pandas()
    value = table.set_index("quantity")["value"]
    assert value["linearity_error_worst"] > value["linearity_error"]


def test_the_same_seed_gives_the_same_table_and_another_another():
    linear = Linear()
    images = Split(linear.x, linear.y)
    one, again, other = (diagnose(card(seed=s), linear, images, 16) for s in (3, 3, 4))
    assert one.equals(again)
    assert not one.equals(other)
    assert one.schema.names == SCHEMA.names


def test_epsilon_is_always_among_the_radii():
    for points in (3, 5, 9, 101):
        found = radii(card(points=points))
        assert len(found) == points
        assert (found[0], found[points // 2]) == (0, EPSILON)
        assert found[-1] == pytest.approx(2 * EPSILON)


@pytest.fixture
def trained(tmp_path):
    """A folder as a training leaves it, of a network that has not learned, and its data."""
    from regbench.core.network import plain  # noqa: PLC0415
    from regbench.experiment.cards import RunCard  # noqa: PLC0415
    from regbench.experiment.cells import PAPER_TRAINING  # noqa: PLC0415
    from regbench.prepare import open_data, prepare  # noqa: PLC0415

    training = {**PAPER_TRAINING, "epochs": 1, "batch_size": 8, "learning_rate": 0.1}
    data = {"source": "regbench.data.digits", "arguments": {}, "validation": 97, "split_seed": 0}
    run = RunCard.model_validate(
        {
            "data": data, "epsilon": 0.1, "training": training, "seed": 0,
            "model": {"architecture": "regbench.models.small_cnn", "arguments": {"width": 2}},
            "regularizer": {"loss": "x", "hyperparameters": {}},
        }
    )  # fmt: skip
    prepare(run.data, tmp_path, False, tmp_path / "data.safetensors")
    opened = open_data(tmp_path / "data.safetensors")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "card.json").write_text(run.text())
    torch.manual_seed(0)
    weights = plain(run.model, opened.shape, opened.classes).state_dict()
    tensors.write(folder / "best.safetensors", weights, {"card": run.key})
    return folder, opened


def test_the_stage_writes_a_sealed_table(trained):
    folder, data = trained
    out = folder / "diagnostics-x.parquet"
    text = card(images=10, epsilon=0.1, gallery=3).text()
    gallery = folder / "gallery-x.parquet"
    command = [sys.executable, "-m", "regbench.diagnose", text, "--run", folder, "--out", out]
    done = subprocess.run(
        [*command, "--gallery", gallery, "--data", data.path, "--device", "cpu"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows, about = read_table(out)
    shown, about_shown = read_table(gallery)
    assert about["status"] == about_shown["status"] == "ok"
    assert about["card"] == about_shown["card"] == json.loads(text)
    assert len(set(shown["image"].to_pylist())) == 3
    assert len(shown) == 3 * 3
    assert set(rows["n"].to_pylist()) == {10}
    expected = Diagnosis(card(images=10, epsilon=0.1), folder, data, torch.device("cpu")).table()[0]
    assert rows.drop(["value"]).to_pylist() == expected.drop(["value"]).to_pylist()
    assert rows["value"].to_pylist() == pytest.approx(expected["value"].to_pylist(), rel=1e-3)


def test_a_wrong_card_is_one_line(tmp_path):
    command = [sys.executable, "-m", "regbench.diagnose", '{"images": "x"}', "--run", tmp_path]
    files = ["--out", tmp_path / "o.parquet", "--gallery", tmp_path / "g.parquet"]
    done = subprocess.run(
        [*command, "--data", tmp_path / "no", *files],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("regbench: error: not a DiagnosisCard: ")
    assert len(done.stderr.splitlines()) == 1


def test_without_room_for_one_image_there_are_no_rows(trained, monkeypatch):
    def full(self: nn.Module, x: Tensor) -> Tensor:
        raise MemoryError

    folder, data = trained
    monkeypatch.setattr(Probe, "logits", full)
    monkeypatch.setattr("regbench.evaluation.gallery.logits", full)
    diagnosis = Diagnosis(card(images=4, gallery=2), folder, data, torch.device("cpu"))
    for rows, about in (diagnosis.table(), diagnosis.gallery()):
        assert about["status"] == "out of memory"
        assert rows.num_rows == 0
