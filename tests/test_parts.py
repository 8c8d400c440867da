"""Cards, members, fingerprints, data, models, devices: the small parts that stages are made of."""

import hashlib
import importlib
import json
import math
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pydantic import PositiveInt
from torchvision import datasets

from regbench.check import Claims, check
from regbench.core import device
from regbench.data import _torchvision
from regbench.data.mnist import SHA256
from regbench.errors import UserError
from regbench.experiment import members
from regbench.experiment.cards import DataCard, RunCard
from regbench.experiment.cells import PAPER_TRAINING
from regbench.experiment.environment import positive
from regbench.experiment.fingerprint import fingerprint
from regbench.prepare import open_data, prepare

fingerprint_module = importlib.import_module("regbench.experiment.fingerprint")
DIGITS = {"source": "regbench.data.digits", "arguments": {}, "validation": 97, "split_seed": 0}


@pytest.mark.parametrize("kind", ["data", "models", "regularizers", "attacks", "figures"])
def test_each_file_offers_what_its_all_names(kind):
    for name in members.names(kind):
        module = importlib.import_module(f"regbench.{kind}.{name}")
        assert len(module.__all__) == 1
        member = members.load(f"regbench.{kind}.{name}")
        assert member.__doc__, f"{kind}/{name} says nothing of itself"


@pytest.mark.parametrize("name", members.names("regularizers"))
def test_each_regularizer_has_a_rule(name):
    rule = Path(__file__).parents[1] / f"rules/regularizers/{name}.smk"
    assert f"regbench.regularizers.{name}:" in rule.read_text()


@pytest.mark.parametrize("name", members.names("models"))
def test_each_model_gives_finite_logits(name):
    shape = (3, 32, 32) if "resnet" in name or "wrn" in name else (1, 28, 28)
    model = members.build(f"regbench.models.{name}", {"shape": shape, "classes": 10})
    logits = model.eval()(torch.rand(2, *shape))
    assert logits.shape == (2, 10)
    assert logits.isfinite().all()


def test_a_card_is_the_same_text_whatever_the_order():
    card = DataCard.model_validate(DIGITS)
    again = DataCard.read(json.dumps(dict(reversed(DIGITS.items()))))
    assert card.key == again.key
    assert DataCard.read(card.text()) == card
    assert card.model_copy(update={"split_seed": 1}).key != card.key


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nowhere/card.json", "cannot read the card 'nowhere/card.json': No such file"),
        ("{}", "not a RunCard: data: Field required"),
        ("{", "not a RunCard: the whole: Invalid JSON"),
    ],
)
def test_a_wrong_card_is_one_line(text, words):
    with pytest.raises(UserError, match=words):
        RunCard.read(text)


@dataclass(frozen=True)
class Probe:
    """Something to build."""

    steps: PositiveInt


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"step": 1}, "unknown parameter 'step'; did you mean 'steps'?"),
        ({}, "parameter 'steps' is missing"),
        ({"steps": 0}, "'steps': Input should be greater than 0, got 0"),
        ({"steps": "many"}, "'steps': Input should be a valid integer"),
    ],
)
def test_wrong_arguments_are_one_line(monkeypatch, arguments, words):
    monkeypatch.setattr(members, "load", lambda reference: Probe)
    with pytest.raises(UserError) as error:
        members.build("probe:Probe", arguments)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("no.such:Thing", "cannot import 'no.such'"),
        ("regbench.regularizers.sat_r1:SATR2", "has no 'SATR2'; did you mean 'SATR1'?"),
        ("json.tool", """'json.tool' offers no class: write __all__ = ["Class"] in it"""),
    ],
)
def test_what_is_not_there_is_one_line(reference, words):
    with pytest.raises(UserError) as error:
        members.load(reference)
    assert words in str(error.value)


def test_the_source_of_a_module_is_found_without_importing_its_parents(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert members.source("regbench.attacks.pgd:PGD").name == "pgd.py"
    for missing in (
        "regbench.analysis.rows.results",
        "regbench.nothing",
        "nothing.at.all",
        "results",
    ):
        with pytest.raises(UserError, match=f"no module '{missing}'"):
            members.source(missing)


def fingerprint_of(folder, monkeypatch, in_c=None, **files):
    """Return the fingerprint of `probe`, written with other files to a folder of its own."""
    package = folder / str(len(list(folder.iterdir())))
    package.mkdir()
    for name, text in files.items():
        (package / f"{name}.py").write_text(text)
    if in_c is not None:
        (package / "probe.c").write_text(in_c)
    with monkeypatch.context() as context:
        context.syspath_prepend(package)
        return fingerprint(["probe:Probe"])


def test_a_fingerprint_moves_with_meaning_only(tmp_path, monkeypatch):
    one = fingerprint_of(tmp_path, monkeypatch, probe='"""One."""\nx = 1\n')
    reworded = fingerprint_of(tmp_path, monkeypatch, probe='"""Two."""\n\n# comment\nx = 1\n')
    other = fingerprint_of(tmp_path, monkeypatch, probe='"""One."""\nx = 2\n')
    assert one == reworded
    assert one != other


def test_c_beside_a_module_counts_by_its_meaning_too(tmp_path, monkeypatch):
    told = [
        fingerprint_of(tmp_path, monkeypatch, in_c=text, probe="x = 1")
        for text in (
            None,
            "int one(void) { return 1; }",
            "/* One,\n   or so. */\n\n  int one(void) {  return 1; }  // 1\n",
            "int one(void) { return 2; }",
        )
    ]
    assert told[1] == told[2]
    assert len(set(told)) == 3


def test_a_training_s_fingerprint_has_what_puts_it_together_and_what_calls_it_collapsed(
    monkeypatch,
):
    seen = set()
    meaning = fingerprint_module._meaning
    monkeypatch.setattr(
        fingerprint_module, "_meaning", lambda path: seen.add(path) or meaning(path)
    )
    fingerprint_module._of.cache_clear()
    fingerprint(fingerprint_module.TRAINING)
    found = {path.relative_to(members.PACKAGE).with_suffix("").as_posix() for path in seen}
    decide = ("training/assembly", "training/loop", "training/outcome", "core/network", "prepare")
    assert {*decide} <= found
    assert not {"train", "experiment/environment"} & found


@pytest.mark.parametrize("told", ["2h", "0", "-1", "nan"])
def test_a_number_of_the_environment_that_is_none_is_one_line(monkeypatch, told):
    monkeypatch.setenv("REGBENCH_TIME_LIMIT", told)
    with pytest.raises(UserError, match=rf"TIME_LIMIT: expected a number above 0, got '{told}'"):
        positive("REGBENCH_TIME_LIMIT", 1)


@pytest.mark.parametrize(("told", "number"), [("1.5", 1.5), ("inf", math.inf), ("", 0.0)])
def test_a_number_of_the_environment(monkeypatch, told, number):
    monkeypatch.setenv("REGBENCH_TIME_LIMIT", told)
    assert positive("REGBENCH_TIME_LIMIT", 0.0) == number


def test_a_fingerprint_follows_imports_within_regbench(tmp_path, monkeypatch):
    text = "from regbench.{} import x\n"
    prints = {
        name: fingerprint_of(tmp_path, monkeypatch, probe=text.format(name))
        for name in ("ascent", "step", "errors")
    }
    edited = {"regbench.ascent": "changed"}
    meaning = fingerprint_module._meaning
    monkeypatch.setattr(
        fingerprint_module,
        "_meaning",
        lambda path: edited.get(f"regbench.{path.stem}", meaning(path)),
    )
    after = {
        name: fingerprint_of(tmp_path, monkeypatch, probe=text.format(name)) for name in prints
    }
    assert after["ascent"] != prints["ascent"]
    assert after["step"] != prints["step"], "step imports ascent"
    assert after["errors"] == prints["errors"]


@pytest.mark.parametrize(
    ("where", "line"),
    [
        ("mylab/losses.py", "from .helpers import shrink"),
        ("mylab/losses.py", "from . import helpers"),
        ("mylab/deep/losses.py", "from ..helpers import shrink"),
        ("mylab/losses/__init__.py", "from ..helpers import shrink"),
    ],
)
def test_a_fingerprint_follows_relative_imports(where, line, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    file, helpers = tmp_path / where, tmp_path / "mylab/helpers.py"
    file.parent.mkdir(parents=True)
    for folder in {file.parent, helpers.parent}:
        (folder / "__init__.py").touch()
    file.write_text(line)
    module = where.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    prints = []
    for text in ("shrink = sum", "shrink = max"):
        helpers.write_text(text)
        for name in ("_of", "_meaning", "_imports", "_is_module"):
            getattr(fingerprint_module, name).cache_clear()
        prints.append(fingerprint([f"{module}:Loss"]))
    assert prints[0] != prints[1]


def test_a_module_that_is_no_python_is_one_line(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"probe\.py', line 2, is not Python"):
        fingerprint_of(tmp_path, monkeypatch, probe="x = 1\ny = (\n")


def test_prepared_digits_are_whole_and_split_by_the_seed(tmp_path):
    card = DataCard.model_validate(DIGITS)
    prepare(card, Path("unused"), download=False, out=tmp_path / "a")
    data = open_data(tmp_path / "a")
    parts = {
        name: data.split(name, torch.device("cpu")) for name in ("train", "validation", "test")
    }
    assert [len(part.y) for part in parts.values()] == [1200, 97, 500]
    assert data.shape == (1, 8, 8)
    assert data.classes == 10
    images = torch.cat([part.x for part in parts.values()])
    assert images.dtype == torch.float32
    assert images.min() == 0
    assert images.max() == 1
    # scikit-learn's own images, each exactly once
    digits = importlib.import_module("sklearn.datasets").load_digits()
    ours = sorted(tuple(row) for row in (images * 16).flatten(1).int().tolist())
    theirs = sorted(tuple(row) for row in digits.data.astype(int).tolist())
    assert ours == theirs
    prepare(card.model_copy(update={"split_seed": 1}), Path("unused"), False, tmp_path / "b")
    other = open_data(tmp_path / "b").split("train", torch.device("cpu"))
    assert not torch.equal(other.x, parts["train"].x)


def test_too_large_a_validation_split_is_one_line(tmp_path):
    card = DataCard.model_validate({**DIGITS, "validation": 1297})
    with pytest.raises(UserError, match="validation: 1297 images asked for"):
        prepare(card, Path("unused"), download=False, out=tmp_path / "a")


def test_a_foreign_file_is_one_line(tmp_path):
    (tmp_path / "a").write_bytes(b"something else")
    with pytest.raises(UserError, match="is damaged"):
        open_data(tmp_path / "a")


@pytest.fixture
def npz(tmp_path):
    """`npz(**arrays)`: the arguments of a data set with these arrays, the rest being sound."""

    def write(**changed):
        generator = np.random.default_rng(0)
        arrays = {
            "x_train": generator.integers(0, 256, (30, 8, 6, 3), np.uint8),
            "y_train": np.arange(30) % 5,
            "x_test": generator.integers(0, 256, (10, 8, 6, 3), np.uint8),
            "y_test": np.arange(10) % 5,
        } | changed
        file = tmp_path / "mine.npz"
        np.savez(file, **{name: array for name, array in arrays.items() if array is not None})
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        return {"path": "mine.npz", "sha256": digest}, arrays

    return write


def test_a_data_set_of_ones_own(npz, tmp_path):
    arguments, arrays = npz()
    images = members.build("regbench.data.npz", arguments)(tmp_path, False)
    assert images.x_train.shape == (30, 3, 8, 6)
    assert (images.x_train[4, 2] == arrays["x_train"][4, :, :, 2]).all()
    assert (images.scale, images.classes) == (255, 5)
    grey = npz(x_train=arrays["x_train"][..., 0], x_test=arrays["x_test"][..., 0])[0]
    assert members.build("regbench.data.npz", grey)(tmp_path, False).x_test.shape == (10, 1, 8, 6)


FOREIGN = {
    "a missing array": ({"y_test": None}, "is no .npz with x_train, y_train, x_test, y_test"),
    "floats": ({"x_test": np.zeros((10, 8, 6))}, "images must be uint8"),
    "four channels": (
        {"x_train": np.zeros((30, 8, 6, 4), np.uint8)},
        "images must be of 1 or 3 channels, (n, H, W), (n, H, W, C) or (n, C, H, W); got shape"
        " (30, 8, 6, 4)",
    ),
    "no images": ({"x_train": np.zeros((0, 8, 6), np.uint8)}, "images must be uint8"),
    "images without a pixel": ({"x_train": np.zeros((30, 0, 6), np.uint8)}, "none of these 0"),
    "no labels": ({"y_train": np.zeros(0, np.int64)}, "30 images and labels of shape (0,)"),
    "too few labels": ({"y_train": np.arange(29)}, "expected one label from 0 on per image"),
    "a negative label": ({"y_test": np.arange(10) - 1}, "expected one label from 0 on per image"),
    "labels of another kind": ({"y_train": np.full(30, "cat")}, "labels must be whole numbers"),
    "a test set sorted by class": ({"y_test": np.arange(10) // 2}, "are sorted by class, so that"),
    "a label never trained on": ({"y_test": np.full(10, 7)}, "labels up to 7, but only 5 classes"),
    "labels from 1 on": (
        {"y_train": np.arange(30) % 5 + 1},
        "no image to train on is of class 0; expected labels from 0 to K − 1, each of them there,"
        " got 1 to 5",
    ),
    "pixels from 0 to 1": (
        {"x_train": np.ones((30, 8, 6, 3), np.uint8)},
        "the highest pixel to train on is 1 of 255; if images are in [0, 1], multiply by 255",
    ),
    "another shape to test on": (
        {"x_test": np.zeros((10, 9, 9, 3), np.uint8)},
        "images to test on have shape (3, 9, 9), those to train on (3, 8, 6)",
    ),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_a_foreign_npz_is_one_line(npz, tmp_path, case):
    arrays, words = FOREIGN[case]
    source = members.build("regbench.data.npz", npz(**arrays)[0])
    with pytest.raises(UserError, match=re.escape(words)):
        source(tmp_path, False)


def npy() -> bytes:
    """One array, as `numpy.save` writes it."""
    file = BytesIO()
    np.save(file, np.zeros(3))
    return file.getvalue()


def zipped() -> bytes:
    """An archive with the right names, but no arrays."""
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("x_train", "y_train", "x_test", "y_test"):
            archive.writestr(f"{name}.npy", "1, 2, 3")
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (npy(), "it holds one array without a name"),
        (b"", "is no .npz with x_train, y_train, x_test, y_test: it is no zip archive"),
        (b"<html>404</html>", "it is no zip archive"),
        (zipped(), "its x_train is no array"),
    ],
)
def test_a_file_of_another_kind_is_one_line(content, words, tmp_path):
    (tmp_path / "mine.npz").write_bytes(content)
    arguments = {"path": "mine.npz", "sha256": hashlib.sha256(content).hexdigest()}
    with pytest.raises(UserError, match=re.escape(words)):
        members.build("regbench.data.npz", arguments)(tmp_path, False)


THREE = {"x_train": np.full((9, 4, 4), 9, np.uint8), "y_train": np.arange(9) % 3} | {
    "x_test": np.zeros((3, 4, 4), np.uint8), "y_test": np.arange(3)
}  # fmt: skip


def test_autoattack_on_few_classes_is_refused_before_anything_runs(npz, tmp_path, monkeypatch):
    arguments, _ = npz(**THREE)
    data = DataCard(source="regbench.data.npz", arguments=arguments, validation=1, split_seed=0)
    attacks = (("regbench.attacks.autoattack", {"epsilon": 0.1}),)
    wanted = Claims(built=attacks, attacks=attacks, networks=(), judged={"mine": (data, attacks)})
    wanted = Claims.read(wanted.text())  # as the process that checks gets them
    monkeypatch.setenv("REGBENCH_DATA", str(tmp_path / "elsewhere"))
    check(wanted)  # as long as the data set is not here; then the attack itself refuses
    monkeypatch.setenv("REGBENCH_DATA", str(tmp_path))
    with pytest.raises(UserError, match=r"config: datasets\.mine: AutoAttack .* 4 classes.* got 3"):
        check(wanted)
    standing = (("regbench.attacks.pgd", {"epsilon": 0.1, "steps": 1}),)
    check(wanted.model_copy(update={"judged": {"mine": (data, standing)}}))


def test_more_images_held_out_than_there_are_is_refused_before_anything_runs(
    npz, tmp_path, monkeypatch
):
    monkeypatch.setenv("REGBENCH_DATA", str(tmp_path))
    for arguments, source, count in ((npz()[0], "npz", 30), ({}, "digits", 1297)):
        data = DataCard(
            source=f"regbench.data.{source}", arguments=arguments, validation=count, split_seed=0
        )
        wanted = Claims(built=(), attacks=(), networks=(), judged={"mine": (data, ())})
        words = f"config: datasets.mine: validation: {count} images asked for, but there are only"
        with pytest.raises(UserError, match=re.escape(words)):
            check(wanted)
        less = data.model_copy(update={"validation": count - 1})
        check(wanted.model_copy(update={"judged": {"mine": (less, ())}}))


def test_a_wrong_npz_is_refused_before_anything_runs_a_missing_one_is_not(
    npz, tmp_path, monkeypatch
):
    monkeypatch.setenv("REGBENCH_DATA", str(tmp_path))
    arguments = {**npz()[0], "sha256": 64 * "0"}
    data = DataCard(source="regbench.data.npz", arguments=arguments, validation=5, split_seed=0)
    wanted = Claims(built=(), attacks=(), networks=(), judged={"mine": (data, ())})
    words = rf"config: datasets\.mine: .*mine\.npz' has sha256 .*, the config says {64 * '0'}"
    with pytest.raises(UserError, match=words):
        check(wanted)
    (tmp_path / "mine.npz").unlink()
    check(wanted)


def test_a_file_of_other_data_is_one_line(tmp_path):
    card = DataCard.model_validate(DIGITS)
    prepare(card, Path("unused"), download=False, out=tmp_path / "a")
    data = open_data(tmp_path / "a")
    assert data.holding(card) is data
    with pytest.raises(UserError, match=r"a' holds .*\"split_seed\":0.*, but the run's card is of"):
        data.holding(card.model_copy(update={"split_seed": 1}))


def test_a_damaged_npz_is_one_line(npz, tmp_path):
    arguments, _ = npz()
    file = tmp_path / "mine.npz"
    source = members.build("regbench.data.npz", arguments)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"has sha256 [0-9a-f]{64}, the config says"):
        source(tmp_path, False)
    cut = {**arguments, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    with pytest.raises(UserError, match=r"is no \.npz with"):
        members.build("regbench.data.npz", cut)(tmp_path, False)
    file.unlink()
    with pytest.raises(UserError, match=r"cannot read .*mine\.npz.*see data_root"):
        source(tmp_path, False)


@pytest.fixture
def mnist_copy(mnist_root, tmp_path):
    """A data root with a copy of MNIST that may be damaged."""
    shutil.copytree(Path(mnist_root) / "MNIST", tmp_path / "MNIST")
    return tmp_path


def test_a_flipped_byte_in_mnist_is_one_line(mnist_copy):
    file = mnist_copy / "MNIST/raw/t10k-images-idx3-ubyte"
    content = bytearray(file.read_bytes())
    content[5_000] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"t10k-images-idx3-ubyte' is damaged: its sha256 is"):
        members.build("regbench.data.mnist", {})(mnist_copy, False)


def test_a_truncated_mnist_is_one_line(mnist_copy):
    file = mnist_copy / "MNIST/raw/train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-1000])
    words = r"train-images-idx3-ubyte' is damaged: .*; delete it and fetch it anew"
    for download in (False, True):  # which fetches nothing where there is a file
        with pytest.raises(UserError, match=words):
            members.build("regbench.data.mnist", {})(mnist_copy, download)


def test_each_file_of_mnist_is_hashed_once(mnist_root, monkeypatch):
    hashed = []

    def counted(name: str, content: bytes, **told: bool) -> object:
        hashed.append(len(content))
        return hashlib.new(name, content, **told)

    monkeypatch.setattr(_torchvision, "hashlib", SimpleNamespace(new=counted))
    members.build("regbench.data.mnist", {})(Path(mnist_root), False)
    assert len(hashed) == len(set(hashed)) == 4


def test_files_that_were_not_there_before_are_hashed_too(mnist_copy):
    raw = mnist_copy / "MNIST/raw"
    labels = raw / "t10k-labels-idx1-ubyte"
    sound = labels.read_bytes()
    labels.unlink()

    class Fetched(datasets.MNIST):
        def download(self) -> None:
            labels.write_bytes(sound[:-1] + b"\x0b")

        @property
        def raw_folder(self) -> str:
            return str(raw)

    with pytest.raises(UserError, match="t10k-labels-idx1-ubyte' is damaged"):
        _torchvision.images(Fetched, mnist_copy, True, "MNIST/raw", sha256=SHA256)


def test_a_damaged_batch_of_cifar10_is_named(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "data_batch_3").write_bytes(b"not whole")
    words = r"data_batch_3' is damaged: its md5 is [0-9a-f]{32}, the published file's is 54ebc095"
    with pytest.raises(UserError, match=words):
        members.build("regbench.data.cifar10", {})(tmp_path, False)
    (folder / "data_batch_3").unlink()
    with pytest.raises(UserError, match=r"CIFAR10 is not whole under .*set data_root"):
        members.build("regbench.data.cifar10", {})(tmp_path, False)


def test_missing_torchvision_data_name_the_way_out(tmp_path):
    card = DataCard(source="regbench.data.mnist", arguments={}, validation=9, split_seed=0)
    with pytest.raises(UserError, match=r"MNIST is not whole under .*set data_root"):
        prepare(card, tmp_path, download=False, out=tmp_path / "a")


def test_a_missing_gpu_is_an_error_not_a_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device.pick("auto").type == "cpu"
    with pytest.raises(UserError, match="torch finds no GPU"):
        device.pick("cuda")
    with pytest.raises(UserError, match="must be auto, cpu or cuda"):
        device.pick("tpu")


def test_the_paper_divides_the_rate_by_5_25_and_125():
    from regbench.experiment.cards import TrainingCard  # noqa: PLC0415
    from regbench.training.schedule import learning_rate  # noqa: PLC0415

    card = TrainingCard(epochs=20, batch_size=32, learning_rate=0.01, **PAPER_TRAINING)
    rates = [learning_rate(card, epoch) for epoch in range(20)]
    assert rates == pytest.approx([0.01] * 5 + [0.002] * 5 + [0.0004] * 5 + [0.00008] * 5)


@pytest.mark.parametrize(("epochs", "share"), [(100, 0.55), (100, 0.07), (84, 23 / 84), (7, 0.5)])
def test_a_milestone_falls_where_its_share_says(epochs, share):
    from regbench.experiment.cards import TrainingCard  # noqa: PLC0415
    from regbench.training.schedule import learning_rate  # noqa: PLC0415

    training = {**PAPER_TRAINING, "milestones": [share], "decay": 0.5}
    card = TrainingCard(epochs=epochs, batch_size=32, learning_rate=1.0, **training)
    rates = [learning_rate(card, epoch) for epoch in range(epochs)]
    assert rates.count(1.0) == math.ceil(round(share * epochs, 9))


def test_a_cyclic_rate_is_torchs_of_one_cycle():
    from regbench.experiment.cards import TrainingCard  # noqa: PLC0415
    from regbench.training.schedule import learning_rate  # noqa: PLC0415

    training = {**PAPER_TRAINING, "cyclic": 2 / 5}
    card = TrainingCard(epochs=5, batch_size=32, learning_rate=0.2, **training)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    cycle = torch.optim.lr_scheduler.CyclicLR(
        optimizer, 0.0, 0.2, step_size_up=8, step_size_down=12
    )
    for step in range(20):
        assert learning_rate(card, *divmod(step / 4, 1)) == pytest.approx(cycle.get_last_lr()[0])
        optimizer.step()
        cycle.step()
    assert learning_rate(card, 4, 1.0) == 0


def test_import_robustbench_works_and_finds_our_autoattack():
    code = "import robustbench.eval as e, autoattack as a; assert e.AutoAttack is a.AutoAttack"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


@pytest.mark.parametrize("experiment", ["demo", "mnist", "mnist_gpu", "cifar10_cpu"])
def test_readme_shows_the_reports_own_table(experiment):
    root = Path(__file__).parents[1]
    table = (root / f"reports/{experiment}/accuracy.md").read_text()
    shown = (root / "README.md").read_text()
    assert f"<!-- reports/{experiment}/accuracy.md -->\n{table}<!-- end -->" in shown


SAT_R3 = {
    "weight": 1, "tau": 0.4, "alpha": 0.01, "epsilon_low": 0.1, "epsilon_high": 0.3,
    "projected": False,
}  # fmt: skip
LENGTHS = [
    ("regularizers.sat_r2", {"weight": 25, "alpha": 2, "projected": False}, "'alpha'"),
    ("regularizers.sat_r3", {**SAT_R3, "epsilon_high": 8}, "'epsilon_high'"),
    ("regularizers.pgd_at", {"steps": 2, "step_size": 2}, "'step_size'"),
    ("regularizers.trades", {"weight": 1, "steps": 2, "step_size": 2}, "'step_size'"),
    ("attacks.pgd", {"epsilon": 0.1, "steps": 5, "step_size": 2}, "'step_size'"),
    ("attacks.rfgsm", {"epsilon": 0.1, "alpha": 8}, "'alpha'"),
]


@pytest.mark.parametrize(("member", "arguments", "name"), LENGTHS)
def test_a_length_in_255ths_is_told_how_to_be_written(member, arguments, name):
    with pytest.raises(UserError, match=rf"{name}: a length must lie in \[0, 1\]; .* write \d/255"):
        members.build(f"regbench.{member}", arguments)


def test_radii_the_wrong_way_round_are_one_line():
    wrong = {**SAT_R3, "epsilon_low": 0.3, "epsilon_high": 0.1}
    with pytest.raises(UserError, match=r"sat_r3: epsilon_low must be at most .* 0.1, got 0.3$"):
        members.build("regbench.regularizers.sat_r3", wrong)
