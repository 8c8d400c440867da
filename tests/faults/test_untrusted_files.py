"""Nothing that regbench reads from a file is executed: asserted over the source of every module.

What torchvision unpickles, CIFAR-10's batches, it first compares with the published checksums.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from regbench.check import Claims, check
from regbench.errors import UserError
from regbench.experiment import configfile

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "regbench").rglob("*.py"))

EXECUTING_MODULES = {
    "pickle",
    "cPickle",
    "_pickle",
    "dill",
    "cloudpickle",
    "joblib",
    "shelve",
    "marshal",
}
EXECUTING_CALLS = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "subprocess.getoutput",
    "subprocess.getstatusoutput", "yaml.unsafe_load", "yaml.unsafe_load_all", "yaml.full_load",
    "yaml.full_load_all", "yaml.load_all", "pandas.read_pickle", "torch.hub.load",
    "torch.jit.load", "torch.package.PackageImporter",
}  # fmt: skip
SAFE_IF = {
    "numpy.load": ("allow_pickle", "False"),
    "torch.load": ("weights_only", "True"),
    "yaml.load": ("Loader", "_Strict"),
}
"""Calls that are safe with one keyword, and only with it."""


def imported(tree: ast.Module) -> dict[str, str]:
    """What each imported name stands for, dotted: `np` for `numpy`."""
    known = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for one in node.names:
                top = one.name.partition(".")[0]
                known[one.asname or top] = one.name if one.asname else top
        elif isinstance(node, ast.ImportFrom):
            known |= {one.asname or one.name: f"{node.module}.{one.name}" for one in node.names}
    return known


def called(node: ast.expr, known: dict[str, str]) -> str:
    """The dotted name of what is called, `?` for what has none."""
    if isinstance(node, ast.Attribute):
        return f"{called(node.value, known)}.{node.attr}"
    return known.get(node.id, node.id) if isinstance(node, ast.Name) else "?"


def unsafe(text: str) -> Iterator[str]:
    """Every import and call in a module's text by which a file could be executed."""
    tree = ast.parse(text)
    known = imported(tree)
    yield from (name for name in known.values() if name.partition(".")[0] in EXECUTING_MODULES)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = called(node.func, known)
            given = {one.arg: ast.unparse(one.value) for one in node.keywords}
            keyword, value = SAFE_IF.get(name, (None, None))
            if name in EXECUTING_CALLS or given.get("shell", "False") != "False":
                yield name
            elif keyword and given.get(keyword) != value:
                yield f"{name} without {keyword}={value}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_executes_what_it_reads(path):
    assert not list(unsafe(path.read_text(encoding="utf-8")))


def test_the_loaders_of_files_are_among_what_is_looked_at():
    text = "\n".join(path.read_text(encoding="utf-8") for path in MODULES)
    assert "np.load(" in text
    assert "yaml.load(" in text


def test_the_strict_loader_is_a_safe_one(tmp_path):
    assert issubclass(configfile._Strict, yaml.SafeLoader)
    file = tmp_path / "evil.yaml"
    file.write_text(f'a: !!python/object/apply:os.system ["touch {tmp_path}/pwned"]')
    with pytest.raises(UserError, match="is not YAML"):
        configfile.read(file)
    assert not (tmp_path / "pwned").exists()


def test_a_class_that_cannot_be_a_data_set_is_never_made(tmp_path):
    command = {"args": ["touch", str(tmp_path / "pwned")]}
    with pytest.raises(UserError, match="'subprocess:Popen' is no class with a __call__"):
        check(Claims(built=(("subprocess:Popen", command),), attacks=(), networks=(), judged={}))
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    "text",
    [
        "import pickle", "from pickle import loads as f", "import joblib", "eval('1')",
        "import numpy as np\nnp.load(f)", "import numpy\nnumpy.load(f, allow_pickle=True)",
        "from numpy import load\nload(f)", "import torch\ntorch.load(f)",
        "import torch\ntorch.load(f, weights_only=False)", "import torch as t\nt.hub.load('a')",
        "import yaml\nyaml.load(f, Loader=yaml.Loader)", "import yaml\nyaml.unsafe_load(f)",
        "import pandas as pd\npd.read_pickle(f)", "import os\nos.system('ls')",
        "import subprocess\nsubprocess.run('ls', shell=True)",
    ],
)  # fmt: skip
def test_what_executes_a_file_is_found(text):
    assert list(unsafe(text))


@pytest.mark.parametrize(
    "text",
    [
        "import numpy as np\nnp.load(f, allow_pickle=False)",
        "import torch\ntorch.load(f, weights_only=True)",
        "model.eval()", "import re\nre.compile('a')", "import subprocess\nsubprocess.run(['ls'])",
    ],
)  # fmt: skip
def test_what_executes_nothing_is_let_be(text):
    assert not list(unsafe(text))
