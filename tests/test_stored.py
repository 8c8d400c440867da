"""Tables of what results/ holds and of what a report held before, on cells made up here."""

import shutil
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from regbench import collect
from regbench.analysis import stored
from regbench.analysis.rows import Rows
from regbench.analysis.unfinished import unfinished
from regbench.errors import UserError
from regbench.experiment.configfile import parse
from regbench.experiment.grid import resolve
from regbench.experiment.manifest import Declared
from regbench.storage.seals import digest_of, write_record, write_table

IMAGES = 5
DECLARED = {
    name: Declared(name, name, f"regbench.regularizers.{name}:{loss}", {}, lambda h, m: 1)
    for name, loss in (("natural", "Natural"), ("fgsm_at", "FGSMAT"))
}
TABLES = ["verdicts", "evaluations", "runs", "curves", "diagnostics", "gallery"]


def manifest(
    regularizers=("natural", "fgsm_at"), seeds=(0, 1), epsilon=0.1, label="clean", images=1000
):
    config = {
        "experiment": "tiny",
        "seeds": [*seeds],
        "training": {"epochs": 1, "batch_size": 64, "learning_rate": 0.1},
        "regularizers": dict.fromkeys(regularizers),
        "diagnostics": {"images": images},
        "attacks": {
            "white_box": {"clean": {"label": label}, "fgsm": {"epsilon": epsilon, "label": "FGSM"}},
            "strong": {"pgd": {"steps": 2, "step_size": 0.1}},
        },
        "datasets": {"digits": {"epsilon": 0.1, "validation": 897, "models": {"small_cnn": None}}},
    }
    return resolve(parse(config), DECLARED)


def make(
    manifest, *, weights="w", judged=None, suites=("white_box", "strong"), only=None, epochs=1
):
    """Write the cells; verdicts are right where `weights` is 'w'."""
    for run in manifest.runs:
        if only and run.regularizer != only:
            continue
        folder = Path(run.folder)
        folder.mkdir(parents=True, exist_ok=True)
        pd.DataFrame({"epoch": [1], "loss": [0.5]}).head(epochs).to_csv(
            folder / "curve.csv", index=False
        )
        files = {
            "best.safetensors": weights,
            "last.safetensors": "last",
            "curve.csv": digest_of(folder / "curve.csv"),
        }
        write_record(
            folder / "run.json",
            {"card": run.card.key, "status": "ok", "files": files, "cuda": None},
        )
        for suite in suites:
            path = Path(run.verdicts[suite])
            card = manifest.suites[str(path)]
            rows = pd.DataFrame(
                [
                    {"attack": attack, "image": image, "correct": weights == "w"}
                    for attack in card.attacks
                    for image in range(IMAGES)
                ]
            ).astype({"attack": "category"})
            told = {"arguments": {}, "seconds": 1.0, "warnings": [], "batch_size": 5}
            about = {"card": card.model_dump(), "attacks": dict.fromkeys(card.attacks, told)}
            about |= {"weights": judged or weights}
            write_table(path, pa.Table.from_pandas(rows), about)
        examined = pa.Table.from_pandas(pd.DataFrame({"quantity": ["x"], "value": [1.0]}))
        write_table(Path(run.diagnosis), examined, {})
        write_table(Path(run.gallery), pa.Table.from_pandas(pd.DataFrame({"image": [0]})), {})


@pytest.fixture
def gather(tmp_path, monkeypatch, capsys):
    """Run the stage on a manifest; return the tables that it leaves."""
    monkeypatch.chdir(tmp_path)

    def gather(manifest, *options, kept=False):
        Path("manifest.json").write_text(manifest.text())
        command = ["collect", "manifest.json", "--out", "report", "--partial", *options]
        monkeypatch.setattr("sys.argv", command)
        collect.main()
        assert ("kept as it is" in capsys.readouterr().out) is kept
        return stored.tables(Path("report"))

    return gather


def test_a_clone_without_results_has_the_reports_tables(gather, tmp_path):
    make(manifest())
    before = gather(manifest())
    assert len(before["verdicts"]) == 2 * 2 * 3 * IMAGES
    shutil.rmtree(tmp_path / "results")
    for name, table in gather(manifest()).items():
        pd.testing.assert_frame_equal(table, before[name])


def test_a_regularizer_of_ones_own_stands_beside_the_reports(gather, tmp_path):
    make(manifest(["fgsm_at"]))
    gather(manifest(["fgsm_at"]))
    shutil.rmtree(tmp_path / "results")
    make(manifest(), only="natural")
    tables = gather(manifest())
    assert list(tables["runs"]["regularizer"]) == ["natural"] * 2 + ["fgsm_at"] * 2
    for name in TABLES:
        counts = tables[name].groupby("regularizer", observed=False).size()
        assert counts["natural"] == counts["fgsm_at"] > 0


def test_suites_add_up_where_the_weights_are_the_same(gather, tmp_path):
    make(manifest(), suites=["strong"])
    gather(manifest())
    shutil.rmtree(tmp_path / "results")
    make(manifest(), suites=["white_box"])
    tables = gather(manifest())
    assert set(tables["evaluations"]["attack"]) == {"clean", "fgsm", "pgd"}
    assert len(tables["verdicts"]) == 2 * 2 * 3 * IMAGES


def test_a_report_from_before_a_column_has_what_that_means_beside_new_rows(gather, tmp_path):
    make(manifest(), suites=["strong"])
    older = gather(manifest())["evaluations"].drop(columns="precision")
    write_table(Path("report/evaluations.parquet"), pa.Table.from_pandas(older), {})
    shutil.rmtree(tmp_path / "results")
    make(manifest(), suites=["white_box"])
    told = gather(manifest())["evaluations"]
    assert set(told["attack"]) == {"clean", "fgsm", "pgd"}
    assert set(told["precision"]) == {"fp32"}


@pytest.mark.parametrize(
    ("suites", "kept"), [(["white_box"], "w"), (["white_box", "strong"], "other")]
)
def test_verdicts_of_two_networks_are_never_mixed(gather, tmp_path, suites, kept):
    make(manifest())
    gather(manifest())
    shutil.rmtree(tmp_path / "results")
    make(manifest(), weights="other", suites=suites)
    tables = gather(manifest())
    assert set(tables["runs"]["best_weights"]) == {kept}
    assert set(tables["verdicts"]["correct"]) == {kept == "w"}
    assert len(tables["verdicts"]) == 2 * 2 * 3 * IMAGES


def test_rows_go_by_the_names_that_the_config_has_now(gather, tmp_path):
    make(manifest())
    gather(manifest())
    shutil.rmtree(tmp_path / "results")
    labels = gather(manifest(label="unharmed"))["evaluations"]["label"]
    assert set(labels) == {"unharmed", "FGSM", "pgd"}


def test_what_the_config_asks_for_no_more_is_left_out(gather, tmp_path):
    make(manifest())
    gather(manifest())
    shutil.rmtree(tmp_path / "results")
    report = stored.trainings(stored.tables(Path("report")))
    fewer_runs = collect.collect(manifest(seeds=[1]), True, report)
    assert set(fewer_runs["runs"]["seed"]) == {1}
    other_attack = collect.collect(manifest(epsilon=0.2), True, report)
    assert set(other_attack["evaluations"]["attack"]) == {"pgd"}
    assert not {"diagnostics", "gallery"} & collect.collect(manifest(images=9), True, report).keys()


FEWER = {
    "a method": (lambda: manifest(["natural"]), ["fgsm_at"]),
    "a seed": (lambda: manifest(seeds=[1]), ["0"]),
    "an attack": (lambda: manifest(epsilon=0.2), ["fgsm", "clean"]),
    "a diagnosis": (lambda: manifest(images=100), ["diagnostics", "gallery"]),
}


@pytest.mark.parametrize("what", FEWER)
def test_a_report_loses_nothing_unless_told_to(gather, tmp_path, what):
    make(manifest())
    before = gather(manifest())
    shutil.rmtree(tmp_path / "results")
    fewer, lost = FEWER[what]
    after = gather(fewer(), kept=True)
    for name in TABLES:
        pd.testing.assert_frame_equal(after[name], before[name])
    left = {name: table.astype(str) for name, table in gather(fewer(), "--replace").items()}
    runs, attacks = left["runs"], left["evaluations"]["attack"]
    assert not {*left, *runs["regularizer"], *runs["seed"], *attacks} & set(lost)
    assert ({"diagnostics", "gallery"} <= left.keys()) is (what != "a diagnosis")


def test_what_pays_for_a_loss_changes_nothing_and_is_told(gather, tmp_path):
    """More rows in sum than before, of which some would be gone."""
    make(manifest(["fgsm_at"]))
    gather(manifest(["fgsm_at"]))
    before = {path: path.read_bytes() for path in Path("report").iterdir()}
    shutil.rmtree(tmp_path / "results")
    more = manifest(epsilon=0.2)
    make(more)
    for path in tmp_path.glob("results/digits/small_cnn/fgsm_at"):
        shutil.rmtree(path)
    lacks = r"was not changed: it lacks all of 2 trainings, but it holds"
    holds = r".* \(clean of 2 trainings, fgsm of 2 trainings\); `snakemake replace_report`"
    with pytest.raises(UserError, match=lacks + holds):
        gather(more)
    assert {path: path.read_bytes() for path in Path("report").iterdir()} == before
    assert set(gather(more, "--replace")["runs"]["regularizer"]) == {"natural", "fgsm_at"}


def test_what_is_not_there_yet_is_told(gather):
    whole = manifest()
    make(whole, only="natural", suites=["white_box"])
    told = unfinished(Rows(**gather(whole)), whole)
    assert "2 of 4 trainings are here." in told
    assert "Not trained: digits, small_cnn: fgsm_at (seed 0, 1)." in told
    assert "Not judged by pgd (2 trainings)." in told
    make(whole)
    rows = Rows(**gather(whole))
    assert not unfinished(rows, whole)
    unexamined = rows._replace(diagnostics=rows.diagnostics.head(0))
    told = "Not finished: 4 of 4 trainings are here. Not examined by diagnostics: 4 trainings."
    assert unfinished(unexamined, whole) == told


def test_a_pretrained_network_that_is_not_there_yet_is_not_untrained(gather):
    whole = manifest()
    make(whole, only="natural")
    *others, last = whole.runs
    runs = (*others, last.model_copy(update={"weights": "theirs.pt"}))
    told = unfinished(Rows(**gather(whole)), whole.model_copy(update={"runs": runs}))
    assert "Not trained: digits, small_cnn: fgsm_at (seed 0)." in told
    assert "Pretrained, and not read: digits, small_cnn: fgsm_at (seed 1)." in told


def test_an_empty_gallery_stays(gather, tmp_path):
    make(manifest())
    for path in tmp_path.glob("results/**/gallery-*"):
        write_table(path, pa.Table.from_pandas(pd.DataFrame({"image": [0]}).iloc[:0]), {})
    assert not len(gather(manifest())["gallery"])
    shutil.rmtree(tmp_path / "results")
    assert not len(gather(manifest())["gallery"])


def test_unknown_weights_are_of_no_network_that_is_known(gather, tmp_path):
    make(manifest())
    tables = gather(manifest())
    unknown = tables["runs"].assign(best_weights=None)
    write_table(Path("report/runs.parquet"), pa.Table.from_pandas(unknown), {})
    shutil.rmtree(tmp_path / "results")
    make(manifest(), suites=["white_box"])
    assert set(gather(manifest())["evaluations"]["attack"]) == {"clean", "fgsm", "pgd"}
    make(manifest())
    assert set(gather(manifest())["runs"]["best_weights"]) == {"w"}


@pytest.mark.parametrize(
    ("table", "column"),
    [("runs", "best_weights"), ("gallery", "diagnosis_card"), ("evaluations", "suite_card")],
)
def test_a_report_that_tells_no_cards_is_kept_but_not_taken_over(gather, tmp_path, table, column):
    make(manifest())
    older = gather(manifest())[table].drop(columns=column)
    write_table(Path(f"report/{table}.parquet"), pa.Table.from_pandas(older), {})
    assert stored.trainings(stored.tables(Path("report"))) == {}
    shutil.rmtree(tmp_path / "results")
    assert column not in gather(manifest(), kept=True)[table]


def test_a_damaged_report_is_one_line(gather):
    make(manifest())
    gather(manifest())
    Path("report/verdicts.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"report/verdicts.parquet' is damaged"):
        stored.trainings(stored.tables(Path("report")))


def test_a_training_without_an_epoch_stays_in_the_report(gather, tmp_path):
    make(manifest(), epochs=0, only="natural")
    make(manifest(), only="fgsm_at")
    before = gather(manifest())
    for table, after in gather(manifest()).items():
        pd.testing.assert_frame_equal(after, before[table])
    shutil.rmtree(tmp_path / "results")
    for table, after in gather(manifest()).items():
        pd.testing.assert_frame_equal(after, before[table])


def test_attacks_that_found_no_memory_stay_in_the_report(gather, tmp_path):
    make(manifest())
    before = gather(manifest())
    lost = (before["verdicts"]["regularizer"] == "natural").to_numpy()
    rows = pa.Table.from_pandas(before["verdicts"][~lost], preserve_index=False)
    write_table(Path("report/verdicts.parquet"), rows, {})
    shutil.rmtree(tmp_path / "results")
    pd.testing.assert_frame_equal(gather(manifest())["evaluations"], before["evaluations"])


def test_what_was_judged_before_the_training_was_repeated_does_not_count(gather):
    make(manifest(), weights="other", judged="w", suites=["strong"])
    make(manifest(), weights="other", suites=["white_box"])
    assert set(gather(manifest())["evaluations"]["attack"]) == {"clean", "fgsm"}
    with pytest.raises(UserError, match="of other weights than those beside it"):
        collect.collect(manifest())


def test_diagnostics_of_another_network_go(gather, tmp_path):
    make(manifest())
    gather(manifest())
    shutil.rmtree(tmp_path / "results")
    make(manifest(), weights="other")
    for path in tmp_path.glob("results/**/diagnostics-*"):
        path.unlink()
    for path in tmp_path.glob("results/**/gallery-*"):
        path.unlink()
    assert not {"diagnostics", "gallery"} & gather(manifest()).keys()


def test_two_data_sets_of_one_card_are_two_runs(gather, tmp_path):
    def both():
        config = manifest()
        first = config.runs[0]
        other = first.model_copy(
            update={
                "dataset": "again",
                "folder": first.folder.replace("digits", "again"),
                "verdicts": {
                    suite: path.replace("digits", "again") for suite, path in first.verdicts.items()
                },
                "diagnosis": first.diagnosis.replace("digits", "again"),
                "gallery": first.gallery.replace("digits", "again"),
            }
        )
        return config.model_copy(
            update={
                "runs": (first, other),
                "attacks": {**config.attacks, "again": config.attacks["digits"]},
                "suites": config.suites
                | {
                    other.verdicts[suite]: config.suites[path]
                    for suite, path in first.verdicts.items()
                },
                "diagnoses": config.diagnoses
                | {other.diagnosis: config.diagnoses[first.diagnosis]},
            }
        )

    make(both())
    before = gather(both())
    shutil.rmtree(tmp_path / "results")
    pd.testing.assert_frame_equal(gather(both())["verdicts"], before["verdicts"])
