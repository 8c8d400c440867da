"""Stage 3: weights + suite card -> one verdict per attack and image, as a parquet file."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import nn
from tqdm import tqdm

from regbench import device as devices
from regbench.cards import AttackCard, RunCard, SuiteCard
from regbench.errors import UserError, program
from regbench.fingerprint import ATTACKING, fingerprint
from regbench.members import build
from regbench.parts import Found, Parts, digest
from regbench.prepare import Data, Split, open_data
from regbench.provenance import provenance
from regbench.seals import write_table
from regbench.verdicts import Verdicts, judge
from regbench.weights import trained

SCHEMA = pa.schema(
    [
        ("attack", pa.dictionary(pa.int16(), pa.string())),
        ("image", pa.int32()),
        ("label", pa.int16()),
        ("prediction", pa.int16()),
        ("correct", pa.bool_()),
        ("distance", pa.float32()),
        ("loss", pa.float32()),
    ]
)


def evaluate(
    card: SuiteCard,
    run: Path,
    data: Data,
    device: torch.device,
    sources: Sequence[Path] = (),
    parts: Parts | None = None,
) -> pa.Table:
    """Return the verdicts of every attack of the suite, with what is known of each as metadata.

    Args:
        card: the suite.
        run: folder of the judged network.
        data: what both are judged on.
        device: where to.
        sources: folders of the networks that some of the attacks craft on.
        parts: what a suite that was cut off has found already.

    Raises:
        UserError: a source that the card asks for is not among the folders.
    """
    model = trained(run, data, card.checkpoint, device)
    crafted_on = {RunCard.read(str(one / "card.json")).key: one for one in sources}
    found = {}
    for name, attack in tqdm(card.attacks.items(), unit="attack", disable=not sys.stderr.isatty()):
        code = fingerprint((*ATTACKING, attack.attack))
        known = parts.get(name, code) if parts else None
        if known is None:
            source = _source(attack, crafted_on)
            surrogate = trained(source, data, card.checkpoint, device) if source else None
            images = data.split(card.split, device, attack.images)
            known = tried(name, attack, card, model, images, surrogate, code)
            if parts:
                parts.put(name, known)
        found[name] = known
        accuracy = pc.mean(known.rows["correct"]).as_py()
        print(f"{name}: accuracy {accuracy:.2%}, {known.told['seconds']:.1f} s", flush=True)
    told = {name: one.told for name, one in found.items()}
    about = {"card": card.model_dump(), "attacks": told, "provenance": provenance(device)}
    table = pa.concat_tables([one.rows for one in found.values()])
    return table.replace_schema_metadata({"regbench": json.dumps(about)})


def tried(
    name: str,
    attack: AttackCard,
    card: SuiteCard,
    model: nn.Module,
    images: Split,
    surrogate: nn.Module | None,
    code: str,
) -> Found:
    """Return what one attack of the suite does to `images`."""
    member = build(attack.attack, attack.arguments)
    verdicts = judge(model, member, images, card.batch_size, card.seed, surrogate)
    told = {
        "arguments": asdict(member),
        "seconds": verdicts.seconds,
        "warnings": list(verdicts.warnings),
        "code": code,
    }
    return Found(rows(name, images.y, verdicts), told)


def _source(attack: AttackCard, folders: dict[str, Path]) -> Path | None:
    if attack.source is None:
        return None
    if attack.source.key not in folders:
        raise UserError(
            f"the attack crafts on the network of the run {attack.source.key}; name its folder by"
            " --source"
        )
    return folders[attack.source.key]


def rows(name: str, y: torch.Tensor, verdicts: Verdicts) -> pa.Table:
    """Return one row per image."""
    count = len(y)
    columns = {
        "attack": pa.array([name] * count).dictionary_encode(),
        "image": range(count),
        "label": y.cpu().numpy(),
        **{
            key: getattr(verdicts, key).cpu().numpy()
            for key in ("prediction", "correct", "distance", "loss")
        },
    }
    return pa.table(
        {field.name: pa.array(columns[field.name]).cast(field.type) for field in SCHEMA}
    )


def parts_key(card: SuiteCard, run: Path, sources: Sequence[Path], device: torch.device) -> str:
    """Return what the verdicts of a suite depend on, besides the code of each attack."""
    weights = [digest(folder / f"{card.checkpoint}.safetensors") for folder in (run, *sources)]
    return " ".join([card.text(), *weights, torch.__version__, device.type])


def main() -> None:
    """Read the command line and attack one trained model."""
    parser = argparse.ArgumentParser(prog="python -m regbench.attack", description=__doc__)
    parser.add_argument("card", help="a suite card: JSON text, or the path of a JSON file")
    parser.add_argument("--run", type=Path, required=True, help="folder of regbench.train")
    parser.add_argument("--data", type=Path, required=True, help="file of regbench.prepare")
    parser.add_argument(
        "--source",
        type=Path,
        nargs="*",
        default=[],
        help="folders of the networks that attacks of the suite craft on",
    )
    parser.add_argument("--out", type=Path, required=True, help="the parquet file to write")
    parser.add_argument("--device", help="auto, cpu or cuda (default: $REGBENCH_DEVICE, else auto)")
    arguments = parser.parse_args()
    card, device = SuiteCard.read(arguments.card), devices.pick(arguments.device)
    data = open_data(arguments.data)
    parts = Parts(arguments.out, parts_key(card, arguments.run, arguments.source, device))
    table = evaluate(card, arguments.run, data, device, arguments.source, parts)
    write_table(arguments.out, table, json.loads(table.schema.metadata[b"regbench"]))
    parts.forget()


if __name__ == "__main__":
    program(main)
