"""The steps as public adversarial-training code writes them, for ours to be timed against.

Eager, contiguous layout, a DataLoader, `.backward()` for the attack too, so that weight gradients
are computed and thrown away; TRADES' clean logits anew at each of its steps; SAT-R1's I-FGSM from
scratch. The mathematics is that of regbench's losses.
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


NETWORKS: dict[str, Callable[[], nn.Module]] = {"lenet_plus": lenet_plus, "resnet18": resnet18}


def gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The input gradient by a whole backward pass."""
    model.eval()
    x = x.clone().requires_grad_()
    model.zero_grad()
    F.cross_entropy(model(x), y).backward()
    model.train()
    return x.grad


def fgsm(model: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> Tensor:
    """One step of ε."""
    return (x + epsilon * gradient(model, x, y).sign()).clamp(0, 1)


def natural(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """CE(f(x), y)."""
    return F.cross_entropy(model(x), y)


def fgsm_at(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """CE(f(x_FGSM), y)."""
    return F.cross_entropy(model(fgsm(model, x, y, EPSILON)), y)


def sat_r1(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """SAT-R1, λ = 0.2, k = 10."""
    x_fgsm, last = fgsm(model, x, y, EPSILON), x[-1:]
    for _ in range(10):
        last = fgsm(model, last, y[-1:], EPSILON / 10)
    logits = model(torch.cat((x_fgsm, last)))
    return F.cross_entropy(logits[:-1], y) + 0.2 * (logits[-2] - logits[-1]).square().sum()


def sat_r2(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """SAT-R2, λ = 5, α = 0.01: the two gradients and the two forward passes one after the other."""
    noisy = x + 0.01 * torch.randn_like(x).sign()
    x_fgsm, x_rfgsm = fgsm(model, x, y, EPSILON), fgsm(model, noisy, y, EPSILON)
    one, other = model(x_fgsm), model(x_rfgsm)
    return F.cross_entropy(one, y) + 5 * (one - other).square().sum(1).mean()


def sat_r3(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """SAT-R3, λ = 1, τ = 0.4, α = 0.01, ε_low = 0.1."""
    start = (x + 0.01 * torch.randn_like(x).sign()).clamp(0, 1)
    sign = gradient(model, start, y).sign()
    x_low, x_high = ((start + size * sign).clamp(0, 1) for size in (0.1, EPSILON))
    low, high = F.cross_entropy(model(x_low), y), F.cross_entropy(model(x_high), y)
    return high + F.relu(low - 0.4 * high)


def pgd_at(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """PGD-AT by 10 steps."""
    x_adv = (x + torch.empty_like(x).uniform_(-EPSILON, EPSILON)).clamp(0, 1)
    for _ in range(STEPS):
        moved = x_adv + STEP_SIZE * gradient(model, x_adv, y).sign()
        x_adv = torch.min(torch.max(moved, x - EPSILON), x + EPSILON).clamp(0, 1)
    return F.cross_entropy(model(x_adv), y)


def trades(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """TRADES, β = 1, by 10 steps, the clean logits computed anew at each."""
    model.eval()
    x_adv = x + 0.001 * torch.randn_like(x)
    for _ in range(STEPS):
        x_adv = x_adv.detach().requires_grad_()
        model.zero_grad()
        _divergence(model, x, x_adv).backward()
        moved = x_adv.detach() + STEP_SIZE * x_adv.grad.sign()
        x_adv = torch.min(torch.max(moved, x - EPSILON), x + EPSILON).clamp(0, 1)
    model.train()
    return F.cross_entropy(model(x), y) + _divergence(model, x, x_adv)


def _divergence(model: nn.Module, x: Tensor, x_adv: Tensor) -> Tensor:
    p, log_q = F.softmax(model(x), dim=1), F.log_softmax(model(x_adv), dim=1)
    return F.kl_div(log_q, p, reduction="batchmean")


LOSSES: dict[str, Loss] = {
    one.__name__: one for one in (natural, fgsm_at, sat_r1, sat_r2, sat_r3, pgd_at, trades)
}
