"""Differences between methods: against closed forms, statsmodels, brute force, planted rows."""

import itertools
import math
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import beta, binomtest, norm, t
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from regbench import tables
from regbench.analysis.comparisons import (
    COLUMNS,
    INTERVALS,
    REFERENCES,
    Judged,
    comparisons,
    intervals,
    judged,
    leaders,
    references_of,
    strongest,
)
from regbench.analysis.rows import Rows, load
from regbench.analysis.statistics import interval, paired_test, verdict
from regbench.errors import UserError
from regbench.report.sections import differences

REPORTS = Path(__file__).parents[1] / "reports"
METHODS = {"natural": "natural", "fgsm_at": "FGSM-AT", "pgd_at": "PGD-AT", "mine": "mine"}


def right(share, images, seeds, random, *, spread=0.0):
    """Verdicts of several trainings, their accuracies `spread` apart, none like another."""
    shares = np.clip(share + spread * random.standard_normal(seeds), 0, 1)
    return (random.random((images, seeds)) < shares).astype(float)


def planted(random=None, images=1000, seeds=3, **shares):
    """One network under one attack, each method as often right as `shares` says."""
    random = random or np.random.default_rng(0)
    correct = {
        name: pd.DataFrame(right(share, images, seeds, random)) for name, share in shares.items()
    }
    methods = {name: METHODS[name] for name in shares}
    return Judged("digits", "net", "pgd", "PGD", methods, pd.concat(correct, axis=1))


# --- the paired test ------------------------------------------------------------------------------


@pytest.mark.parametrize(("more", "fewer"), [(0, 0), (1, 0), (3, 9), (9, 3), (8, 8), (40, 21)])
def test_with_one_seed_it_is_mcnemars_exact_test(more, fewer):
    scores = np.repeat([1, -1, 0], [more, fewer, 50])[:, None]
    expected = mcnemar([[30, more], [fewer, 20]], exact=True).pvalue
    assert paired_test(scores) == pytest.approx(expected, rel=1e-9)


def test_with_several_seeds_it_is_the_permutation_test_over_images():
    random = np.random.default_rng(1)
    for seeds in (2, 3, 5):
        scores = random.integers(-1, 2, (9, seeds))
        sums = scores.sum(1)
        signs = np.array(list(itertools.product([-1, 1], repeat=len(sums))))
        expected = np.mean(abs(signs @ sums) >= abs(sums.sum()))
        assert paired_test(scores) == pytest.approx(expected, rel=1e-9)


def test_it_knows_no_order_of_methods_and_no_p_of_zero():
    scores = np.random.default_rng(2).integers(-1, 2, (300, 3))
    assert paired_test(scores) == pytest.approx(paired_test(-scores), rel=1e-9)
    assert 0 < paired_test(np.ones((10_000, 3), int)) <= 1e-12


def test_null_differences_are_found_at_the_level_though_seeds_share_their_images():
    """An image that one method is better at with every seed must not count once per seed."""
    random = np.random.default_rng(3)
    found, naive = [], []
    for _ in range(400):
        favours = random.normal(0, 0.25, (200, 1))  # of mean 0 over images
        verdicts = [
            (random.random((200, 5)) < np.clip(0.5 + sign * favours, 0, 1)).astype(int)
            for sign in (1, -1)
        ]
        scores = verdicts[0] - verdicts[1]
        found.append(paired_test(scores) < 0.05)
        more, fewer = int((scores > 0).sum()), int((scores < 0).sum())
        naive.append(binomtest(more, more + fewer).pvalue < 0.05)
    assert binomtest(sum(found), 400, 0.05, alternative="greater").pvalue > 0.01
    assert binomtest(sum(found), 400, 0.05, alternative="less").pvalue > 0.01  # nor is it deaf
    assert np.mean(naive) > 0.12  # each verdict taken for an independent one


# --- the interval ---------------------------------------------------------------------------------


def test_of_one_seed_the_interval_of_a_difference_is_that_of_normal_theory():
    random = np.random.default_rng(4)
    scores = random.choice([-1, 0, 1], (4000, 1), p=[0.1, 0.7, 0.2])
    about = interval(scores, lowest=-1)
    error = scores.std() / math.sqrt(len(scores))
    ends = [(about.low, 0.025), (about.high, 0.975), (about.low_90, 0.05), (about.high_90, 0.95)]
    for end, level in ends:
        assert end == pytest.approx(scores.mean() + norm.ppf(level) * error, abs=0.06 * error)
    assert about.value == scores.mean()
    assert about.over == "images"


@pytest.mark.parametrize(("hits", "count"), [(0, 50), (1, 50), (20, 50), (50, 50), (0, 10_000)])
def test_of_one_seed_the_interval_of_an_accuracy_is_jeffreys(hits, count):
    about = interval((np.arange(count) < hits).astype(int)[:, None], lowest=0)
    low, high = beta.ppf([0.025, 0.975], hits + 0.5, count - hits + 0.5)
    low, high = (0 if hits == 0 else low), (1 if hits == count else high)
    width = high - low
    assert (about.low, about.high) == pytest.approx((low, high), abs=0.06 * width)
    assert about.low <= about.low_90 <= about.value <= about.high_90 <= about.high


def test_seeds_that_agree_on_every_image_are_no_more_images():
    one = np.random.default_rng(5).integers(0, 2, (500, 1))
    alone, thrice = interval(one, lowest=0), interval(np.repeat(one, 3, axis=1), lowest=0)
    assert thrice[:3] == pytest.approx(alone[:3], abs=0.004)
    assert thrice.over == "seeds and images"


def test_where_seeds_differ_the_interval_is_students():
    accuracies = [0.52, 0.55, 0.61]
    scores = np.stack([np.arange(100_000) < 100_000 * one for one in accuracies], 1).astype(int)
    about = interval(scores, lowest=0)
    half = t.ppf(0.975, 2) * np.std(accuracies, ddof=1) / math.sqrt(3)
    assert about.low == pytest.approx(0.56 - half, abs=0.01 * half)
    assert about.high == pytest.approx(0.56 + half, abs=0.01 * half)


@pytest.mark.parametrize("spread", [0.0, 0.05])
def test_it_covers_the_truth_where_resampled_seeds_do_not(spread):
    random = np.random.default_rng(6)
    covered, resampled = [], []
    for _ in range(300):
        pair = [right(0.6, 400, 3, random, spread=spread) for _ in range(2)]
        scores = (pair[0] - pair[1]).astype(int)
        about = interval(scores, lowest=-1)
        covered.append(about.low <= 0 <= about.high)
        drawn = scores.mean(0)[random.integers(0, 3, (500, 3))].mean(1)
        low, high = np.quantile(drawn, [0.025, 0.975])
        resampled.append(low <= 0 <= high)
    assert binomtest(sum(covered), 300, 0.95, alternative="less").pvalue > 0.01
    assert np.mean(resampled) < 0.85


def test_the_same_rows_have_the_same_interval():
    scores = np.random.default_rng(7).integers(-1, 2, (300, 3))
    assert interval(scores, lowest=-1) == interval(scores[::-1], lowest=-1)


# --- the verdict ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-0.02, 0.03, "on par"),
        (-0.04, -0.01, "on par"),  # worse, but by less than the margin
        (-0.02, 0.08, "not below"),
        (0.02, 0.08, "not below"),
        (0.06, 0.09, "above"),
        (-0.09, -0.06, "below"),
        (-0.08, -0.02, "open"),
        (-0.08, 0.02, "open"),
        (-0.08, 0.08, "open"),
    ],
)
def test_the_verdict_is_where_the_interval_lies(low, high, expected):
    assert verdict(low, high, 0.05) == expected
    mirrored = {"on par": {"on par"}, "above": {"below"}, "below": {"above"}}
    opposite = mirrored.get(expected, {"open", "not below"})
    assert verdict(-high, -low, 0.05) in opposite


def test_at_the_margin_itself_on_par_is_claimed_at_the_level():
    random = np.random.default_rng(8)
    said = []
    for _ in range(400):
        pair = [right(share, 2000, 1, random) for share in (0.55, 0.60)]
        about = interval((pair[0] - pair[1]).astype(int), lowest=-1)
        said.append(verdict(about.low_90, about.high_90, 0.05))
    for claim in ("on par", "below"):
        assert binomtest(said.count(claim), 400, 0.05, alternative="greater").pvalue > 0.01
    assert said.count("open") > 320


# --- the tables -----------------------------------------------------------------------------------


def test_a_planted_difference_is_found_and_none_is_not():
    one = planted(images=4000, seeds=5, natural=0.5, fgsm_at=0.5, pgd_at=0.7, mine=0.7)
    table = comparisons([one], REFERENCES).set_index(["regularizer", "reference"])
    for pair, expected in {
        ("natural", "fgsm_at"): 0.0, ("natural", "pgd_at"): -0.2, ("fgsm_at", "pgd_at"): -0.2,
        ("mine", "fgsm_at"): 0.2, ("mine", "pgd_at"): 0.0,
    }.items():  # fmt: skip
        row = table.loc[pair]
        assert row["difference"] == pytest.approx(expected, abs=0.04)
        assert row["low"] <= row["low_90"] <= row["difference"] <= row["high_90"] <= row["high"]
        assert (row["p_holm"] < 1e-6) == (expected != 0)
        assert (row["low"] > 0 or row["high"] < 0) == (expected != 0)
        assert row["verdict"] == {0.0: "on par", 0.2: "above", -0.2: "below"}[expected]


def test_two_references_meet_once_and_p_is_holms_over_the_table():
    random = np.random.default_rng(9)
    both = [planted(random, natural=0.5, fgsm_at=0.51, pgd_at=0.53, mine=0.54) for _ in range(2)]
    table = comparisons(both, REFERENCES)
    assert list(table.columns) == COLUMNS
    assert list(zip(table["regularizer"], table["reference"], strict=True)) == 2 * [
        ("natural", "fgsm_at"), ("natural", "pgd_at"), ("fgsm_at", "pgd_at"),
        ("mine", "fgsm_at"), ("mine", "pgd_at"),
    ]  # fmt: skip
    assert list(table["p_holm"]) == pytest.approx(multipletests(table["p"], method="holm")[1])
    assert (table["p_holm"] >= table["p"]).all()


def test_only_images_and_seeds_that_both_saw_are_compared():
    one = planted(fgsm_at=0.5, mine=0.9)
    correct = one.correct.drop(columns=[("mine", 0)])  # out of memory
    correct.loc[:99, ("fgsm_at", 1)] = np.nan
    cut = Judged("digits", "net", "pgd", "PGD", one.methods, correct)
    (row,) = comparisons([cut], ["fgsm_at"]).itertuples()
    assert (row.n, row.seeds) == (900, 2)
    pair = [correct[name][[1, 2]].iloc[100:].to_numpy() for name in ("mine", "fgsm_at")]
    assert row.difference == pytest.approx((pair[0] - pair[1]).mean())
    sums = (pair[0] - pair[1]).sum(1)
    assert (row.more, row.fewer) == ((sums > 0).sum(), (sums < 0).sum())


def test_one_training_of_each_gives_no_verdict_on_methods():
    (row,) = comparisons([planted(fgsm_at=0.5, mine=0.9, seeds=1)], ["fgsm_at"]).itertuples()
    assert (row.seeds, row.over, row.verdict) == (1, "images", "one seed")
    assert row.low > 0.3
    assert row.p < 1e-6  # these two networks do differ


def test_who_is_not_compared_with_the_best_on_all_seeds_is_not_on_its_level():
    one = planted(pgd_at=0.7, mine=0.7)
    assert {key[2] for key in leaders([one])} == {"pgd_at", "mine"}
    other = ({"pgd_at", "mine"} - {one.best}).pop()
    correct = one.correct.drop(columns=[(other, 0)])
    cut = Judged("digits", "net", "pgd", "PGD", one.methods, correct)
    assert len(leaders([cut])) == 1


def test_methods_without_a_common_seed_have_a_row_without_numbers():
    one = planted(fgsm_at=0.5, pgd_at=0.5, mine=0.9, seeds=1)
    correct = one.correct.rename(columns={0: 7}, level=1)
    correct[("fgsm_at", 0)] = one.correct["fgsm_at", 0]
    del correct[("fgsm_at", 7)]
    apart = Judged("digits", "net", "pgd", "PGD", one.methods, correct)
    table = comparisons([apart], REFERENCES).set_index(["regularizer", "reference"])
    row = table.loc[("mine", "fgsm_at")]
    assert (row["n"], row["seeds"], row["verdict"]) == (0, 0, "cannot be compared")
    assert row[["difference", "low", "p", "p_holm"]].isna().all()
    assert table.loc[("mine", "pgd_at"), "p_holm"] < 1e-6
    assert ("digits", "net", "fgsm_at", "pgd") not in leaders([apart])


def test_every_accuracy_has_its_interval():
    table = intervals([planted(natural=0.0, mine=0.6)]).set_index("regularizer")
    assert list(table.reset_index()) == sorted(INTERVALS, key=["regularizer", *INTERVALS].index)
    none, mine = table.loc["natural"], table.loc["mine"]
    assert (none["accuracy"], none["low"]) == (0, 0)
    assert 0 < none["high"] < 0.01
    assert mine["low"] < 0.6 < mine["high"]
    assert (mine["n"], mine["seeds"], mine["over"]) == (1000, 3, "seeds and images")


def test_the_leaders_are_the_best_and_what_is_not_told_from_it():
    one = planted(natural=0.2, fgsm_at=0.5, pgd_at=0.7, mine=0.7)
    assert {key[2] for key in leaders([one])} == {"pgd_at", "mine"}


# --- from stored rows -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def demo() -> Rows:
    return load(REPORTS / "demo")


def test_of_real_rows_the_differences_are_those_of_the_accuracies(demo):
    whole = judged(demo)
    mine = comparisons(whole, REFERENCES).set_index(["regularizer", "reference", "attack"])
    accuracies = demo.verdicts.groupby(["regularizer", "attack"], observed=True)["correct"].mean()
    assert len(mine) == (4 * 2 + 1) * 6  # the points of the demo's sweeps are left out
    for (method, reference, attack), row in mine.iterrows():
        expected = accuracies[method, attack] - accuracies[reference, attack]
        assert row["difference"] == pytest.approx(expected, abs=1e-12)
        assert (row["n"], row["seeds"]) == (200, 3)
    assert strongest(demo) == {"digits": "autoattack"}


def test_without_autoattack_the_last_white_box_attack_is_the_strongest(demo):
    told = demo.evaluations
    less = demo._replace(evaluations=told[told["attack"] != "autoattack"])
    assert strongest(less) == {"digits": "pgd"}  # not what was crafted on another network
    names = told["attack"].astype(str)
    away = told.assign(source=told["source"].astype(object).mask(names == "pgd", "natural"))
    away = away[away["attack"] != "autoattack"]
    assert strongest(demo._replace(evaluations=away)) == {"digits": "fgsm"}


def test_an_attack_of_another_radius_is_not_the_strongest(demo):
    told = demo.evaluations
    small = told.assign(epsilon=told["epsilon"].mask(told["attack"] == "autoattack", 0.01))
    assert strongest(demo._replace(evaluations=small)) == {"digits": "pgd"}


def test_what_few_methods_were_judged_by_yet_is_not_the_strongest_but_what_failed_may_be(demo):
    told = demo.evaluations
    last = told["attack"] == "autoattack"
    yet = told[~last | told["regularizer"].isin(["natural", "fgsm_at"])]
    assert strongest(demo._replace(evaluations=yet)) == {"digits": "pgd"}
    failed = told.assign(
        status=told["status"].where(~last | (told["regularizer"] != "pgd_at"), "out of memory")
    )
    assert strongest(demo._replace(evaluations=failed)) == {"digits": "autoattack"}


def test_references_are_those_chosen_or_those_that_there_are(demo):
    assert references_of(demo) == ("fgsm_at", "pgd_at")
    assert references_of(demo, ["sat_r1"]) == ("sat_r1",)
    assert references_of(demo, []) == ()
    runs = demo.runs.astype({"regularizer": str})
    assert references_of(demo._replace(runs=runs[runs["regularizer"] != "pgd_at"])) == ("fgsm_at",)
    with pytest.raises(UserError, match=r"no regularizer 'pdg_at' here; did you mean 'pgd_at'\?"):
        references_of(demo, ["pdg_at"])


def test_the_page_tells_what_a_p_and_an_interval_are_of(demo):
    table = comparisons(judged(demo), REFERENCES, 0.02)
    page = differences.section(table, demo)
    assert "within a margin of ± 2 points" in page
    assert "Holm-corrected over 54 comparisons" in page
    assert page.count("| AutoAttack |") == 9
    assert "One seed" not in page
    one = demo._replace(verdicts=demo.verdicts[demo.verdicts["seed"] == 0])
    page = differences.section(comparisons(judged(one), REFERENCES), one)
    assert page.count("(one seed)") == 9
    assert "One seed: the interval is over images alone" in page
    assert differences.section(table.iloc[:0], demo).startswith("There is no reference")


def test_the_stage_writes_them_with_the_configs_references_and_margin(tmp_path, monkeypatch):
    for path in (REPORTS / "demo").glob("*.parquet"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    options = ["--references", "pgd_at", "--margin", "20"]
    monkeypatch.setattr(sys, "argv", ["regbench.tables", str(tmp_path), *options])
    tables.main()
    compared = pd.read_csv(tmp_path / "comparisons.csv")
    assert set(compared["reference"]) == {"pgd_at"}
    assert set(compared["margin"]) == {0.2}
    assert len(pd.read_csv(tmp_path / "intervals.csv")) == 6 * 6
    assert "## Is the difference real?" in (tmp_path / "summary.md").read_text()
    assert r"\textbf{68.2 $\pm$ 1.6}" in (tmp_path / "accuracy.tex").read_text()
