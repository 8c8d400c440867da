"""The transfer matrix: what other networks' adversarial images leave right, beside one's own."""

import json
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from regbench.analysis.attacked import Attacked
from regbench.analysis.rows import Rows, load
from regbench.figures import look
from regbench.figures.transfer_matrix import nearest, transfer_matrix

REPORTS = Path(__file__).parents[1] / "reports"
EPSILON = 0.2
METHODS = ["natural", "FGSM-AT"]


def attack(name, right, member="fgsm", source=None, epsilon=EPSILON, n=100, **told):
    """One attack on every run: how many of `n` images withstand it, by method."""
    return {
        "attack": name, "label": name, "right": right, "n": n, "source": source,
        "sweep": told.pop("sweep", None), "member": f"regbench.attacks.{member}",
        "epsilon": epsilon, "arguments": json.dumps(told), "warnings": "",
    }  # fmt: skip


def rows(*attacks, seeds=1, dataset="digits"):
    """Rows of both methods; of each further seed one image more withstands."""
    verdicts, evaluations, runs = [], [], []
    for place, method in enumerate(METHODS):
        for seed in range(seeds):
            run = {"dataset": dataset, "model": "net", "regularizer": method, "method": method}
            run["seed"] = seed
            runs.append({**run, "best_epoch": 1})
            for one in attacks:
                told = {key: value for key, value in one.items() if key not in ("right", "n")}
                evaluations.append({**run, **told})
                images = np.arange(one["n"])
                right = images < one["right"][place] + seed
                verdicts.append(
                    pd.DataFrame(
                        {**run, "attack": one["attack"], "image": images, "correct": right}
                    )
                )
    frames = pd.concat(verdicts, ignore_index=True), pd.DataFrame(evaluations), pd.DataFrame(runs)
    for frame in frames:
        frame["method"] = pd.Categorical(frame["method"], METHODS, ordered=True)
    return Rows(*frames, pd.DataFrame())


@pytest.fixture(autouse=True)
def style():
    mpl.use("Agg")
    look()
    yield
    plt.close("all")


def shown(figure, panel=0):
    """The numbers in the cells, by row and column, and those that are framed."""
    axes = figure.axes[panel]
    lines, columns = (
        [label.get_text() for label in labels]
        for labels in (axes.get_yticklabels(), axes.get_xticklabels())
    )
    cells = {}
    for text in axes.texts:
        column, line = (int(place) for place in text.get_position())
        cells[lines[line], columns[column]] = text.get_text()
    framed = {(lines[int(one.get_y())], columns[int(one.get_x())]) for one in axes.patches}
    return lines, columns, cells, framed


CLEAN = attack("clean", (99, 98), "clean", epsilon=0)
FGSM = attack("fgsm", (20, 90))


def test_cells_are_means_over_seeds_and_the_first_rows_white_box():
    figure = transfer_matrix(rows(CLEAN, FGSM, attack("t", (60, 70), source="a"), seeds=3))
    lines, columns, cells, _ = shown(figure)
    assert lines == ["white box: fgsm", "a: t"]
    assert columns == METHODS
    assert cells == {
        ("white box: fgsm", "natural"): "21.0", ("white box: fgsm", "FGSM-AT"): "91.0",
        ("a: t", "natural"): "61.0", ("a: t", "FGSM-AT"): "71.0",
    }  # fmt: skip
    assert figure.axes[0].get_title() == "digits, net"


@pytest.mark.parametrize(("right", "framed"), [(87, True), (89, False), (95, False)])
def test_a_transferred_attack_that_beats_white_box_is_framed_and_told(right, framed):
    figure = transfer_matrix(rows(CLEAN, FGSM, attack("t", (60, right), source="a")))
    assert shown(figure)[3] == ({("a: t", "FGSM-AT")} if framed else set())
    told = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    expected = "more than 2 points below the attack like it on the network itself"
    assert told == [expected] * framed


def test_white_box_is_of_the_images_that_the_transferred_attack_saw():
    # of its 40 images 30 withstand white box, and 25 the transfer
    few = attack("t", (25, 25), source="a", n=40)
    figure = transfer_matrix(rows(attack("fgsm", (30, 30)), few))
    _, _, cells, framed = shown(figure)
    assert cells["white box: fgsm", "natural"] == "75.0"
    assert cells["a: t", "natural"] == "62.5"
    assert framed == {("a: t", method) for method in METHODS}


def test_the_attacks_of_one_source_stand_together_each_beside_its_like():
    figure = transfer_matrix(
        rows(
            FGSM,
            attack("pgd", (1, 80), "pgd", steps=20),
            attack("b1", (60, 85), source="b"),
            attack("a1", (60, 85), source="a"),
            attack("b2", (60, 85), "pgd", source="b", steps=20),
        )
    )
    lines, _, _, framed = shown(figure)
    assert lines == ["white box: fgsm", "white box: pgd", "b: b1", "b: b2", "a: a1"]
    # 85 is less than FGSM's own 90, but more than PGD's own 80
    assert framed == {("b: b1", "FGSM-AT"), ("a: a1", "FGSM-AT")}


def test_a_network_that_was_not_trained_is_in_no_cell():
    seen = rows(attack("far", (60, 50), source="other"), seeds=5)
    lost = (seen.runs["method"] == METHODS[0]) & (seen.runs["seed"] > 0)
    part = seen._replace(runs=seen.runs.assign(best_epoch=seen.runs["best_epoch"].mask(lost, 0)))
    before, after = (shown(transfer_matrix(one))[2] for one in (seen, part))
    changed = {key for key in before if before[key] != after[key]}
    (cell,) = changed
    assert METHODS[0] in cell
    assert (float(before[cell]), float(after[cell])) == (62, 60)


def test_of_another_radius_nothing_is_compared():
    figure = transfer_matrix(rows(FGSM, attack("t", (0, 0), source="a", epsilon=0.3)))
    lines, _, cells, framed = shown(figure)
    assert lines == ["a: t"]
    assert set(cells.values()) == {"0.0"}
    assert not framed


def test_more_steps_than_the_white_box_attack_has_are_no_sign():
    stronger = attack("t", (0, 0), "pgd", source="a", steps=20)
    for own, framed in ((FGSM, False), (attack("aa", (20, 90), "autoattack"), True)):
        lines, _, cells, found = shown(transfer_matrix(rows(own, stronger)))
        assert lines == [f"white box: {own['label']}", "a: t"]
        assert cells["a: t", "FGSM-AT"] == "0.0"
        assert bool(found) is framed


def test_a_run_without_a_verdict_is_left_out():
    known = rows(FGSM, attack("t", (60, 70), source="a"))
    there = known.verdicts["method"] == "FGSM-AT"
    assert shown(transfer_matrix(known._replace(verdicts=known.verdicts[there])))[1] == ["FGSM-AT"]


def test_what_was_not_run_is_blank():
    known = rows(FGSM, attack("t", (60, 70), source="a"))
    lost = (known.verdicts["attack"] == "t") & (known.verdicts["method"] == "natural")
    figure = transfer_matrix(known._replace(verdicts=known.verdicts[~lost]))
    figure.canvas.draw()
    assert set(shown(figure)[2]) == {("white box: fgsm", "FGSM-AT"), ("a: t", "FGSM-AT")}


def test_a_panel_of_each_data_set():
    one = rows(FGSM, attack("t", (60, 70), source="a"))
    other = rows(FGSM, attack("u", (10, 20), source="b"), dataset="letters")
    both = [pd.concat(frames, ignore_index=True) for frames in zip(one, other, strict=False)]
    for frame in both[:3]:
        frame["method"] = pd.Categorical(frame["method"], METHODS, ordered=True)
    figure = transfer_matrix(Rows(*both[:3], pd.DataFrame()))
    assert [axes.get_title() for axes in figure.axes[:2]] == ["digits, net", "letters, net"]
    assert shown(figure, 0)[0] == ["white box: fgsm", "a: t"]
    assert shown(figure, 1)[0] == ["white box: fgsm", "b: u"]


def test_without_transferred_attacks_it_says_so():
    swept = attack("s", (1, 1), source="a", sweep="epsilon")
    demo = load(REPORTS / "demo")
    own = demo._replace(evaluations=demo.evaluations[demo.evaluations["source"].isna()])
    for known in (rows(CLEAN, FGSM), rows(CLEAN, FGSM, swept), own):
        (axes,) = transfer_matrix(known).axes
        assert "crafted on another network was run" in (axes.texts[0].get_text())


def known(name, member, source=None, epsilon=EPSILON, first=0, **arguments):
    verdicts = pd.DataFrame({"correct": [True, False]}, index=[first, first + 1])
    return Attacked(
        name, name, f"regbench.attacks.{member}", arguments, epsilon, source, "", {}, verdicts
    )


ONE_STEP = known("fgsm", "fgsm")
TEN, FIFTY = known("ten", "pgd", steps=10), known("fifty", "pgd", steps=50)
RESTARTED = known("restarted", "pgd", steps=50, restarts=5)
ENSEMBLE = known("aa", "autoattack")
UNLIKE = (
    known("clean", "clean"), known("wide", "mifgsm", epsilon=0.3, steps=10),
    known("elsewhere", "mifgsm", steps=10, first=9), known("other", "mifgsm", "b", steps=10),
)  # fmt: skip


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (known("t", "fgsm", "a"), "fgsm"),
        (known("t", "pgd", "a", steps=12), "ten"),
        (known("t", "pgd", "a", steps=40, restarts=5), "restarted"),
        (known("t", "mifgsm", "a", steps=10), "ten"),
        (known("t", "mifgsm", "a", steps=30), "fifty"),
        (known("t", "rfgsm", "a"), "fgsm"),
        (known("t", "autoattack", "a"), "aa"),
    ],
)
def test_the_nearest_is_of_the_kind_and_then_of_the_steps(one, expected):
    run = (*UNLIKE, ENSEMBLE, ONE_STEP, TEN, FIFTY, RESTARTED)
    assert nearest(one, run).name == expected


def test_none_is_near_where_there_is_none():
    assert nearest(known("t", "mifgsm", "a", steps=10), UNLIKE) is None
