"""From verdicts to tables and figures, on rows made up here."""

import json
import math
import re
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from matplotlib import pyplot as plt

from regbench import tables
from regbench.analysis import made
from regbench.analysis.beside import Interval, compare, verdict
from regbench.analysis.comparisons import bounded, intervals, judged
from regbench.analysis.costs import costs
from regbench.analysis.gaps import gaps
from regbench.analysis.published import NOTHING, Published
from regbench.analysis.published import load as load_published
from regbench.analysis.rows import CELL, NEEDED, UNMEASURED, Rows, load, over_seeds, results
from regbench.core.precision import products_in
from regbench.errors import UserError
from regbench.experiment import members
from regbench.figures import look, plain_decades, reach
from regbench.page import page
from regbench.report.accuracy import accuracy, cells
from regbench.report.latex import latex
from regbench.report.sections.reading import reading
from regbench.report.summary import summary
from regbench.report.wording import percent
from regbench.storage.seals import write_table

ROOT = Path(__file__).parents[1]
METHODS = ["natural", "FGSM-AT"]
ATTACKS = ["fgsm", "clean", "auto_attack"]  # not in alphabetical order
HITS = {"natural": (80, 90, 0), "FGSM-AT": (95, 85, 30)}  # of 100, by attack; one more per seed


def categories(frame):
    order = {"method": METHODS, "regularizer": METHODS, "attack": ATTACKS}
    for column in frame.columns.intersection(["dataset", "model", *order]):
        values = order.get(column, sorted(frame[column].unique()))
        frame[column] = pd.Categorical(frame[column], values, ordered=True)
    return frame


@pytest.fixture
def rows():
    verdicts, evaluations, runs, curves, diagnostics, shown = [], [], [], [], [], []
    for method in METHODS:
        for seed in range(3):
            cell = {"dataset": "digits", "model": "net", "regularizer": method, "method": method}
            cell["seed"] = seed
            status = "ok" if seed else "diverged: the loss is NaN from epoch 2 on"
            machine = dict.fromkeys(
                ["device", "platform", "python", "torch", "torchvision", "robustbench"], "x"
            )
            machine |= {"pyautoattack": "1", "numpy": "2", "commit": "c", "dirty": False}
            machine |= {"card": "d", "epsilon": 0.1, "hyperparameters": "{}", "training": "{}"}
            runs.append(
                {**cell, "rule": method, "cost": 2.0, "train_seconds": 3.0 + seed,
                 "seconds": 4.0, "threads": 1, "best_epoch": 2, "status": status, **machine,
                 "forward_passes": np.nan, "backward_passes": np.nan, "peak_memory": 2e9 + seed,
                 "peak_gpu_memory": np.nan}
            )  # fmt: skip
            curves += [
                {**cell, "epoch": epoch, "loss": 1 / epoch, "penalty": 0.1,
                 "validation_clean": 0.5, "validation_ifgsm": 0.4, "seconds": seed + 0.5 * epoch,
                 "loss_under_half_fgsm": 1.0, "loss_under_fgsm": 2.0 / epoch,
                 "loss_under_rfgsm": 2.0, "loss_under_ifgsm": 2.0 + seed}
                for epoch in (1, 2, 3)
            ]  # fmt: skip
            diagnostics += [
                {**cell, "quantity": "loss_along_fgsm", "along": along, "across": np.nan,
                 "value": 0.1 + along + seed, "n": 100}
                for along in (0, 0.05, 0.1, 0.15, 0.2)
            ]  # fmt: skip
            diagnostics += [
                {**cell, "quantity": "loss_surface", "along": along, "across": across,
                 "value": 0.1 + along + across**2, "n": 64}
                for along in (0, 0.05, 0.1)
                for across in (-0.1, 0, 0.1)
            ]  # fmt: skip
            shown += [
                {**cell, "image": 0, "label": 3, "under": under, "epsilon": epsilon,
                 "prediction": 3, "confidence": 0.9, "correct": True, "channels": 1, "height": 2,
                 "width": 2, "pixels": bytes(4)}
                for under, epsilon in (("clean", 0.0), ("FGSM", 0.1))
            ]  # fmt: skip
            for attack, hits in zip(ATTACKS, HITS[method], strict=True):
                correct = np.arange(100) < hits + seed
                of_image = {"image": range(100), "label": 1, "distance": 0.1, "loss": 1.0}
                verdicts.append(
                    pd.DataFrame({**cell, "attack": attack, "correct": correct, **of_image})
                )
                warned = "zero gradient" if attack == "auto_attack" else ""
                evaluations.append(
                    {**cell, "attack": attack, "label": attack.upper(), "suite": "s",
                     "epsilon": 0.1, "status": "ok", "seconds": 1.0, "precision": "fp32",
                     "warnings": warned, "split": "test", "checkpoint": "best",
                     "member": f"regbench.attacks.{attack}",
                     "arguments": '{"epsilon": 0.1, "restarts": 1}',
                     **dict.fromkeys(["source", "sweep", "value", "family"])}
                )  # fmt: skip
    others = (evaluations, runs, curves, diagnostics, shown)
    frames = (pd.concat(verdicts), *(pd.DataFrame(part) for part in others))
    return Rows(*(categories(frame.reset_index(drop=True)) for frame in frames))


def wilson(hits, count, z=1.959963984540054):
    """Wilson's interval as Wilson wrote it (1927)."""
    share = hits / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count**2)) / (1 + z * z / count)
    return middle - half, middle + half


def test_one_row_per_run_and_attack_with_wilsons_interval(rows):
    table = results(rows)
    assert len(table) == 2 * 3 * 3
    for row in table.itertuples():
        hits = HITS[row.method][ATTACKS.index(row.attack)] + row.seed
        assert (row.n, row.correct, row.accuracy) == (100, hits, hits / 100)
        assert (row.low, row.high) == pytest.approx(wilson(hits, 100), abs=1e-12)


def test_mean_and_sample_deviation_over_seeds(rows):
    means = over_seeds(results(rows)).set_index(["method", "attack"])
    assert means.loc[("FGSM-AT", "fgsm"), "mean"] == pytest.approx(0.96)
    assert means.loc[("FGSM-AT", "fgsm"), "sd"] == pytest.approx(0.01)
    assert means.loc[("natural", "clean"), "seeds"] == 3


def test_the_table_keeps_the_configs_order_and_shows_the_gap(rows):
    table = accuracy(over_seeds(results(rows)), gaps(rows, ("fgsm", "auto_attack")))["digits"]
    assert list(table["method"]) == METHODS
    assert list(table.columns[3:7]) == ["FGSM", "CLEAN", "AUTO_ATTACK", "FGSM − AUTO_ATTACK"]
    assert table.loc[1, "AUTO_ATTACK"] == "31.0 ± 1.0"
    assert table.loc[1, "FGSM − AUTO_ATTACK"] == "65.0"


def test_a_gap_is_of_the_images_that_both_attacks_judged(rows):
    """Of the first half by one of them: not the mean of all under the other minus theirs."""
    verdicts = rows.verdicts
    half = verdicts[(verdicts["attack"] != "auto_attack") | (verdicts["image"] < 50)]
    pair = ("fgsm", "auto_attack")
    shown = gaps(rows._replace(verdicts=half), pair)["digits"]
    each = half.pivot_table(
        index=[*CELL, "seed", "image"], columns="attack", values="correct", observed=True
    ).dropna()
    points = 100 * (each["fgsm"] - each["auto_attack"]).groupby(CELL, observed=True).mean()
    assert shown.to_dict() == points.map("{:.1f}".format).to_dict()
    assert not shown.equals(gaps(rows, pair)["digits"])


def test_time_is_of_all_seeds_whatever_one_attack_has_judged(rows):
    first = rows.evaluations["attack"].min()
    lost = {"method": "natural", "attack": first}

    def rest(table):
        away = (table[[*lost]].astype(str) == pd.Series(lost).astype(str)).all(axis=1)
        return table[~(away & (table["seed"] > 0))]

    few = rows._replace(verdicts=rest(rows.verdicts), evaluations=rest(rows.evaluations))
    shown = [accuracy(over_seeds(results(one)))["digits"]["train (s)"] for one in (rows, few)]
    assert shown[0].equals(shown[1])


SWEPT = [
    {"attack": f"over@{value}", "label": f"FGSM, ε = {value}", "sweep": "epsilon", "value": value,
     "family": "FGSM over ε"}
    for value in (0.1, 0.2)
]  # fmt: skip
TRANSFERRED = {"attack": "from_other", "label": "from other", "source": "other"}


def swept(rows):
    """The rows with FGSM swept over two radii besides."""
    return more(rows, *SWEPT)


def whole(rows):
    """The rows with FGSM swept and transferred besides: something for every figure."""
    return more(rows, *SWEPT, TRANSFERRED)


def more(rows, *added):
    """The rows with FGSM once more for each of `added`, which says what is told of it."""
    verdicts, evaluations = [rows.verdicts], [rows.evaluations]
    for told in added:
        verdicts.append(rows.verdicts.query("attack == 'fgsm'").assign(attack=told["attack"]))
        evaluations.append(rows.evaluations.query("attack == 'fgsm'").assign(**told))
    order = [*ATTACKS, *(told["attack"] for told in added)]
    both = [pd.concat(parts, ignore_index=True) for parts in (verdicts, evaluations)]
    for frame in both:
        frame["attack"] = pd.Categorical(frame["attack"].astype(str), order, ordered=True)
    return rows._replace(verdicts=both[0], evaluations=both[1])


def test_the_page_counts_images_once_per_data_set(rows):
    fewer = rows.verdicts.groupby(["regularizer", "seed", "attack"], observed=True).cumcount() < 40
    kept = rows.verdicts[fewer | (rows.verdicts["attack"] != "auto_attack")]
    assert "on 40 or 100 test images of digits:" in reading(results(rows._replace(verdicts=kept)))


def test_the_page_says_what_attacks_were_crafted_in_unless_it_is_fp32(rows):
    assert "Crafted in" not in reading(results(rows))
    crafted = rows._replace(evaluations=rows.evaluations.assign(precision="tf32"))
    assert "Crafted in tf32, classified in fp32." in reading(results(crafted))


@pytest.mark.parametrize(
    ("precision", "device", "told"),
    [("tf32", "cuda", "tf32"), ("tf32", "cpu", "fp32"), ("fp32", "cuda", "fp32")],
)
def test_what_an_attack_is_crafted_in_is_what_the_device_has(precision, device, told):
    assert products_in(precision, torch.device(device)) == told


def test_an_attack_of_before_that_was_told_was_crafted_as_its_card_says():
    attack = {"arguments": {}, "seconds": 1.0, "warnings": []}
    about = {
        "card": {"precision": "tf32", "split": "test", "checkpoint": "best"},
        "attacks": {"before": attack, "now": attack | {"precision": "fp32"}},
    }
    told = made._verdicts(pa.table({}), about).told.set_index("attack")["precision"]
    assert told.to_dict() == {"before": "tf32", "now": "fp32"}


def test_an_attack_on_fewer_images_says_so_in_its_column(rows):
    fewer = rows.verdicts.groupby(["regularizer", "seed", "attack"], observed=True).cumcount() < 40
    kept = rows.verdicts[fewer | (rows.verdicts["attack"] != "auto_attack")]
    table = accuracy(over_seeds(results(rows._replace(verdicts=kept))))["digits"]
    assert list(table.columns[3:6]) == ["FGSM", "CLEAN", "AUTO_ATTACK (n = 40)"]


def test_the_points_of_a_sweep_are_rows_but_no_columns(rows):
    tidy = results(swept(rows))
    assert len(tidy) == 2 * 3 * (3 + 2)
    plain, with_sweep = (
        accuracy(over_seeds(results(one)))["digits"] for one in (rows, swept(rows))
    )
    assert with_sweep.equals(plain)


@pytest.mark.parametrize(
    ("ratio", "told"), [(1, ["ε", None]), (80 / 255, ["ε (·/255)", ["8", "16"]])]
)
def test_the_axis_of_a_sweep_over_radii_is_in_what_a_config_writes(rows, ratio, told):
    look()
    points = [{**point, "value": ratio * point["value"]} for point in SWEPT]
    figure = members.load("regbench.figures.accuracy_over_sweeps")(more(rows, *points))
    [axes, *_] = figure.axes
    ticks = [tick.get_text() for tick in axes.get_xticklabels()]
    assert [axes.get_xlabel(), ticks if told[1] else None] == told
    plt.close(figure)


@pytest.mark.parametrize("name", members.names("figures"))
def test_a_figure_of_sweeps_shows_no_more_where_there_are_none(rows, name):
    look()
    figure = members.load(f"regbench.figures.{name}")(rows)
    assert figure.axes
    plt.close(figure)


# --- attacks that did not fit in memory -----------------------------------------------------------


def failing(rows, method, seeds):
    """The rows, AutoAttack on some runs of a method having found no memory."""

    def hit(frame):
        return (
            (frame["method"] == method)
            & frame["seed"].isin(seeds)
            & (frame["attack"] == "auto_attack")
        )

    told = rows.evaluations
    status = told["status"].where(~hit(told), "out of memory")
    return rows._replace(
        verdicts=rows.verdicts[~hit(rows.verdicts)], evaluations=told.assign(status=status)
    )


def test_an_attack_without_memory_is_a_row_without_a_number(rows):
    tidy = results(failing(rows, "FGSM-AT", [1]))
    assert len(tidy) == 2 * 3 * 3
    (row,) = tidy[tidy["attack_status"] != "ok"].itertuples()
    assert (row.method, row.seed, row.attack, row.n) == ("FGSM-AT", 1, "auto_attack", 0)
    assert row.attack_status == "out of memory"
    assert math.isnan(row.accuracy)
    assert math.isnan(row.low)
    assert (
        tidy.drop(columns="attack_status")
        .drop(row.Index)
        .equals(results(rows).drop(columns="attack_status").drop(row.Index))
    )


@pytest.mark.parametrize(
    ("seeds", "shown"),
    [([1], "31.0 ± 1.4 (1 out of memory)"), ([0, 1, 2], "out of memory")],
)
def test_a_table_shows_what_did_not_fit_in_memory(rows, seeds, shown):
    failed = failing(rows, "FGSM-AT", seeds)
    tidy, gap = results(failed), gaps(failed, ("fgsm", "auto_attack"))
    table = accuracy(over_seeds(tidy), gap)["digits"].set_index("method")
    assert list(table.columns[2:5]) == ["FGSM", "CLEAN", "AUTO_ATTACK"]
    assert table.loc["FGSM-AT", "AUTO_ATTACK"] == shown
    assert table.loc["FGSM-AT", "FGSM − AUTO_ATTACK"] == "–"  # not of the same seeds
    assert table.loc["FGSM-AT", "seeds"] == "3 (1 failed)"  # one of the trainings diverged
    assert table.loc["natural", "AUTO_ATTACK"] == "1.0 ± 1.0"
    page = summary(rows, tidy, [table.reset_index()], pd.DataFrame())
    assert f"* FGSM-AT, seed {seeds[-1]}, AUTO_ATTACK: out of memory" in page
    assert "on 100 test images of digits:" in page


def test_a_number_that_there_is_not_cannot_be_compared(rows):
    told = published(clean=85)
    assert list(beside(told, rows, 0.2)["verdict"]) == ["agree"]
    hit = rows.verdicts["attack"] == "clean"
    status = rows.evaluations["status"].where(rows.evaluations["attack"] != "clean", "no memory")
    none = Rows(rows.verdicts[~hit], rows.evaluations.assign(status=status), *rows[2:])
    assert list(beside(told, none)["verdict"]) == ["cannot be compared"]


@pytest.mark.parametrize("name", members.names("figures"))
def test_each_figure_bears_what_did_not_fit_in_memory(rows, name):
    look()
    figure = members.load(f"regbench.figures.{name}")(whole(failing(rows, "FGSM-AT", [0, 1, 2])))
    figure.canvas.draw()
    plt.close(figure)


# --- rows from before a column --------------------------------------------------------------------


def test_passes_are_those_counted_else_those_declared(rows):
    later = rows.runs["method"] == "natural"
    counted = {"forward_passes": 7.0, "backward_passes": 6.0}
    runs = rows.runs.assign(**{n: rows.runs[n].mask(later, v) for n, v in counted.items()})
    table = results(rows._replace(runs=runs)).drop_duplicates("method").set_index("method")
    assert table["cost"].to_dict() == {"natural": 6.5, "FGSM-AT": 2.0}


def test_costs_are_over_pgd_at_and_the_median_epoch(rows):
    rule = rows.runs["rule"].astype(str).replace("FGSM-AT", "pgd_at")
    dearer = rows.runs["cost"].mask(rule == "pgd_at", 8.0)
    table = costs(rows._replace(runs=rows.runs.assign(rule=rule, cost=dearer)))
    assert list(table["method"]) == METHODS
    assert list(table["relative"]) == [0.25, 1]
    assert list(table["seconds_per_epoch"]) == [2.0, 2.0]  # of seed + epoch / 2, three each
    assert list(table["peak_memory"]) == [2e9 + 2] * 2
    assert costs(rows)["relative"].isna().all()  # no PGD-AT to be measured by


def test_a_number_of_fewer_seeds_than_its_row_says_so(rows):
    """And is subtracted from none of more seeds."""
    lost = {"method": "FGSM-AT", "seed": 2, "attack": "auto_attack"}

    def rest(table):
        return table[(table[[*lost]].astype(str) != pd.Series(lost).astype(str)).any(axis=1)]

    few = rows._replace(verdicts=rest(rows.verdicts), evaluations=rest(rows.evaluations))
    means = over_seeds(results(few))
    gap = gaps(few, ("fgsm", "auto_attack"))
    table = accuracy(means, gap)["digits"].set_index("method")
    assert table.loc["FGSM-AT", "AUTO_ATTACK"] == "30.5 ± 0.7 (2 of 3 seeds)"
    assert table.loc["FGSM-AT", "FGSM − AUTO_ATTACK"] == "–"
    assert table.loc["FGSM-AT", "seeds"] == "3 (1 failed)"
    assert table.loc["natural", "AUTO_ATTACK"] == "1.0 ± 1.0"
    assert table.loc["natural", "FGSM − AUTO_ATTACK"] == "80.0"


def test_a_network_that_was_not_trained_is_in_no_mean(rows):
    """It diverged in its first epoch: what was judged are the weights that it began with."""
    first = (rows.runs["method"] == "FGSM-AT") & (rows.runs["seed"] == 0)
    lost = rows._replace(runs=rows.runs.assign(best_epoch=rows.runs["best_epoch"].mask(first, 0)))
    table = accuracy(over_seeds(results(lost)), gaps(lost, ("fgsm", "clean")))["digits"].set_index(
        "method"
    )
    assert table.loc["FGSM-AT", "FGSM"] == "96.5 ± 0.7 (1 not trained)"
    assert table.loc["FGSM-AT", "FGSM − CLEAN"] == "10.0"
    assert table.loc["FGSM-AT", "seeds"] == "2 (1 not trained)"
    found = intervals(judged(lost)).set_index(["regularizer", "attack"])
    assert set(found.loc["FGSM-AT", "seeds"]) == {2}
    assert set(found.loc["natural", "seeds"]) == {3}
    every = rows.runs.assign(best_epoch=0)
    table = accuracy(over_seeds(results(rows._replace(runs=every))))["digits"]
    assert set(table["FGSM"]) == {"not trained"}


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0.03, 7, ["0.1", "1"]),
        (0.11, 6, ["0.2", "0.5", "1", "2", "5"]),
        (0.02, 0.13, ["0.02", "0.05", "0.1"]),
        (1.4, 2.2, ["1.5", "1.75", "2"]),
    ],
)
def test_a_logarithmic_axis_has_labels_however_little_is_in_view(low, high, labels):
    figure, axes = plt.subplots()
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    plain_decades(axes.yaxis)
    figure.canvas.draw()
    drawn = [
        label.get_text()
        for label, place in zip(axes.get_yticklabels(), axes.get_yticks(), strict=True)
        if low <= place <= high
    ]
    assert drawn[: len(labels)] == labels
    assert not any(label.get_text() for label in axes.get_yticklabels(minor=True))


def test_bars_reach_as_far_as_the_seeds():
    means = pd.DataFrame({"mean": [0.5, 1.0], "lowest": [0.1, 1.0], "highest": [0.6, 1 - 1e-17]})
    means.loc[1, "mean"] = np.nextafter(1.0, 0)
    below, above = reach(means)
    assert below.tolist() == [0.4, 0.0]
    assert above.tolist() == pytest.approx([0.1, 0.0])


def test_properties_are_drawn_as_differences_of_losses(rows):
    figure = members.load("regbench.figures.properties_during_training")(rows)
    drawn = {axes.get_title(): axes.lines[0].get_ydata().tolist() for axes in figure.axes}
    assert drawn == {
        "I-FGSM − FGSM (asked by SAT-R1)": pytest.approx([3 - 2 / epoch for epoch in (1, 2, 3)]),
        "R-FGSM − FGSM (asked by SAT-R2)": pytest.approx([2 - 2 / epoch for epoch in (1, 2, 3)]),
        "FGSM at ε − at ε/2 (asked by SAT-R3)": pytest.approx(
            [2 / epoch - 1 for epoch in (1, 2, 3)]
        ),
    }
    plt.close(figure)
    unknown = rows.curves.assign(loss_under_fgsm=np.nan)
    figure = members.load("regbench.figures.properties_during_training")(
        rows._replace(curves=unknown)
    )
    (axes,) = figure.axes
    assert "No losses" in axes.texts[0].get_text()
    plt.close(figure)


def test_pgd_at_is_the_line_that_cost_is_held_against(rows):
    rule = rows.runs["rule"].astype(str).replace("FGSM-AT", "pgd_at")
    draw = members.load("regbench.figures.robustness_against_cost")
    for runs, lines in ((rows.runs, 0), (rows.runs.assign(rule=rule), 2)):
        figure = draw(rows._replace(runs=runs))
        dashed = [line for line in figure.axes[0].lines if line.get_linestyle() == "--"]
        assert len(dashed) == lines
        plt.close(figure)


def test_cost_is_held_against_what_the_tables_call_the_strongest(rows):
    draw = members.load("regbench.figures.robustness_against_cost")
    wide = more(rows, {"attack": "wide", "label": "wide PGD", "epsilon": 0.4})
    for one in (rows, wide):
        figure = draw(one)
        assert "AUTO_ATTACK" in figure.axes[0].get_title()
        plt.close(figure)


def store(rows, folder):
    for name, frame in rows._asdict().items():
        table = pa.Table.from_pandas(frame, preserve_index=False)
        write_table(folder / f"{name}.parquet", table, {"rows": len(frame)})


def test_rows_from_before_a_column_are_read(rows, tmp_path):
    store(rows._replace(evaluations=rows.evaluations.drop(columns="status")), tmp_path)
    known = load(tmp_path)
    assert known.verdicts["fooled_by"].isna().all()
    assert set(known.evaluations["status"]) == {"ok"}
    assert results(known)["accuracy"].equals(results(rows)["accuracy"])


@pytest.mark.parametrize(
    ("table", "columns"),
    [("evaluations", ["member", "sweep"]), ("runs", ["rule"]), ("diagnostics", ["across"])],
)
def test_rows_without_what_nothing_can_stand_for_are_one_line(rows, tmp_path, table, columns):
    store(rows._replace(**{table: rows._asdict()[table].drop(columns=columns)}), tmp_path)
    told = f"{table}.parquet' has no {', '.join(map(repr, columns))}: an older version wrote it"
    with pytest.raises(UserError, match=re.escape(told)):
        load(tmp_path)


def test_the_report_of_an_older_version_is_refused_in_one_line():
    with pytest.raises(UserError, match=r"has no 'member', 'arguments'.*experiment again"):
        load(ROOT / "reports/demo_tuning")


def test_no_other_column_is_needed(tmp_path, monkeypatch):
    mpl.use("Agg")
    look()
    known = load(ROOT / "reports/demo")._replace(diagnostics=UNMEASURED)
    store(Rows(*(frame[NEEDED[name]] for name, frame in known._asdict().items())), tmp_path)
    monkeypatch.setattr("sys.argv", ["regbench.tables", str(tmp_path)])
    tables.main()
    drawn = load(tmp_path)
    assert "PGD-50×5" in page(tmp_path, drawn)
    for figure in members.names("figures"):
        plt.close(members.load(f"regbench.figures.{figure}")(drawn))


# --- published numbers ----------------------------------------------------------------------------


def published(**accuracy):
    attacks = {
        "clean": {"label": "clean", "attack": "clean"},
        "fgsm": {"label": "FGSM", "attack": "fgsm"},
        "fgsm_twice": {"label": "FGSM twice", "attack": "fgsm", "restarts": 2},
    }
    entry = {"dataset": "digits", "rule": "FGSM-AT", "epsilon": 0.1, "source": "someone"}
    return Published.model_validate(
        {"attacks": attacks, "entries": [{**entry, "images": 100, "accuracy": accuracy}]}
    )


def beside(told, rows, margin=0.05):
    means = bounded(over_seeds(results(rows)), intervals(judged(rows)))
    return compare(told, means, margin)


def test_a_published_number_agrees_differs_or_is_open(rows):
    # ours: FGSM 96 %, standard deviation 1 point, 3 seeds
    found = intervals(judged(rows)).set_index(["regularizer", "attack"]).loc["FGSM-AT", "fgsm"]
    for theirs, margin, expected in (
        (96, 0.05, "open"), (96, 0.2, "agree"), (91, 0.2, "agree"), (50, 0.05, "differ"),
        (50, 0.5, "differ"),
    ):  # fmt: skip
        (row,) = beside(published(fgsm=theirs), rows, margin).itertuples()
        assert row.verdict == expected
        assert row.ours == f"96.0 [{100 * found['low']:.1f}, {100 * found['high']:.1f}]"
        assert (row.n, row.seeds, row.method, row.margin) == (100, 3, "FGSM-AT", margin)


def test_two_seeds_that_say_nothing_agree_with_nothing():
    one = Interval(0.806, 0.0, 1.0)
    assert {verdict(one, Interval(p, p, p), 0.05) for p in (0.0, 0.5, 0.99)} == {"open"}


def test_the_interval_of_a_difference_is_as_far_as_each_end_reaches():
    """Symmetric intervals give the root of the sum of squares; an end at 0 reaches no further."""
    ours, theirs = Interval(0.5, 0.47, 0.53), Interval(0.45, 0.41, 0.49)  # ± 3 and ± 4: ± 5
    assert verdict(ours, theirs, 0.0999) == "open"
    assert verdict(ours, theirs, 0.1001) == "agree"
    assert verdict(ours, Interval(0.4499, 0.4099, 0.4899), 0.2) == "differ"
    nothing = Interval(0.0, 0.0, 0.004)
    assert verdict(nothing, Interval(0.0, 0.0, 0.0004), 0.0039) == "open"
    assert verdict(nothing, Interval(0.0, 0.0, 0.0004), 0.0041) == "agree"
    assert verdict(nothing, Interval(0.001, 0.0009, 0.0014), 0.1) == "agree"
    assert verdict(nothing, Interval(0.01, 0.0059, 0.0101), 0.1) == "differ"


def test_another_attack_cannot_be_compared(rows):
    table = beside(published(fgsm=96, fgsm_twice=96), rows, 0.2)
    assert list(table["verdict"]) == ["agree", "cannot be compared"]
    assert list(table["ours"].str.split().str[0]) == ["96.0", "–"]


def test_pgd_is_compared_with_pgd_not_with_ifgsm_or_restarts():
    attacks = {
        "a_ifgsm": (0.97, {"start_radius": 0.0, "restarts": 1}),
        "b_pgd": (0.80, {"start_radius": 0.1, "restarts": 1}),
        "c_pgd_weaker": (0.82, {"start_radius": 1.0, "restarts": 1}),
        "d_restarts": (0.70, {"start_radius": 0.1, "restarts": 10}),
    }
    cell = {
        "dataset": "mnist", "model": "lenet_plus", "regularizer": "pgd_at", "method": "PGD-AT",
        "rule": "pgd_at", "epsilon": 0.3, "sweep": None, "source": None, "n": 100, "seeds": 1,
        "sd": 0.0, "low": 0.5, "high": 1.0, "member": "regbench.attacks.pgd",
    }  # fmt: skip
    shared = {"loss": "cross_entropy", "steps": 100}
    means = pd.DataFrame(
        {**cell, "attack": name, "mean": mean, "arguments": json.dumps(shared | arguments)}
        for name, (mean, arguments) in attacks.items()
    )
    table = compare(load_published([ROOT / "config/published.yaml"]), means, 0.05)
    ours = table[table["attack"] == "PGD-100"]
    assert set(ours["published"]) == {"95.48", "92.52"}
    assert {one.split()[0] for one in ours["ours"]} == {"80.0"}
    assert set(ours["images"]) == {"–"}


def test_each_attack_may_have_judged_its_own_number_of_images(rows):
    told = published(fgsm=96, clean=86)
    for images, shown in ((None, ["–", "–"]), ({"clean": 50}, ["–", 50])):
        entry = told.entries[0].model_copy(update={"images": images})
        table = beside(told.model_copy(update={"entries": (entry,)}), rows, 0.2)
        assert list(table["images"]) == shown


def test_another_radius_cannot_be_compared_but_clean_accuracy_has_none(rows):
    told = published(fgsm=96, clean=86)
    entry = told.entries[0].model_copy(update={"epsilon": 0.3})
    table = beside(told.model_copy(update={"entries": (entry,)}), rows, 0.2)
    assert list(table["verdict"]) == ["cannot be compared", "agree"]


def test_a_network_that_is_named_must_be_ours(rows):
    told = published(fgsm=96)
    entry = told.entries[0].model_copy(update={"model": "wrn_28_10"})
    other = told.model_copy(update={"entries": (entry,)})
    assert beside(other, rows).empty
    assert beside(NOTHING, rows).empty


def test_the_published_numbers_of_the_repository_are_sound():
    told = load_published([ROOT / f"config/{name}.yaml" for name in ("published", "leaderboard")])
    rules = {path.stem for path in (ROOT / "rules/regularizers").glob("*.smk")}
    for entry in told.entries:
        assert entry.dataset in members.names("data")
        if entry.method is None:
            assert entry.rule in rules
            assert entry.model is None or entry.model in members.names("models")
    ours = {name for entry in told.entries for name in (entry.rule, entry.method)}
    assert {"fgsm_at", "Rice2020Overfitting", "Zhang2019Theoretically"} <= ours
    assert told.collected.startswith("2026; RobustBench at commit ")
    assert {one.images for one in told.entries if one.source.startswith("RobustBench")} == {10_000}
    for meaning in told.attacks.values():
        arguments = {**meaning.arguments, **meaning.unlike, "epsilon": 0.1}
        members.build(f"regbench.attacks.{meaning.attack}", arguments)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("attacks: {}\n", "'entries': Field required"),
        (
            "attacks: {}\nentries:\n- {dataset: a, rule: b, epsilon: 0.1, source: c,"
            " accuracy: {fgsm: 3}}\n",
            "'fgsm' of b is not under `attacks:`",
        ),
        (
            "attacks: {}\nentries:\n- {dataset: a, rule: b, epsilon: 0.1, source: c,"
            " images: {clean: 5}, accuracy: {fgsm: 3}}\n",
            "'entries.0': `images` of 'clean', whose accuracy is not told",
        ),
        (
            "attacks: {}\nentries:\n- {dataset: a, epsilon: 0.1, source: c, accuracy: {}}\n",
            "'entries.0': an entry has `rule`, a regularizer of ours, or `method`, any other's"
            " name; got neither",
        ),
    ],
)
def test_a_wrong_file_of_published_numbers_is_one_line(tmp_path, text, words):
    (tmp_path / "published.yaml").write_text(text)
    with pytest.raises(UserError, match=re.escape(words)):
        load_published([tmp_path / "published.yaml"])


def test_files_of_published_numbers_add_up_unless_they_contradict(tmp_path):
    files = [tmp_path / "a.yaml", tmp_path / "b.yaml"]
    entry = "{dataset: a, method: M x, model: Net + net, epsilon: 0.1, source: c, accuracy: {f: 1}}"
    text = "collected: X\nattacks: {f: {label: F, attack: fgsm}}\nentries: [" + entry + "]\n"
    for file in files:
        file.write_text(text)
    told = load_published(files)
    assert (len(told.entries), len(told.attacks), told.collected) == (2, 1, "X; X")
    assert load_published([]) == NOTHING
    files[1].write_text(text.replace("attack: fgsm", "attack: pgd"))
    with pytest.raises(UserError, match=r"b.yaml': 'f' under `attacks:` is another attack"):
        load_published(files)


@pytest.fixture
def two_data_sets(rows):
    """The rows twice, the second time with other labels and without the last attack."""

    def twice(frame):
        other = frame.assign(dataset="letters")
        if "attack" in frame:
            other = other[other["attack"] != "auto_attack"]
        if "suite" in frame:
            other["label"] = other["label"] + "-20"
        both = pd.concat([frame.astype({"dataset": str}), other], ignore_index=True)
        return categories(both)

    return Rows(*map(twice, rows))


def test_each_data_set_has_a_table_with_its_own_labels(two_data_sets):
    tables = accuracy(over_seeds(results(two_data_sets)), gaps(two_data_sets, ("fgsm", "clean")))
    assert list(tables["digits"].columns[3:7]) == ["FGSM", "CLEAN", "AUTO_ATTACK", "FGSM − CLEAN"]
    assert list(tables["letters"].columns[3:6]) == ["FGSM-20", "CLEAN-20", "FGSM-20 − CLEAN-20"]
    assert not tables["letters"].isna().any(axis=None)
    page = summary(two_data_sets, results(two_data_sets), list(tables.values()), pd.DataFrame())
    assert "100 test images of digits, 100 test images of letters" in page
    where = cells(over_seeds(results(two_data_sets)))
    for name, label in (("digits", "FGSM"), ("letters", "FGSM-20")):
        header = f"method & {label} & "
        assert header in latex(tables[name], where[name], set())


@pytest.mark.parametrize("name", members.names("figures"))
def test_each_figure_has_a_panel_per_data_set(two_data_sets, name):
    look()
    figure = members.load(f"regbench.figures.{name}")(whole(two_data_sets))
    text = " ".join(axes.get_title() for axes in figure.axes)
    assert "digits" in text
    assert "letters" in text
    plt.close(figure)


def test_an_attack_that_has_judged_nothing_yet_makes_no_gap(rows):
    """A report that is not finished; the config names the attack, and so does the column."""
    unfinished = rows._replace(
        evaluations=rows.evaluations[rows.evaluations["attack"] != "auto_attack"],
        verdicts=rows.verdicts[rows.verdicts["attack"] != "auto_attack"],
    )
    assert gaps(unfinished, ("fgsm", "auto_attack")) == {}


def test_an_unknown_gap_is_one_line(rows):
    with pytest.raises(UserError, match=r"no attack 'fgms' here; did you mean 'fgsm'\?"):
        gaps(rows, ("fgms", "clean"))


def test_one_seed_has_no_spread():
    assert percent(0.518, 0.009) == "51.8 ± 0.9"
    assert percent(0.518, float("nan")) == "51.8"


# --- LaTeX ----------------------------------------------------------------------------------------


def printed(rows, bold=frozenset(), gap=None):
    """What stands in accuracy.tex of a data set."""
    means = over_seeds(results(rows))
    return latex(accuracy(means, gaps(rows, gap))["digits"], cells(means)["digits"], bold)


def test_latex_escapes_what_tex_would_choke_on(rows):
    text = printed(rows, gap=("fgsm", "clean"))
    assert r"AUTO\_ATTACK" in text
    assert r"31.0 $\pm$ 1.0" in text
    assert r"FGSM $-$ CLEAN" in text
    assert text.count(r"\begin{tabular}{lrrrrr}") == text.count(r"\end{tabular}") == 1
    for rule in ("top", "mid", "bottom"):
        assert rf"\{rule}rule" in text


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("50 % & more_or_less #1 $x$ {y}", r"50 \% \& more\_or\_less \#1 \$x\$ \{y\}"),
        (r"\\[1em] *", r"\textbackslash{}\textbackslash{}{[}1em{]} {*}"),
        ("ε ≤ 8/255, <b>|~^", r"$\varepsilon$ $\le$ 8/255, $<$b$>$\textbar{}\~{}\^{}"),
    ],
)
def test_no_label_is_a_command_to_tex(rows, label, expected):
    told = rows.evaluations.assign(label=[f"{label}{at}" for at in rows.evaluations["attack"]])
    text = printed(rows._replace(evaluations=told))
    assert f"method & {expected}fgsm & {expected}clean & " in text
    assert label not in text


def test_the_best_is_bold_and_no_other_number(rows):
    bold = {("digits", "net", "FGSM-AT", "fgsm"), ("elsewhere", "net", "natural", "clean")}
    text = printed(rows, bold)
    assert text.count(r"\textbf") == 1
    assert r"FGSM-AT & \textbf{96.0 $\pm$ 1.0} & 86.0 $\pm$ 1.0 &" in text


def test_the_notes_say_what_n_seeds_and_attacks_are(rows):
    fewer = rows.verdicts.groupby(["regularizer", "seed", "attack"], observed=True).cumcount() < 40
    kept = rows.verdicts[fewer | (rows.verdicts["attack"] != "auto_attack")]
    arguments = '{"epsilon": 0.1, "restarts": 5, "step_size": 0.02, "early_stop": false}'
    told = rows.evaluations["arguments"].where(rows.evaluations["attack"] != "fgsm", arguments)
    text = printed(
        rows._replace(verdicts=kept, evaluations=rows.evaluations.assign(arguments=told))
    )
    assert r"method & FGSM$^{1}$ & CLEAN & AUTO\_ATTACK$^{2}$ & passes \\" in text
    assert "(1) fgsm: restarts 5, step size 0.02. (2) auto\\_attack: n = 40." in text
    assert r"on 100 test images; L$\infty$, $\varepsilon$ = 0.1" in text
    # one training diverged: the column stays and says so
    assert "over 3 seeds" not in text
    fine = rows._replace(runs=rows.runs.assign(status="ok"))
    assert r"digits, net: accuracy in \%, mean $\pm$ standard deviation over 3 seeds" in printed(
        fine
    )
    assert "seeds &" not in printed(fine)


def test_the_summary_shows_failures_warnings_and_counts(rows):
    tidy = results(rows)
    page = summary(rows, tidy, list(accuracy(over_seeds(tidy)).values()), pd.DataFrame())
    assert "100 test images of digits" in page
    assert "* FGSM-AT, seed 0: diverged: the loss is NaN from epoch 2 on" in page
    assert "* natural, seed 2, AUTO_ATTACK: zero gradient" in page
    assert "ε = 0.1" in page


@pytest.mark.parametrize("name", members.names("figures"))
def test_each_figure_draws_every_method(rows, name):
    mpl.use("Agg")
    look()
    figure = members.load(f"regbench.figures.{name}")(whole(rows))
    legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes if axes.get_legend())]
    shown = {text.get_text() for legend in legends for text in legend.get_texts()}
    shown |= {line for axes in figure.axes for line in axes.get_title().splitlines()}
    shown |= {name.get_text() for axes in figure.axes for name in axes.get_xticklabels()}
    assert shown >= set(METHODS)
    plt.close(figure)


LEGENDS = (
    "accuracy_per_attack", "learning_curves", "loss_along_fgsm", "properties_during_training",
    "accuracy_over_sweeps",
)  # fmt: skip


@pytest.mark.parametrize("name", LEGENDS)
def test_a_figure_names_no_method_that_has_no_rows(rows, name):
    mpl.use("Agg")
    look()
    declared = (
        part if part is None else part.assign(method=part["method"].cat.add_categories("TRADES"))
        for part in whole(rows)
    )  # fmt: skip
    figure = members.load(f"regbench.figures.{name}")(Rows(*declared))
    named = [
        text.get_text()
        for legend in (*figure.legends, *(axes.get_legend() for axes in figure.axes))
        if legend
        for text in legend.get_texts()
    ]
    assert set(named) - {"each seed"} == set(METHODS)
    plt.close(figure)


def test_a_figure_says_which_attack_saw_fewer_images(rows):
    mpl.use("Agg")
    fewer = (rows.verdicts["attack"] != "clean") | (rows.verdicts["image"] < 40)
    drawn = members.load("regbench.figures.accuracy_per_attack")
    figure = drawn(rows._replace(verdicts=rows.verdicts[fewer]))
    named = [name.get_text() for name in figure.axes[0].get_xticklabels()]
    assert named == ["FGSM", "CLEAN (n = 40)", "AUTO_ATTACK"]
    plt.close(figure)


MEASURED = ("loss_along_fgsm", "loss_surface")


@pytest.mark.parametrize("name", MEASURED)
def test_figures_of_what_was_not_measured_say_so(rows, name):
    figure = members.load(f"regbench.figures.{name}")(rows._replace(diagnostics=UNMEASURED))
    (axes,) = figure.axes
    assert "No diagnostics were taken" in axes.texts[0].get_text()
    plt.close(figure)


@pytest.mark.parametrize("name", MEASURED)
@pytest.mark.parametrize("value", [0.0, 1e9, np.nan, np.inf])
def test_figures_bear_losses_of_broken_networks(rows, name, value, tmp_path):
    broken = rows.diagnostics["method"] == METHODS[0]
    diagnostics = rows.diagnostics.assign(value=rows.diagnostics["value"].mask(broken, value))
    figure = members.load(f"regbench.figures.{name}")(rows._replace(diagnostics=diagnostics))
    figure.savefig(tmp_path / "figure.png")
    plt.close(figure)


def test_the_onset_of_overfitting_is_marked_where_it_is(rows):
    hit = (rows.curves["method"] == "FGSM-AT") & (rows.curves["seed"] == 1)
    late = hit & (rows.curves["epoch"] >= 2)
    curves = rows.curves.assign(validation_ifgsm=rows.curves["validation_ifgsm"].mask(late, 0.1))
    drawn = members.load("regbench.figures.learning_curves")
    for found, expected in ((rows, []), (rows._replace(curves=curves), [[(2, 10.0)]])):
        figure = drawn(found)
        lines = [line for axes in figure.axes for line in axes.get_lines()]
        marks = [line for line in lines if line.get_label() == "catastrophic overfitting"]
        assert [list(zip(*mark.get_data(), strict=True)) for mark in marks] == expected
        plt.close(figure)
