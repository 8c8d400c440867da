"""The config: what is refused, and in which words."""

import copy
import datetime
import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml
from snakemake.utils import update_config

from regbench.errors import UserError, did_you_mean
from regbench.experiment.config import Experiment
from regbench.experiment.configfile import parse, read
from regbench.experiment.grid import resolve
from regbench.experiment.manifest import Declared
from regbench.experiment.suites import resolve_suites
from regbench.experiment.values import number, written

ROOT = Path(__file__).parents[1]
NUMBERS = {ROOT / "config/published.yaml", ROOT / "config/leaderboard.yaml"}
CONFIGS = sorted(set((ROOT / "config").glob("*.yaml")) - NUMBERS)
LAID_OVER = {
    ROOT / "config/mnist_gpu.yaml": ROOT / "config/mnist.yaml",
    ROOT / "config/single_step.yaml": ROOT / "config/cifar10.yaml",
}

DECLARED = {
    name: Declared(name, name.upper(), f"regbench.regularizers.{name}", hyperparameters, cost)
    for name, hyperparameters, cost in (
        ("natural", {}, lambda h, m: 1),
        ("sat_r1", {"weight": 0.2, "steps": 10}, lambda h, m: 2 + (h["steps"] + 1) / m),
    )
}


@pytest.fixture
def config():
    """A config that resolves."""
    return {
        "experiment": "test",
        "seeds": [0, 1],
        "training": {"epochs": 2, "batch_size": 32, "learning_rate": 0.1},
        "regularizers": {"natural": None, "sat_r1": {"weight": 0.5}},
        "attacks": {"white_box": {"clean": None, "fgsm": None}},
        "datasets": {
            "digits": {"epsilon": "8/255", "validation": 97, "models": {"small_cnn": None}}
        },
    }


def set_at(config, path, value):
    """Return a copy of `config` in which `path`, dotted, holds `value`."""
    changed = copy.deepcopy(config)
    *parents, last = path.split(".") if isinstance(path, str) else [path]
    at = changed
    for part in parents:
        at[part] = at.get(part) or {}
        at = at[part]
    at[last] = value
    return changed


KEYS = {
    "demo": {"white_box": "690fe03630", "autoattack": "4358fded7f"},
    "mnist": {
        "white_box": "fd3e29de79",
        "restarts": "6d5f8a0267",
        "autoattack": "829702d3cd",
        "sweeps": "64247a8e61",
    },
}
"""Of suites that were judged before an attack could be cut into pieces."""


@pytest.mark.parametrize("name", KEYS)
def test_finished_results_keep_their_keys(name):
    experiment = parse(read(ROOT / f"config/{name}.yaml"))
    ((dataset, data),) = experiment.datasets.items()
    attacks = data.attacks or experiment.attacks
    chosen = data.model_copy(update={"attacks": {suite: attacks[suite] for suite in KEYS[name]}})
    experiment = experiment.model_copy(update={"datasets": {dataset: chosen}})
    cards, _ = resolve_suites(experiment, dataset, {})
    assert {suite: card.key for suite, card in cards.items()} == KEYS[name]


def test_pieces_are_part_of_the_key_unless_there_is_one(config):
    cards = []
    for pieces in (None, 1, 2):
        told = {"images": 4} if pieces is None else {"images": 4, "pieces": pieces}
        manifest = resolve(parse(set_at(config, "attacks.white_box.fgsm", told)), DECLARED)
        cards.append(next(iter(manifest.suites.values())))
        assert type(cards[-1]).read(cards[-1].text()) == cards[-1]
    assert cards[0].key == cards[1].key != cards[2].key
    assert "pieces" not in cards[1].text()
    assert cards[2].attacks["fgsm"].pieces == 2


def test_a_compiled_training_is_another_and_its_key_is_the_old_one_without(config):
    usual, off, on = (
        resolve(parse(one), DECLARED).runs[0].card
        for one in (config, *(set_at(config, "training.compiled", one) for one in (False, True)))
    )
    assert usual.key == off.key != on.key
    assert "compiled" not in off.text()
    assert type(on).read(on.text()) == on


def test_what_attacks_craft_in_is_part_of_the_key_unless_it_is_fp32(config):
    asked = [config, *(set_at(config, "evaluation.precision", one) for one in ("fp32", "tf32"))]
    manifests = [resolve(parse(one), DECLARED) for one in asked]
    usual, fp32, tf32 = (next(iter(one.suites.values())) for one in manifests)
    assert usual.key == fp32.key != tf32.key
    assert tf32.precision == "tf32"
    assert type(tf32).read(tf32.text()) == tf32
    assert manifests[0].diagnoses == manifests[2].diagnoses


def test_diagnostics_are_taken_of_each_cell_unless_switched_off(config):
    manifest = resolve(parse(config), DECLARED)
    (card,) = set(manifest.diagnoses.values())
    assert (card.images, card.points, card.epsilon) == (1000, 9, pytest.approx(8 / 255))
    assert (card.split, card.checkpoint, card.batch_size, card.seed) == ("test", "best", 500, 0)
    assert type(card).read(card.text()) == card
    paths = [f"{run.folder}/diagnostics-{card.key}.parquet" for run in manifest.runs]
    assert [run.diagnosis for run in manifest.runs] == [*manifest.diagnoses] == paths
    kept = [f"{run.folder}/gallery-{card.key}.parquet" for run in manifest.runs]
    assert [run.gallery for run in manifest.runs] == kept
    for switch in (False, None):
        off = resolve(parse({**config, "diagnostics": switch}), DECLARED)
        assert not off.diagnoses
        assert {run.diagnosis for run in off.runs} == {run.gallery for run in off.runs} == {None}
        assert [run.folder for run in off.runs] == [run.folder for run in manifest.runs]
    on = resolve(parse({**config, "diagnostics": True}), DECLARED)
    assert on == manifest


def test_without_a_radius_there_is_nothing_to_diagnose(config):
    assert not resolve(parse(set_at(config, "datasets.digits.epsilon", 0)), DECLARED).diagnoses


@pytest.mark.parametrize(
    ("diagnostics", "words"),
    [
        ({"points": 8}, "'diagnostics.points': expected an odd number, so that ε is among"),
        ({"points": 1}, "'diagnostics.points': Input should be greater than or equal to 3"),
        ({"images": 0}, "'diagnostics.images': Input should be greater than 0"),
        ({"gallery": -1}, "'diagnostics.gallery': Input should be greater than or equal to 0"),
        ({"image": 5}, "unknown key 'diagnostics.image'; did you mean 'images'?"),
        ("no", "'diagnostics': expected `key: value`"),
    ],
)
def test_wrong_diagnostics_are_one_line(config, diagnostics, words):
    with pytest.raises(UserError, match=re.escape(words)):
        parse({**config, "diagnostics": diagnostics})


@pytest.mark.parametrize("name", ["diagnostics", "gallery"])
def test_no_suite_is_called_as_what_lies_beside_it(config, name):
    changed = {**config, "attacks": {name: {"clean": None}}}
    with pytest.raises(UserError, match=f"no suite can be called '{name}'"):
        resolve(parse(changed), DECLARED)


def test_a_diagnosis_that_keeps_no_image_has_the_key_from_before_any_was_kept(config):
    asked = {"images": 1000, "points": 9, "gallery": 0}
    manifest = resolve(parse({**config, "diagnostics": asked}), DECLARED)
    (card,) = set(manifest.diagnoses.values())
    assert "gallery" not in card.text()
    assert type(card).read(card.text()) == card
    known = {**asked, "gallery": 5}
    (other,) = set(resolve(parse({**config, "diagnostics": known}), DECLARED).diagnoses.values())
    assert '"gallery":5' in other.text()
    assert other.key != card.key


def test_more_pieces_than_images_is_one_line(config):
    changed = set_at(config, "attacks.white_box.fgsm", {"images": 4, "pieces": 5})
    with pytest.raises(UserError, match="'fgsm' has 4 images, which cannot be cut into 5 pieces"):
        resolve(parse(changed), DECLARED)


def test_fractions_are_numbers():
    assert number("8/255") == pytest.approx(8 / 255)
    assert number("0.4/255") == pytest.approx(0.4 / 255)
    assert number("eight") == "eight"


def test_resolves(config):
    manifest = resolve(parse(config), DECLARED)
    assert [(run.regularizer, run.seed) for run in manifest.runs] == [
        ("natural", 0),
        ("natural", 1),
        ("sat_r1", 0),
        ("sat_r1", 1),
    ]
    run = manifest.runs[2]
    assert run.card.epsilon == pytest.approx(8 / 255)
    assert run.card.regularizer.hyperparameters == {"weight": 0.5, "steps": 10}
    assert run.cost == pytest.approx(2 + 11 / 32)
    assert list(run.verdicts) == ["white_box"]


def test_lower_levels_win(config):
    config = set_at(config, "datasets.digits.regularizers.sat_r1", {"steps": 3})
    config = set_at(config, "datasets.digits.models.small_cnn.regularizers.sat_r1.weight", 7)
    config = set_at(config, "datasets.digits.models.small_cnn.training.epochs", 9)
    config = set_at(config, "regularizers.sat_r1.training.learning_rate", "1/20")
    card = resolve(parse(config), DECLARED).runs[2].card
    assert card.regularizer.hyperparameters == {"weight": 7, "steps": 3}
    assert card.training.epochs == 9
    assert card.training.learning_rate == pytest.approx(0.05)
    assert card.training.milestones == (0.25, 0.5, 0.75)


def test_a_cyclic_rate_is_part_of_the_card_where_there_is_one(config):
    def card(cyclic):
        changed = set_at(config, "datasets.digits.training.cyclic", cyclic)
        return resolve(parse(changed), DECLARED).runs[0].card

    plain = resolve(parse(config), DECLARED).runs[0].card
    assert card("2/5").training.cyclic == pytest.approx(0.4)
    assert card("2/5").key != plain.key == card(0).key
    assert "cyclic" not in card(0).text()
    with pytest.raises(UserError, match="cyclic"):
        card(1)


def test_what_picks_the_best_epoch_is_part_of_the_card_unless_it_is_the_papers(config):
    usual, ifgsm, clean = (
        resolve(parse(one), DECLARED).runs[0].card
        for one in (
            config, *(set_at(config, "training.selection", one) for one in ("ifgsm", "clean"))
        )
    )  # fmt: skip
    assert usual.key == ifgsm.key != clean.key
    assert 'selection"' not in ifgsm.text()
    assert type(clean).read(clean.text()) == clean


def test_a_cyclic_rate_knows_no_milestones(config):
    def training(above, within):
        changed = set_at(config, "training", {**config["training"], **above})
        changed = set_at(changed, "datasets.digits.training", within)
        return resolve(parse(changed), DECLARED).runs[0].card.training

    cyclic = training({"cyclic": 0.4}, {})
    assert (cyclic.milestones, cyclic.decay) == ((), 1)
    assert training({"milestones": [0.5]}, {"cyclic": 0.4}) == cyclic
    assert training({"milestones": [0.5], "cyclic": 0.4}, {}) == cyclic
    again = training({"cyclic": 0.4}, {"cyclic": 0, "milestones": [0.5]})
    assert (again.cyclic, again.milestones, again.decay) == (0, (0.5,), 0.2)
    with pytest.raises(UserError, match="natural on digits has milestones of its own, which a"):
        training({"cyclic": 0.4}, {"milestones": [0.5]})


def test_what_is_compared_changes_no_card(config):
    plain = resolve(parse(config), DECLARED)
    chosen = parse({**config, "references": ["sat_r1"], "margin": "5/2"})
    assert resolve(chosen, DECLARED).text() == plain.text()
    assert (chosen.references, chosen.margin) == (["sat_r1"], 2.5)
    assert (parse(config).references, parse(config).margin) == (None, 5)


def test_an_attacks_own_number_of_images_wins(config):
    config = set_at(config, "evaluation", {"images": 30})
    config = set_at(config, "attacks.white_box.fgsm", {"images": 7})
    (entries,) = resolve(parse(config), DECLARED).attacks.values()
    assert {entry.name: entry.card.images for entry in entries} == {"clean": 30, "fgsm": 7}


@pytest.mark.parametrize(
    ("length", "text"),
    [
        (8 / 255, "8/255"), (0.0313725, "8/255"), (0.4 / 255, "0.001569"), (0.031, "0.031"),
        (0.2, "0.2"), (51 / 255, "0.2"), (0.3, "0.3"), (0, "0"), (1, "1"), (1 / 30, "0.03333"),
    ],
)  # fmt: skip
def test_a_length_is_shown_as_a_config_writes_it(length, text):
    assert written(length) == text


def test_other_hyperparameters_are_another_folder(config):
    one = resolve(parse(config), DECLARED)
    two = resolve(parse(set_at(config, "regularizers.sat_r1.weight", 0.6)), DECLARED)
    folders = [[run.folder for run in manifest.runs] for manifest in (one, two)]
    assert folders[0][:2] == folders[1][:2]
    assert not set(folders[0][2:]) & set(folders[1][2:])


def test_a_method_may_have_seeds_of_its_own(config):
    config = set_at(config, "regularizers.sat_r1.seeds", [7])
    seeds = [(run.regularizer, run.seed) for run in resolve(parse(config), DECLARED).runs]
    assert seeds == [("natural", 0), ("natural", 1), ("sat_r1", 7)]


@pytest.fixture
def with_sources(config):
    """A config in which one attack crafts on a network of its own, one on a cell of the grid."""
    sources = {
        "other": {"model": "lenet_plus", "seed": 3, "training": {"epochs": 9}},
        "twin": {"model": "small_cnn", "seed": 1},
    }
    config = set_at(config, "datasets.digits.sources", sources)
    config = set_at(config, "attacks.white_box.fgsm_other", {"attack": "fgsm", "source": "other"})
    return set_at(config, "attacks.white_box.fgsm_twin", {"attack": "fgsm", "source": "twin"})


def test_methods_of_one_label_are_refused_on_whichever_data_set(config):
    """Another data set, which gives them labels of their own, hides nothing."""
    own = {"regularizers": {"natural": {"label": "SAT-R1"}, "sat_r1": {"label": "SAT-R1"}}}
    first = {**config["datasets"]["digits"], **own}
    second = {**config["datasets"]["digits"], "dataset": "digits"}
    both = set_at(config, "datasets", {"digits": first, "again": second})
    with pytest.raises(UserError, match="'natural' and 'sat_r1' are both labelled 'SAT-R1'"):
        resolve(parse(both), DECLARED)


def test_sources_are_trained_beside_the_grid_or_found_in_it(with_sources):
    manifest = resolve(parse(with_sources), DECLARED)
    other, twin = manifest.sources
    assert other.folder.startswith("results/digits/other/natural/3-")
    assert other.card.model.architecture == "regbench.models.lenet_plus"
    assert other.card.training.epochs == 9
    assert twin.folder == manifest.runs[1].folder
    assert len(manifest.runs) == 4
    entries = {entry.name: entry for entry in manifest.attacks["digits"]}
    assert entries["fgsm_other"].card.source == other.card
    assert entries["fgsm_twin"].card.source == twin.card
    assert entries["fgsm"].card.source is None


def test_no_run_is_judged_by_images_crafted_on_itself(with_sources):
    alone = {"attack": "fgsm", "label": "alone", "source": "twin"}
    manifest = resolve(parse(set_at(with_sources, "attacks.transfer.alone", alone)), DECLARED)
    twin = manifest.sources[1]
    for run in manifest.runs:
        tried = [name for path in run.verdicts.values() for name in manifest.suites[path].attacks]
        own = run.folder == twin.folder
        assert ("fgsm_twin" in tried, "alone" in tried) == (not own, not own)
        assert set(run.verdicts) == ({"white_box"} if own else {"white_box", "transfer"})
        assert "fgsm_other" in tried
    assert len(manifest.suites) == sum(len(run.verdicts) for run in manifest.runs)


def test_a_source_with_another_training_is_another_card_of_its_attacks(with_sources):
    changed = set_at(with_sources, "datasets.digits.sources.other.training.epochs", 8)
    one, two = (resolve(parse(given), DECLARED) for given in (with_sources, changed))
    assert one.runs[0].folder == two.runs[0].folder
    assert one.runs[0].verdicts != two.runs[0].verdicts


def test_an_attack_that_stops_early_on_another_network_is_refused(with_sources):
    source = next(iter(with_sources["datasets"]["digits"]["sources"]))
    attack = {"attack": "pgd", "steps": 20, "source": source}
    stopping, whole = (
        parse(set_at(with_sources, "attacks.white_box.far", {**attack, "early_stop": stop}))
        for stop in (True, False)
    )
    resolve(whole, DECLARED)
    with pytest.raises(UserError, match=f"stops early on its source '{source}'"):
        resolve(stopping, DECLARED)


def test_a_sweep_is_an_attack_for_each_value(config):
    sweep = {"attack": "fgsm", "label": "FGSM", "sweep": {"epsilon": ["1/4", "1/2"]}}
    config = set_at(config, "attacks.white_box.over", sweep)
    points = resolve(parse(config), DECLARED).attacks["digits"][2:]
    assert [point.name for point in points] == ["over@0.25", "over@0.5"]
    assert [point.label for point in points] == ["FGSM, ε = 0.25", "FGSM, ε = 0.5"]
    assert [point.card.arguments["epsilon"] for point in points] == [0.25, 0.5]
    assert {(point.sweep, point.family) for point in points} == {("epsilon", "FGSM")}


def test_a_radius_is_told_as_a_config_writes_it(config):
    attacks = {"over": {"sweep": {"epsilon": [0, "8/255"]}}, "far": {"epsilon": "16/255"}}
    for name, keys in attacks.items():
        config = set_at(config, f"attacks.white_box.{name}", {"attack": "fgsm", **keys})
    labels = [one.label for one in resolve(parse(config), DECLARED).attacks["digits"]]
    assert labels[-3:] == ["over, ε = 0", "over, ε = 8/255", "far (ε = 16/255)"]


def test_a_sweep_of_whole_numbers_stays_whole(config):
    sweep = {"attack": "pgd", "sweep": {"steps": [1, 10]}}
    config = set_at(config, "attacks.white_box.over", sweep)
    points = resolve(parse(config), DECLARED).attacks["digits"][2:]
    assert [json.dumps(point.card.arguments["steps"]) for point in points] == ["1", "10"]


REFUSED = {
    "a source that there is not": (
        "attacks.white_box.far",
        {"attack": "fgsm", "source": "model_a"},
        "which datasets.digits has neither among `sources` nor among `pretrained`",
    ),
    "a source of an unknown network": (
        "datasets.digits.sources",
        {"a": {"model": "model_x"}},
        "unknown model 'model_x'; did you mean 'model_",
    ),
    "a source of an undeclared regularizer": (
        "datasets.digits.sources",
        {"a": {"model": "model_a", "regularizer": "sat_r9"}},
        "no rule declares the regularizer 'sat_r9'; did you mean 'sat_r1'?",
    ),
    "a sweep of two parameters": (
        "attacks.white_box.over",
        {"attack": "pgd", "sweep": {"epsilon": [0.1, 0.2], "steps": [1, 2]}},
        "'attacks.white_box.over.sweep'",
    ),
    "a sweep of one value": (
        "attacks.white_box.over",
        {"attack": "fgsm", "sweep": {"epsilon": [0.1]}},
        "'attacks.white_box.over.sweep.epsilon'",
    ),
    "a sweep that repeats a value": (
        "attacks.white_box.over",
        {"attack": "fgsm", "sweep": {"epsilon": [0.1, "1/10"]}},
        "0.1 is given twice; each value is one attack",
    ),
    "a parameter both set and swept": (
        "attacks.white_box.over",
        {"attack": "fgsm", "epsilon": 0.3, "sweep": {"epsilon": [0.1, 0.2]}},
        "the attack 'over' sets 'epsilon' and sweeps it; drop one of them",
    ),
    "an unknown precision": (
        "training.precision",
        "fp16",
        "'training.precision': Input should be 'fp32', 'tf32' or 'bf16', got 'fp16'",
    ),
    "unknown key": ("sedes", [0], "unknown key 'sedes'; did you mean 'seeds'?"),
    "unknown nested key": (
        "datasets.digits.training",
        {"epoch": 3},
        "unknown key 'datasets.digits.training.epoch'; did you mean 'epochs'?",
    ),
    "unknown key of a network": (
        "datasets.digits.models.small_cnn.training",
        {"batchsize": 3},
        "did you mean 'batch_size'?",
    ),
    "pixel ε": ("datasets.digits.epsilon", 8, "'datasets.digits.epsilon': ε must lie in [0, 1]"),
    "pixel ε, the fix": ("datasets.digits.epsilon", 8, "write 8/255"),
    "negative ε": ("datasets.digits.epsilon", -0.1, "ε must lie in [0, 1], got -0.1"),
    "ε of an attack": ("attacks.white_box.fgsm", {"epsilon": 16}, "write 16/255"),
    "ε that is no number": ("datasets.digits.epsilon", "1/0", "divides by zero"),
    "an infinite rate": ("training.learning_rate", float("inf"), "'training.learning_rate'"),
    "negative epochs": ("training.epochs", -3, "'training.epochs': Input should be greater than 0"),
    "no epochs": ("training.epochs", None, "training.epochs is set nowhere"),
    "duplicate seed": ("seeds", [1, 1], "seed 1 is given twice"),
    "no seed": ("seeds", [], "'seeds': expected at least 1, got []"),
    "a seed that stands alone": ("seeds", 3, "'seeds': expected a list, in brackets, got 3"),
    "models as a list": (
        "datasets.digits.models",
        ["small_cnn"],
        "'datasets.digits.models': expected `key: value`, got ['small_cnn']",
    ),
    "an attack in no suite": (
        "attacks",
        {"pgd": {"steps": 5}},
        "expected suites of attacks, as `white_box: {pgd: {steps: 10}}`, got 5",
    ),
    "an attack in no suite, by its name alone": (
        "attacks",
        {"fgsm": None},
        "'attacks.fgsm': expected suites of attacks, as `white_box: {pgd: {steps: 10}}`, got None",
    ),
    "no regularizer": ("regularizers", {}, "datasets.digits has nothing to judge"),
    "no data set": ("datasets", {}, "'datasets'"),
    "no network": ("datasets.digits.models", {}, "datasets.digits has nothing to judge"),
    "unknown data set": (
        "datasets",
        {"digit": {"epsilon": 0.1, "validation": 9, "models": {"small_cnn": None}}},
        "unknown data set 'digit'; did you mean 'digits'?",
    ),
    "unknown network": (
        "datasets.digits.models",
        {"smal_cnn": None},
        "unknown model 'smal_cnn'; did you mean 'small_cnn'?",
    ),
    "unknown regularizer": (
        "regularizers",
        {"sat_r4": None},
        "no rule declares the regularizer 'sat_r4'; did you mean 'sat_r1'?",
    ),
    "unchosen regularizer": (
        "datasets.digits.regularizers",
        {"sat_r": {"weight": 1}},
        "sets 'sat_r', which `regularizers:` does not choose; did you mean 'sat_r1'?",
    ),
    "unknown attack": (
        "attacks.white_box",
        {"fgms": None},
        "unknown attack 'fgms'; did you mean 'fgsm'?",
    ),
    "one attack twice": ("attacks.other", {"fgsm": None}, "already in suite 'white_box'"),
    "unknown gap": ("gap", ["fgsm", "pdg"], "gap names the attack 'pdg'"),
    "unknown reference": (
        "references",
        ["sat_r2"],
        "references names 'sat_r2', which `regularizers:` does not choose; did you mean 'sat_r1'?",
    ),
    "one reference twice": (
        "references",
        ["sat_r1", "sat_r1"],
        "'references': 'sat_r1' is given twice",
    ),
    "no margin": ("margin", 0, "'margin': Input should be greater than 0"),
    "a margin of no number": ("margin", "wide", "'margin'"),
    "a margin of more than all": ("margin", 101, "'margin': Input should be less than or equal"),
    "one gap attack": ("gap", ["fgsm", "fgsm"], "gap names 'fgsm' twice"),
    "equal labels of methods": (
        "regularizers",
        {"natural": None, "sat_r1": {"label": "NATURAL"}},
        "'natural' and 'sat_r1' are both labelled 'NATURAL'",
    ),
    "equal labels of attacks": (
        "attacks.white_box",
        {"clean": {"label": "x"}, "fgsm": {"label": "x"}},
        "of the attacks on digits, 'clean' and 'fgsm' are both labelled 'x'",
    ),
    "an empty label": ("regularizers", {"natural": {"label": ""}}, "'regularizers.natural.label'"),
    "a label of two lines": ("regularizers", {"natural": {"label": "a\nb"}}, "natural.label'"),
    "an infinite weight": (
        "regularizers",
        {"sat_r1": {"weight": float("inf")}},
        "'weight' must be finite, got inf",
    ),
    "a text that is too large a number": (
        "regularizers",
        {"sat_r1": {"weight": "1e400"}},
        "'weight' must be finite, got inf",
    ),
    "true for a number": (
        "training.epochs",
        True,
        "'training.epochs': expected a whole number",
    ),
    "true for a seed": ("seeds", [True], "'seeds.0'"),
    "true for ε": ("datasets.digits.epsilon", True, "'datasets.digits.epsilon'"),
    "a seed that torch cannot take": ("seeds", [2**64], "'seeds.0': Input should be less than"),
    "a long name": ("experiment", "a" * 65, "'experiment'"),
    "the data's own classes": (
        "datasets.digits.models",
        {"small_cnn": {"classes": 3}},
        "which the data set gives",
    ),
    "twins in other words": (
        "regularizers",
        {"sat_r1": {"weight": 1}, "again": {"regularizer": "sat_r1", "weight": 1.0}},
        "ask for the same training",
    ),
    "twins": (
        "regularizers",
        {"sat_r1": None, "again": {"regularizer": "sat_r1"}},
        "ask for the same training",
    ),
    "a path as a name": ("experiment", "../x", "'experiment'"),
    "a crop of nothing but padding": (
        "training.crop_padding",
        10**9,
        "'training.crop_padding': Input should be less than or equal to 256",
    ),
    "a parameter divided by zero": (
        "regularizers",
        {"sat_r1": {"weight": "1/0"}},
        "the regularizer 'sat_r1' on digits: 'weight' is no value that a card can hold: '1/0'",
    ),
    "a fraction that is too large a number": (
        "training.learning_rate",
        "9" * 400 + "/1",
        "'training.learning_rate': Input should be a finite number",
    ),
    "a whole number that is too large": (
        "regularizers",
        {"sat_r1": {"weight": 10**400}},
        "'weight' is no value that a card can hold",
    ),
    "a date for a number": (
        "attacks.white_box.fgsm",
        {"decay": datetime.date(2020, 1, 1)},
        "the attack 'fgsm' on digits: 'decay' is no value that a card can hold",
    ),
    "a network that is no reference": (
        "datasets.digits.models",
        {"small_cnn": {"model": "package.module:"}},
        "expected the name of a file there, or package.module:Class, got 'package.module:'",
    ),
    "regularizers of a source": (
        "datasets.digits.sources",
        {"a": {"model": "model_a", "regularizers": {"natural": None}}},
        "datasets.digits.sources.a sets 'regularizers'",
    ),
    "no attack": ("attacks", {}, "digits has no attacks to be judged by"),
    "no attack on a data set": ("datasets.digits.attacks", {}, "digits has no attacks"),
    "attacks for no data set": (
        "datasets.digits.attacks",
        {"white_box": {"clean": None}},
        "attacks: every data set has attacks of its own",
    ),
    "a data root that no system takes": ("data_root", "a\0b", "'data_root'"),
    "a key that is no text": (
        True,
        1,
        "config: the key True is no text; if it is meant, put it in quotes",
    ),
    "a name of two lines": (
        "regularizers",
        {"natural": None, "a\nb": None},
        "a name under 'regularizers': String should match pattern",
    ),
    "a list for a mapping": ("regularizers", ["natural"], "'regularizers'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_line(config, case):
    path, value, words = REFUSED[case]
    with pytest.raises(UserError) as error:
        resolve(parse(set_at(config, path, value)), DECLARED)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "missing"), [("single_step", "experiment"), ("mnist_gpu", "datasets.mnist.epsilon")]
)
def test_a_file_that_is_laid_over_another_says_so_where_it_stands_alone(name, missing):
    alone = read(ROOT / "config" / f"{name}.yaml")
    with pytest.raises(UserError, match=f"'{missing}' is missing; a file that is laid over"):
        parse(alone)


@pytest.mark.parametrize("value", [1, 1.0, "2/2", "1e0"])
def test_equal_values_are_one_card(config, value):
    cards = [
        resolve(parse(set_at(config, "regularizers.sat_r1.weight", one)), DECLARED).runs[2].card
        for one in (1, value)
    ]
    assert cards[0].key == cards[1].key


def test_an_attacks_own_radius_shows_in_its_label(config):
    config = set_at(config, "attacks.white_box.fgsm", {"epsilon": 0.5})
    (entries,) = resolve(parse(config), DECLARED).attacks.values()
    assert [entry.label for entry in entries] == ["clean", "fgsm (ε = 0.5)"]


def test_equal_keys_are_refused(tmp_path):
    file = tmp_path / "twice.yaml"
    file.write_text("seeds: [1]\nseeds: [2]\n")
    with pytest.raises(UserError, match="the key 'seeds' is given twice, line 2"):
        read(file)


@pytest.mark.parametrize("written", ["017", "1:30"])
def test_a_number_that_is_not_what_it_looks_like_is_refused(tmp_path, written):
    file = tmp_path / "octal.yaml"
    file.write_text(f"seeds:\n- {written}\n")
    with pytest.raises(UserError, match=f"'{written}', line 2, is [0-9]+ in YAML"):
        read(file)


@pytest.mark.parametrize("written", ["0", "10", "0x1F", "1_000", "-3", "1:30:x"])
def test_other_numbers_are_read(tmp_path, written):
    file = tmp_path / "number.yaml"
    file.write_text(f"a: {written}\n")
    assert read(file) == yaml.safe_load(f"a: {written}")


BAD = [
    "a: [",
    "- 1\n- 2\n",
    "\x00",
    "a: !!int x",
    "a: 2020-13-45",
    "a: " + "[" * 2_000,
    "a: " + "9" * 5_000,
]


@pytest.mark.parametrize("text", BAD, ids=lambda text: text[:16])
def test_what_is_no_mapping_is_refused(tmp_path, text):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=r"bad\.yaml"):
        read(file)


def whole(path):
    """What a config holds, laid over another one, if it is of that kind, as Snakemake does it."""
    if path not in LAID_OVER:
        return read(path)
    below = read(LAID_OVER[path])
    update_config(below, read(path))
    return below


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_config_of_the_repository_is_valid(path):
    assert parse(whole(path)).experiment


def test_the_schema_file_is_current():
    stored = json.loads((ROOT / "config/schema.json").read_text())
    assert stored == Experiment.model_json_schema(), (
        "python -m regbench.experiment.config > config/schema.json"
    )


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_the_schema_file_accepts_the_configs(path):
    schema = json.loads((ROOT / "config/schema.json").read_text())
    assert jsonschema.Draft202012Validator(schema).is_valid(whole(path))
    assert not jsonschema.Draft202012Validator(schema).is_valid({**whole(path), "sedes": [1]})


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("two\nlines\t of  it", "two lines of it"),
        ("a\x1b[31m\x00\ud800", r"a\x1b[31m\x00\ud800"),
        ("ε ≤ 1", "ε ≤ 1"),
    ],
)
def test_a_refusal_is_one_line_that_a_terminal_can_show(message, line):
    assert str(UserError(message)) == line


def test_a_long_refusal_keeps_its_beginning_and_its_end():
    line = str(UserError("first " + "x" * 100_000 + " last"))
    assert line.startswith("first x")
    assert line.endswith("x last")
    assert len(line) <= 1_000


def test_did_you_mean_lists_what_is_known():
    assert did_you_mean("zzz", ["b", "a"]) == "; known: a, b"
    assert did_you_mean("zzz", []) == ""
