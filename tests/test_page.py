"""The page that needs no network: what it says, and how a real browser shows it."""

import re
import shutil
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
import torch
from playwright.sync_api import expect, sync_playwright

from regbench import page as stage
from regbench.cards import DataCard, ModelCard, RegularizerCard, RunCard, TrainingCard
from regbench.doubts import NONE, doubts
from regbench.manifest import Manifest, Run
from regbench.members import names
from regbench.origins import Remaking, of_mean, of_one, traced
from regbench.page import page
from regbench.provenance import provenance
from regbench.published import OURS, Published, places
from regbench.rows import load, over_seeds
from regbench.summary import origins
from regbench.tables import accuracy

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
            "rule": "made_up",
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


def test_a_mean_tells_each_seed(numbers):
    means = over_seeds(numbers)
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
    assert origins(rows._replace(runs=rows.runs.assign(date="2026-11-22")))["date"] == "2026-11-22"
    told = origins(rows._replace(runs=rows.runs.assign(date=days)))["date"]
    assert set(told.split(", ")) == {
        "2026-11-22 (6 runs)", "2026-11-23 (6 runs)", "not recorded (6 runs)",
    }  # fmt: skip
    assert date.fromisoformat(provenance(torch.device("cpu"))["date"]) <= datetime.now(UTC).date()


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
    assert (last["source"], last["method"]) == ("other 2021 (tiny)", "made_up")
    assert (table["source"] == OURS).sum() == methods


def test_equal_accuracies_share_a_place(numbers, known):
    entries = [entry.model_copy(update={"accuracy": {"clean": 100}}) for entry in known.entries]
    table = places(known.model_copy(update={"entries": tuple(entries)}), over_seeds(numbers))
    assert list(table["place"].str.split().str[0].head(3)) == ["1", "1", "3"]


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
def html(folder, rows, known, remaking):
    text = page(folder, rows, known, ("fgsm", "pgd"), remaking)
    (folder / "index.html").write_text(text)
    return text


def test_the_page_asks_for_nothing_outside_itself(html):
    rest = re.sub(r"data:[a-z/]+;base64,[\w+/=]+", "data:", html)
    assert set(re.findall(r'\b(?:src|href)="([^"#]*)', rest)) == {"data:", "data:,", ""}
    assert "default-src 'none'" in rest
    assert "url(" not in rest
    assert EVIL not in rest


def test_the_command_writes_the_same_page_twice(tmp_path, monkeypatch):
    copy = tmp_path / "demo"
    shutil.copytree(DEMO, copy)
    told = ["--gap", "fgsm", "pgd", "--published", str(ROOT / "config/published.yaml")]
    monkeypatch.setattr(sys, "argv", ["regbench.page", str(copy), *told])
    written = []
    for _ in range(2):
        stage.main()
        written.append((copy / "index.html").read_bytes())
    assert written[0] == written[1]
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


def cells(part, name):
    """The cells of a column; `expect` waits for them, since a table is drawn after the click."""
    heads = [head.strip() for head in part.locator("thead th").all_inner_texts()]
    return part.locator(f"tbody td:nth-child({heads.index(name) + 1})")


def column(part, name):
    """The texts of a column, from top to bottom."""
    return cells(part, name).all_inner_texts()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_sticks_out_of_the_page(shown, width, scheme):
    tab = shown(width, scheme)
    wide = tab.evaluate("document.documentElement.scrollWidth")
    assert wide <= width
    ground = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground))) > 3 * 128) == (scheme == "light")


def test_the_tables_are_those_of_the_rows(shown, rows, numbers):
    tab = shown()
    table = accuracy(over_seeds(numbers), ("fgsm", "pgd"), doubts(rows))["digits"]
    part = section(tab, "accuracy-on-digits")
    for name in table.columns.drop("dataset"):
        assert column(part, name) == list(table[name].astype(str))
    assert len(column(section(tab, "results-per-run-and-attack"), "accuracy")) == len(numbers)
    wrong = section(tab, "what-went-wrong-and-what-the-attacks-warned-of")
    assert column(wrong, "what happened") == ["out of memory"] * 3


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
