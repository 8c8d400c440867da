"""The steps as public adversarial-training code writes them, for ours to be timed against.

Each follows the code that it names, in today's PyTorch: eager, in the contiguous layout, from a
DataLoader. The attacks' `.backward()` adds to the weights' gradients too, which are thrown away;
N-FGSM, GradAlign and TRADES ask for the image's only. What is computed is what regbench's losses
compute.
"""

from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset
from torchvision import transforms

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]

EPSILON = 0.3
STEPS, STEP_SIZE = 10, 0.04


class Images(Dataset[tuple[Tensor, int]]):
    """Images as torchvision's data sets give them: a PIL image each time, made a tensor anew."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self._pixels = (255 * x).byte().permute(0, 2, 3, 1).squeeze(3).numpy()
        self._labels = y.tolist()
        self._transform = transforms.ToTensor()

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(Image.fromarray(self._pixels[index])), self._labels[index]


def lenet_plus() -> nn.Module:
    """LeNet+ for 1×28×28 images, in the order in which it is usually written."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(3136, 1024), nn.ReLU(), nn.Linear(1024, 10),
    )  # fmt: skip


def resnet18() -> nn.Module:
    """ResNet-18 for 3×32×32 images."""
    from regbench.models.resnet18 import resnet18 as network  # noqa: PLC0415 - RobustBench's, slow

    return network((3, 32, 32), 10)


def wrn_28_10() -> nn.Module:
    """WRN-28-10 for 3×32×32 images."""
    from regbench.models.wrn_28_10 import wrn_28_10 as network  # noqa: PLC0415 - RobustBench's, slow

    return network((3, 32, 32), 10)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    one.__name__: one for one in (lenet_plus, resnet18, wrn_28_10)
}


def gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The input gradient by a whole backward pass (val-iisc/SAT-Rx, tools/attacks.py)."""
    x = x.clone().requires_grad_()
    F.cross_entropy(model(x), y).backward()
    return x.grad


def of_image(model: nn.Module, x: Tensor, y: Tensor, *, create_graph: bool = False) -> Tensor:
    """The input gradient alone (pdejorge/N-FGSM, train.py)."""
    x = x.clone().requires_grad_()
    return torch.autograd.grad(F.cross_entropy(model(x), y), x, create_graph=create_graph)[0]


def ifgsm(model: nn.Module, x: Tensor, y: Tensor, steps: int) -> Tensor:
    """`steps` steps of ε/`steps`; one is FGSM (SAT-Rx, tools/attacks.py)."""
    for _ in range(steps):
        x = (x + EPSILON / steps * gradient(model, x, y).sign()).clamp(0, 1)
    return x


def natural(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """CE(f(x), y)."""
    return F.cross_entropy(model(x), y)


def fgsm_at(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """CE(f(x_FGSM), y), as SAT-R1 without its penalty."""
    model.eval()
    x_fgsm = ifgsm(model, x, y, 1)
    model.train()
    return F.cross_entropy(model(x_fgsm), y)


def fgsm_rs(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """FGSM-RS, α = 1.25 ε (locuslab/fast_adversarial, MNIST/train_mnist.py, crafting in eval)."""
    model.eval()
    start = x + torch.empty_like(x).uniform_(-EPSILON, EPSILON)
    moved = start + 1.25 * EPSILON * gradient(model, start, y).sign()
    x_adv = torch.min(torch.max(moved, x - EPSILON), x + EPSILON).clamp(0, 1)
    model.train()
    return F.cross_entropy(model(x_adv), y)


def n_fgsm(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """N-FGSM, k = 2, α = ε (pdejorge/N-FGSM, train.py, crafting in eval)."""
    model.eval()
    noisy = (x + torch.empty_like(x).uniform_(-2 * EPSILON, 2 * EPSILON)).clamp(0, 1)
    x_adv = (noisy + EPSILON * of_image(model, noisy, y).sign()).clamp(0, 1)
    model.train()
    return F.cross_entropy(model(x_adv), y)


def grad_align(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """GradAlign, λ = 0.2 (tml-epfl/understanding-fast-adv-training, README)."""
    here = of_image(model, x, y)
    noise = torch.empty_like(x).uniform_(-EPSILON, EPSILON)
    there = of_image(model, x + noise, y, create_graph=True)
    aligned = F.cosine_similarity(here.flatten(1), there.flatten(1), 1).mean()
    x_fgsm = (x + EPSILON * here.sign()).clamp(0, 1)
    return F.cross_entropy(model(x_fgsm), y) + 0.2 * (1 - aligned)


def sat_r1(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """SAT-R1, λ = 0.2, k = 10, its I-FGSM from scratch (SAT-Rx, tools/reg_utils.py)."""
    model.eval()
    x_adv = torch.cat((ifgsm(model, x, y, 1), ifgsm(model, x[-1:], y[-1:], 10)))
    model.train()
    logits = model(x_adv)
    return F.cross_entropy(logits[:-1], y) + 0.2 * _distance(logits[-2:-1], logits[-1:])


def sat_r2(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """SAT-R2, λ = 5, α = 0.01, both halves in one batch (SAT-Rx, tools/reg_utils.py)."""
    model.eval()
    both = torch.cat((x, x + 0.01 * torch.randn_like(x).sign()))
    x_adv = (both + EPSILON * gradient(model, both, torch.cat((y, y))).sign()).clamp(0, 1)
    model.train()
    one, other = model(x_adv).chunk(2)
    return F.cross_entropy(one, y) + 5 * _distance(one, other)


def sat_r3(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """SAT-R3, λ = 1, τ = 0.4, α = 0.01, ε_low = 0.1 (SAT-Rx, tools/reg_utils.py)."""
    model.eval()
    start = (x + 0.01 * torch.randn_like(x).sign()).clamp(0, 1)
    sign = gradient(model, start, y).sign()
    x_adv = torch.cat((start + 0.1 * sign, start + EPSILON * sign)).clamp(0, 1)
    model.train()
    low, high = (F.cross_entropy(half, y) for half in model(x_adv).chunk(2))
    return high + F.relu(low - 0.4 * high)


def _distance(one: Tensor, other: Tensor) -> Tensor:
    return (one - other).square().sum(1).mean()


def pgd_at(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """PGD-AT by 10 steps (locuslab/fast_adversarial, CIFAR10/train_pgd.py, crafting in eval)."""
    model.eval()
    x_adv = (x + torch.empty_like(x).uniform_(-EPSILON, EPSILON)).clamp(0, 1)
    for _ in range(STEPS):
        moved = x_adv + STEP_SIZE * gradient(model, x_adv, y).sign()
        x_adv = torch.min(torch.max(moved, x - EPSILON), x + EPSILON).clamp(0, 1)
    model.train()
    return F.cross_entropy(model(x_adv), y)


def trades(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """TRADES, β = 1, by 10 steps (yaodongyu/TRADES, trades.py).

    The clean logits are computed anew at each step, and twice for the loss.
    """
    model.eval()
    x_adv = x + 0.001 * torch.randn_like(x)
    for _ in range(STEPS):
        x_adv.requires_grad_()
        (slope,) = torch.autograd.grad(_divergence(model, x, x_adv), x_adv)
        moved = x_adv.detach() + STEP_SIZE * slope.sign()
        x_adv = torch.min(torch.max(moved, x - EPSILON), x + EPSILON).clamp(0, 1)
    model.train()
    return F.cross_entropy(model(x), y) + _divergence(model, x, x_adv) / len(x)


def _divergence(model: nn.Module, x: Tensor, x_adv: Tensor) -> Tensor:
    log_q, p = F.log_softmax(model(x_adv), dim=1), F.softmax(model(x), dim=1)
    return F.kl_div(log_q, p, reduction="sum")


_SINGLE_STEP = (fgsm_at, fgsm_rs, n_fgsm, grad_align, sat_r1, sat_r2, sat_r3)

LOSSES: dict[str, Loss] = {one.__name__: one for one in (natural, *_SINGLE_STEP, pgd_at, trades)}
