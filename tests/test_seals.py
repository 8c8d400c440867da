"""A flipped byte, a torn file, a swapped one: noticed in every kind of file, in one line."""

import json
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from regbench.errors import UserError
from regbench.experiment.configfile import parse
from regbench.experiment.grid import resolve
from regbench.experiment.manifest import Declared
from regbench.show import show
from regbench.storage import tensors
from regbench.storage.seals import DamagedError, read_record, read_table, write_record, write_table

NATURAL = Declared(
    "natural", "natural", "regbench.regularizers.natural:Natural", {}, lambda h, m: 1
)

CONFIG = """
experiment: tiny
seeds: [0]
training: {epochs: 1, batch_size: 64, learning_rate: 0.1}
regularizers: {natural: null}
attacks: {white_box: {clean: null}}
datasets: {digits: {epsilon: 0.1, validation: 297, models: {small_cnn: null}}}
"""


def record(path: Path) -> None:
    write_record(path, {"status": "ok", "seconds": 1.25, "device": "Prozeßor №1", "seed": 3})


def table(path: Path) -> None:
    frame = pd.DataFrame(
        {
            "method": pd.Categorical(["SAT-R1"] * 60 + ["é"] * 40, ["é", "SAT-R1"], ordered=True),
            "source": [None, "model_a"] * 50,
            "loss": np.where(np.arange(100) % 9, np.arange(100) / 7, np.nan).astype(np.float32),
            "correct": np.arange(100) % 2 == 0,
        }
    )
    write_table(path, pa.Table.from_pandas(frame, preserve_index=False), {"rows": 100})


def weights(path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    named = {"a.weight": torch.randn(7, 5, generator=generator), "a.steps": torch.tensor(3)}
    tensors.write(path, named, {"card": "0123456789"})


KINDS = {
    "run.json": (record, read_record),
    "rows.parquet": (table, read_table),
    "best.safetensors": (weights, tensors.read_all),
}


@pytest.fixture(params=KINDS)
def file(request, tmp_path):
    """A file of each kind, and how it is read."""
    write, read = KINDS[request.param]
    write(tmp_path / request.param)
    return tmp_path / request.param, read


def test_a_file_that_is_not_there_is_not_called_damaged(file):
    path, read = file
    path.unlink()
    with pytest.raises(UserError, match=r"' is missing; snakemake makes it if it is named"):
        read(path)


def same(one: object, other: object) -> bool:
    if isinstance(one, torch.Tensor):
        return one.equal(other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, tuple):
        return all(map(same, one, other))
    if isinstance(one, pa.Table):
        return one.to_pandas().equals(other.to_pandas())
    return one == other


def test_tensors_can_be_read_by_whom_other_files_can(tmp_path):
    tensors.write(tmp_path / "w", {"weight": torch.ones(2)}, {})
    (tmp_path / "text").write_text("text")
    assert (tmp_path / "w").stat().st_mode == (tmp_path / "text").stat().st_mode


def test_what_is_read_is_what_was_written(file):
    path, read = file
    assert same(read(path), read(path))
    assert not list(path.parent.glob("*.draft"))


def test_the_same_content_gives_the_same_bytes(file, tmp_path):
    path, _ = file
    again = tmp_path / "again" / path.name
    again.parent.mkdir()
    KINDS[path.name][0](again)
    assert again.read_bytes() == path.read_bytes()


def test_a_flipped_bit_is_one_line_or_harmless(file):
    """Harmless: parquet does not read every byte that it writes, its format version for one."""
    path, read = file
    sound, expected = path.read_bytes(), read(path)
    chance = random.Random(0)
    noticed = 0
    for _ in range(400):
        content = bytearray(sound)
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(content)
        try:
            harmless = same(read(path), expected)
        except DamagedError as error:
            harmless = "\n" not in str(error) and str(path) in str(error)
            noticed += 1
        assert harmless
    assert noticed > 200


@pytest.mark.parametrize("change", [lambda b: b"", lambda b: b[:-1], lambda b: b[: len(b) // 2]])
def test_a_torn_file_is_one_line(file, change):
    path, read = file
    path.write_bytes(change(path.read_bytes().rstrip()))
    with pytest.raises(DamagedError, match="is damaged"):
        read(path)


def test_a_missing_file_is_one_line(file, tmp_path):
    path, read = file
    with pytest.raises(UserError, match="missing"):
        read(tmp_path / "absent" / path.name)


def test_tensors_are_written_whatever_their_layout(tmp_path):
    weight = torch.nn.Parameter(torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last))
    tensors.write(tmp_path / "w", {"weight": weight, "turned": weight[0, 0].T}, {})
    kept, _ = tensors.read_all(tmp_path / "w")
    assert kept["weight"].equal(weight.data)
    assert kept["turned"].equal(weight.data[0, 0].T)


def test_zero_and_minus_zero_have_one_digest(tmp_path, monkeypatch):
    """Pandas 3.0 hashes −0 and 0 apart, 3.1 alike: a table goes from one machine to another."""
    path = tmp_path / "rows.parquet"

    def by_bits(frame, *, index):
        return pd.Series(hash(value.tobytes()) for value in frame["loss"].to_numpy())

    monkeypatch.setattr(pd.util, "hash_pandas_object", by_bits)
    digests = []
    for zero in (0.0, -0.0):
        write_table(path, pa.table({"loss": pa.array([zero, 0.5, None])}), {})
        digests.append(pq.read_schema(path).metadata[b"regbench"])
    assert digests[0] == digests[1]


def test_a_record_without_a_digest_is_refused(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"status": "ok"}))
    with pytest.raises(DamagedError, match="it has no digest"):
        read_record(tmp_path / "run.json")


def test_a_failed_writing_leaves_what_was_there(file, monkeypatch):
    path, _ = file
    before = path.read_bytes()

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        KINDS[path.name][0](path)
    assert path.read_bytes() == before
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_show_reads_each_kind_and_refuses_others(file, tmp_path):
    path, _ = file
    assert show(path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UserError, match=r"expected a run's folder or a file in it of type"):
        show(tmp_path / "notes.txt")


def test_show_holds_a_card_against_the_record_beside_it(tmp_path):
    card = resolve(parse(yaml.safe_load(CONFIG)), {"natural": NATURAL}).runs[0].card
    write_record(tmp_path / "run.json", {"card": card.key})
    (tmp_path / "card.json").write_text(card.text())
    assert show(tmp_path)["run"]["card"] == card.key
    (tmp_path / "card.json").write_text(card.model_copy(update={"epsilon": 0.5}).text())
    with pytest.raises(UserError, match=f"run.json is of the card {card.key}, but card.json"):
        show(tmp_path)


def test_show_reads_the_card_of_a_run(tmp_path):
    """It carries no digest: it is an argument."""
    card = resolve(parse(yaml.safe_load(CONFIG)), {"natural": NATURAL}).runs[0].card
    (tmp_path / "card.json").write_text(card.text())
    assert show(tmp_path / "card.json") == card.model_dump(mode="json")
