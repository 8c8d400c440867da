"""The page that needs no network: what it says, and how a real browser shows it."""

import json
import re
import shutil
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import pandas as pd
import pytest
import torch
from playwright.sync_api import expect, sync_playwright

from regbench import page as stage
from regbench.analysis.beside import OURS, compare, places
from regbench.analysis.comparisons import bounded, comparisons, intervals, judged
from regbench.analysis.criteria import BASE, SIGNS
from regbench.analysis.doubts import NONE, doubts
from regbench.analysis.gaps import gaps
from regbench.analysis.masking import NEEDED, panel
from regbench.analysis.published import Published
from regbench.analysis.published import load as load_published
from regbench.analysis.rows import MEASURED, UNMEASURED, load, over_seeds
from regbench.experiment.cards import DataCard, ModelCard, RegularizerCard, RunCard, TrainingCard
from regbench.experiment.manifest import Manifest, Run
from regbench.experiment.members import names
from regbench.experiment.paths import PRETRAINED
from regbench.page import page
from regbench.report.accuracy import accuracy
from regbench.report.origins import Remaking, of_mean, of_one, traced
from regbench.report.sections import verdicts
from regbench.report.sections.machines import machines
from regbench.report.sheets import Cell
from regbench.storage.provenance import provenance

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "reports/demo"
EVIL = "<img src=x onerror=alert(1)>"
WIDTHS = (1280, 390)


@pytest.fixture(scope="module")
def rows():
    """The demo's rows: its AutoAttack found no memory with one method, FGSM is called by markup."""
    known = load(DEMO)
    told, verdicts = known.evaluations.copy(), known.verdicts
    lost = told["method"].cat.categories[-1]
    hit = (told["method"] == lost) & (told["attack"] == "autoattack")
    told.loc[hit, "status"] = "out of memory"
    told.loc[told["attack"] == "fgsm", "label"] = EVIL
    kept = (verdicts["method"] != lost) | (verdicts["attack"] != "autoattack")
    return known._replace(evaluations=told, verdicts=verdicts[kept])


def diagnosed(rows):
    """The rows with made-up diagnostics of an honest network, of seed 0 with a dip along FGSM."""
    measured = []
    for run in rows.runs.to_dict("records"):
        cell = {name: run[name] for name in ("dataset", "model", "regularizer", "method", "seed")}
        last = 1.5 if run["seed"] == 0 else 2.5
        told = [
            *(("loss_along_fgsm", at, loss) for at, loss in ((0, 1), (0.1, 2), (0.2, last))),
            *(("accuracy_along_fgsm", at, share) for at, share in ((0, 0.9), (0.2, 0.7))),
            ("zero_gradient", None, 0.0),
            ("fgsm_minus_ifgsm_loss", None, -0.1),
            ("gradient_alignment", None, 0.9),
        ]
        rows_of = [(name, at, None, value, 100) for name, at, value in told]
        measured += [{**cell, **dict(zip(MEASURED, one, strict=True))} for one in rows_of]
    frame = pd.DataFrame(measured)
    kinds = rows.runs.dtypes[["dataset", "model", "regularizer", "method"]].to_dict()
    numbers = dict.fromkeys(["along", "across", "value"], float)
    return rows._replace(diagnostics=frame.astype({**kinds, **numbers}))


@pytest.fixture(scope="module")
def masked(rows):
    return panel(diagnosed(rows))


@pytest.fixture(scope="module")
def compared(rows):
    return comparisons(judged(rows), ("fgsm_at", "pgd_at"))


@pytest.fixture(scope="module")
def numbers(rows):
    return traced(rows, doubts(rows))


@pytest.fixture(scope="module")
def known():
    """Published numbers, made up: two under an attack of ours, one that we have no attack for."""
    entry = {"dataset": "digits", "epsilon": 0.2, "images": 100}
    attacks = {
        "clean": {"label": "clean", "attack": "clean"},
        "pgd_3": {"label": "PGD-3", "attack": "pgd", "steps": 3},
    }
    entries = [
        {
            **entry,
            "rule": "pgd_at",
            "source": "someone 2020",
            "accuracy": {"clean": 100, "pgd_3": 1},
        },
        {
            **entry,
            "method": "made up",
            "source": "other 2021",
            "note": "tiny",
            "accuracy": {"clean": 0},
        },
    ]
    return Published.model_validate({"collected": "2026", "attacks": attacks, "entries": entries})


@pytest.fixture(scope="module")
def remaking(rows):
    """A manifest in which the cells of seed 0 are what they were when the rows were made."""
    card = RunCard(
        data=DataCard(source="a", arguments={}, validation=1, split_seed=0),
        model=ModelCard(architecture="b", arguments={}),
        regularizer=RegularizerCard(loss="c", hyperparameters={}),
        epsilon=0.2,
        training=TrainingCard(
            epochs=1, batch_size=1, learning_rate=1, momentum=0, weight_decay=0, milestones=(),
            decay=1, crop_padding=0, flip=False, selection_steps=1, precision="fp32",
        ),
        seed=0,
    )  # fmt: skip
    runs = []
    for row in rows.runs[rows.runs["seed"] == 0].itertuples():
        folder = f"results/{row.dataset}/{row.model}/{row.regularizer}/0-{row.card}"
        suites = {name: f"{folder}/{name} 1.parquet" for name in ("white_box", "autoattack")}
        runs.append(
            Run(
                dataset=row.dataset, model=row.model, regularizer=row.regularizer, rule=row.rule,
                label=row.method, seed=0, cost=row.cost, folder=folder, data="d", verdicts=suites,
                card=card,
            )
        )  # fmt: skip
    manifest = Manifest(
        experiment="demo", runs=tuple(runs), sources=(), attacks={}, suites={}, diagnoses={}
    )
    return Remaking(manifest, ("config/my demo.yaml",))


# --- what is told of a number ---------------------------------------------------------------------


def lines(text):
    return dict(line.split(": ", 1) for line in text.splitlines())


def test_one_accuracy_tells_its_count_interval_origin_and_command(numbers, remaking):
    chosen = numbers[(numbers["seed"] == 0) & (numbers["attack"] == "pgd")].head(1)
    (row,) = chosen.itertuples()
    told = lines(of_one(chosen, remaking))
    low, high = f"{100 * row.low:.1f}", f"{100 * row.high:.1f}"
    assert told["accuracy"] == f"{100 * row.accuracy:.1f} % ({low} to {high}), {row.correct} of 200"
    assert told["images"] == "n = 200, test"
    assert "steps 50" in told["attack"]
    assert told["run"].endswith(f"/0-{row.card}")
    assert (told["device"], told["commit"]) == (row.device, row.commit[:10])
    assert told["to make it again"] == (
        f"snakemake --cores all '{told['run']}/white_box 1.parquet'"
        " --configfile 'config/my demo.yaml'"
    )


def test_a_cell_that_is_no_more_has_no_command(numbers, remaking):
    chosen = numbers[(numbers["seed"] == 1) & (numbers["attack"] == "pgd")].head(1)
    assert "to make it again" not in lines(of_one(chosen, remaking))
    assert "to make it again" not in lines(of_one(chosen))


@pytest.mark.parametrize(
    ("training", "told"),
    [
        ({}, ""),
        ({"precision": "fp32"}, ""),
        ({"precision": "bf16", "compiled": True}, ", in bf16, compiled"),
    ],
)
def test_what_a_training_was_computed_in_is_told_unless_it_is_fp32(rows, training, told):
    runs = rows.runs.assign(training=json.dumps(training), hyperparameters="{}", rule="r")
    one = traced(rows._replace(runs=runs), NONE).head(1)
    assert lines(of_one(one))["training"] == f"r{told}, best epoch"


def test_a_mean_tells_each_seed(rows, numbers):
    means = bounded(over_seeds(numbers), intervals(judged(rows)))
    for _, mean in means[means["attack"].isin(["pgd", "autoattack"])].iterrows():
        same = (numbers["method"] == mean["method"]) & (numbers["attack"] == mean["attack"])
        told = lines(of_mean(mean, numbers[same]))
        for row in numbers[same].itertuples():
            begin = "out of memory" if row.n == 0 else f"{100 * row.accuracy:.1f} % ("
            assert told[f"seed {row.seed}"].startswith(begin)
        if mean["seeds"] == 0:
            assert told["accuracy"] == "out of memory"
            continue
        shares = numbers[same]["accuracy"]
        assert told["accuracy"] == f"{100 * shares.mean():.1f} ± {100 * shares.std():.1f} %"
        low, high = map(float, re.findall(r"[\d.]+", told["95 % interval"])[:2])
        assert low <= round(100 * shares.mean(), 1) <= high


def test_a_doubt_and_a_failed_training_are_told(rows):
    last = rows.runs["seed"] == 0
    status = rows.runs["status"].where(~last, "diverged")
    broken = NONE.copy()
    broken.loc[0] = ["digits", "small_cnn", "natural", "natural", 0, "pgd", "not finite", "NaN"]
    numbers = traced(rows._replace(runs=rows.runs.assign(status=status)), broken)
    chosen = (numbers["method"] == "natural") & (numbers["attack"] == "pgd")
    told = lines(of_one(numbers[chosen & (numbers["seed"] == 0)]))
    assert told["flags"] == "not finite"
    assert told["accuracy"].endswith("training diverged")
    assert lines(of_one(numbers[chosen & (numbers["seed"] == 1)]))["flags"] == "none"


def test_the_days_of_the_runs_are_told(rows):
    days = rows.runs["seed"].map({0: "2026-11-22", 1: "2026-11-23"})
    assert machines(rows._replace(runs=rows.runs.assign(date="2026-11-22")))["date"] == "2026-11-22"
    told = machines(rows._replace(runs=rows.runs.assign(date=days)))["date"]
    assert set(told.split(", ")) == {
        "2026-11-22 (6 runs)", "2026-11-23 (6 runs)", "not recorded (6 runs)",
    }  # fmt: skip
    assert date.fromisoformat(provenance(torch.device("cpu"))["date"]) <= datetime.now(UTC).date()


def test_a_file_more_is_other_code_than_the_commits(monkeypatch, tmp_path):
    """A regularizer of one's own is one that git does not know yet."""
    package = tmp_path / "regbench"
    (package / "regularizers").mkdir(parents=True)
    (package / "a.py").write_text("")

    def git(*arguments):
        author = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", tmp_path, *author, *arguments], check=True)

    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "a")
    monkeypatch.setattr("regbench.storage.provenance.__file__", str(package / "provenance.py"))
    (tmp_path / "notes.txt").write_text("")
    assert not provenance(torch.device("cpu"))["dirty"]
    (package / "regularizers/mine.py").write_text("")
    assert provenance(torch.device("cpu"))["dirty"]


def test_a_cell_is_sorted_by_the_number_that_it_begins_with():
    texts = [
        "51.8 ± 0.9",
        "−3.2",
        "+10.2",
        "< 0.001",
        "1e-05",
        "3 (1 failed)",
        "–",
        "out of memory",
    ]
    numbers = [Cell(text).number for text in texts]
    assert numbers == ["51.8", "-3.2", "10.2", "0.001", "1e-05", "3", "", ""]


# --- verdicts -------------------------------------------------------------------------------------


def test_verdicts_are_a_column_where_any_run_was_examined(rows, numbers, masked):
    means = over_seeds(numbers)
    table = accuracy(means, panel=masked)["digits"].set_index("method")
    # PGD-AT keeps two thirds under PGD: seed 0 has a sign, the others none
    assert table.loc["PGD-AT", "verdict"] == "robust (2 runs), pseudo-robust (1 runs)"
    assert table.loc["natural", "verdict"] == "not robust"
    undiagnosed = panel(rows._replace(diagnostics=UNMEASURED))
    assert "pseudo-robust" in set(undiagnosed["verdict"])
    assert accuracy(means, panel=undiagnosed)["digits"].equals(accuracy(means)["digits"])
    unmeasured = masked.assign(**dict.fromkeys(NEEDED, float("nan")))
    assert "verdict" not in accuracy(means, panel=unmeasured)["digits"]


def test_the_panel_has_every_quantity_that_was_found_and_names_the_others(masked):
    sheet = verdicts.sheet(masked)
    there = [one for one in (*BASE, *SIGNS) if masked[one.quantity].notna().any()]
    lost = [one for one in (*BASE, *SIGNS) if one not in there]
    assert there
    assert lost
    assert [f"{one.name} ({one.bound})" for one in there] == list(map(words, sheet.columns[5:-1]))
    assert f"Not looked for, with any run: {'; '.join(one.name for one in lost)}." in sheet.notes
    for row in sheet.rows:
        for cell, one in zip(row[5:-1], there, strict=True):
            told = lines(cell.about)
            assert told["definition"] == one.definition
            assert told["source"] == one.source
            assert told["bound"].startswith(f"{one.bound}, ")
            assert told[one.name] == cell.text


# --- our place among the published numbers --------------------------------------------------------


def test_ours_are_ranked_among_the_published(numbers, known):
    table = places(known, over_seeds(numbers))
    methods = numbers["method"].nunique()
    assert set(table["attack"]) == {"clean"}, "no attack of ours is PGD-3"
    assert len(table) == methods + 2
    assert list(table["accuracy"].astype(float)) == sorted(table["accuracy"].astype(float))[::-1]
    assert table["place"].iloc[0] == f"1 of {methods + 2}"
    first, last = table.iloc[0], table.iloc[-1]
    assert (first["source"], first["method"]) == ("someone 2020", "PGD-AT")
    assert (last["source"], last["method"]) == ("other 2021 (tiny)", "made up")
    assert (table["source"] == OURS).sum() == methods


def test_a_network_that_was_trained_elsewhere_is_none_of_ours(numbers, known):
    means = over_seeds(numbers)
    theirs = means.assign(rule=means["rule"].mask(means["method"] == "PGD-AT", PRETRAINED))
    ours = places(known, theirs).loc[lambda table: table["source"] == OURS, "method"]
    assert {*ours} == {*means["method"]} - {"PGD-AT"}


@pytest.mark.parametrize(("rule", "told"), [("pgd_at", "PGD-AT"), ("trades", "theirs")])
def test_a_published_rule_is_called_as_ours_or_as_its_file_says(numbers, known, rule, told):
    entry = known.entries[0].model_copy(update={"rule": rule, "method": "theirs"})
    table = places(known.model_copy(update={"entries": (entry,)}), over_seeds(numbers))
    assert list(table.loc[table["source"] == "someone 2020", "method"]) == [told]


def test_equal_accuracies_share_a_place(numbers, known):
    entries = [entry.model_copy(update={"accuracy": {"clean": 100}}) for entry in known.entries]
    table = places(known.model_copy(update={"entries": tuple(entries)}), over_seeds(numbers))
    assert list(table["place"].str.split().str[0].head(3)) == ["1", "1", "3"]


def test_a_method_that_is_none_of_ours_stands_beside_none(rows, numbers, known):
    means = bounded(over_seeds(numbers), intervals(judged(rows)))
    beside = compare(known, means, 0.05)
    assert set(beside["source"]) == {"someone 2020"}
    alone = known.model_copy(update={"entries": known.entries[1:]})
    assert compare(alone, means, 0.05).empty
    assert "other 2021 (tiny)" in set(places(alone, means)["source"])


def cifar(rows):
    """The rows as if they were CIFAR-10's at 8/255."""
    told = {"dataset": "cifar10"}
    arguments = rows.evaluations["arguments"].str.replace('"epsilon": 0.2', '"epsilon": 0.0313725')
    return rows._replace(
        verdicts=rows.verdicts.assign(**told),
        evaluations=rows.evaluations.assign(**told, epsilon=8 / 255, arguments=arguments),
        runs=rows.runs.assign(**told, epsilon=8 / 255),
        curves=rows.curves.assign(**told),
    )


LEADERBOARD = load_published([ROOT / "config/published.yaml", ROOT / "config/leaderboard.yaml"])


def test_ours_have_a_place_on_the_leaderboard(rows):
    rows = cifar(rows)
    means = bounded(over_seeds(traced(rows, NONE)), intervals(judged(rows)))
    table = places(LEADERBOARD, means)
    under = table[table["attack"] == "AutoAttack"]
    known = [one for one in LEADERBOARD.entries if one.dataset == "cifar10"]
    theirs = [one.accuracy["autoattack"] for one in known if "autoattack" in one.accuracy]
    ranked = means[means["attack"] == "autoattack"].set_index("method")["mean"].dropna()
    assert len(under) == len(theirs) + len(ranked)
    assert len(theirs) >= 99
    ours = under[under["source"] == OURS].set_index("method")
    assert set(ours["images"]) == {200}
    for method, mean in ranked.items():
        better = sum(one > 100 * mean for one in theirs) + (ranked > mean).sum()
        assert ours.loc[method, "place"] == f"{better + 1} of {len(under)}"
    trades = under[under["method"] == "Zhang2019Theoretically"].iloc[0]
    assert (trades["accuracy"], trades["model"]) == ("53.08", "WideResNet-34-10")
    assert not set(compare(LEADERBOARD, means, 0.05)["source"]) & {
        source for source in table["source"] if source.startswith("RobustBench")
    }


def test_another_radius_has_no_ranking_of_ours(numbers, known):
    entries = [entry.model_copy(update={"dataset": "mnist"}) for entry in known.entries]
    assert places(known.model_copy(update={"entries": tuple(entries)}), over_seeds(numbers)).empty


# --- the file -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reports") / "my demo"
    shutil.copytree(DEMO, folder)
    return folder


@pytest.fixture(scope="module")
def html(folder, rows, known, remaking, compared):
    lacking = "Not finished: 1 of 2 trainings are here."
    references = list(compared["reference"].unique())
    shown = diagnosed(rows)
    text = page(folder, shown, known, ("fgsm", "pgd"), remaking, lacking, references)
    (folder / "index.html").write_text(text)
    return text


def test_the_page_asks_for_nothing_outside_itself(html):
    rest = re.sub(r"data:[a-z/]+;base64,[\w+/=]+", "data:", html)
    assert set(re.findall(r'\b(?:src|href)="([^"#]*)', rest)) == {"data:", "data:,", ""}
    assert "default-src 'none'" in rest
    assert "url(" not in rest
    assert EVIL not in rest
    assert "Not finished: 1 of 2 trainings are here." in rest


def test_the_command_writes_the_same_page_twice(tmp_path, monkeypatch):
    copy = tmp_path / "demo"
    shutil.copytree(DEMO, copy)
    files = [str(ROOT / f"config/{name}.yaml") for name in ("published", "leaderboard")]
    told = ["--gap", "fgsm", "pgd", "--margin", "4", "--published", *files]
    monkeypatch.setattr(sys, "argv", ["regbench.page", str(copy), *told])
    written = []
    for _ in range(2):
        stage.main()
        written.append((copy / "index.html").read_bytes())
    assert written[0] == written[1]
    assert "within a margin of ± 4 points" in written[0].decode()
    assert sorted(path.name for path in copy.iterdir()) == sorted(
        {path.name for path in DEMO.iterdir()} | {"index.html"}
    )


# --- in a browser ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    there = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
    chromium = next(filter(None, there), None)
    if chromium is None:
        pytest.skip("no Chromium on the PATH")
    with sync_playwright() as playwright:
        # Chromium's own sandbox does not start under root, as in a container
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def shown(browser, folder, html):
    """`shown(width, scheme)`: the page in a tab; it must ask for nothing, complain of nothing."""
    said, asked, tabs = [], [], []

    def show(width=1280, scheme="light"):
        tab = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        tabs.append(tab)
        tab.set_default_timeout(10_000)
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto((folder / "index.html").as_uri())
        tab.wait_for_selector(".dt-container")
        return tab

    yield show
    for tab in tabs:
        tab.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


def section(tab, name):
    return tab.locator(f"section#{name}")


def words(text):
    return " ".join(text.split())


def cells(part, name):
    """The cells of a column; `expect` waits for them, since a table is drawn after the click."""
    heads = [words(head) for head in part.locator("thead th").all_inner_texts()]
    return part.locator(f"tbody td:nth-child({heads.index(name) + 1})")


def column(part, name):
    """The texts of a column, from top to bottom."""
    return cells(part, name).all_inner_texts()


def test_a_caption_says_how_to_read_the_figure(html):
    assert "A curve for each seed; the line marks ε" in html


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_sticks_out_of_the_page(shown, width, scheme):
    tab = shown(width, scheme)
    wide = tab.evaluate("document.documentElement.scrollWidth")
    assert wide <= width
    ground = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground))) > 3 * 128) == (scheme == "light")


def test_the_tables_are_those_of_the_rows(shown, rows, numbers, masked):
    tab = shown()
    means = over_seeds(numbers)
    own, broken = means["source"].isna(), doubts(rows)
    for part, chosen, gap in (("", own, ("fgsm", "pgd")), ("-transferred", ~own, None)):
        table = accuracy(means[chosen], gaps(rows, gap), broken, masked)["digits"]
        assert "verdict" in table
        shown_as = section(tab, f"accuracy-on-digits{part}")
        for name in table.columns.drop("dataset"):
            assert column(shown_as, name) == list(table[name].astype(str))
    assert len(column(section(tab, "results-per-run-and-attack"), "accuracy")) == len(numbers)
    wrong = section(tab, "what-went-wrong-and-what-the-attacks-warned-of")
    assert column(wrong, "what happened") == ["out of memory"] * 3


JUDGED = "robust-or-only-apparently-so"
COMPARED = "is-the-difference-real"


def test_each_run_has_its_verdict_and_each_sign_is_bold(shown, masked):
    part = section(shown(), JUDGED)
    expect(cells(part, "verdict")).to_have_text(list(masked["verdict"]))
    dips = ["0.25", "0", "0"] * (len(masked) // 3)
    expect(cells(part, "loss falls again (> 0.05)")).to_have_text(dips)
    bold = cells(part, "loss falls again (> 0.05)").locator("strong")
    expect(bold).to_have_text(["0.25"] * (len(masked) // 3))
    expect(part).to_contain_text("Not looked for, with any run:")
    there = [one for one in (*BASE, *SIGNS) if masked[one.quantity].notna().any()]
    expect(part.locator("thead th")).to_have_count(5 + len(there) + 1)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_method_stays_in_view_while_its_numbers_scroll(shown, width):
    part = section(shown(width), JUDGED)
    method, last = cells(part, "method").first, cells(part, "overfits in epoch").first
    left = part.bounding_box()["x"]
    assert method.bounding_box()["x"] > left
    last.scroll_into_view_if_needed()
    expect(last).to_be_in_viewport(ratio=1)
    assert method.bounding_box()["x"] == pytest.approx(left, abs=1)
    ground = method.evaluate("cell => getComputedStyle(cell).backgroundColor")
    assert ground == "rgb(255, 255, 255)"  # what scrolls by beneath does not show


@pytest.mark.parametrize("way", ["hover", "focus"])
def test_a_quantity_tells_definition_bound_and_source(shown, way):
    tab = shown()
    cell = cells(section(tab, JUDGED), "loss falls again (> 0.05)").first
    {"hover": cell.hover, "focus": cell.focus}[way]()
    box = tab.get_by_role("tooltip")
    expect(box).to_contain_text("share by which the mean loss at ε along FGSM is below its highest")
    expect(box).to_contain_text("> 0.05, met")
    expect(box).to_contain_text("arXiv:2002.00614")


def test_a_verdict_tells_its_reasons_in_both_tables(shown, masked):
    tab = shown()
    box = tab.get_by_role("tooltip")
    place = list(masked["verdict"]).index("pseudo-robust")
    cells(section(tab, JUDGED), "verdict").nth(place).focus()
    expect(box).to_contain_text("looks robust, and shows a sign of masked gradients")
    expect(box).to_contain_text(masked["reasons"].iloc[place])
    column = cells(section(tab, "accuracy-on-digits"), "verdict")
    methods = list(dict.fromkeys(masked["method"]))
    column.nth(methods.index(masked["method"].iloc[place])).focus()
    expect(box).to_contain_text(masked["reasons"].iloc[place])
    expect(box).to_contain_text("seed 2")


def test_every_comparison_is_there_the_strongest_attack_first(shown, compared):
    tab = shown()
    part = section(tab, COMPARED)
    expect(cells(part, "method")).to_have_count(len(compared))
    first = compared[compared["attack"] == "autoattack"]
    attacks = column(part, "attack")
    assert attacks[: len(first)] == ["AutoAttack"] * len(first)
    assert "AutoAttack" not in attacks[len(first) :]
    row = first[first["seeds"] > 0].iloc[0]
    place = list(first.index).index(row.name)
    told = f"{100 * row['difference']:+.1f}".replace("-", "−")
    assert column(part, "difference")[place] == told
    assert column(part, "verdict")[place] == row["verdict"]
    cells(part, "difference").nth(place).focus()
    box = tab.get_by_role("tooltip")
    expect(box).to_contain_text(f"{row['method']} − {row['against']}")
    expect(box).to_contain_text(f"more often right on {row['more']}, less often on {row['fewer']}")
    expect(box).to_contain_text("± 5 points")


def test_what_training_costs_is_told_beside_pgd_at(shown, rows):
    part = section(shown(), "what-training-costs")
    pairs = rows.runs.assign(
        passes=(rows.runs["forward_passes"] + rows.runs["backward_passes"]) / 2
    )
    mean = pairs.groupby("method", observed=True)["passes"].mean()
    of_pgd_at = {name: f"{passes / mean['PGD-AT']:.2f}" for name, passes in mean.items()}
    assert of_pgd_at["FGSM-AT"] == "0.25"
    expect(cells(part, "of PGD-AT")).to_have_count(len(mean))
    told = zip(column(part, "method"), column(part, "of PGD-AT"), strict=True)
    assert dict(told) == of_pgd_at


def test_differences_are_sorted_with_their_sign(shown):
    part = section(shown(), COMPARED)
    before = column(part, "difference")

    def value(text):
        return float(text.replace("−", "-")) if text != "–" else float("-inf")

    order = sorted(before, key=value)
    assert order != before
    assert {text[0] for text in before} >= {"+", "−"}
    part.locator("th", has_text="difference").click()
    expect(cells(part, "difference")).to_have_text(order)


def test_a_click_on_a_column_sorts_it_by_number(shown):
    part = section(shown(), "accuracy-on-digits")
    before = column(part, "AutoAttack")
    failed = before.count("out of memory")
    numbers = sorted(set(before) - {"out of memory"}, key=lambda text: float(text.split()[0]))
    ascending = ["out of memory"] * failed + numbers
    assert len(ascending) == len(before)
    assert ascending[::-1] != before != ascending
    head = part.locator("th", has_text="AutoAttack")
    for order in (ascending, ascending[::-1], before):
        head.click()
        expect(cells(part, "AutoAttack")).to_have_text(order)


def test_names_are_sorted_as_words(shown):
    part = section(shown(), "accuracy-on-digits")
    before = column(part, "method")
    part.locator("th", has_text="method").click()
    order = sorted(before, key=str.lower)
    assert order != before
    expect(cells(part, "method")).to_have_text(order)


def test_the_filter_keeps_the_rows_with_all_words(shown, numbers):
    part = section(shown(), "results-per-run-and-attack")
    box = part.get_by_role("searchbox")
    box.fill("SAT-R1 AutoAttack")
    expect(cells(part, "method")).to_have_text(["SAT-R1"] * 3)
    box.fill("no such word")
    expect(part).to_contain_text("No row has these words.")
    box.fill("")
    expect(cells(part, "seed")).to_have_count(len(numbers))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("way", ["hover", "focus", "tap"])
def test_an_accuracy_tells_what_is_known_of_it(shown, numbers, way, width):
    tab = shown(width)
    cell = section(tab, "accuracy-on-digits").locator("td[data-about]").nth(2)
    cell.scroll_into_view_if_needed()
    box = tab.get_by_role("tooltip")
    expect(box).not_to_be_visible()
    {"hover": cell.hover, "focus": cell.focus, "tap": cell.click}[way]()
    box.wait_for()
    text = box.inner_text()
    for seed in numbers["seed"].unique():
        assert f"seed {seed}" in text
    for words in ("95 % interval", "n = 200", "flags", "results/digits/small_cnn", "commit"):
        assert words in text
    place = box.bounding_box()
    assert place["x"] >= 0
    assert place["x"] + place["width"] <= width
    assert place["y"] >= 0
    assert place["y"] + place["height"] <= 800
    tab.keyboard.press("Escape")
    expect(box).not_to_be_visible()


def test_the_pointer_may_move_onto_what_it_is_told(shown):
    tab = shown()
    cell = section(tab, "accuracy-on-digits").locator("td[data-about]").first
    box = tab.get_by_role("tooltip")
    cell.hover()
    box.hover()
    expect(box).to_be_visible()
    tab.locator("h1").hover()
    expect(box).not_to_be_visible()


def test_what_is_told_stays_while_it_is_copied(shown):
    tab = shown()
    box = tab.get_by_role("tooltip")
    section(tab, "accuracy-on-digits").locator("td[data-about]").first.click()
    box.get_by_text("results/digits").first.click()
    tab.mouse.move(5, 5)
    expect(box).to_be_visible()
    tab.locator("h1").click()
    expect(box).not_to_be_visible()


def test_the_keyboard_reaches_an_accuracy(shown):
    tab = shown()
    section(tab, "accuracy-on-digits").get_by_role("searchbox").focus()
    for _ in range(30):
        tab.keyboard.press("Tab")
        if tab.get_by_role("tooltip").is_visible():
            return
    pytest.fail("30 tabs after the filter no accuracy has told anything")


def test_each_figure_is_there_with_its_words_and_grows(shown, folder):
    tab = shown()
    pictures = tab.locator("figure img")
    there = sorted(path.stem for path in (folder / "figures").glob("*.png"))
    assert pictures.count() == len(there) > 0
    assert set(there) <= set(names("figures"))
    for picture in pictures.all():
        assert picture.evaluate("img => img.naturalWidth") > 100
        assert len(picture.get_attribute("alt")) > 20
    small = pictures.first.bounding_box()["width"]
    pictures.first.click()
    large = tab.locator("dialog img")
    large.wait_for()
    assert large.get_attribute("src") == pictures.first.get_attribute("src")
    assert large.bounding_box()["width"] > small
    tab.keyboard.press("Escape")
    expect(large).not_to_be_visible()


def test_without_scripts_the_tables_stand(browser, folder, html):
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto((folder / "index.html").as_uri())
    assert section(tab, "accuracy-on-digits").locator("tbody tr").count() > 0
    assert "n = 200" in tab.locator("td[title]").first.get_attribute("title")
    context.close()
