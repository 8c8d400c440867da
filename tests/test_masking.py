"""The panel and its verdicts: planted rows for each rule, and planted networks for the whole."""

import json
from math import nan

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from regbench.analysis import overfitting as overfit
from regbench.analysis.criteria import BASE, SIGNS
from regbench.analysis.masking import COLUMNS, VERDICTS, panel, verdict
from regbench.analysis.overfitting import onsets, overfitting
from regbench.analysis.rows import UNMEASURED, Rows
from regbench.analysis.symptoms import QUANTITIES
from regbench.attacks.clean import Clean
from regbench.attacks.fgsm import FGSM
from regbench.attacks.pgd import PGD
from regbench.data.digits import Digits
from regbench.evaluation.diagnosis import diagnose
from regbench.evaluation.verdicts import judge
from regbench.experiment.cards import DiagnosisCard, RunCard
from regbench.experiment.cells import PAPER_TRAINING
from regbench.models.small_cnn import SmallCNN
from regbench.prepare import Split
from regbench.regularizers.natural import Natural
from regbench.regularizers.pgd_at import PGDAT
from regbench.report.sections import verdicts
from regbench.training.loop import fit

CELL = {"dataset": "digits", "model": "net", "regularizer": "fgsm_at", "method": "FGSM-AT"}
RUN = {**CELL, "seed": 0}
EPSILON = 0.2
IMAGES = 100


def under(name, right, member="pgd", epsilon=EPSILON, source=None, warnings="", n=IMAGES, **told):
    """What is stored of one attack on `n` images, of which the first `right` withstand it."""
    verdicts = pd.DataFrame(
        {**RUN, "attack": name, "image": range(n), "correct": np.arange(n) < right,
         "label": np.arange(n) % 10, "loss": 1.0, "distance": 0.0}
    )  # fmt: skip
    evaluation = {
        **RUN, "attack": name, "label": name, "member": f"regbench.attacks.{member}",
        "epsilon": epsilon, "arguments": json.dumps(told), "source": source, "warnings": warnings,
    }  # fmt: skip
    return verdicts, evaluation


def clean(right=98):
    return under("clean", right, "clean")


def fgsm(right):
    return under("fgsm", right, "fgsm")


def pgd(right, **told):
    return under(told.pop("name", "pgd"), right, **{"steps": 20, "restarts": 1, **told})


RESTARTED = [pgd(69, name="restarts", restarts=5)]


def measured(**values):
    """Diagnostics of an honest network, but for `values`; `loss` and `right` are curves."""
    loss = values.pop("loss", [0.1, 0.3, 0.6, 1.2, 2.4])
    right = values.pop("right", [0.98, 0.9, 0.8, 0.5, 0.2])
    honest = {
        "not_rising": 0.01, "falling": 0.01,
        "fgsm_minus_rfgsm_loss": 0.2, "fgsm_minus_ifgsm_loss": -0.1,
        "fgsm_to_rfgsm_logits": 1.0, "fgsm_to_ifgsm_logits": 0.5, "linearity_error": 0.2,
        "linearity_error_worst": 2.0, "gradient_alignment": 0.8, "zero_gradient": 0.0,
        "zero_entries": 0.1,
    }  # fmt: skip
    rows = [{"quantity": key, "value": value} for key, value in {**honest, **values}.items()]
    for quantity, curve in {"loss_along_fgsm": loss, "accuracy_along_fgsm": right}.items():
        rows += [
            {"quantity": quantity, "along": EPSILON / 2 * place, "value": value}
            for place, value in enumerate(curve)
        ]
    return pd.DataFrame([{**RUN, "along": nan, "across": nan, "n": 100, **row} for row in rows])


def curve(robust, accurate=None):
    accurate = accurate or [0.9] * len(robust)
    epochs = range(1, len(robust) + 1)
    return pd.DataFrame(
        {**RUN, "epoch": epochs, "validation_ifgsm": robust, "validation_clean": accurate}
    )


def rows(*attacks, diagnostics=UNMEASURED, learning=None):
    runs = pd.DataFrame([{**RUN, "epsilon": EPSILON}])
    verdicts = pd.concat([one for one, _ in attacks], ignore_index=True)
    evaluations = pd.DataFrame([one for _, one in attacks])
    learning = curve([0.5, 0.6]) if learning is None else learning
    return Rows(verdicts, evaluations, runs, learning, diagnostics)


def of(*attacks, **told):
    """The one row of the panel."""
    table = panel(rows(*attacks, **told))
    assert list(table.columns) == COLUMNS
    assert len(table) == 1
    return table.iloc[0]


# --- quantities -----------------------------------------------------------------------------------


def test_accuracies_are_compared_on_the_images_that_both_attacks_saw():
    found = of(clean(), fgsm(80), pgd(20, n=40), under("aa", 10, "autoattack", n=50))
    assert found["fgsm"] == 0.8
    assert found["fgsm_minus_pgd"] == pytest.approx(1 - 0.5)  # of the first 40 images
    assert found["fgsm_minus_autoattack"] == pytest.approx(1 - 0.2)
    assert found["kept"] == pytest.approx(0.2)
    assert found["promised"] == pytest.approx(80 / 98)


def test_the_strongest_is_so_on_the_images_that_all_attacks_saw():
    """Not what saw harder images: of the first 40 AutoAttack leaves 25 %, a weaker PGD half."""
    verdicts, evaluation = under("aa", 0, "autoattack")
    image = verdicts["image"]
    harder_first = (verdicts.assign(correct=(image < 10) | image.between(40, 89)), evaluation)
    found = of(clean(), harder_first, pgd(20, name="of few", n=40))
    assert found["kept"] == pytest.approx(60 / 98)


def test_the_same_attack_on_a_few_images_more_turns_no_verdict():
    """Chosen where FGSM is ahead, ten images say 100 points; they add nothing to what all say."""
    verdicts, evaluation = pgd(70)
    few = verdicts[verdicts["image"].between(70, 79)].assign(attack="few")
    again = (few, {**evaluation, "attack": "few"})
    alone, both = of(clean(), fgsm(80), pgd(70)), of(clean(), fgsm(80), pgd(70), again)
    assert alone["fgsm_minus_pgd"] == both["fgsm_minus_pgd"] == 0.1
    assert alone["kept"] == both["kept"] == pytest.approx(70 / 98)
    right = verdicts[verdicts["image"] < 20].assign(attack="most")
    stronger = (right.assign(correct=right["image"] >= 10), {**evaluation, "attack": "most"})
    found = of(clean(), fgsm(80), pgd(70), stronger)
    assert found["fgsm_minus_pgd"] == 0.6  # 0.1 of all, and 10 of 20 besides


def test_attacks_of_another_radius_or_source_do_not_count():
    others = (
        pgd(5, name="wide", epsilon=0.3),
        pgd(5, name="transferred", source="other"),
        pgd(5, name="one step", steps=1),
    )
    found = of(clean(), fgsm(80), pgd(70), *others)
    assert found["pgd"] == 0.7
    assert found["fgsm_minus_pgd"] == pytest.approx(0.1)
    assert found["transfer_gain"] == pytest.approx(0.65)


def test_what_restarts_gain_is_over_the_strongest_without():
    found = of(clean(), pgd(60), pgd(50, name="more", steps=90), pgd(35, name="often", restarts=5))
    assert found["restart_gain"] == pytest.approx(0.15)
    assert np.isnan(of(clean(), pgd(60))["restart_gain"])


@pytest.mark.parametrize("once", range(20, 200, 7))
def test_what_restarts_gain_is_exactly_what_they_take(once):
    found = of(pgd(once, n=200), pgd(once - 20, name="often", restarts=5, n=200))
    assert found.restart_gain == 0.1  # and so not above it, which would be a sign


@pytest.mark.parametrize(
    ("warnings", "gain"),
    [
        ("", 0),
        ("there are 3 points with zero gradient!", 0),
        ("Square Attack has decreased the robust accuracy of 4.50%. This might", 0.045),
    ],
)
def test_squares_gain_is_what_autoattack_says_itself(warnings, gain):
    found = of(clean(), under("aa", 10, "autoattack", warnings=warnings))
    assert found["square_gain"] == pytest.approx(gain)
    assert np.isnan(of(clean(), pgd(10))["square_gain"])


@pytest.mark.parametrize(
    ("after", "gain"),
    [
        ({"apgd-ce": 0.5, "fab-t": 0.45, "square": 0.43}, 0.02),  # exactly: no sign
        ({"apgd-ce": 0.5, "apgd-dlr": 0.4}, 0.0),
        ({"square": 0.4}, 0.0),
        ({"fab": 0.6, "square": 0.5, "apgd-t": 0.4}, 0.1),  # what comes after takes no credit
    ],
)
def test_squares_gain_is_of_all_images_where_what_each_attack_leaves_was_kept(after, gain):
    verdicts, evaluation = under("aa", 43, "autoattack", warnings="")
    found = of(clean(), (verdicts, evaluation | {"accuracy_after": json.dumps(after)}))
    assert found["square_gain"] == gain


def test_what_autoattack_warns_of_is_read_in_its_own_words():
    checks = pytest.importorskip("pyautoattack.checks")
    with pytest.warns(Warning, match="Square") as caught:
        checks.check_square_sr({"apgd-ce": 0.5, "fab-t": 0.48, "square": 0.4})
    attack = under("aa", 10, "autoattack", warnings=str(caught[0].message))
    assert of(clean(), attack)["square_gain"] == pytest.approx(0.08)


def test_chance_is_what_the_commonest_label_alone_gets_right():
    label = np.where(np.arange(IMAGES) < 30, 0, 1 + np.arange(IMAGES) % 9)
    constant = [
        (verdicts.assign(label=label), evaluation)
        for verdicts, evaluation in (clean(30), pgd(30, epsilon=0.5))
    ]
    found = of(*constant)
    assert found["clean_above_chance"] == found["huge_above_chance"] == 0
    assert of(clean(30))["clean_above_chance"] == pytest.approx(0.2 / 0.03)


def test_at_a_huge_radius_chance_is_subtracted():
    found = of(clean(), pgd(30, name="wide", epsilon=0.5), pgd(25, name="wider", epsilon=0.6))
    assert found["huge_above_chance"] == pytest.approx(0.15)
    assert np.isnan(of(clean(), pgd(30, epsilon=0.4))["huge_above_chance"])


def test_the_curve_along_fgsm_gives_dip_and_label_leaking():
    dips = measured(loss=[0.1, 0.8, 0.2, 3.0, 4.0], right=[0.9, 0.5, 0.95, 0.2, 0.1])
    found = of(clean(), diagnostics=dips)
    assert found["loss_dip"] == pytest.approx(1 - 0.2 / 0.8)
    assert found["fgsm_above_clean"] == pytest.approx(0.05)
    assert found["promised"] == pytest.approx(0.95 / 0.9)
    assert "FGSM above clean: 0.05 (> 0); loss falls again: 0.75 (> 0.05)" in found["reasons"]
    honest = of(clean(), diagnostics=measured())
    assert honest["loss_dip"] == 0
    assert honest["fgsm_above_clean"] == pytest.approx(-0.18)


def test_loss_ratios_follow_from_the_gaps():
    found = of(clean(), diagnostics=measured())
    assert found["fgsm_to_rfgsm_loss_ratio"] == pytest.approx(0.6 / 0.4)
    assert found["fgsm_to_ifgsm_loss_ratio"] == pytest.approx(0.6 / 0.7)


# --- the written rule -----------------------------------------------------------------------------


def test_every_criterion_has_a_bound_a_definition_and_a_source():
    assert len({one.name for one in SIGNS}) == len(SIGNS)
    for one in SIGNS:
        assert one.quantity in QUANTITIES
        assert one.definition
        assert one.source
        assert one.bound[2:] not in {"inf", "-inf"}
        assert not {";", "\n"} & set(one.name)  # reasons are joined by semicolons


HONEST = {
    **dict.fromkeys(QUANTITIES, 0.0), "clean_above_chance": 50.0, "promised": 0.8, "kept": 0.6,
    "fgsm_to_rfgsm_loss_ratio": 1.4, "fgsm_to_ifgsm_loss_ratio": 0.9, "gradient_alignment": 0.8,
}  # fmt: skip
MISSING = dict.fromkeys(QUANTITIES, nan)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (HONEST, "robust"),
        (HONEST | {"clean_above_chance": 1.0}, "collapsed"),
        (HONEST | {"promised": 0.1, "kept": 0.0}, "not robust"),
        (HONEST | {"kept": 0.2}, "not robust"),
        (HONEST | {"promised": 0.1, "kept": 0.0, "zero_gradient": 0.5}, "not robust"),
        (HONEST | {"zero_gradient": nan}, "unknown"),
        (HONEST | {"kept": nan}, "unknown"),
        (HONEST | {"transfer_gain": nan, "square_gain": nan}, "robust"),
        (MISSING, "unknown"),
        (MISSING | {"promised": 0.9, "zero_gradient": 0.9}, "pseudo-robust"),
    ],
)
def test_verdicts(values, expected):
    assert verdict(values)["verdict"] == expected


@pytest.mark.parametrize("sign", SIGNS, ids=lambda sign: sign.name)
def test_each_sign_alone_makes_what_looks_robust_pseudo_robust(sign):
    beyond = sign.above + 0.01 if sign.below == float("inf") else sign.below - 0.01
    within = sign.above - 0.01 if sign.below == float("inf") else sign.below + 0.01
    found = verdict(HONEST | {sign.quantity: beyond})
    assert found["verdict"] == "pseudo-robust"
    assert found["reasons"].startswith(f"{sign.name}: ")
    assert verdict(HONEST | {sign.quantity: within})["verdict"] == "robust"


@pytest.mark.parametrize("number", [float, np.float64, np.float32])
def test_a_number_of_any_kind_is_a_number(number):
    values = {name: number(value) for name, value in (HONEST | {"loss_dip": 0.5}).items()}
    assert verdict(values)["verdict"] == "pseudo-robust"
    assert verdict({**values, "loss_dip": number(0)})["verdict"] == "robust"


def test_what_could_not_be_looked_for_is_told():
    found = verdict(HONEST | {"transfer_gain": nan, "square_gain": nan})
    assert found["missing"] == "transfer beats white box; Square beats white box"
    assert "looks robust: 0.8 (> 0.333)" in found["reasons"]
    assert "withstands: 0.2 (not > 0.333)" in verdict(HONEST | {"kept": 0.2})["reasons"]


def test_an_experiment_without_diagnostics_calls_nobody_robust():
    assert of(clean(), fgsm(80), pgd(70))["verdict"] == "unknown"
    assert of(clean(), fgsm(80), pgd(10))["verdict"] == "pseudo-robust"
    found = of(clean(), fgsm(80), pgd(70), *RESTARTED, diagnostics=measured())
    assert found["verdict"] == "robust"


@pytest.mark.parametrize("searching", [RESTARTED, [under("autoattack", 69, "autoattack")]])
def test_nobody_is_robust_by_one_climb_from_one_start(searching):
    tried = clean(), fgsm(80), pgd(70)
    assert of(*tried, diagnostics=measured())["verdict"] == "unknown"
    assert of(*tried, *searching, diagnostics=measured())["verdict"] == "robust"


def test_a_run_without_verdicts_or_measurements_is_unknown():
    """No attack on it found room for an image."""
    stored = rows(clean(), fgsm(80))
    stored.verdicts["seed"] = 1
    assert panel(stored).iloc[0]["verdict"] == "unknown"


def test_a_run_that_nothing_was_asked_of_has_no_verdict():
    """Such as one that others' images are crafted on, before it was judged itself."""
    stored = rows(clean(), fgsm(80))
    twin = pd.concat([stored.runs, stored.runs.assign(seed=1)], ignore_index=True)
    assert list(panel(stored._replace(runs=twin))["seed"]) == [0]
    assert panel(stored._replace(runs=twin.tail(1))).empty


def test_the_page_shows_verdicts_and_the_rule():
    table = panel(rows(clean(), fgsm(90), pgd(1), diagnostics=measured()))
    page = verdicts.section(table)
    assert "| pseudo-robust |" in page
    assert all(f"* *{name}*: {meaning}." in page for name, meaning, _ in VERDICTS)
    told = [f"* {one.name} ({one.bound}): {one.definition}." for one in (*BASE, *SIGNS)]
    assert all(line in page for line in told)
    assert verdicts.section(table.iloc[:0]) == "Not judged."


# --- catastrophic overfitting ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("robust", "accurate", "expected"),
    [
        ([0.3, 0.5, 0.29, 0.0], [0.8, 0.8, 0.8, 0.8], (3, 0.5)),
        ([0.3, 0.5, 0.31, 0.3], [0.8, 0.8, 0.8, 0.8], (None, 0.0)),  # 19 and 20 points
        ([0.1, 0.0, 0.0, 0.0], [0.8, 0.9, 0.9, 0.9], (None, 0.0)),  # never was robust
        ([0.3, 0.5, 0.1, 0.1], [0.8, 0.8, 0.1, 0.1], (None, 0.0)),  # loses both
        ([0.5, 0.1, 0.6, 0.2], [0.8, 0.8, 0.9, 0.9], (2, 0.4)),  # the first onset
        ([0.5, nan, 0.1, 0.1], [0.8, 0.8, 0.8, 0.8], (3, 0.4)),
        ([0.5], [0.8], (None, 0.0)),
    ],
)
def test_onset_and_drop(robust, accurate, expected):
    found = overfitting(curve(robust, accurate).sample(frac=1, random_state=0))
    assert (found.onset, pytest.approx(found.drop)) == expected


def test_the_panel_says_when_a_run_overfits():
    found = of(clean(), fgsm(80), learning=curve([0.4, 0.5, 0.1]))
    assert (found["overfitting_onset"], found["overfitting_drop"]) == (3, pytest.approx(0.4))
    table = onsets(rows(clean(), learning=curve([0.4, 0.5])))
    assert list(table.columns) == overfit.COLUMNS
    assert table["onset"].isna().all()


# --- planted networks -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits():
    """Images to train on, to select on and to judge by."""
    found = Digits()(None, False)
    x = torch.from_numpy(np.concatenate([found.x_train, found.x_test])).float() / found.scale
    y = torch.from_numpy(np.concatenate([found.y_train, found.y_test])).long()
    parts = (slice(0, 1000), slice(1000, 1200), slice(1200, 1400))
    return [Split(x[part], y[part]) for part in parts]


def trained(loss, digits):
    """A small network after a few epochs, and the learning curve."""
    card = RunCard.model_validate(
        {
            "data": {"source": "x", "arguments": {}, "validation": 1, "split_seed": 0},
            "model": {"architecture": "x", "arguments": {}},
            "regularizer": {"loss": "x", "hyperparameters": {}},
            "epsilon": EPSILON, "seed": 0,
            "training": {**PAPER_TRAINING, "epochs": 10, "batch_size": 32, "learning_rate": 0.05},
        }
    )  # fmt: skip
    torch.manual_seed(0)
    model = SmallCNN(shape=(1, 8, 8), classes=10, width=8)
    found = fit(card, model, loss, digits[0], digits[1], lambda row: None)
    model.load_state_dict(found.best)
    return model.eval().requires_grad_(False), pd.DataFrame(found.curve).assign(**RUN)


@pytest.fixture(scope="module")
def natural(digits):
    return trained(Natural(), digits)


@pytest.fixture(scope="module")
def honest(digits):
    return trained(PGDAT(steps=5, step_size=0.07), digits)


class Scaled(nn.Module):
    """Logits × 10⁶: the softmax is 0 or 1, and its gradient nothing."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        return 1e6 * self.model(x)


class Quantised(Scaled):
    """Pixels rounded to 17 levels, as digits have: it changes no image, and has no slope."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        return self.model((16 * x).round() / 16)


def examined(model, images, learning):
    """The panel's row of a network, attacked and measured."""
    attacks = {
        "clean": Clean(epsilon=0), "fgsm": FGSM(epsilon=EPSILON),
        "pgd": PGD(epsilon=EPSILON, steps=20), "often": PGD(epsilon=EPSILON, steps=20, restarts=3),
    }  # fmt: skip
    stored = []
    for name, attack in attacks.items():
        told = {key: getattr(attack, key, 1) for key in ("steps", "restarts")}
        member = type(attack).__module__.rpartition(".")[2]
        verdicts, evaluation = under(name, 0, member, attack.epsilon, n=len(images.y), **told)
        found = judge(model, attack, images, batch_size=100, seed=0)
        stored.append(
            (verdicts.assign(correct=found.correct.numpy(), label=images.y.numpy()), evaluation)
        )
    card = DiagnosisCard(
        images=200, split="test", checkpoint="best", batch_size=100, seed=0, epsilon=EPSILON,
        points=9,
    )  # fmt: skip
    table = diagnose(card, model, images, 100).to_pandas().astype({"quantity": str})
    return of(*stored, diagnostics=table.assign(**RUN), learning=learning)


def test_an_honest_network_is_robust(honest, digits):
    model, learning = honest
    found = examined(model, digits[2], learning)
    assert found["verdict"] == "robust", found["reasons"]
    assert found["kept"] > 0.5


def test_a_natural_network_is_not_robust(natural, digits):
    model, learning = natural
    found = examined(model, digits[2], learning)
    assert found["verdict"] == "not robust", found["reasons"]


@pytest.mark.parametrize("mask", [Scaled, Quantised])
def test_a_planted_mask_is_seen_through(mask, natural, digits):
    model, learning = natural
    found = examined(mask(model).eval(), digits[2], learning)
    assert found["promised"] > 0.9, "FGSM must be fooled, or there is nothing to see through"
    assert found["fgsm_minus_pgd"] < 0.1, "and so must PGD"
    assert found["verdict"] == "pseudo-robust"
    assert "zero gradients" in found["reasons"]
