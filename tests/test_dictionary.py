"""The data dictionary, docs/data.md, against the tables that the stages really write."""

import re
from pathlib import Path

import pandas as pd
import pytest

from regbench import attack, collect, diagnose, prepare, tables, train
from regbench.experiment.configfile import parse
from regbench.experiment.grid import resolve
from regbench.experiment.manifest import Declared

ROOT = Path(__file__).parents[1]
CONFIG = {
    "experiment": "tiny",
    "seeds": [0, 1],
    "gap": ["fgsm", "autoattack"],
    "training": {"epochs": 1, "batch_size": 64, "learning_rate": 0.1},
    "regularizers": {"natural": None, "fgsm_at": None},
    "attacks": {
        "white_box": {
            "clean": {"images": 20},
            "fgsm": {"images": 20},
            "autoattack": {"images": 2},
            "over": {"attack": "fgsm", "images": 2, "sweep": {"epsilon": [0.1, 0.2]}},
        }
    },
    "datasets": {
        "digits": {"epsilon": 0.1, "validation": 897, "models": {"small_cnn": {"width": 2}}}
    },
}
DECLARED = {
    name: Declared(name, name, f"regbench.regularizers.{name}:{loss}", {}, lambda h, m: 1)
    for name, loss in (("natural", "Natural"), ("fgsm_at", "FGSMAT"))
}
PUBLISHED = """
attacks: {fgsm: {label: FGSM, attack: fgsm}}
entries: [{dataset: digits, rule: natural, epsilon: 0.1, source: s, accuracy: {fgsm: 5}}]
"""


def documented():
    """The columns of each table by name, as docs/data.md tells them."""
    text = (ROOT / "docs/data.md").read_text(encoding="utf-8")
    sections = re.split(r"^## (\S+)$", text, flags=re.MULTILINE)[1:]
    return {
        table: pd.DataFrame(
            [
                [cell.strip().strip("`") for cell in line.strip("|").split("|")]
                for line in section.splitlines()
                if line.startswith("|") and not line.startswith(("|---", "| column"))
            ],
            columns=["column", "type", "unit", "range", "meaning"],
        ).set_index("column")
        for table, section in zip(sections[::2], sections[1::2], strict=True)
    }


DOCUMENTED = documented()
VARIABLE = "⟨"
"""Begins the name of columns that the config names."""


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Every table of a tiny experiment, by name, made by the stages themselves."""
    folder = tmp_path_factory.mktemp("experiment")
    manifest = resolve(parse(CONFIG), DECLARED)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("REGBENCH_DEVICE", "cpu")

        def stage(module, *arguments):
            patch.setattr("sys.argv", [module.__name__, *map(str, arguments)])
            module.main()

        (data,) = {run.data for run in manifest.runs}
        Path(data).parent.mkdir(parents=True)
        stage(prepare, manifest.runs[0].card.data.text(), "--out", data)
        for run in manifest.runs:
            stage(train, run.card.text(), "--data", data, "--out", run.folder)
            for path in run.verdicts.values():
                card = manifest.suites[path].text()
                stage(attack, card, "--run", run.folder, "--data", data, "--out", path)
            about = ("--run", run.folder, "--data", data, "--gallery", run.gallery)
            card = manifest.diagnoses[run.diagnosis].text()
            stage(diagnose, card, *about, "--out", run.diagnosis)
        Path("manifest.json").write_text(manifest.text())
        Path("published.yaml").write_text(PUBLISHED)
        stage(collect, "manifest.json", "--out", "report")
        options = ("--gap", *CONFIG["gap"], "--references", "fgsm_at")
        stage(tables, "report", *options, "--published", "published.yaml")
    found = {path.name: pd.read_parquet(path) for path in (folder / "report").glob("*.parquet")}
    return found | {path.name: pd.read_csv(path) for path in (folder / "report").glob("*.csv")}


def test_every_table_is_documented_and_no_other(written):
    assert set(DOCUMENTED) == set(written)
    assert all(len(table) for name, table in written.items() if name != "doubts.csv")


@pytest.mark.parametrize("name", DOCUMENTED)
def test_every_column_is_documented_and_no_other(written, name):
    told = [column for column in DOCUMENTED[name].index if "GPU" not in kind(name, column)]
    fixed = [column for column in told if not column.startswith(VARIABLE)]
    labels = ["clean", "fgsm", "autoattack (n = 2)", "fgsm − autoattack"]
    found = list(written[name])
    assert [column for column in found if len(fixed) == len(told) or column not in labels] == fixed


def kind(name, column):
    return DOCUMENTED[name].loc[column, "type"]


def whole(values):
    return numeric(values) and (values % 1 == 0).all()


def numeric(values):
    return values.empty or (
        pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    )


KINDS = {
    "integer": whole,
    "integer, on a GPU": whole,
    "number": numeric,
    "boolean": pd.api.types.is_bool_dtype,
    "bytes": lambda values: values.map(lambda value: isinstance(value, bytes)).all(),
    "text": lambda values: True,  # in CSV a text may be of digits
}


@pytest.mark.parametrize("name", DOCUMENTED)
def test_every_value_is_of_its_type_and_in_its_range(written, name):
    known = DOCUMENTED[name].index.intersection(written[name].columns)
    for column in known:
        values = written[name][column].dropna()
        assert KINDS[kind(name, column)](values), column
        if kind(name, column) == "text" and name.endswith(".parquet"):
            assert not numeric(values) or values.empty, column
        low, high = bounds(DOCUMENTED[name].loc[column, "range"])
        if low is not None:
            assert values.between(low - 1e-6, high + 1e-6).all(), column


def bounds(told):
    """The least and the greatest value that `≥ 0` or `0 to 1` allows; none, if neither."""
    at_least, between = re.fullmatch(r"≥ (\S+)", told), re.fullmatch(r"(\S+) to (\S+)", told)
    if at_least:
        return float(at_least[1]), float("inf")
    return (float(between[1]), float(between[2])) if between else (None, None)
