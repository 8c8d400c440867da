"""Tiny models and small batches, on one thread; every test that draws is seeded."""

import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from regbench.core.kernels import pooled
from regbench.experiment import members
from regbench.experiment.manifest import Declared
from regbench.prepare import Split
from regbench.training.descent import TrainingLoss

torch.set_num_threads(1)
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before anything imports Triton: that is when it looks

ROOT = Path(__file__).parents[1]


class Heard(TorchDispatchMode):
    """Counts the operations that run, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count[function.overloadpacket.__name__] += 1
        return function(*args, **(kwargs or {}))


@pytest.fixture
def heard() -> Heard:
    """Hears, as a context, which operations run."""
    return Heard()


@pytest.fixture
def kernel_calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often each kernel of regbench.core.kernels.pooled has been called, by name."""
    calls = dict.fromkeys(("maxima", "to_image", "to_weight"), 0)

    def counting(name: str, kernel: Callable[..., object]) -> Callable[..., object]:
        def call(*given: object) -> object:
            calls[name] += 1
            return kernel(*given)

        return call

    for name in calls:
        monkeypatch.setattr(pooled, name, counting(name, getattr(pooled, name)))
    return calls


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest first, so that no core is left with it alone in the end."""
    items.sort(key=lambda item: "workflow" not in item.keywords)


def plain() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(48, 4))


def stochastic() -> nn.Module:
    """Answers differently in train mode, for it normalises by the batch and drops out."""
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.Dropout(0.4),
        nn.Flatten(),
        nn.Linear(48, 4),
    )


NETWORKS = {"plain": plain, "stochastic": stochastic}


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest) -> nn.Module:
    """A network for images of shape (2, 4, 4) and 4 classes, float64, fresh for each test."""
    torch.manual_seed(1)
    model = NETWORKS[request.param]().double()
    model[0].weight.data.mul_(4)  # curved enough for the sign of the gradient to change on the way
    for layer in model:
        if isinstance(layer, nn.BatchNorm2d):  # far from the statistics of any batch
            layer.running_mean.uniform_(-0.2, 0.2)
            layer.running_var.uniform_(0.5, 1.5)
    return model


@pytest.fixture(scope="session")
def declared() -> dict[str, Declared]:
    """What rules/regularizers/*.smk declare, by name, read without Snakemake."""
    found: dict[str, Declared] = {}

    def declare(name: str, **told: object) -> None:
        found[name] = Declared(name, **told)

    bench = SimpleNamespace(declare=declare)
    for path in sorted((ROOT / "rules/regularizers").glob("*.smk")):
        (call,) = re.findall(
            r"card=(bench\.declare\(.*?^        \)),$", path.read_text(), re.MULTILINE | re.DOTALL
        )
        eval(call, {"bench": bench})
    return found


@pytest.fixture
def batch() -> Callable[..., tuple[Tensor, Tensor]]:
    """`batch(m, seed)`: m images of shape (2, 4, 4), float64, and labels below 4."""

    def draw(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        x = torch.rand(count, 2, 4, 4, dtype=torch.float64, generator=generator)
        # some pixels are exactly 0 or 1, so that the clip to [0, 1] is seen
        return (1.4 * x - 0.2).clamp(0, 1), torch.randint(4, (count,), generator=generator)

    return draw


SMALL = {
    "pgd_at": {"steps": 2, "step_size": 0.1},
    "fgsm_rs": {"relative_step": 1.25},
    "n_fgsm": {"relative_noise": 2, "relative_step": 1},
    "grad_align": {"weight": 0.2},
    "trades": {"weight": 1, "steps": 2, "step_size": 0.1},
    "sat_r1": {"weight": 0.2, "steps": 2},
    "sat_r2": {"weight": 1, "alpha": 0.01, "projected": False},
    "sat_r3": {
        "weight": 1, "tau": 0.4, "alpha": 0.01,
        "epsilon_low": 0.1, "epsilon_high": 0.3, "projected": False,
    },
}  # fmt: skip


@pytest.fixture(scope="session")
def small_loss() -> Callable[[str], TrainingLoss]:
    """`small_loss(name)`: a loss of regbench/regularizers/, of few steps."""
    return lambda name: members.build(f"regbench.regularizers.{name}", SMALL.get(name, {}))


@pytest.fixture(scope="session")
def classifier() -> tuple[nn.Module, Split]:
    """A trained network, frozen, in eval mode, and 16 images of shape (1, 4, 4) in 10 classes."""
    torch.manual_seed(2)
    prototypes = torch.rand(10, 1, 4, 4)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def draw(count: int) -> Split:
        y = torch.randint(10, (count,))
        return Split((prototypes[y] + 0.2 * torch.randn(count, 1, 4, 4)).clamp(0, 1), y)

    for _ in range(100):
        x, y = draw(64)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model.eval().requires_grad_(False), draw(16)


@pytest.fixture(scope="session")
def mnist_root() -> str:
    """Where MNIST lies in torchvision's layout; skips where it does not."""
    root = os.environ.get("REGBENCH_DATA", "data")
    if not (Path(root) / "MNIST/raw/train-images-idx3-ubyte").exists():
        pytest.skip(f"no MNIST under '{root}'; set REGBENCH_DATA")
    return root
