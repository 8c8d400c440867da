"""What the Snakefile asks: names, cards and code of each cell. Imports no torch."""

import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from regbench.check import STAMPS, claims, hold
from regbench.errors import UserError, report
from regbench.evaluation.pieces import part_of
from regbench.experiment import launch, paths
from regbench.experiment.cards import DataCard, DiagnosisCard, SuiteCard
from regbench.experiment.configfile import parse, read
from regbench.experiment.fingerprint import (
    ADOPTING,
    ATTACKING,
    DATA,
    DIAGNOSING,
    TRAINING,
    fingerprint,
)
from regbench.experiment.grid import resolve
from regbench.experiment.manifest import Cost, Declared, Manifest, Run
from regbench.experiment.members import names
from regbench.experiment.rulefiles import Rule, hold_names
from regbench.experiment.values import IDENTIFIER


class Wildcards(Protocol):
    """What Snakemake passes to input and params functions."""

    dataset: str
    model: str
    regularizer: str
    run: str
    suite: str
    key: str


class Bench:
    """One experiment: the config on the one side, the declared regularizers on the other.

    A user's mistake ends the program with one line, before Snakemake has built its DAG.
    """

    def __init__(self, config: dict[str, Any], files: list[str], *, talks: bool = True) -> None:
        """Read the config.

        Args:
            config: as Snakemake merged it.
            files: the files that it came from.
            talks: whether to say how large the experiment is, as the main process does.
        """
        self._talks = talks
        self._files = [os.path.relpath(path) for path in files]
        self._declared: dict[str, Declared] = {}
        try:
            for path in files:
                read(Path(path))  # Snakemake lets the last of two equal keys win; this refuses them
            self.experiment = parse(config)
        except UserError as error:
            sys.exit(report(error))
        launch.export(self.experiment)

    def declare(
        self, name: str, *, label: str, loss: str, hyperparameters: dict[str, Any], cost: Cost
    ) -> Callable[[Wildcards], str]:
        """Register a regularizer and return the function that gives its rule the card of a run.

        Args:
            name: the entry that the config chooses it by.
            label: how tables and figures call it.
            loss: its class, `package.module:Class`, from this repository or from anywhere else.
            hyperparameters: the values of its fields, unless the config sets others.
            cost: (hyperparameters, batch size) -> forward+backward passes per image and step.
        """
        if not re.fullmatch(IDENTIFIER, name):
            told = f"a rule declares '{name}'; a name is of letters, digits, '_', '.', '+' and '-'"
            sys.exit(report(UserError(told)))
        if name == paths.PRETRAINED:
            told = f"a rule declares '{name}', which is what networks trained elsewhere are under"
            sys.exit(report(UserError(f"{told}; rename it")))
        if name in self._declared:
            sys.exit(report(UserError(f"two rules declare the regularizer '{name}'; rename one")))
        self._declared[name] = Declared(name, label, loss, hyperparameters, cost)
        return self.card

    @contextmanager
    def reading(self, path: Path, rules: Collection[Rule]) -> Iterator[None]:
        """End the program with one line if the block, which reads a rule file, fails.

        Or if it declares a regularizer without a rule that makes its cells and no others.

        Args:
            path: of the file.
            rules: all that there are, whenever it is asked.
        """
        declared, made = set(self._declared), len(rules)
        try:
            yield
        except Exception as error:
            told = f"'{path}' is no rule file: {type(error).__name__}: {error}"
            sys.exit(report(UserError(told)))
        try:
            others = {*declared, paths.PRETRAINED}
            hold_names(path, [*rules][made:], self._declared.keys() - declared, others)
        except UserError as error:
            sys.exit(report(error))

    @cached_property
    def manifest(self) -> Manifest:
        """Every cell of the experiment, each class that it names having been imported once."""
        try:
            manifest = resolve(self.experiment, self._declared)
            wanted = claims(manifest)
            fine = hold(wanted)
        except UserError as error:
            sys.exit(report(error))
        if not fine:
            sys.exit(2)
        if self._talks:
            print(size(manifest), file=sys.stderr)
        return manifest

    def run(self, wildcards: Wildcards) -> Run:
        """Return the cell that a rule's wildcards name."""
        w = wildcards
        folder = paths.run(w.dataset, w.model, w.regularizer, w.run)
        if folder not in self._runs:
            sys.exit(report(UserError(f"'{folder}' is no cell of experiment '{self.name}'")))
        return self._runs[folder]

    def card(self, wildcards: Wildcards) -> str:
        """Return the card of a cell."""
        return self.run(wildcards).card.text()

    def data(self, wildcards: Wildcards) -> str:
        """Return the prepared data that a run is trained and judged on."""
        return self.run(wildcards).data

    def data_card(self, wildcards: Wildcards) -> str:
        """Return the card of a prepared data set."""
        return self._data_card(wildcards).text()

    def data_code(self, wildcards: Wildcards) -> str:
        """Return the fingerprint of the code that prepares a data set."""
        return fingerprint((*DATA, self._data_card(wildcards).source))

    def training_code(self, wildcards: Wildcards) -> str:
        """Return the fingerprint of the code that decides a run's weights."""
        return fingerprint((*TRAINING, *self.run(wildcards).card.members))

    def weights(self, wildcards: Wildcards) -> str:
        """Return the file of weights of a network that was trained elsewhere."""
        return self.run(wildcards).weights or ""

    def adopting_code(self, wildcards: Wildcards) -> str:
        """Return the fingerprint of the code that decides what becomes of that file."""
        return fingerprint((*ADOPTING, *self.run(wildcards).card.members))

    def early_seeds_first(self, wildcards: Wildcards) -> int:
        """Return the priority of a training: where a run is cut off, whole rows are there."""
        return 1 + self._late_to_early.index(self.run(wildcards).card.seed)

    @property
    def judged_at_once(self) -> int:
        """The priority of attacks and diagnoses: above every training's."""
        return 1 + len(self._late_to_early)

    def data_first(self, wildcards: Wildcards) -> int:  # noqa: ARG002
        """Return the priority of preparing data: above all that is done with them."""
        return 1 + self.judged_at_once

    def suite_card(self, wildcards: Wildcards) -> str:
        """Return the card of the suite of attacks that judges a run."""
        return self._suite(wildcards).text()

    def attack_code(self, wildcards: Wildcards) -> str:
        """Return the fingerprint of the code that decides a suite's verdicts."""
        attacks = self._suite(wildcards).attacks.values()
        return fingerprint((*ATTACKING, *(one.attack for one in attacks)))

    def diagnosis_card(self, wildcards: Wildcards) -> str:
        """Return the card of what is measured of a run."""
        return self._diagnosis(wildcards).text()

    @property
    def diagnosis_code(self) -> str:
        """The fingerprint of the code that decides diagnostics."""
        return fingerprint((*DIAGNOSING, *self.modules("diagnostics")))

    def sources(self, wildcards: Wildcards) -> list[str]:
        """Return the files of the trained networks that a suite's attacks craft on."""
        files = ("card.json", "best.safetensors", "last.safetensors")
        return [f"{folder}/{name}" for folder in self._sources(wildcards) for name in files]

    def source_option(self, wildcards: Wildcards) -> str:
        """Return the option of regbench.attack that names the folders of these networks."""
        folders = self._sources(wildcards)
        return f"--source {shlex.join(folders)}" if folders else ""

    def pieces(self, wildcards: Wildcards) -> list[str]:
        """Return the files that the jobs of a suite's pieces leave, of attacks of more than one."""
        verdicts = Path(self.run(wildcards).verdicts[wildcards.suite])
        return [
            str(part_of(verdicts, name, index))
            for name, attack in self._suite(wildcards).attacks.items()
            if attack.pieces > 1
            for index in range(attack.pieces)
        ]

    def code(self, *modules: str) -> str:
        """Return the fingerprint of modules, for a rule's `params:`."""
        return fingerprint(modules)

    def members(self, kind: str) -> list[str]:
        """Return the names of the files of regbench/KIND/, each of which is one member."""
        return names(kind)

    def modules(self, kind: str) -> list[str]:
        """Return the modules of regbench/KIND/, the package itself first."""
        return [f"regbench.{kind}", *(f"regbench.{kind}.{name}" for name in names(kind))]

    def forecast(self, outputs: Iterable[str], cores: int) -> None:
        """Tell what making `outputs` will cost; a GPU asked for and absent ends the program."""
        targets = {path for path in outputs if path.rpartition("/")[0] in self._runs}
        if targets:  # jobs that share a GPU share its rate
            launch.forecast(self.manifest_path, targets, self._devices or cores)

    def alone(self) -> None:
        """End the program with one line if another Snakemake is at work in this folder."""
        self._lock, self._began = launch.alone(STAMPS), time.time()

    def tell_failures(self) -> None:
        """Say why stages failed, which `--quiet rules` leaves in their logs."""
        for line in launch.failures(Path(paths.RESULTS), self._began):
            print(line, file=sys.stderr)

    @property
    def gap(self) -> str:
        """The option of regbench.tables for the two attacks whose difference is a column."""
        pair = self.experiment.gap
        return f"--gap {shlex.join(pair)}" if pair else ""

    @property
    def comparing(self) -> str:
        """The options of regbench.tables for what methods are compared with, and how closely."""
        margin, references = self.experiment.margin, self.experiment.references
        chosen = "" if references is None else f" --references {shlex.join(references)}"
        return f"--margin {margin}{chosen}"

    @property
    def configfiles(self) -> str:
        """The option of regbench.page for the files that the config came from."""
        return f"--configfile {shlex.join(self._files)}" if self._files else ""

    @property
    def name(self) -> str:
        """The experiment's name."""
        return self.experiment.experiment

    @property
    def reports(self) -> str:
        """The folder of the experiment's tables and figures."""
        return f"reports/{self.name}"

    @cached_property
    def manifest_path(self) -> str:
        """Where the manifest lies for the collecting stages, its name a hash of its content."""
        path = STAMPS / f"{self.name}-{self.manifest.key}.json"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.manifest.text(), encoding="utf-8")
        return str(path)

    @property
    def methods(self) -> list[str]:
        """The regularizers that the config chooses, and the pretrained networks that it names."""
        given = [name for data in self.experiment.datasets.values() for name in data.pretrained]
        return list(dict.fromkeys([*self.experiment.regularizers, *given]))

    def files(self, *methods: str) -> list[str]:
        """Return every file that trainings and attacks leave for the collecting stages.

        Args:
            methods: whose; of all, if none is named.
        """
        runs = [run for run in self.manifest.runs if not methods or run.regularizer in methods]
        trained = [f"{run.folder}/{name}" for run in runs for name in ("curve.csv", "run.json")]
        judged = [path for run in runs for path in run.verdicts.values()]
        # what the diagnosis of each run leaves
        examined = [path for run in runs for path in (run.diagnosis, run.gallery) if path]
        return trained + judged + examined

    @property
    def rows(self) -> list[str]:
        """The tables that regbench.collect writes."""
        always = ["verdicts", "evaluations", "runs", "curves"]
        return always + ["diagnostics", "gallery"] * bool(self.manifest.diagnoses)

    @cached_property
    def _runs(self) -> dict[str, Run]:
        # a source that is a cell too is judged as the cell
        return {run.folder: run for run in (*self.manifest.sources, *self.manifest.runs)}

    @cached_property
    def _late_to_early(self) -> list[int]:
        return sorted({run.card.seed for run in self._runs.values()}, reverse=True)

    @cached_property
    def _data(self) -> dict[str, DataCard]:
        return {run.data: run.card.data for run in self._runs.values()}

    def _sources(self, wildcards: Wildcards) -> list[str]:
        asked = self._suite(wildcards).attacks.values()
        keys = {attack.source.key for attack in asked if attack.source}
        # sorted: in whatever order the config has them, it is the same suite
        return sorted(run.folder for run in self.manifest.sources if run.card.key in keys)

    def _data_card(self, wildcards: Wildcards) -> DataCard:
        return self._data[paths.data(wildcards.dataset, wildcards.key)]

    def _suite(self, wildcards: Wildcards) -> SuiteCard:
        return self.manifest.suites[self.run(wildcards).verdicts[wildcards.suite]]

    def _diagnosis(self, wildcards: Wildcards) -> DiagnosisCard:
        run = self.run(wildcards)
        path = f"{run.folder}/diagnostics-{wildcards.key}.parquet"
        if path not in self.manifest.diagnoses:
            sys.exit(report(UserError(f"'{path}' is not of experiment '{self.name}'")))
        return self.manifest.diagnoses[path]

    @cached_property
    def _devices(self) -> int:
        return launch.devices(self.experiment.device)

    @property
    def gpus(self) -> int:
        """How many jobs may hold a GPU here at a time."""
        return self._devices * self.experiment.runs_per_gpu

    @property
    def gpu(self) -> int:
        """The places on a GPU that one training or attack holds."""
        return min(1, self.gpus)


def size(manifest: Manifest) -> str:
    """Return how much there is of an experiment, done or not, in one line."""
    networks = {run.folder: run.rule for run in (*manifest.runs, *manifest.sources)}
    rules = list(networks.values())
    given = rules.count(paths.PRETRAINED)
    beside = f" and {given} pretrained network{'s' * (given != 1)}" if given else ""
    evaluations = sum(len(suite.attacks) for suite in manifest.suites.values())
    return (
        f"regbench: experiment {manifest.experiment}: {len(rules) - given} trainings{beside},"
        f" {evaluations} evaluations in {len(manifest.suites)} suites of attacks"
    )
