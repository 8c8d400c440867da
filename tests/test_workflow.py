"""The workflow itself, run by Snakemake on a copy of the repository."""

import fcntl
import hashlib
import html
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

from regbench.overhead import computing

ROOT = Path(__file__).parents[1]
PARTS = ("Snakefile", "rules", "config", "profiles", "regbench", "reports")

pytestmark = pytest.mark.workflow

TINY = {
    "experiment": "tiny",
    "seeds": [0],
    "gap": ["fgsm", "pgd"],
    "training": {"epochs": 1, "batch_size": 64, "learning_rate": 0.1},
    "regularizers": {"natural": None, "fgsm_at": None, "sat_r1": {"weight": 0.1, "steps": 2}},
    "diagnostics": {"images": 20, "points": 3},
    "attacks": {
        "white_box": {
            "clean": {"images": 50},
            "fgsm": {"images": 50},
            "pgd": {"images": 50, "steps": 2, "step_size": 0.1},
        },
        "autoattack": {"autoattack": {"images": 4}},
        "transfer": {
            "from_other": {"attack": "fgsm", "images": 50, "source": "other"},
            "from_cell": {"attack": "fgsm", "images": 50, "source": "cell"},
            "over": {"attack": "fgsm", "images": 50, "sweep": {"epsilon": ["1/8", "1/4"]}},
        },
    },
    "datasets": {
        "digits": {
            "epsilon": 0.25,
            "validation": 897,
            "models": {"small_cnn": {"width": 2}},
            "sources": {
                "other": {"model": "model_d"},
                "cell": {"model": "small_cnn", "regularizer": "fgsm_at"},
            },
        }
    },
}


DRAWN = {"collect": 1, "tables": 1, "figures": 1, "page": 1, "all": 1}
"""The jobs above the verdicts."""


class Copy:
    """A copy of the workflow in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for part in PARTS:
            source = ROOT / part
            take = shutil.copytree if source.is_dir() else shutil.copy
            take(source, folder / part)
        for stale in (folder / "reports").glob("*/"):
            shutil.rmtree(stale)
        self.configure(TINY)

    def configure(self, config: dict, name: str = "tiny") -> None:
        """Write a config file."""
        (self.folder / f"config/{name}.yaml").write_text(yaml.safe_dump(config, sort_keys=False))

    def snakemake(self, *arguments: str, name: str = "tiny") -> subprocess.CompletedProcess:
        """Run Snakemake there, the copy's regbench first on the path."""
        command = [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]
        return subprocess.run(
            [*command, "--configfile", f"config/{name}.yaml"],  # takes all that follows it
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(self.folder)},
            capture_output=True,
            text=True,
            check=False,
        )

    def jobs(self, *arguments: str, name: str = "tiny") -> dict[str, int]:
        """Return the jobs of a dry-run, by rule."""
        done = self.snakemake("-n", "--quiet", "rules", *arguments, name=name)
        assert done.returncode == 0, done.stderr
        found = re.findall(r"^(\w+) +(\d+)$", done.stdout + done.stderr, flags=re.MULTILINE)
        return {rule: int(count) for rule, count in found if rule != "total"}

    def readme_example(self) -> None:
        """Do what README says under 'A regularizer of your own'."""
        text = (ROOT / "README.md").read_text()
        files = re.findall(
            r"^`(\S+)`\n\n```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL
        )
        assert [Path(path).name for path, _ in files] == [
            "logit_squeezing.py",
            "logit_squeezing.smk",
        ]
        for path, content in files:
            (self.folder / path).write_text(content)
        chosen = yaml.safe_load(re.search(r"```yaml\n(.*?)```", text, flags=re.DOTALL).group(1))
        more = {**TINY["regularizers"], **chosen["regularizers"]}
        self.configure({**TINY, "regularizers": more})

    def readme_data_set(self, root: Path) -> None:
        """Do what README says of a data set of one's own, which lies under `root`."""
        text = (ROOT / "README.md").read_text()
        (shown,) = re.findall(r"```yaml\n(experiment: mine.*?)```", text, flags=re.DOTALL)
        noise = np.random.default_rng(0)
        images = noise.integers(0, 256, (1_100, 32, 32, 3), np.uint8)
        labels = np.arange(1_100) % 10
        parts = {"x_train": images, "y_train": labels, "x_test": images[:9], "y_test": labels[:9]}
        np.savez(root / "mine.npz", **parts)
        digest = hashlib.sha256((root / "mine.npz").read_bytes()).hexdigest()
        self.configure(yaml.safe_load(shown.replace("0123…", digest)), name="mine")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A copy in which the tiny experiment has been run."""
    copy = Copy(tmp_path_factory.mktemp("finished"))
    done = copy.snakemake()
    assert done.returncode == 0, done.stdout + done.stderr
    return copy


@pytest.fixture
def copy(finished):
    """The finished copy, its config put back as it was afterwards."""
    finished.configure(TINY)
    yield finished
    finished.configure(TINY)


def test_every_promised_file_is_there(finished):
    reports = finished.folder / "reports/tiny"
    for name in (
        "index.html", "summary.md", "published.csv", "published.md", "accuracy.csv", "accuracy.md",
        "accuracy.tex", "results.csv", "doubts.csv", "intervals.csv", "comparisons.csv",
        "masking.csv", "costs.csv", "diagnostics.parquet", "gallery.parquet",
        "verdicts.parquet", "evaluations.parquet", "runs.parquet", "curves.parquet",
        "figures/accuracy_per_attack.png", "figures/learning_curves.png",
        "figures/robustness_against_cost.png", "figures/robustness_against_cost.pdf",
        "figures/accuracy_over_sweeps.png", "figures/loss_along_fgsm.png",
        "figures/loss_surface.png", "figures/properties_during_training.png",
        "figures/transfer_matrix.png", "figures/gallery.png",
    ):  # fmt: skip
        assert (reports / name).stat().st_size > 0, name
    tidy = pd.read_csv(reports / "results.csv")
    assert len(tidy) == 3 * (4 + 2 + 2) - 1
    crafted = tidy[tidy["attack"] == "from_cell"]
    assert set(crafted["method"]) == {"natural", "SAT-R1"}  # not FGSM-AT, on which it is crafted
    assert set(tidy["n"]) == {50, 4}
    assert (tidy["low"] <= tidy["accuracy"]).all()
    assert (tidy["accuracy"] <= tidy["high"]).all()
    assert list(pd.read_csv(reports / "accuracy.csv")["method"]) == ["natural", "FGSM-AT", "SAT-R1"]
    judged = pd.read_csv(reports / "masking.csv")
    assert list(judged["method"]) == ["natural", "FGSM-AT", "SAT-R1"]
    assert judged["zero_gradient"].notna().all()


def test_readmes_data_set_of_ones_own_resolves(copy, tmp_path, monkeypatch):
    monkeypatch.setenv("REGBENCH_DATA", str(tmp_path))
    copy.readme_data_set(tmp_path)
    jobs = copy.jobs(name="mine")
    assert {rule for rule in jobs if rule.startswith("train_")} == {
        f"train_{name}" for name in ("fgsm_at", "pgd_at", "sat_r1", "sat_r2", "sat_r3")
    }
    assert jobs["attack"] == 5 * 2


def test_the_work_of_every_job_is_counted(finished):
    results = finished.folder / "results"
    trained = [json.loads(path.read_text())["seconds"] for path in results.glob("*/*/*/*/run.json")]
    tables = [pq.read_schema(path) for path in results.glob("*/*/*/*/*.parquet")]
    told = [json.loads(table.metadata[b"regbench"]) for table in tables]
    attacked = [one["seconds"] for about in told for one in about.get("attacks", {}).values()]
    diagnosed = [about["seconds"] for about in told if "attacks" not in about]
    assert len(diagnosed) == 2 * 3  # diagnostics and gallery of each cell
    assert computing(results, 0) == pytest.approx(sum(trained + attacked + diagnosed))
    assert computing(results, time.time()) == 0


def test_data_come_first_then_what_is_trained_is_judged_then_early_seeds_are_trained(copy):
    split_anew = {"digits": {**TINY["datasets"]["digits"], "split_seed": 5}}
    copy.configure({**TINY, "seeds": [7, 2], "datasets": split_anew})
    done = copy.snakemake("-n")
    priorities = defaultdict(set)
    for job in done.stdout.split("\n\n"):
        told = re.search(r"rule (\w+):.*\brun=(\d+)-.*^ +priority: (\d+)$", job, re.M | re.S)
        if told:
            rule, seed, priority = told.groups()
            priorities[rule.partition("_")[0], seed].add(int(priority))
    (early,), (late,) = priorities["train", "2"], priorities["train", "7"]
    judging = [priorities[rule, seed] for rule in ("attack", "diagnose") for seed in ("2", "7")]
    assert all(judging)
    judged = set.union(*judging)
    assert late < early < min(judged)
    (data,) = re.findall(r"rule data:.*?^ +priority: (\d+)$", done.stdout, re.M | re.S)
    assert max(judged) < int(data)


def test_a_second_run_does_nothing(copy):
    done = copy.snakemake()
    assert "Nothing to be done" in done.stdout + done.stderr


def test_a_new_weight_runs_only_its_cell(copy):
    copy.configure({**TINY, "regularizers": {**TINY["regularizers"], "sat_r1": {"weight": 0.7}}})
    assert copy.jobs() == {
        "train_sat_r1": 1, "attack": 3, "diagnose": 1, **DRAWN
    }  # fmt: skip


def test_a_new_suite_trains_nothing(copy):
    more = {**TINY["attacks"], "more": {"wide": {"attack": "fgsm", "epsilon": 0.5}}}
    copy.configure({**TINY, "attacks": more})
    assert copy.jobs() == {"attack": 3, **DRAWN}


def test_a_changed_loss_runs_only_its_cells(copy):
    with edited(copy, "regbench/regularizers/sat_r1.py", "self.weight * distance", "2 * distance"):
        jobs = copy.jobs()
    assert jobs["train_sat_r1"] == 1
    assert jobs["attack"] == 3
    assert "train_natural" not in jobs


def test_a_changed_diagnostic_measures_anew_and_trains_nothing(copy):
    with edited(copy, "regbench/diagnostics/several_steps.py", "STEPS = 10", "STEPS = 5"):
        jobs = copy.jobs()
    assert jobs == {"diagnose": 3, **DRAWN}


def test_switching_diagnostics_off_only_collects_anew(copy):
    copy.configure({**TINY, "diagnostics": False})
    assert copy.jobs() == DRAWN


def test_a_comment_runs_nothing(copy):
    with edited(copy, "regbench/training/loop.py", "import time", "# a thought\nimport time"):
        done = copy.snakemake()
    assert "Nothing to be done" in done.stdout + done.stderr


def test_a_changed_plot_trains_nothing(copy):
    with edited(copy, "regbench/figures/learning_curves.py", "height=2.5", "height=3.0"):
        jobs = copy.jobs()
    assert jobs == {"figures": 1, "page": 1, "all": 1}


def test_the_pieces_of_an_attack_are_jobs_whose_verdicts_are_gathered(copy):
    pieces = {
        "pgd": {"images": 50, "steps": 2, "step_size": 0.1, "pieces": 3},
        "fgsm": {"images": 50},
        "over": {"attack": "fgsm", "images": 10, "pieces": 2, "sweep": {"epsilon": [0.1, 0.2]}},
    }
    chosen = {
        "regularizers": {"natural": None}, "attacks": {"pieces": pieces}, "diagnostics": False,
    }  # fmt: skip
    copy.configure({**TINY, **chosen, "experiment": "pieces"}, "pieces")
    jobs = {"attack": 1, "attack_piece": 7, **DRAWN}
    assert copy.jobs(name="pieces") == jobs
    done = copy.snakemake(name="pieces")
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout + done.stderr
    assert "0 trainings, about 0 s, 1 suites of attacks" in said
    assert "and 0 diagnoses, about 0 s" in said
    assert "Nothing to be done" in copy.snakemake(name="pieces").stderr
    (run,) = (copy.folder / "results/digits/small_cnn/natural").iterdir()
    assert not list(run.glob("*.parts"))
    (parallel,) = run.glob("pieces-*.parquet")
    alone = copy.folder / "alone.parquet"
    data = next((copy.folder / "results/digits").glob("data-*.safetensors"))
    about = json.loads(pq.read_schema(parallel).metadata[b"regbench"])
    command = [sys.executable, "-m", "regbench.attack", json.dumps(about["card"]), "--run", run]
    environment = {**os.environ, "PYTHONPATH": str(copy.folder), "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [*command, "--data", data, "--out", alone], check=True, env=environment, capture_output=True
    )
    assert pq.read_table(alone).equals(pq.read_table(parallel))


def test_two_experiments_share_cells_and_never_overwrite(copy):
    other = {**TINY, "experiment": "other", "seeds": [0]}
    other["regularizers"] = {
        "natural": None,
        "strong": {"regularizer": "sat_r1", "weight": 9, "steps": 2},
    }
    copy.configure(other, "other")
    assert copy.jobs(name="other") == {
        "train_sat_r1": 1, "attack": 3, "diagnose": 1, **DRAWN
    }  # fmt: skip
    assert copy.snakemake(name="other").returncode == 0
    assert "Nothing to be done" in str(copy.snakemake().stderr)
    assert "Nothing to be done" in str(copy.snakemake(name="other").stderr)
    assert (copy.folder / "reports/other/summary.md").exists()


def with_theirs(weights: Path, digest: str) -> dict:
    """The tiny experiment with one network more, from a file."""
    theirs = {"model": "small_cnn", "weights": str(weights), "sha256": digest, "label": "Theirs"}
    digits = {**TINY["datasets"]["digits"], "pretrained": {"theirs": theirs}}
    return {**TINY, "experiment": "given", "datasets": {"digits": digits}}


def test_a_network_trained_elsewhere_is_judged_beside_ours_as_the_same_network_here(copy, tmp_path):
    """Of its own weights, exported: every verdict the same, and nothing is trained."""
    (run,) = copy.folder.glob("results/digits/small_cnn/fgsm_at/0-*")
    weights = tmp_path / "theirs.pt"
    command = [sys.executable, "-m", "regbench.export", run, "--out", weights]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    copy.configure(with_theirs(weights, digest))
    alone = {"adopt": 1, "attack": 3, "diagnose": 1}
    assert copy.jobs() == {**DRAWN, **alone}
    assert copy.jobs("--nolock", "only_theirs") == {**alone, "only_theirs": 1}
    done = copy.snakemake()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 trainings and 1 pretrained network," in done.stderr
    reports = copy.folder / "reports/given"
    verdicts = pd.read_parquet(reports / "verdicts.parquet").astype({"regularizer": str})
    of = dict(iter(verdicts.groupby("regularizer")))
    # crafted on FGSM-AT's network, which is not judged by that itself
    theirs = of["theirs"][of["theirs"]["attack"] != "from_cell"]
    assert theirs["attack"].nunique() == 7
    told = ["attack", "image", "prediction", "correct", "distance", "loss"]
    pd.testing.assert_frame_equal(
        theirs[told].reset_index(drop=True), of["fgsm_at"][told].reset_index(drop=True)
    )
    assert pd.read_csv(reports / "costs.csv")["method"].tolist() == ["natural", "FGSM-AT", "SAT-R1"]
    summary = (reports / "summary.md").read_text()
    assert "Trained elsewhere, and of the weights in their files: Theirs." in summary
    (row,) = re.findall(r"^\| digits .*\| Theirs .*(?=\| 1 )", summary, re.MULTILINE)[:1]
    assert [cell.strip() for cell in row.split("|")[-2:]] == ["–", "–"]
    page = (reports / "index.html").read_text()
    assert "3 trainings, 1 pretrained network, " in page
    assert f"training: pretrained, sha256 {digest}" in page
    copy.configure(with_theirs(weights.rename(tmp_path / "moved.pt"), digest))
    assert not alone.keys() & copy.jobs().keys()


def test_report_figures_redraws_without_training(copy):
    run = next((copy.folder / "results/digits/small_cnn/natural").iterdir())
    weights = run / "best.safetensors"
    figure = copy.folder / "reports/tiny/figures/learning_curves.png"
    aside = weights.rename(weights.with_suffix(".aside"))
    page = copy.folder / "reports/tiny/index.html"
    before = figure.read_bytes(), page.read_bytes()
    figure.unlink()
    page.unlink()
    try:
        done = copy.snakemake("report_figures")
        retrained = weights.exists()
    finally:
        aside.rename(weights)
    assert done.returncode == 0, done.stderr
    assert (figure.read_bytes(), page.read_bytes()) == before, "the same rows give the same picture"
    assert not retrained


def test_the_command_lines_of_the_page_make_what_they_say(copy):
    text = html.unescape((copy.folder / "reports/tiny/index.html").read_text())
    commands = set(re.findall(r"snakemake --cores all (results/.*) --configfile ([^\"]*)\"", text))
    results = {
        str(path.relative_to(copy.folder)) for path in copy.folder.glob("results/*/*/*/*/*.parquet")
    }
    targets = {target for target, _ in commands}
    assert targets <= results
    assert len(targets) == 3 * 3  # methods and suites
    assert {config for _, config in commands} == {"config/tiny.yaml"}
    target = sorted(targets)[0]
    verdicts = copy.folder / target
    aside = verdicts.rename(verdicts.with_suffix(".aside"))
    try:
        assert copy.jobs("--nolock", target) == {"attack": 1}
    finally:
        aside.rename(verdicts)


def test_a_report_stands_for_results_that_are_gone(copy):
    before = {path.name: pd.read_csv(path) for path in (copy.folder / "reports/tiny").glob("*.csv")}
    results = copy.folder / "results"
    aside = results.rename(results.with_name("aside"))
    try:
        done = copy.snakemake("report_figures")
    finally:
        shutil.rmtree(results, ignore_errors=True)  # its logs
        aside.rename(results)
    assert done.returncode == 0, done.stderr
    assert "kept as it is" not in done.stdout + done.stderr
    for name, table in before.items():
        pd.testing.assert_frame_equal(table, pd.read_csv(copy.folder / "reports/tiny" / name))


def test_the_same_card_gives_the_same_weights(copy):
    run = next((copy.folder / "results/digits/small_cnn/sat_r1").iterdir())
    data = next((copy.folder / "results/digits").glob("data-*.safetensors"))
    command = [sys.executable, "-m", "regbench.train", run / "card.json", "--data", data]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [*command, "--out", copy.folder / "again"], check=True, env=environment, capture_output=True
    )
    again = copy.folder / "again"
    for name in ("best.safetensors", "last.safetensors"):
        assert (again / name).read_bytes() == (run / name).read_bytes()
    # one epoch of a tiny network may not leave chance behind, but it does not diverge
    assert json.loads((run / "run.json").read_text())["status"].startswith(("ok", "collapsed"))


def test_the_readme_regularizer_joins_with_nothing_else_changed(tmp_path):
    copy = Copy(tmp_path)
    copy.readme_example()
    jobs = copy.jobs()
    assert jobs["train_logit_squeezing"] == 1
    assert jobs["attack"] == 3 * 4
    done = copy.snakemake("--until", "train_logit_squeezing")
    assert done.returncode == 0, done.stdout + done.stderr
    run = next((tmp_path / "results/digits/small_cnn/logit_squeezing").iterdir())
    card = json.loads((run / "card.json").read_text())
    assert card["regularizer"]["hyperparameters"] == {"weight": 0.1}


def test_the_readme_regularizer_runs_only_its_own_cells(copy):
    copy.readme_example()
    try:
        jobs, alone = copy.jobs(), copy.jobs("--nolock", "only_logit_squeezing")
    finally:
        for path in ("regbench/regularizers", "rules/regularizers"):
            for file in (copy.folder / path).glob("logit_squeezing.*"):
                file.unlink()
    cells = {"train_logit_squeezing": 1, "attack": 3, "diagnose": 1}
    assert jobs == {**cells, **DRAWN}
    assert alone == {**cells, "only_logit_squeezing": 1}


def test_a_loss_from_outside_the_repository(copy, tmp_path):
    package = copy.folder / "outside"
    package.mkdir(exist_ok=True)
    source = (ROOT / "regbench/regularizers/fgsm_at.py").read_text()
    (package / "losses.py").write_text(source)
    rule = (ROOT / "rules/regularizers/fgsm_at.smk").read_text()
    rule = rule.replace("regbench.regularizers.fgsm_at:FGSMAT", "outside.losses:FGSMAT")
    file = copy.folder / "rules/regularizers/outside.smk"
    file.write_text(rule.replace("fgsm_at", "outside").replace("FGSM-AT", "from outside"))
    copy.configure({**TINY, "regularizers": {**TINY["regularizers"], "outside": None}})
    try:
        jobs = copy.jobs()
    finally:
        file.unlink()
    assert jobs["train_outside"] == 1


FAILS_ONCE = """
    def __call__(self, step: Step) -> Objective:
        from pathlib import Path
        if not Path("passed").exists():
            Path("passed").touch()
            raise RuntimeError("the machine failed, this once")
"""


def test_a_failure_that_passes_is_tried_again(copy):
    head = "\n    def __call__(self, step: Step) -> Objective:\n"
    source = (ROOT / "regbench/regularizers/natural.py").read_text()
    assert head in source
    (copy.folder / "regbench/regularizers/flaky.py").write_text(source.replace(head, FAILS_ONCE))
    rule = (ROOT / "rules/regularizers/natural.smk").read_text()
    file = copy.folder / "rules/regularizers/flaky.smk"
    file.write_text(rule.replace("natural", "flaky"))
    data = {**TINY["datasets"]["digits"], "sources": {}}
    attacks = {"white_box": {"clean": {"images": 50}, "fgsm": {"images": 50}}}
    copy.configure(
        {
            **TINY, "experiment": "flaky", "regularizers": {"flaky": None}, "attacks": attacks,
            "datasets": {"digits": data}, "gap": None,
        }
    )  # fmt: skip
    try:
        done = copy.snakemake()
    finally:
        file.unlink()
    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    assert (copy.folder / "passed").exists()
    assert "the machine failed, this once" in told


def test_why_a_stage_failed_is_said_even_where_rules_are_quiet(copy):
    head = "    def __call__(self, step: Step) -> Objective:\n"
    source = (ROOT / "regbench/regularizers/natural.py").read_text()
    bare = f"{head}        return step.logits(step.x).sum()\n\n    def _objective(self, step):\n"
    (copy.folder / "regbench/regularizers/bare.py").write_text(source.replace(head, bare))
    rule = (ROOT / "rules/regularizers/natural.smk").read_text()
    file = copy.folder / "rules/regularizers/bare.smk"
    file.write_text(rule.replace("natural", "bare"))
    data = {**TINY["datasets"]["digits"], "sources": {}}
    copy.configure(
        {
            **TINY, "experiment": "bare", "regularizers": {"bare": None}, "gap": None, "seeds": [0],
            "datasets": {"digits": data}, "attacks": {"white_box": {"clean": {"images": 50}}},
        },
        "bare",
    )  # fmt: skip
    try:
        done = copy.snakemake("--quiet", "rules", "reason", "host", name="bare")
    finally:
        file.unlink()
    assert done.returncode == 1
    (line,) = [one for one in done.stderr.splitlines() if "regbench: error:" in one]
    assert line.startswith("results/digits/small_cnn/bare/0-")
    assert "train.log: regbench: error: the loss 'Natural' returned a Tensor" in line


MISTAKES = {
    "data set": ({"datasets": {"digit": TINY["datasets"]["digits"]}}, "did you mean 'digits'?"),
    "hyperparameter": (
        {"regularizers": {"sat_r1": {"wieght": 1}}},
        "unknown parameter 'wieght'; did you mean 'weight'?",
    ),
    "hyperparameter's value": (
        {"regularizers": {"sat_r1": {"steps": -3}}},
        "'steps': Input should",
    ),
    "attack's parameter": (
        {"attacks": {"white_box": {"pgd": {"steps": 2, "stepsize": 0.1}}}},
        "did you mean 'step_size'?",
    ),
    "attack's missing parameter": (
        {"attacks": {"white_box": {"pgd": {"step_size": 0.1}}}},
        "parameter 'steps' is missing",
    ),
    "network's parameter": (
        {
            "datasets": {
                "digits": {**TINY["datasets"]["digits"], "models": {"small_cnn": {"width": -1}}}
            }
        },
        "'width': Input should be greater than 0, got -1",
    ),
    "what is no attack": (
        {"attacks": {"white_box": {"x": {"attack": "regbench.step:Objective"}}}},
        "regbench.step:Objective",
    ),
    "what is no module": ({"attacks": {"w": {"x": {"attack": "os:getcwd"}}}}, "no module 'os'"),
    "regularizer": ({"regularizers": {"sat_r11": None}}, "did you mean 'sat_r1'?"),
    "radius": ({"datasets": {"digits": {"epsilon": 8, "validation": 1}}}, "write 8/255"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_line_and_nothing_runs(copy, case):
    change, words = MISTAKES[case]
    copy.configure({**TINY, "gap": None, **change})
    done = copy.snakemake()
    profile = "Using workflow specific profile profiles/default for setting default"
    said = [line for line in done.stderr.splitlines() if line and not line.startswith(profile)]
    assert done.returncode != 0
    assert len(said) == 1, done.stderr
    assert said[0].startswith("regbench: error: ")
    assert words in said[0]


def test_a_regularizer_that_does_not_import_is_an_error(copy):
    with edited(copy, "regbench/regularizers/sat_r1.py", "import torch\n", "import torhc\n"):
        done = copy.snakemake("-n")
    assert done.returncode != 0
    assert "No module named 'torhc'" in done.stderr
    assert "Traceback" not in done.stderr


BROKEN_RULES = {
    "syntax": ("use rule train as train_x with:\n    params:\n        card=(1,\n", "SyntaxError"),
    "unknown name": ("rule x:\n    params:\n        card=bench.declaer(),\n", "declaer"),
    "missing argument": ('rule x:\n    params:\n        card=bench.declare("x"),\n', "label"),
    "declared twice": (
        (ROOT / "rules/regularizers/sat_r1.smk").read_text().replace("as train_sat_r1", "as other"),
        "two rules declare the regularizer 'sat_r1'",
    ),
    "another name under wildcard_constraints": (
        (ROOT / "rules/regularizers/sat_r1.smk")
        .read_text()
        .replace("as train_sat_r1", "as train_mine")
        .replace('            "sat_r1",', '            "mine",'),
        "its rule has regularizer='sat_r1', but it declares 'mine'; write 'mine'",
    ),
    "two names under wildcard_constraints": (
        (ROOT / "rules/regularizers/sat_r1.smk")
        .read_text()
        .replace("as train_sat_r1", "as train_mine")
        .replace('regularizer="sat_r1"', 'regularizer="mine|sat_r1"')
        .replace('            "sat_r1",', '            "mine",'),
        "its rule has regularizer='mine|sat_r1', which is also 'sat_r1'; write one name",
    ),
    "no name under wildcard_constraints": (
        'use rule train as train_mine with:\n    params:\n        card=bench.declare("mine",'
        ' label="m", loss="regbench.regularizers.natural", hyperparameters={},'
        " cost=lambda h, m: 1),\n",
        "its rule has regularizer='(?!)'",
    ),
    "unusable cost": (
        (ROOT / "rules/regularizers/sat_r1.smk")
        .read_text()
        .replace("sat_r1", "x", 2)
        .replace('"sat_r1"', '"x"', 1)
        .replace('h["steps"]', "h.steps"),
        "its cost cannot be computed",
    ),
}


def test_a_second_snakemake_in_the_folder_is_one_line(copy):
    """And a lock that a killed one left behind stops nobody."""
    lock = os.open(copy.folder / ".snakemake/regbench/lock", os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    done = copy.snakemake("--forcerun", "tables")
    os.close(lock)
    assert done.returncode == 2
    assert "regbench: error: another snakemake is at work in this folder" in done.stderr
    (copy.folder / ".snakemake/locks").mkdir(exist_ok=True)
    (copy.folder / ".snakemake/locks/0.input.lock").write_text("reports\n")
    assert copy.snakemake().returncode == 0


@pytest.mark.parametrize("case", BROKEN_RULES)
def test_a_broken_rule_file_is_one_line(copy, case):
    text, words = BROKEN_RULES[case]
    file = copy.folder / "rules/regularizers/x.smk"
    file.write_text(text)
    copy.configure({**TINY, "regularizers": {"x": None}} if "cost" in case else TINY)
    try:
        done = copy.snakemake("-n")
    finally:
        file.unlink()
    assert done.returncode != 0
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("regbench: error: ")]
    assert words in line
    assert "Traceback" not in done.stderr


def test_parsing_imports_no_torch(copy, monkeypatch):
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    done = copy.snakemake("-n")
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "regbench.experiment.workflow" in imported
    assert not imported & {"torch", "seaborn"}


def test_the_full_reproduction_resolves(tmp_path):
    copy = Copy(tmp_path)
    jobs = copy.jobs(name="config")
    before = processor_seconds()  # the first run compiles bytecode and imports every class
    assert copy.jobs(name="config") == jobs
    assert processor_seconds() - before < 10
    trainings = sum(count for rule, count in jobs.items() if rule.startswith("train_"))
    cells, sources = 3 * 7 * 3, 6 + 3
    assert trainings == cells + sources
    assert jobs["attack"] == 5 * cells
    assert jobs["diagnose"] == cells


def processor_seconds() -> float:
    """What the programs that ended took of the processor, whatever else it was busy with."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@contextmanager
def edited(copy: Copy, path: str, old: str, new: str) -> Iterator[None]:
    """Replace `old`, which must be there, in a file of the copy; put the file back at the end."""
    file = copy.folder / path
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    try:
        yield
    finally:
        file.write_text(text)
