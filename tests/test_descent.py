"""A step that is recorded and replayed: the same numbers as one that is taken as written.

On a CPU nothing can be recorded, so a recorder that calls the step again stands in for a CUDA
graph; buffers, restoring, checking and falling back are the real ones.
"""

import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import pytest
import torch
from torch import nn

from regbench.ascent import cross_entropy
from regbench.core.device import pick
from regbench.core.precision import PRECISIONS
from regbench.experiment import members
from regbench.regularizers.fgsm_at import FGSMAT
from regbench.regularizers.sat_r2 import SATR2
from regbench.step import Objective, Step
from regbench.training import descent as descent_module
from regbench.training.descent import Descent, Recorded, cuda_graph


def called_again(take: Callable[[], None], generator: torch.Generator) -> Callable[[], None]:
    """Record as a CUDA graph does, leaving no trace of the recording itself."""
    return take


def descent(model: nn.Module, loss: object) -> Descent:
    optimizer = torch.optim.SGD(
        model.parameters(), lr=torch.tensor(0.1), momentum=0.9, weight_decay=5e-4, fused=True
    )
    return Descent(model, loss, optimizer, PRECISIONS["fp32"])


def network(*last: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 10),
        *last,
    )


def steps(model: nn.Module, sizes: tuple[int, ...] = (8, 8, 5, 8)) -> list[Step]:
    generator, noise = torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)
    return [
        Step(
            model,
            torch.rand(size, 1, 4, 4, generator=generator),
            torch.randint(10, (size,), generator=generator),
            0.1,
            noise,
        )
        for size in sizes
    ]


def both(loss: object, record: object) -> tuple[nn.Module, nn.Module, list, list]:
    """Take the same steps eagerly and recorded; return both networks and what was told."""
    models = network(), network()
    takes = descent(models[0], loss), Recorded(descent(models[1], loss), record, 8)
    told = [
        [take(step) for step in steps(model)] for model, take in zip(models, takes, strict=True)
    ]
    return *models, *told


@pytest.mark.parametrize("name", members.names("regularizers"))
def test_recorded_steps_are_the_eager_ones_to_the_bit(name, small_loss):
    loss = small_loss(name)
    eager, recorded, *told = both(loss, called_again)
    for one, other in zip(*told, strict=True):
        assert one.equal(other)
    for key, value in eager.state_dict().items():
        assert value.equal(recorded.state_dict()[key]), key


def test_a_recorded_step_follows_the_learning_rate():
    models = network(), network()
    plain, recorded = (descent(model, FGSMAT()) for model in models)
    takes = plain, Recorded(recorded, called_again, 8)
    for index, pair in enumerate(zip(*map(steps, models), strict=True)):
        for take, one, step in zip(takes, (plain, recorded), pair, strict=True):
            one.optimizer.param_groups[0]["lr"].fill_(0.1 / (1 + index))
            take(step)
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        assert one.equal(other)


def test_a_network_that_draws_noise_of_its_own_is_replayed():
    results = []
    for record in (None, called_again):
        model = network(nn.Dropout(0.5))
        plain = descent(model, FGSMAT())
        take = Recorded(plain, record, 8) if record else plain
        torch.manual_seed(5)
        results.append([take(step) for step in steps(model)])
    for one, other in zip(*results, strict=True):
        assert one.equal(other)


def test_a_smaller_batch_that_comes_first_is_not_what_is_recorded():
    sizes = []

    def hearing(take: Callable[[], None], generator: torch.Generator) -> Callable[[], None]:
        sizes.append(len(recorded._static.y))
        return take

    model = network()
    recorded = Recorded(descent(model, FGSMAT()), hearing, 8)
    for step in steps(model, (5, 8, 8)):
        recorded(step)
    assert sizes == [8]


def test_a_recording_that_finds_no_memory_leaves_none_behind():
    """What was recorded is gone before the step is taken eagerly, which may need its memory."""
    there: list[weakref.ref] = []

    class Graph:
        def __call__(self) -> None:
            raise torch.OutOfMemoryError("no memory for the replay")

    def record(take: Callable[[], None], generator: torch.Generator) -> Callable[[], None]:
        graph = Graph()
        there.append(weakref.ref(graph))
        return graph

    class Alone(FGSMAT):
        def __call__(self, step: Step) -> Objective:
            alive.append([one() is not None for one in there])
            return super().__call__(step)

    alive: list[list[bool]] = []
    model = network()
    take = Recorded(descent(model, Alone()), record, 8)
    (step,) = steps(model, (8,))
    with pytest.warns(UserWarning, match="cannot be recorded .no memory for the replay"):
        take(step)
    assert alive[-1] == [False]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_way_back_is_rounded_as_the_way_there(precision):
    heard = {}

    class Spy(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            heard["there"] = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
            return x.view_as(x)

        @staticmethod
        def backward(ctx, gradient):
            heard["back"] = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
            heard["autocast"] = torch.is_autocast_enabled("cpu")
            return gradient

    def loss(step: Step) -> Objective:
        z = Spy.apply(step.logits(step.x))
        return Objective(cross_entropy(z, step.y), z.sum() * 0)

    pick("cpu")  # turns TF32 off, which torch has on
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    (step,) = steps(model, (8,))
    Descent(model, loss, optimizer, PRECISIONS[precision])(step)
    assert heard["there"] == heard["back"] == ((precision == "tf32",) * 2)
    assert not heard["autocast"]
    assert not torch.backends.cudnn.allow_tf32


def impossible(take: Callable[[], None], generator: torch.Generator) -> Callable[[], None]:
    take()  # what a recording leaves behind when it breaks off
    raise RuntimeError("operation not permitted when stream is capturing")


def broken_off(take: Callable[[], None], generator: torch.Generator) -> Callable[[], None]:
    """As `torch.cuda.graph`, which raises an error of its own when it is left."""
    try:
        impossible(take, generator)
    finally:
        raise RuntimeError("the recording broke off because of a previous error")


def forgetful(take: Callable[[], None], generator: torch.Generator) -> Callable[[], None]:
    return lambda: None


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (impossible, "cannot be recorded"),
        (broken_off, r"cannot be recorded \(operation not permitted when stream is capturing\)"),
        (
            forgetful,
            r"is not the same when replayed \(1 of the step away, replays 0 from one another\)",
        ),
    ],
)
def test_what_cannot_be_replayed_is_taken_eagerly_and_says_so(record, words):
    loss = SATR2(weight=1.0, alpha=0.05, projected=False)  # draws noise
    with pytest.warns(UserWarning, match=words):
        eager, recorded, *told = both(loss, record)
    for one, other in zip(*told, strict=True):
        torch.testing.assert_close(one, other)
    for one, other in zip(eager.parameters(), recorded.parameters(), strict=True):
        assert one.equal(other)


@pytest.mark.parametrize(("record", "kept"), [(called_again, True), (forgetful, False)])
def test_a_replay_is_tried_at_the_highest_rate_and_taken_at_that_of_its_step(record, kept):
    """A cyclic rate begins next to 0, where a step is not told from rounding."""
    models = network(), network()
    plain, recorded = (descent(model, FGSMAT()) for model in models)
    takes = plain, Recorded(recorded, record, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("error" if kept else "ignore")
        for take, one, model in zip(takes, (plain, recorded), models, strict=True):
            one.optimizer.param_groups[0]["lr"].fill_(1e-9)
            for step in steps(model):
                take(step)
    assert (takes[1]._replay is not None) == kept
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        assert one.equal(other)
    assert recorded.optimizer.param_groups[0]["lr"].item() == pytest.approx(1e-9)


def test_a_replay_may_lie_as_far_off_as_from_another_replay():
    """Kernels that add in any order are the library's, and no reason to step eagerly."""
    noise = torch.Generator().manual_seed(0)

    def wavering(step: Step) -> Objective:
        loss = cross_entropy(step.logits(step.x), step.y)
        return Objective(loss * (1 + 0.1 * torch.rand((), generator=noise)), 0.0)

    model = network()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recorded = Recorded(descent(model, wavering), called_again, 8)
        for step in steps(model):
            recorded(step)
    assert recorded._replay is not None


def test_noise_that_a_recording_freezes_is_refused():
    """Drawn from a stream that no recording knows, it would be the same at every step."""
    noise = torch.Generator().manual_seed(0)

    def mixing(step: Step) -> Objective:
        loss = cross_entropy(step.logits(step.x), step.y)
        return Objective(loss * (1 + torch.rand((), generator=noise)), 0.0)

    def freezing(take: Callable[[], None], generator: torch.Generator) -> Callable[[], None]:
        recorded = noise.get_state()
        torch.rand((), generator=noise)  # to record is to draw it once

        def replay() -> None:
            noise.set_state(recorded)
            take()

        return replay

    model = network()
    take = Recorded(descent(model, mixing), freezing, 8)
    with pytest.warns(UserWarning, match="is not the same when replayed"):
        take(steps(model)[0])


def test_what_a_recording_that_breaks_off_leaves_behind_is_undone(monkeypatch):
    class Noise:
        """A generator of CUDA, as far as a recording asks."""

        recorded = True

        def clone_state(self) -> str:
            return "the same, not recorded"

        def graphsafe_set_state(self, state: str) -> None:
            self.recorded = state != "the same, not recorded"

    class Graph:
        def register_generator_state(self, generator: object) -> None: ...

    class Stream:
        device = torch.device("cuda", 0)

    @contextmanager
    def graph(_: Graph) -> Iterator[None]:
        streams.append(Stream())  # and stays there
        yield

    def refused() -> None:
        if streams[-1] is not usual:
            raise RuntimeError("no")

    usual = Stream()
    streams, own, default = [usual], Noise(), Noise()
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: streams[-1])
    monkeypatch.setattr(torch.cuda, "set_stream", streams.append)
    monkeypatch.setattr(descent_module, "_never_waiting", nullcontext)
    monkeypatch.setattr(descent_module, "_default", lambda _: default)
    with pytest.raises(RuntimeError, match="no"):
        cuda_graph(refused, own)
    assert streams[-1] is usual
    assert not own.recorded
    assert not default.recorded


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("name", members.names("regularizers"))
def test_a_cuda_graph_takes_the_eager_steps(name, small_loss, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    loss = small_loss(name)
    results = []
    for record in (None, cuda_graph):
        model = network().cuda()
        rate = torch.tensor(0.1, device="cuda")
        optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, fused=True)
        take = Descent(model, loss, optimizer, PRECISIONS["fp32"])
        noise = torch.Generator("cuda").manual_seed(2)
        moved = [
            Step(model, one.x.cuda(), one.y.cuda(), 0.1, noise) for one in steps(model, (8,) * 6)
        ]
        stepper = Recorded(take, record, 8) if record else take
        results.append([stepper(step).cpu() for step in moved])
    for eager, graphed in zip(*results, strict=True):
        torch.testing.assert_close(graphed, eager, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("wait", [lambda z: z.sum().item(), lambda _: torch.cuda.synchronize()])
def test_on_a_gpu_a_loss_that_waits_for_it_is_taken_eagerly(wait):
    def waiting(step: Step) -> Objective:
        z = step.logits(step.x + step.uniform(0.1))
        wait(z)
        return Objective(cross_entropy(z, step.y), z.sum() * 0)

    results = []
    for record in (None, cuda_graph):
        model = network(nn.Dropout(0.5)).cuda()
        optimizer = torch.optim.SGD(model.parameters(), lr=torch.tensor(0.1).cuda(), fused=True)
        plain = Descent(model, waiting, optimizer, PRECISIONS["fp32"])
        take = Recorded(plain, record, 8) if record else plain
        noise = torch.Generator("cuda").manual_seed(2)
        torch.manual_seed(5)
        moved = [Step(model, one.x.cuda(), one.y.cuda(), 0.1, noise) for one in steps(model)]
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            results.append([take(step).cpu() for step in moved])
    assert any("it is taken eagerly" in str(one.message) for one in told)
    for eager, other in zip(*results, strict=True):
        torch.testing.assert_close(other, eager, rtol=1e-4, atol=1e-5)
