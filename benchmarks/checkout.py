"""The checkout that is measured: its regbench is the one imported, installed or not."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

sys.path.insert(0, str(ROOT))
