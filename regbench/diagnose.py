"""Stage 3b: weights + diagnosis card -> what tells masked gradients from robustness, as parquet.

Beside it a second file: a few images, clean and attacked, with what the network takes them for.
"""

import argparse
from pathlib import Path

from regbench.core.lease import leased
from regbench.errors import program
from regbench.evaluation.diagnosis import Diagnosis
from regbench.experiment.cards import DiagnosisCard
from regbench.prepare import open_data
from regbench.storage.locks import sole
from regbench.storage.seals import write_table


def main() -> None:
    """Read the command line and diagnose one trained model."""
    parser = argparse.ArgumentParser(prog="python -m regbench.diagnose", description=__doc__)
    parser.add_argument("card", help="a diagnosis card: JSON text, or the path of a JSON file")
    parser.add_argument("--run", type=Path, required=True, help="folder of regbench.train")
    parser.add_argument("--data", type=Path, required=True, help="file of regbench.prepare")
    parser.add_argument("--out", type=Path, required=True, help="the parquet file to write")
    parser.add_argument(
        "--gallery", type=Path, required=True, help="the parquet file to write the images to"
    )
    parser.add_argument("--device", help="auto, cpu or cuda (default: $REGBENCH_DEVICE, else auto)")
    arguments = parser.parse_args()
    card, data = DiagnosisCard.read(arguments.card), open_data(arguments.data)
    out, gallery = arguments.out, arguments.gallery
    out.parent.mkdir(parents=True, exist_ok=True)
    with sole(out.parent) as waited, leased(arguments.device) as device:
        if waited and out.exists() and gallery.exists():
            print("the other process has finished this diagnosis")
            return
        diagnosis = Diagnosis(card, arguments.run, data, device)
        write_table(gallery, *diagnosis.gallery())
        rows, about = diagnosis.table()
        write_table(out, rows, about)
        print(f"{out}: {len(rows)} rows, {about['status']}, {about['seconds']:.1f} s")


if __name__ == "__main__":
    program(main)
