"""What a person may write in a config, or call a folder, reaches a shell as one argument or not.

The whole workflow lies in a folder, under an environment, with a data set, each of a name that a
shell would take apart; `touch pwned` is what it would then run.
"""

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from regbench.experiment.manifest import Manifest

pytestmark = pytest.mark.workflow

ROOT = Path(__file__).parents[2]
PARTS = ("Snakefile", "rules", "config", "profiles", "regbench", "reports")
NASTY = """it's "one"; $(touch pwned) `touch pwned` & | > pwned # ü€"""
LABEL = (NASTY + " * ~ \\ ! ?" + "x" * 64)[:64]
CONFIG = {
    "experiment": "nasty.+-_1",
    "data_root": NASTY,
    "seeds": [0],
    "gap": ["clean", "fgsm"],
    "references": ["natural"],
    "margin": 2.5,
    "training": {"epochs": 1, "batch_size": 8, "learning_rate": 0.1},
    "regularizers": {"natural": {"label": LABEL}, "sat_r1": {"label": "'"}},
    "attacks": {
        "a+b": {"clean": {"label": NASTY}, "fgsm": {"label": "$(touch pwned)"}},
        "transfer": {"away": {"attack": "fgsm", "label": ";", "source": "other"}},
    },
    "datasets": {
        "mine": {
            "dataset": "npz",
            "path": f"{NASTY}.npz",
            "epsilon": 0.1,
            "validation": 8,
            "models": {"small_cnn": {"width": 2}},
            "sources": {"other": {"model": "model_d"}},
        }
    },
}


class Nasty:
    """The workflow where every name is nasty: its folder, its Python's, its data's."""

    def __init__(self, base: Path) -> None:
        self.base, self.folder = base, base / NASTY
        for part in PARTS:
            source = ROOT / part
            take = shutil.copytree if source.is_dir() else shutil.copy
            self.folder.mkdir(exist_ok=True)
            take(source, self.folder / part)
        environment = base / f"environment {NASTY}"
        environment.symlink_to(sys.prefix)
        self.python = environment / Path(sys.executable).relative_to(sys.prefix)
        sha256 = self._data()
        config = {**CONFIG, "datasets": {"mine": {**CONFIG["datasets"]["mine"], "sha256": sha256}}}
        (self.folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))

    def _data(self) -> str:
        file = self.folder / NASTY / f"{NASTY}.npz"
        file.parent.mkdir()
        random = np.random.default_rng(0)
        arrays = {}
        for part in ("train", "test"):
            arrays[f"x_{part}"] = random.integers(0, 256, (24, 8, 8), dtype=np.uint8)
            arrays[f"y_{part}"] = np.arange(24) % 3
        np.savez(file, **arrays)
        return hashlib.sha256(file.read_bytes()).hexdigest()

    def snakemake(self, *arguments: str) -> str:
        """Run Snakemake there and return what it says."""
        command = [self.python, "-m", "snakemake", "--cores", "1", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(self.folder)}
        environment.pop("REGBENCH_DATA", None)
        done = subprocess.run(
            [*command, "--configfile", "config.yaml"],
            cwd=self.folder, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    @property
    def manifest(self) -> Manifest:
        """What the config was resolved to."""
        (path,) = (self.folder / ".snakemake/regbench").glob("*.json")
        return Manifest.read(str(path))


@pytest.fixture(scope="module")
def nasty(tmp_path_factory):
    return Nasty(tmp_path_factory.mktemp("nasty"))


def written(log: str) -> list[str]:
    return [">", log, "2>&1"]


def expected(manifest: Manifest, folder: Path) -> list[list[str]]:
    """Every command, as the list of its arguments."""
    (data,) = {run.data: run.card.data for run in manifest.runs}.items()
    sources = [run.folder for run in manifest.sources]
    reports = f"reports/{manifest.experiment}"
    logs = f"results/logs/{manifest.experiment}"
    prepare = [[
        "regbench.prepare", data[1].text(), "--out", data[0],
        *written(data[0].replace(".safetensors", ".log")),
    ]]  # fmt: skip
    train = [
        ["regbench.train", run.card.text(), "--data", run.data, "--out", run.folder,
         *written(f"{run.folder}/train.log")]
        for run in (*manifest.runs, *manifest.sources)
    ]  # fmt: skip
    attack = [
        ["regbench.attack", manifest.suites[verdicts].text(), "--run", run.folder,
         *(["--source", *sources] if suite == "transfer" else []),
         "--data", run.data, "--out", verdicts, *written(verdicts.replace(".parquet", ".log"))]
        for run in manifest.runs
        for suite, verdicts in run.verdicts.items()
    ]  # fmt: skip
    diagnose = [
        ["regbench.diagnose", manifest.diagnoses[run.diagnosis].text(), "--run", run.folder,
         "--data", run.data, "--out", run.diagnosis, "--gallery", run.gallery,
         *written(run.diagnosis.replace(".parquet", ".log"))]
        for run in manifest.runs
    ]  # fmt: skip
    path = f".snakemake/regbench/{manifest.experiment}-{manifest.key}.json"
    published = [f"{folder}/config/{name}.yaml" for name in ("published", "leaderboard")]
    asked = ["--gap", *CONFIG["gap"], "--margin", "2.5", "--references", *CONFIG["references"]]
    draw = [
        ["regbench.collect", path, "--out", reports, *written(f"{logs}-collect.log")],
        ["regbench.tables", reports, *asked, "--published", *published, "--manifest", path,
         *written(f"{logs}-tables.log")],
        ["regbench.figures", reports, *written(f"{logs}-figures.log")],
        ["regbench.page", reports, *asked, "--published", *published, "--manifest", path,
         "--configfile", "config.yaml", *written(f"{logs}-page.log")],
    ]  # fmt: skip
    return [["python", "-m", *rest] for rest in (*prepare, *train, *attack, *diagnose, *draw)]


def test_each_value_is_one_argument_of_its_command(nasty):
    said = nasty.snakemake("-n", "-p")
    lines = [line for line in said.splitlines() if line.startswith("Shell command: python ")]
    commands = [shlex.split(line.removeprefix("Shell command: ")) for line in lines]
    assert sorted(commands) == sorted(expected(nasty.manifest, nasty.folder))
    (prepare,) = [command for command in commands if command[2] == "regbench.prepare"]
    assert json.loads(prepare[3])["arguments"]["path"] == f"{NASTY}.npz"


def test_a_shell_runs_the_command_and_nothing_else(nasty):
    nasty.snakemake("--until", "data")
    run = nasty.manifest.runs[0]
    assert (nasty.folder / run.data).stat().st_size > 0
    assert not list(nasty.base.rglob("pwned*"))
