"""The rules of a sound evaluation: rows planted to break each, and rows that keep it."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from regbench import tables
from regbench.analysis.doubts import COLUMNS, RULES, doubts, flags, silent
from regbench.analysis.rows import Rows, load, over_seeds, results
from regbench.analysis.soundness import LEVEL
from regbench.report.accuracy import accuracy, cells
from regbench.report.latex import latex
from regbench.report.summary import summary
from regbench.storage.seals import write_table

REPORTS = Path(__file__).parents[1] / "reports"
CELL = {"dataset": "digits", "model": "net", "regularizer": "fgsm_at", "method": "FGSM-AT"}
PGD = {"restarts": 1, "step_size": None, "loss": "cross_entropy", "early_stop": False}
IMAGES = 100


def under(attack, right, member="pgd", epsilon=0.1, source=None, n=IMAGES, **told):
    """What is stored of one attack on `n` images, of which those in `right` withstand it."""
    columns = {key: told.pop(key) for key in ("loss", "distance", "label") if key in told}
    correct = np.isin(np.arange(n), list(right))
    label = np.arange(n) % 10
    verdicts = {
        "image": np.arange(n), "label": label, "prediction": np.where(correct, label, 10),
        "correct": correct, "distance": 0.9 * epsilon, "loss": np.linspace(1, 2, n), **columns,
    }  # fmt: skip
    arguments = {"epsilon": epsilon, "restarts": 1} | (PGD | told if member == "pgd" else told)
    evaluation = {
        "attack": attack, "label": attack.upper(), "suite": "s", "split": "test",
        "member": f"regbench.attacks.{member}", "arguments": json.dumps(arguments),
        "epsilon": epsilon, "source": source, "seconds": 1.0, "warnings": "", "checkpoint": "best",
        "status": "ok",
        "precision": "fp32",
        **dict.fromkeys(["sweep", "value", "family"]),
    }  # fmt: skip
    return verdicts, evaluation


def rows(*attacks, seeds=(0,)):
    """The rows of runs that were all judged alike."""
    cells = [{**CELL, "seed": seed} for seed in seeds]
    runs = [
        {**cell, "rule": "fgsm_at", "cost": 2.0, "train_seconds": 3.0, "seconds": 4.0,
         "best_epoch": 2, "status": "ok", "epsilon": 0.1, "card": "c", "hyperparameters": "{}",
         "training": "{}",
         "forward_passes": 2.0, "backward_passes": 2.0, "peak_memory": 1e9,
         "peak_gpu_memory": np.nan,
         **dict.fromkeys(["device", "threads", "platform", "python", "torch", "torchvision",
                          "robustbench", "pyautoattack", "numpy", "commit", "dirty"], "x")}
        for cell in cells
    ]  # fmt: skip
    verdicts = [
        pd.DataFrame({**cell, "attack": told["attack"], **verdicts})
        for cell in cells
        for verdicts, told in attacks
    ]
    evaluations = pd.DataFrame([{**cell, **told} for cell in cells for _, told in attacks])
    curves = [
        {**cell, "epoch": 1, "loss": 1.0, "penalty": 0.0, "validation_clean": 0.9,
         "validation_ifgsm": 0.5, "seconds": 1.0}
        for cell in cells
    ]  # fmt: skip
    return Rows(
        pd.concat(verdicts, ignore_index=True), evaluations, *map(pd.DataFrame, (runs, curves))
    )


def told(*attacks):
    """Which attacks break which rules."""
    return set(doubts(rows(*attacks))[["attack", "rule"]].itertuples(index=False, name=None))


def test_every_rule_says_what_it_is_and_who_says_so():
    assert len({rule.name for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule.definition
        assert rule.source
        assert not {";", "\n"} & set(rule.name + rule.definition)  # flags are joined by semicolons


# --- one attack by itself -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("farthest", "broken"), [(0.1 + 5e-7, False), (0.1 + 2e-6, True), (0.3, True)]
)
def test_a_perturbation_is_at_most_epsilon_but_for_rounding(farthest, broken):
    distance = np.full(IMAGES, 0.1, np.float32)
    distance[3] = farthest
    expected = {("pgd", "outside the ball")} if broken else set()
    assert told(under("pgd", range(30), distance=distance)) == expected


@pytest.mark.parametrize("column", ["loss", "distance"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_counted(column, value):
    values = np.full(IMAGES, 0.05)
    assert told(under("pgd", range(30), **{column: values})) == set()
    values[[2, 5, 9]] = value
    found = doubts(rows(under("pgd", range(30), **{column: values})))
    line = found.set_index("rule").loc["not finite", "told"]
    assert line == f"{column} is NaN or infinite on 3 of 100 images"


@pytest.mark.parametrize(
    ("epsilon", "member", "arguments", "withstand", "broken"),
    [
        (0.5, "pgd", {"steps": 50}, 20, True),  # chance is 10 of 100
        (0.5, "pgd", {"steps": 50}, 17, False),  # within chance's interval
        (0.5, "autoattack", {}, 20, True),
        (0.4, "pgd", {"steps": 50}, 90, False),  # no huge radius
        (0.5, "fgsm", {}, 90, False),  # one long step overshoots
        (0.5, "pgd", {"steps": 1}, 90, False),
    ],
)
def test_at_a_huge_radius_accuracy_is_chance(epsilon, member, arguments, withstand, broken):
    attack = under("wide", range(withstand), member, epsilon, **arguments)
    assert told(attack) == ({("wide", "withstands a huge radius")} if broken else set())


@pytest.mark.parametrize(("commonest", "broken"), [(10, True), (20, False)])
def test_a_network_that_answers_one_class_withstands_nothing(commonest, broken):
    label = np.where(np.arange(IMAGES) < commonest, 0, 1 + np.arange(IMAGES) % 9)
    attack = under("wide", range(20), epsilon=0.5, steps=50, label=label)
    assert told(attack) == ({("wide", "withstands a huge radius")} if broken else set())


def test_a_transferred_attack_need_not_reach_chance():
    assert told(under("wide", range(90), epsilon=0.5, source="a", steps=50)) == set()


# --- two attacks on the same images ---------------------------------------------------------------


@pytest.mark.parametrize("source", [None, "a"])
def test_an_image_that_is_wrong_without_attack_is_wrong_under_it(source):
    clean = under("clean", range(90), "clean")
    assert told(clean, under("fgsm", range(80), "fgsm", source=source)) == set()
    # fewer right than without attack, and yet one that was not
    healed = under("fgsm", [*range(60), 95], "fgsm", source=source)
    assert told(clean, healed) == {("fgsm", "above clean accuracy")}
    (line,) = doubts(rows(clean, healed))["told"]
    assert line.startswith("1 of 100 images are right under attack and wrong without")
    assert line.endswith("accuracy 61.0%, clean 90.0%")


def test_clean_accuracy_is_compared_on_the_images_that_both_saw():
    clean = under("clean", range(10), "clean")
    assert told(clean, under("autoattack", range(10), "autoattack", n=20)) == set()


STRONGER = {
    "weaker with more steps": ({"steps": 5}, {"steps": 50}),
    "weaker with more restarts": ({"steps": 5}, {"steps": 5, "restarts": 3}),
    "weaker at a larger radius": ({"steps": 5}, {"steps": 5, "epsilon": 0.2}),
}


@pytest.mark.parametrize("rule", STRONGER)
def test_more_of_an_attack_is_not_weaker_beyond_noise(rule):
    less, more = STRONGER[rule]
    weak = under("weak", range(50), **less)
    # the exact one-sided p of k against 0 is 2^-k
    assert 2**-7 < LEVEL < 2**-6
    for right, broken in [
        (range(50), False),
        (range(56), False),
        (range(57), True),
        ([*range(1, 50), *range(50, 58)], False),  # 8 against 1: p = 0.0195
        ([*range(1, 50), *range(50, 60)], True),  # 10 against 1: p = 0.0059
        (range(20), False),
    ]:
        strong = under("strong", right, **more)
        expected = {("strong", rule)} if broken else set()
        assert told(weak, strong) == expected
        assert told(strong, weak) == expected  # in any order


@pytest.mark.parametrize("rule", STRONGER)
def test_other_attacks_and_transfers_are_not_compared(rule):
    less, more = STRONGER[rule]
    weak, strong = under("weak", range(50), **less), under("strong", range(90), **more)
    assert told(weak, strong) == {("strong", rule)}
    assert told(weak, under("strong", range(90), **more, start_radius=0.0)) == set()
    assert told(under("weak", range(50), "mifgsm", **less), strong) == set()
    # crafted elsewhere, more steps fit the source; the white-box attacks are not there
    crafted = [under("weak", range(50), source="a", **less)]
    crafted += [under("strong", range(90), source="a", **more)]
    assert told(*crafted) == set()
    assert told(weak, crafted[1]) == set()


def test_several_comparisons_share_the_level():
    weak, strong = under("weak", range(50), steps=5), under("strong", range(57), steps=50)
    middle = under("middle", range(50), steps=10)
    assert told(weak, strong) == {("strong", "weaker with more steps")}
    assert told(weak, middle, strong) == set()


def test_only_images_that_both_saw_are_compared():
    weak = under("weak", range(50), steps=5)
    # of its 50 images all withstand, as they withstand fewer steps
    assert told(weak, under("strong", range(50), steps=50, n=50)) == set()
    assert told(weak, under("strong", range(60), steps=50, n=60)) == {
        ("strong", "weaker with more steps")
    }


def test_autoattack_fools_no_fewer_than_any_white_box_attack():
    ensemble = under("autoattack", range(40), "autoattack")
    beaten = {("autoattack", "AutoAttack beaten")}
    assert told(ensemble, under("pgd", range(30), steps=5)) == beaten
    assert told(ensemble, under("pgd", range(35), steps=5)) == set()
    assert told(ensemble, under("pgd", range(30), steps=5, epsilon=0.05)) == beaten
    assert told(ensemble, under("pgd", range(30), steps=5, epsilon=0.2)) == set()
    # clean images are no attack that shares the level
    assert told(ensemble, under("pgd", range(33), steps=5)) == beaten
    clean = under("clean", range(90), "clean")
    assert told(ensemble, under("pgd", range(33), steps=5), clean) == beaten
    # on the images that AutoAttack saw
    assert told(
        under("autoattack", range(20), "autoattack", n=20), under("pgd", range(20), steps=5)
    ) == set()  # fmt: skip


def test_a_black_box_is_no_stronger_than_the_strongest_white_box():
    fgsm, pgd = under("fgsm", range(60), "fgsm"), under("pgd", range(40), steps=5)
    beaten = {("pgd", "black box beats white box")}
    weak = under("from_b", range(70), "mifgsm", source="b", steps=10)
    for right, expected in [(range(50), set()), (range(35), set()), (range(30), beaten)]:
        crafted = under("from_a", right, "mifgsm", source="a", steps=10)
        assert told(fgsm, pgd, crafted, weak) == expected
    wider = under("from_a", range(30), "mifgsm", source="a", epsilon=0.2, steps=10)
    assert told(fgsm, pgd, wider) == set()
    strong_and_wide = under("wide", range(10), epsilon=0.2, steps=5)
    narrower = under("from_a", range(30), "mifgsm", source="a", steps=10)
    assert told(fgsm, pgd, strong_and_wide, narrower) == beaten
    # the strongest on the images that the transferred attack saw
    narrow = under("from_a", range(10), "mifgsm", source="a", steps=10, n=20)
    odd = under("odd", range(12, 100), "fgsm")
    assert told(pgd, odd, narrow) == set()


def test_the_mean_loss_does_not_fall_with_more_steps():
    weak = under("weak", range(50), steps=5)
    high = weak[0]["loss"]
    noise = np.where(np.arange(IMAGES) % 2, 0.4, -0.35)
    broken = {("strong", "loss falls with more steps")}
    for loss, expected in [
        (high, set()),
        (high + 0.3, set()),
        (0.95 * high, broken),
        (0.995 * high, set()),  # a converged attack wavers
        (high - noise, set()),  # lower by 0.025 of 1.5, within noise
    ]:
        assert told(weak, under("strong", range(50), steps=50, loss=loss)) == expected


@pytest.mark.parametrize(
    "arguments", [{"loss": "margin"}, {"early_stop": True}, {"restarts": 3}], ids=str
)
def test_a_loss_that_does_not_say_how_far_an_attack_climbed_is_not_compared(arguments):
    pair = [under(name, range(50), steps=steps) for name, steps in (("weak", 5), ("strong", 50))]
    pair[1][0]["loss"] = pair[1][0]["loss"] / 2
    assert told(*pair) == {("strong", "loss falls with more steps")}
    for _, evaluation in pair:
        evaluation["arguments"] = json.dumps(json.loads(evaluation["arguments"]) | arguments)
    assert told(*pair) == set()


def test_losses_that_are_no_numbers_are_left_out_of_the_mean():
    lost = np.full(IMAGES, np.nan)
    pair = [under("weak", [], steps=5, loss=lost), under("strong", [], steps=50, loss=lost)]
    assert told(*pair) == {("weak", "not finite"), ("strong", "not finite")}
    pair = [
        under("weak", [], steps=5),
        under("strong", [], steps=50, loss=np.linspace(0.5, 1, 100)),
    ]
    pair[1][0]["loss"][:2] = np.nan
    assert told(*pair) == {("strong", "not finite"), ("strong", "loss falls with more steps")}


# --- where it is shown ----------------------------------------------------------------------------


@pytest.fixture
def doubted():
    """Three seeds; with each, AutoAttack is beaten and one distance is too long."""
    far = np.full(IMAGES, 0.1)
    far[0] = 0.2
    return rows(
        under("clean", range(98), "clean"),
        under("pgd", range(30), steps=5),
        under("autoattack", range(40), "autoattack", distance=far),
        seeds=(0, 1, 2),
    )


def test_rules_that_have_nothing_to_compare_are_told(doubted):
    names = {rule.name for rule in silent(doubted)}
    assert names == {
        "weaker with more steps", "weaker with more restarts", "weaker at a larger radius",
        "loss falls with more steps", "withstands a huge radius", "black box beats white box",
    }  # fmt: skip
    evaluations = doubted.evaluations.copy()
    nobody = doubted._replace(
        verdicts=doubted.verdicts[doubted.verdicts["attack"] == "pgd"],
        evaluations=evaluations[evaluations["attack"] == "pgd"],
    )
    assert {rule.name for rule in RULES} - {rule.name for rule in silent(nobody)} == {
        "outside the ball", "not finite",
    }  # fmt: skip


def test_a_flag_stands_on_its_own_run_and_attack_only(doubted):
    found, tidy = doubts(doubted), results(doubted)
    assert list(found.columns) == COLUMNS
    assert list(found["seed"]) == [0, 0, 1, 1, 2, 2]
    one = found[found["seed"] == 1]
    expected = np.where(
        (tidy["attack"] == "autoattack") & (tidy["seed"] == 1),
        "outside the ball; AutoAttack beaten", "",
    )  # fmt: skip
    assert list(flags(tidy, one)) == list(expected)
    # a mean is in doubt if one of its seeds is
    means = over_seeds(tidy)
    for some in (one, found):  # each rule once
        assert dict(zip(means["attack"], flags(means, some), strict=True)) == {
            "clean": "", "pgd": "", "autoattack": "outside the ball; AutoAttack beaten",
        }  # fmt: skip


def test_a_cell_in_doubt_bears_a_dagger(doubted):
    means, found = over_seeds(results(doubted)), doubts(doubted)
    (table,), (part,) = (of(means, doubts=found).values() for of in (accuracy, cells))
    assert table.loc[0, "AUTOATTACK"] == "40.0 ± 0.0†"
    assert table.loc[0, "PGD"] == "30.0 ± 0.0"
    text = latex(table, part, set())
    assert r"40.0 $\pm$ 0.0$^\dagger$" in text
    assert r"$^\dagger$: in doubt" in text
    assert "†" not in accuracy(means)["digits"].to_string()


def test_the_page_explains_the_dagger_and_tells_each_doubt(doubted):
    found, tidy = doubts(doubted), results(doubted)
    shown = list(accuracy(over_seeds(tidy), doubts=found).values())
    page = summary(doubted, tidy, shown, pd.DataFrame(), found)
    assert "† in doubt" in page
    assert (
        "* digits, net, FGSM-AT, seed 1, AUTOATTACK: 40.0% of 100 images withstand it, 30.0%"
        " withstand PGD; 10 withstand it alone, 0 the other alone" in page
    )
    sound = summary(doubted, tidy, list(accuracy(over_seeds(tidy)).values()), pd.DataFrame())
    assert "†" not in sound
    assert (
        "quoted.\n\nNothing to compare for: weaker with more steps; weaker with more restarts;"
        " weaker at a larger radius; loss falls with more steps; withstands a huge radius;"
        " black box beats white box.\n\nNone.\n\n##" in sound
    )


def test_an_attack_that_found_no_memory_is_not_doubted_and_the_others_are():
    known = rows(under("pgd", range(50), distance=0.2), under("autoattack", (), "autoattack"))
    kept = known.verdicts[known.verdicts["attack"] == "pgd"]
    found = doubts(known._replace(verdicts=kept))
    assert list(found["attack"] + ": " + found["rule"]) == ["pgd: outside the ball"]


def test_the_stage_writes_doubts_and_flags(doubted, tmp_path, monkeypatch):
    for name, frame in doubted._asdict().items():
        table = pa.Table.from_pandas(frame, preserve_index=False)
        write_table(tmp_path / f"{name}.parquet", table, {"rows": len(frame)})
    monkeypatch.setattr(sys, "argv", ["regbench.tables", str(tmp_path)])
    tables.main()
    assert len(pd.read_csv(tmp_path / "doubts.csv")) == 6
    tidy = pd.read_csv(tmp_path / "results.csv").set_index(["attack", "seed"])
    assert tidy.loc[("autoattack", 2), "flags"] == "outside the ball; AutoAttack beaten"
    assert tidy["flags"].notna().sum() == 3
    assert "†" in (tmp_path / "accuracy.md").read_text()


# --- rows of real runs ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["demo", "mnist"])
def test_what_the_referee_guarantees_holds_in_the_stored_reports(name):
    found = doubts(load(REPORTS / name))
    assert not {"outside the ball", "above clean accuracy"} & set(found["rule"])


@pytest.mark.parametrize(
    ("strong", "weak", "rules"),
    [
        ("autoattack", "fgsm", {"AutoAttack beaten"}),
        ("pgd_steps@100", "pgd_steps@1", {"weaker with more steps", "loss falls with more steps"}),
        ("pgd_radius@0.4", "pgd_radius@0.1", {"weaker at a larger radius"}),
    ],
)
def test_two_attacks_of_the_demo_interchanged_are_found(strong, weak, rules):
    stored = load(REPORTS / "demo")
    before = doubts(stored)
    verdicts = stored.verdicts.copy()
    here = (verdicts["method"] == "FGSM-AT") & (verdicts["seed"] == 1)
    other = {strong: weak, weak: strong}
    swapped = verdicts.loc[here, "attack"].astype(str).map(lambda name: other.get(name, name))
    verdicts.loc[here, "attack"] = pd.Categorical(
        swapped, verdicts["attack"].cat.categories, ordered=True
    )
    found = doubts(stored._replace(verdicts=verdicts))
    new = found[~found.apply(tuple, axis=1).isin(set(before.apply(tuple, axis=1)))]
    assert set(new["method"]) == {"FGSM-AT"}
    assert set(new["seed"]) == {1}
    assert set(new[new["attack"] == strong]["rule"]) >= rules
