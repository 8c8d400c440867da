"""What several processes may do at a time: one on a folder, so many on a GPU, trainings at will."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest

from regbench.core.lease import room
from regbench.experiment import launch
from regbench.experiment.cards import DataCard
from regbench.experiment.cells import PAPER_TRAINING
from regbench.experiment.configfile import parse
from regbench.experiment.launch import gpus
from regbench.experiment.workflow import Bench
from regbench.prepare import prepare
from regbench.storage.locks import sole

HOLD = """
import sys, time
from pathlib import Path
from regbench.core.lease import room
with room(sys.argv[2:], 1, Path(sys.argv[1])) as index:
    print(index, flush=True)
    time.sleep(60)
"""


def test_a_gpu_is_lent_so_often_and_the_emptiest_first(tmp_path):
    with room(["a", "b"], 2, tmp_path) as one, room(["a", "b"], 2, tmp_path) as two:
        assert (one, two) == (0, 1)
        with room(["a", "b"], 2, tmp_path) as three, room(["a", "b"], 2, tmp_path) as four:
            assert (three, four) == (0, 1)
    with room(["a"], 1, tmp_path) as again:
        assert again == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_gpu_is_waited_for_and_comes_free_with_its_process(tmp_path, number, capsys):
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path, "a"], stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "0\n"
    killer = subprocess.Popen(
        [sys.executable, "-c", f"import os, time; time.sleep(1); os.kill({other.pid}, {number})"]
    )
    started = time.monotonic()
    with room(["a"], 1, tmp_path):
        assert time.monotonic() - started > 0.5
    assert other.wait() == -number
    assert killer.wait() == 0
    assert capsys.readouterr().err == "all 1 GPUs are lent; waiting for one\n"
    other.stdout.close()


def test_a_folder_is_held_by_one_process(tmp_path, capsys):
    program = (
        "import sys, time; from pathlib import Path; from regbench.storage.locks import sole\n"
        "with sole(Path(sys.argv[1])): print('held', flush=True); time.sleep(1)"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, tmp_path], stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "held\n"
    with sole(tmp_path) as waited:
        assert waited
    assert "another process is at work" in capsys.readouterr().err
    with sole(tmp_path) as waited:
        assert not waited
    assert other.wait() == 0
    other.stdout.close()


def test_a_lock_is_not_inherited(tmp_path):
    with sole(tmp_path):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(5)"])
    with sole(tmp_path) as waited:
        assert not waited
    os.kill(child.pid, signal.SIGKILL)
    child.wait()


def test_the_locks_of_all_users_lie_in_one_folder(tmp_path):
    folder = tmp_path / "gpus"
    with room(["a"], 1, folder):
        assert Path(folder, "a-0").exists()
        assert folder.stat().st_mode & 0o1777 == 0o1777


@pytest.mark.parametrize(
    ("visible", "count"), [("0,1", 2), ("-1", 0), ("0,-1,1", 1), ("", 0), ("GPU-5a,MIG-7", 2)]
)
def test_gpus_that_are_hidden_are_not_counted(visible, count, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus() == count


def test_jobs_that_share_a_gpu_share_its_rate(monkeypatch):
    asked = []
    monkeypatch.setattr(launch, "forecast", lambda *given: asked.append(given))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    bench = Bench.__new__(Bench)
    bench.experiment = SimpleNamespace(device="cuda", runs_per_gpu=8, experiment="e")
    vars(bench).update(_runs={"results/1": None}, manifest_path="manifest")
    assert bench.gpus == 16
    bench.forecast(["results/1/run.json", "reports/e/index.html"], cores=64)
    assert asked == [("manifest", {"results/1/run.json"}, 2)]


def test_the_environment_goes_before_the_config_unless_it_is_empty(monkeypatch):
    config = {
        "experiment": "e", "data_root": "here", "device": "cpu", "seeds": [0],
        "training": {}, "regularizers": {"natural": None},
        "datasets": {"digits": {"epsilon": 0.1, "validation": 1, "models": {"small_cnn": None}}},
    }  # fmt: skip
    monkeypatch.setattr(os, "environ", {"REGBENCH_DATA": "", "REGBENCH_DEVICE": "cuda"})
    launch.export(parse(config))
    assert os.environ["REGBENCH_DATA"] == "here"
    assert os.environ["REGBENCH_DEVICE"] == "cuda"
    assert os.environ["REGBENCH_DOWNLOAD"] == "0"
    assert "REGBENCH_DETERMINISTIC" not in os.environ


def test_a_lock_of_another_user_can_be_held(tmp_path, monkeypatch):
    """The kernel refuses to write it, and in a folder that all write to even to open by O_CREAT."""
    folder, real = tmp_path / "gpus", os.open
    with room(["a"], 1, folder):
        pass
    assert (folder / "a-0").stat().st_mode & 0o444 == 0o444

    def as_another(path, flags, *rest, **named):
        if folder in Path(path).parents and not flags & os.O_EXCL:
            assert not flags & (os.O_RDWR | os.O_WRONLY | os.O_CREAT), "refused"
        return real(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", as_another)
    with room(["a"], 1, folder) as index:
        assert index == 0


# --- trainings side by side -----------------------------------------------------------------------

METHODS = {"natural": {}, "sat_r2": {"weight": 1.0, "alpha": 0.02, "projected": False}}


@pytest.fixture
def cards(tmp_path):
    """A folder with prepared digits, and a card of each method on them."""
    data = DataCard(source="regbench.data.digits", arguments={}, validation=97, split_seed=0)
    prepare(data, Path("unused"), False, tmp_path / "data")
    settings = {"epochs": 2, "batch_size": 16, "learning_rate": 0.05, "flip": True}
    for name, hyperparameters in METHODS.items():
        card = {
            "data": data.model_dump(),
            "model": {"architecture": "regbench.models.small_cnn", "arguments": {"width": 4}},
            "regularizer": {
                "loss": f"regbench.regularizers.{name}",
                "hyperparameters": hyperparameters,
            },
            "epsilon": 0.05,
            "training": {**PAPER_TRAINING, **settings},
            "seed": 3,
        }
        (tmp_path / f"{name}.json").write_text(json.dumps(card))
    return tmp_path


TRAIN = """
import sys
from regbench.train import main
_, folder, out, *names = sys.argv
for name in names:
    card, data = f"{folder}/{name}.json", f"{folder}/data"
    sys.argv = ["train", card, "--data", data, "--out", f"{out}/{name}", "--device", "cpu"]
    main()
"""


def training(cards: Path, out: Path, *names: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", TRAIN, cards, out, *names],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> None:
    _, told = process.communicate()
    assert process.returncode == 0, told


def test_trainings_side_by_side_leave_the_bytes_that_each_leaves_alone(cards):
    together, alone = cards / "together", cards / "alone"
    with ExitStack() as held:  # each waits for its folder, so that they begin at the same time
        for name in METHODS:
            (together / name).mkdir(parents=True)
            held.enter_context(sole(together / name))
        processes = [training(cards, together, name) for name in METHODS]
        for process in processes:
            assert "another process is at work" in process.stderr.readline()
    for process in processes:
        finish(process)
    finish(training(cards, alone, *METHODS))  # one after the other
    for file in (f"{name}/{which}.safetensors" for name in METHODS for which in ("best", "last")):
        assert (together / file).read_bytes() == (alone / file).read_bytes(), file
