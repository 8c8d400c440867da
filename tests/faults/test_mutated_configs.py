"""Configs damaged at random: each means something else, or is refused in one clear line.

What resolves although it was damaged has another manifest, or there is a reason why not. What is
refused names the place. No other exception may come out.
"""

import copy
import datetime
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from regbench.check import Claims, check, claims
from regbench.errors import UserError
from regbench.experiment.cells import PAPER_TRAINING
from regbench.experiment.configfile import parse, read
from regbench.experiment.fingerprint import fingerprint
from regbench.experiment.grid import resolve
from regbench.experiment.manifest import Declared, Manifest
from regbench.experiment.members import names
from regbench.experiment.values import number

ROOT = Path(__file__).parents[2]
FEWER = {
    "mnist": ("regularizers.sat_r2", "regularizers.trades", "datasets.mnist.sources.model_b"),
    "config": (
        "datasets.cifar10.regularizers.sat_r1",
        "regularizers.sat_r1",
        "datasets.cifar10.models.wrn_28_10",
    ),
    "demo": (),
    "precision": (),
}
"""The configs that damage is done to, and what they can spare: entries that repeat others."""

TRIED = 1_200
TRIED_AS_TEXT = 300
QUIETLY = settings(
    derandomize=True,  # the same configs at every run
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.generate, Phase.shrink),
)

Place = tuple[str | int, ...]
Draw = Callable[[st.SearchStrategy], Any]


class Damage(NamedTuple):
    """A damaged config.

    Attributes:
        base: which config it was.
        config: what became of it.
        kind: what was done to it.
        path: where.
        old: what was there; `NOTHING`, if it is the damage that something is there.
        new: what is there now; `NOTHING`, if nothing.
        words: of which a refusal must name one.
    """

    base: str
    config: dict
    kind: str
    path: Place
    old: Any
    new: Any
    words: tuple[str, ...]


NOTHING = object()
NAN, INFINITY = float("nan"), float("inf")
NUMBERS = [
    0, 1, -1, 3, 12_347, 0.5, -0.0, 1.5, 0.123457, 254.9, 1e-300, 1e300, 2**31, 2**63, 10**30,
    10**400, NAN, INFINITY, -INFINITY, "8/255", "1/0", "0/0", "1e-3", "1e3", "1e400", "1e99999",
    "9" * 400 + "/1", "1/" + "9" * 400, "9" * 5000 + "/1", "٣/٤", "1 / 3", "-1/3", "0x10", "1_000",
]  # fmt: skip
TEXTS = [
    "", " ", "text", "ünïcödé", "对抗", "ε", "a" * 64, "a" * 65, "a" * 100_000, "two words", "it's",
    'say "x"', "a;b", "$(touch pwned)", "`touch pwned`", "a\nb", "a\rb", "a\tb", "\x00",
    "a\x1b[31mb", "\ud800", "\u2028", "../up", "/etc/passwd", "on", "no", "null", "~", "{x}", "%s",
    "-x", "--gap", ".", "..", "nan", "017",
]  # fmt: skip
OTHERS = [
    None, True, False, [], {}, [[]], [None], [NAN], [0.1, 0.2], ["a"], {"a": None}, {"": 1}, {1: 2},
    {None: 1}, {True: False}, {"a": {"b": NAN}}, [10**400], datetime.date(2020, 1, 1),
    datetime.datetime(2020, 1, 1, 1, 1), b"bytes", {"a set"}, ("a", "pair"),
]  # fmt: skip
REFERENCES = [
    "regbench.step:Objective", "regbench.step:", ":Objective", ":", "a:b:c", "a b:c", ".x:y",
    "__main__:X", "..:y", "sys:exit", "os:system", "os.path:join", "subprocess:Popen", "torch:load",
    "builtins:eval", "json:loads", "json:JSONDecoder", "math:pi", "numpy:float64", "torch:Tensor",
    "torch.nn:Identity", "regbench.experiment.grid:RESULTS", "regbench.attacks:Attack",
    "regbench.models:x", "regbench.attacks.fgsm:FGSM", "regbench.check:main", "no.such.module:X",
    "\x00:x", "ü:ü",
]  # fmt: skip
KNOWN = [
    name for kind in ("data", "models", "attacks", "regularizers") for name in names(kind)
]  # fmt: skip
STRANGE_KEYS = [1, 0, None, True, 1.5, datetime.date(2020, 1, 1), *TEXTS]

anything = st.one_of(
    st.sampled_from(NUMBERS),
    st.sampled_from(TEXTS),
    st.sampled_from(OTHERS),
    st.sampled_from(REFERENCES),
    st.sampled_from(KNOWN),
    st.integers(),
    st.floats(),
    st.text(max_size=70),
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=4),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
        max_leaves=6,
    ),
)


def without(config: dict, path: str) -> None:
    """Take an entry out, and the attacks that craft on it."""
    *parents, last = path.split(".")
    at = config
    for part in parents:
        at = at[part]
    del at[last]
    if parents[-1:] == ["sources"]:
        for suite in config["datasets"][parents[1]]["attacks"].values():
            for name in [name for name, one in suite.items() if one.get("source") == last]:
                del suite[name]


@cache
def bases() -> dict[str, dict]:
    """The repository's own configs, of one seed or two."""
    configs = {}
    for name, spared in FEWER.items():
        config = read(ROOT / f"config/{name}.yaml")
        config["seeds"] = config["seeds"][-1:]  # another than an entry's own
        for path in spared:
            without(config, path)
        configs[name] = config
    return configs


def places(config: Any, path: Place = ()) -> Iterator[Place]:
    """Every place in a config, the root first."""
    yield path
    if isinstance(config, dict | list):
        for key in config if isinstance(config, dict) else range(len(config)):
            yield from places(config[key], (*path, key))


def at(config: Any, path: Place) -> Any:
    for part in path:
        config = config[part]
    return config


def put(config: dict, path: Place, value: Any) -> None:
    at(config, path[:-1])[path[-1]] = value


# Each kind of damage: (draw, config, path) -> what is at the path afterwards, and further names
# that a refusal may give the place.


def drop(draw: Draw, config: dict, path: Place) -> tuple[Any, list]:
    del at(config, path[:-1])[path[-1]]
    return NOTHING, []


def misspell(draw: Draw, config: dict, path: Place) -> tuple[Any, list]:
    key = str(path[-1])
    place = draw(st.integers(0, len(key) - 1))
    slips = [key[:place] + key[place + 1 :], f"{key[:place]}x{key[place:]}", key.upper(), f"{key} "]
    return _call(config, path, draw(st.sampled_from(slips)))


def rename(draw: Draw, config: dict, path: Place) -> tuple[Any, list]:
    return _call(config, path, draw(st.sampled_from(STRANGE_KEYS) | st.sampled_from(KNOWN)))


def _call(config: dict, path: Place, new: Any) -> tuple[Any, list]:
    """Give what is at the path another key; an item of a list has none, and is exchanged."""
    parent = at(config, path[:-1])
    if isinstance(parent, list):
        parent[path[-1]] = new
        return new, [new]
    items = [(new if key == path[-1] else key, value) for key, value in parent.items()]
    parent.clear()
    parent.update(items)
    return NOTHING, [new]


def replace(draw: Draw, config: dict, path: Place) -> tuple[Any, list]:
    new = draw(anything)
    put(config, path, new)
    return new, [new]


def renumber(draw: Draw, config: dict, path: Place) -> tuple[Any, list]:
    new = draw(st.sampled_from(NUMBERS) | st.integers(0, 500) | st.floats(0, 1))
    put(config, path, new)
    return new, [new]


def repeat(draw: Draw, config: dict, path: Place) -> tuple[Any, list]:
    parent = at(config, path[:-1])
    if isinstance(parent, list):
        parent.append(copy.deepcopy(at(config, path)))
        return NOTHING, [path[-2]]
    return wrap(draw, config, path)


def wrap(draw: Draw, config: dict, path: Place) -> tuple[Any, list]:
    old = copy.deepcopy(at(config, path))
    new = draw(st.sampled_from([[old], {path[-1]: old}, {"a": old}, [old, old], str(old)]))
    put(config, path, new)
    return new, []


def unwrap(draw: Draw, config: dict, path: Place) -> tuple[Any, list]:
    old = at(config, path)
    inner = list(old.values()) if isinstance(old, dict) else old
    if not isinstance(inner, list) or not inner:
        return wrap(draw, config, path)
    new = draw(st.sampled_from(inner))
    put(config, path, new)
    return new, list(old) if isinstance(old, dict) else []


def swap(draw: Draw, config: dict, path: Place) -> tuple[Any, list]:
    parent = at(config, path[:-1])
    others = list(parent if isinstance(parent, dict) else range(len(parent)))
    other = draw(st.sampled_from(others))
    parent[path[-1]], parent[other] = parent[other], parent[path[-1]]
    return parent[path[-1]], [other, *_keys(parent[path[-1]]), *_keys(parent[other])]


def insert(draw: Draw, config: dict, path: Place) -> tuple[Any, list]:
    target = at(config, path)
    if not isinstance(target, dict):
        return replace(draw, config, path)
    key = draw(st.sampled_from(UNKNOWN) | st.sampled_from(STRANGE_KEYS))
    target[key] = draw(st.sampled_from([None, 1, "x"]))
    return target, [key]


def name_another(draw: Draw, config: dict, path: Place) -> tuple[Any, list]:
    new = draw(st.sampled_from(REFERENCES) | st.sampled_from(KNOWN))
    put(config, path, new)
    return new, [new]


UNKNOWN = [
    "sedes",
    "epoch",
    "batchsize",
    "wieght",
    "stepsize",
    "lable",
    "zzz",
    "training2",
    "Seeds",
]
KINDS = {
    one.__name__: one
    for one in (
        drop, misspell, rename, replace, renumber, repeat, wrap, unwrap, swap, insert, name_another
    )
}  # fmt: skip


def _keys(value: Any) -> list:
    return list(value) if isinstance(value, dict) else []


@st.composite
def damages(draw: Draw) -> Damage:
    """One of the configs, damaged at one place."""
    base = draw(st.sampled_from(list(bases())))
    kind = draw(st.sampled_from(list(KINDS)))
    config = copy.deepcopy(bases()[base])
    path = draw(st.sampled_from([one for one in places(config) if one or kind == "insert"]))
    old = copy.deepcopy(at(config, path))
    new, words = KINDS[kind](draw, config, path)
    named = [
        *(part for part in path[-2:] if isinstance(part, str)),
        *_keys(old),
        *_keys(new),
        *words,
    ]
    return Damage(base, config, kind, path, old, new, tuple(told(word) for word in named))


def told(word: Any) -> str:
    """What a refusal shows of a name or value, at the least."""
    return str(UserError(word if isinstance(word, str) else repr(word)))[:20].strip()


class Judge:
    """What the workflow would say of a config before its first job."""

    def __init__(self, declared: dict[str, Declared]) -> None:
        self.declared = declared
        self._fine: set[str] = set()
        self.before = {name: self(config) for name, config in bases().items()}

    def __call__(self, config: dict) -> Manifest:
        """Return the manifest of a config that is fine.

        Raises:
            UserError: it is not.
        """
        manifest = resolve(parse(config), self.declared)
        wanted = claims(manifest)
        kinds = {kind: pairs for kind, pairs in wanted if kind != "judged"}
        fresh = {kind: self._fresh(pairs) for kind, pairs in kinds.items()}
        fingerprint({reference for pairs in fresh.values() for reference, _ in pairs})
        check(Claims(**fresh, judged=wanted.judged))
        self._fine |= {json.dumps(pair) for pairs in kinds.values() for pair in pairs}
        return manifest

    def _fresh(self, pairs: tuple) -> tuple:
        """Those that were not found to be fine before: a class is made once."""
        return tuple(pair for pair in pairs if json.dumps(pair) not in self._fine)


@pytest.fixture(scope="module")
def judge(declared):
    """A judge who knows what rules/regularizers/*.smk declare."""
    return Judge(declared)


OUTSIDE = {"data_root", "download", "device", "gap", "references", "margin"}
"""What moves no number: by design it is in no manifest."""


def reason(judge: Judge, damage: Damage) -> str | None:
    """Why a damaged config may have the manifest that it had before; none: it may not."""
    before, after = parse(bases()[damage.base]), parse(damage.config)
    if before.model_dump(exclude_defaults=True) == after.model_dump(exclude_defaults=True):
        return "says the same in other words"
    if damage.path[0] in OUTSIDE:
        return "moves no number"
    if _is_number(damage.new) and number(damage.old) == number(damage.new):
        return "says the same in other words"
    left_out = damage.old if isinstance(damage.old, dict) else {damage.path[-1]: damage.old}
    if damage.new in (None, NOTHING) and all(
        number(value) in _defaults(judge, damage.path, key) for key, value in left_out.items()
    ):
        return "left a default out"
    return None


def _defaults(judge: Judge, path: Place, key: str) -> list:
    """What a key may stand for where it is left out; the label of an attack is its own name."""
    entry = path[:-1] if path[-1] == key else path
    declared = [one.hyperparameters for one in judge.declared.values()]
    return [one[key] for one in (PAPER_TRAINING, *declared) if key in one] + [*entry[-1:]]


def _is_number(value: Any) -> bool:
    return isinstance(number(value), int | float) and not isinstance(value, bool)


def numbers(value: Any) -> Iterator[float]:
    """Every number in a JSON value."""
    if isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from numbers(one)
    elif isinstance(value, int | float):
        yield float(value)


def assert_one_clear_line(error: UserError, words: tuple[str, ...]) -> None:
    line = str(error)
    assert line.isprintable(), line
    assert len(line) <= 1_000, line
    assert any(word in line for word in words), (line, words)


def outcome(judge: Judge, damage: Damage, manifest: Manifest) -> str:
    """Return in which words a config that resolved is counted, having checked that it may."""
    assert damage.kind != "insert" or not isinstance(damage.old, dict), "an unknown key is accepted"
    text = manifest.text()
    if text == judge.before[damage.base].text():
        why = reason(judge, damage)
        assert why, f"silently accepted: {damage.kind} {damage.path}: {damage.old} -> {damage.new}"
        return why
    if _is_number(damage.old) and _is_number(damage.new):
        assert float(number(damage.new)) in set(numbers(json.loads(text))), "it is in no card"
    return "resolved to something else"


def test_a_damaged_config_means_something_else_or_is_refused(judge, capsys):
    tally = Counter(tracebacks=0)
    different: set[str] = set()

    @settings(QUIETLY, max_examples=TRIED)
    @given(damages())
    def try_one(damage: Damage) -> None:
        tally["tried"] += 1
        different.add(repr(damage.config))
        try:
            manifest = judge(damage.config)
        except UserError as error:
            assert_one_clear_line(error, damage.words)
            tally["refused"] += 1
        except Exception:
            tally["tracebacks"] += 1
            raise
        else:
            tally[outcome(judge, damage, manifest)] += 1

    try_one()
    show(capsys, "damaged configs", tally)
    assert len(different) >= 1_000
    assert tally["tracebacks"] == 0
    assert tally["refused"] >= tally["tried"] / 3
    assert tally["resolved to something else"] >= tally["tried"] / 20


# Where a value was, there is one of these: what YAML reads otherwise than it looks, or not at all.
TRAPS = [
    "on", "No", "~", "017", "1:30", "0x1F", "1_000", "1e-3", "1e400", ".inf", ".nan", "2020-01-01",
    "2020-13-45", "=", "<<", "!", "!!int x", "!!float x", "!!binary x", "!!set {a}", "*missing",
    '!!python/object/apply:os.system ["touch pwned"]', "!!python/name:os.system", "!!omap [a: 1]",
    "&a [*a]", "&a {a: *a}", "&a 1", "{<<: {a: 1}}", "{<<: 1}", "@x", "%x", "`x`", "'open", '"open',
    r'"\ud800"', r'"\x00"', r'"a\nb"', "? x", "{", "[", "]", "|", ">-", "- 1", "a: b", "a: b: c",
    "#", "\t1", "\x00", "\x85", "\ufeff", "9" * 5000, "[" * 1500 + "]" * 1500,
    "{a: " * 400 + "1" + "}" * 400,
]  # fmt: skip


def exchange(draw: Draw, lines: list[str], number: int) -> None:
    key, colon, _ = lines[number].partition(":")
    lines[number] = f"{key}{colon} {draw(st.sampled_from(TRAPS))}"


def say_twice(draw: Draw, lines: list[str], number: int) -> None:
    lines.insert(number, lines[number])


def leave_out(draw: Draw, lines: list[str], number: int) -> None:
    del lines[number]


def indent(draw: Draw, lines: list[str], number: int) -> None:
    lines[number] = draw(st.sampled_from([" ", "  ", "\t"])) + lines[number]


def outdent(draw: Draw, lines: list[str], number: int) -> None:
    lines[number] = lines[number].lstrip()


def write_anything(draw: Draw, lines: list[str], number: int) -> None:
    place = draw(st.integers(0, len(lines[number])))
    text = draw(st.text(st.characters(codec="utf-8"), max_size=6) | st.sampled_from(TRAPS))
    lines[number] = lines[number][:place] + text + lines[number][place:]


def cut_off(draw: Draw, lines: list[str], number: int) -> None:
    lines[number] = lines[number][: draw(st.integers(0, len(lines[number])))]
    del lines[number + 1 :]


SLIPS = [exchange, exchange, say_twice, leave_out, indent, outdent, write_anything, cut_off]


class Slip(NamedTuple):
    """A config's text with one line damaged.

    Attributes:
        base: which config it was.
        text: what became of it.
        twice: whether a key now stands there twice.
        words: of which a refusal must name one, unless it names the file.
    """

    base: str
    text: str
    twice: bool
    words: frozenset[str]


@st.composite
def slips(draw: Draw) -> Slip:
    """The text of one of the configs, one line damaged."""
    base = draw(st.sampled_from(list(bases())))
    lines = yaml.safe_dump(bases()[base], sort_keys=False, allow_unicode=True).splitlines()
    number = draw(st.integers(0, len(lines) - 1))
    line, kind = lines[number], draw(st.sampled_from(SLIPS))
    words = re.findall(r"\w{3,}", "\n".join(lines))
    kind(draw, lines, number)
    text = "\n".join(lines)
    words += re.findall(r"\w{3,}", text)
    return Slip(base, text, kind is say_twice and ":" in line, frozenset(words))


def test_a_damaged_file_means_something_else_or_is_refused(judge, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file, tally = tmp_path / "damaged.yaml", Counter(tracebacks=0)

    @settings(QUIETLY, max_examples=TRIED_AS_TEXT)
    @given(slips())
    def try_one(slip: Slip) -> None:
        file.write_text(slip.text, encoding="utf-8")
        tally["tried"] += 1
        try:
            manifest = judge(read(file))
        except UserError as error:
            assert_one_clear_line(error, ("damaged.yaml", *slip.words))
            tally["refused"] += 1
        except Exception:
            tally["tracebacks"] += 1
            raise
        else:
            assert not slip.twice, "a key that is given twice is accepted"
            same = manifest.text() == judge.before[slip.base].text()
            tally["resolved to the same" if same else "resolved to something else"] += 1

    try_one()
    show(capsys, "damaged files", tally)
    assert [path.name for path in tmp_path.iterdir()] == ["damaged.yaml"]
    assert tally["tried"] >= TRIED_AS_TEXT
    assert tally["tracebacks"] == 0
    assert tally["refused"] >= tally["tried"] / 3


CONVERTED = {
    "true for a number": ({"regularizers": {"sat_r1": {"steps": True}}}, "valid integer, got True"),
    "a text for a number": ({"regularizers": {"sat_r1": {"weight": "5"}}}, "number, got '5'"),
    "a number for a switch": ({"regularizers": {"sat_r2": {"projected": 1}}}, "boolean, got 1"),
    "a text for a network's": (
        {"datasets": {"digits": {"models": {"small_cnn": {"width": "16"}}}}},
        "'width': Input should be a valid integer, got '16'",
    ),
    "a label of a network": (
        {"datasets": {"digits": {"models": {"small_cnn": {"label": "x"}}}}},
        "unknown parameter 'label'",
    ),
    "a label of a data set": (
        {"datasets": {"digits": {"label": "x"}}},
        "unknown parameter 'label'",
    ),
}


@pytest.mark.parametrize("case", CONVERTED)
def test_what_would_be_taken_for_something_else_is_refused(judge, case):
    change, words = CONVERTED[case]
    with pytest.raises(UserError, match=re.escape(words)):
        judge(merged(bases()["demo"], change))


def merged(config: Any, change: Any) -> Any:
    """The config with a change deep inside."""
    if not isinstance(change, dict):
        return change
    config = config or {}
    return config | {key: merged(config.get(key), value) for key, value in change.items()}


def show(capsys: pytest.CaptureFixture, what: str, tally: Counter[str]) -> None:
    with capsys.disabled():
        print(f"\n{what}: " + ", ".join(f"{count} {name}" for name, count in tally.items()))
