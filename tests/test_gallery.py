"""The gallery: the images that a diagnosis keeps, and the figure of them."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt

from regbench.analysis.rows import UNSHOWN, Rows, load
from regbench.attacks.fgsm import FGSM
from regbench.attacks.pgd import PGD
from regbench.evaluation.gallery import SCHEMA, first_of_each_class, gallery
from regbench.evaluation.verdicts import judge
from regbench.experiment.cards import DiagnosisCard
from regbench.figures import look
from regbench.figures.gallery import RIGHT, WRONG, picture
from regbench.figures.gallery import gallery as drawn

REPORTS = Path(__file__).parents[1] / "reports"
EPSILON = 0.06
ROUNDING = 0.5 / 255 + 1e-6


def card(count, seed=0):
    return DiagnosisCard(
        images=16, split="test", checkpoint="best", batch_size=16, seed=seed, epsilon=EPSILON,
        points=3, gallery=count,
    )  # fmt: skip


def kept(classifier, count, batch_size=16, seed=0):
    model, images = classifier
    return gallery(card(count, seed), model, images, batch_size).to_pandas()


# --- what is kept ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "places"),
    [(0, []), (1, [0]), (3, [0, 2, 5]), (5, [0, 2, 5, 1, 4]), (9, [0, 2, 5, 1, 4, 3])],
)
def test_the_first_of_each_class_come_first_and_then_the_second(count, places):
    assert first_of_each_class(torch.tensor([3, 3, 1, 3, 1, 0]), count).tolist() == places


def test_each_image_is_there_clean_and_under_each_attack(classifier):
    table = kept(classifier, 6)
    assert list(table) == SCHEMA.names
    assert list(table["under"].unique()) == ["clean", "FGSM", "PGD-50"]
    assert dict(table.groupby("under", observed=True)["epsilon"].first()) == {
        "clean": 0, "FGSM": EPSILON, "PGD-50": EPSILON
    }  # fmt: skip
    chosen = first_of_each_class(classifier[1].y, 6).tolist()
    for _, part in table.groupby("under", observed=True):
        assert part["image"].tolist() == chosen
        assert part["label"].tolist() == classifier[1].y[chosen].tolist()


def test_the_pixels_are_the_images_and_within_the_ball(classifier):
    _, images = classifier
    moved = []
    for _, row in kept(classifier, 6).iterrows():
        distance = np.abs(picture(row) - images.x[row["image"]].numpy()).max()
        assert distance <= row["epsilon"] + ROUNDING
        moved.append((row["epsilon"], distance))
    assert all(distance > EPSILON - ROUNDING for epsilon, distance in moved if epsilon)


def test_predictions_are_those_of_the_referee(classifier):
    model, images = classifier
    table = kept(classifier, 16)
    clean, under = (table[table["under"] == name].set_index("image") for name in ("clean", "FGSM"))
    judged = judge(model, FGSM(epsilon=EPSILON), images, batch_size=16, seed=0)
    right = clean["correct"]
    assert 0 < under["correct"].sum() < right.sum()
    # an image that is wrong already is not attacked by the referee
    for image in right.index[right]:
        assert under.loc[image, "prediction"] == judged.prediction[image]
        assert under.loc[image, "correct"] == bool(judged.correct[image])
    share = model(images.x).softmax(1).amax(1)
    assert clean["confidence"].to_numpy() == pytest.approx(share[clean.index].numpy(), rel=1e-5)


def test_pgd_is_the_projects_own(classifier):
    model, images = classifier
    chosen = first_of_each_class(images.y, 6)
    attack, stream = PGD(epsilon=EPSILON, steps=50), torch.Generator().manual_seed(7)
    expected = attack(model, images.x[chosen], images.y[chosen], stream)
    table = kept(classifier, 6, seed=7)
    found = [picture(row) for _, row in table[table["under"] == "PGD-50"].iterrows()]
    assert np.stack(found) == pytest.approx(expected.numpy(), abs=ROUNDING)


def test_the_batch_moves_no_image_but_pgds_start(classifier):
    whole, parts = (kept(classifier, 5, batch_size=size) for size in (16, 2))
    same = whole["under"] != "PGD-50"
    fixed = ["image", "under", "prediction", "pixels"]
    assert whole.loc[same, fixed].equals(parts.loc[same, fixed])
    assert whole["image"].equals(parts["image"])


def test_a_broken_network_is_wrong_about_everything(classifier):
    _, images = classifier
    broken = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 10))
    broken[1].weight.data.fill_(torch.nan)
    table = gallery(card(3), broken.requires_grad_(False), images, 16).to_pandas()
    assert not table["correct"].any()
    assert table["confidence"].isna().all()


def test_none_are_kept_if_none_are_asked_for(classifier):
    model, images = classifier
    table = gallery(card(0), model, images, 16)
    assert table.num_rows == 0
    assert table.schema == SCHEMA


# --- the figure -----------------------------------------------------------------------------------


def shown(classifier, methods=("natural", "FGSM-AT"), shape=(1, 4, 4), seeds=(3, 1)):
    """Rows with 5 images of each method and seed, every second right, of the last seed black."""
    table = kept(classifier, 5).astype({"under": str})
    table["correct"] = table.index % 2 == 0
    pixels = np.random.default_rng(0).integers(0, 256, (len(table), *shape), dtype=np.uint8)
    parts = []
    for method in methods:
        cell = {"dataset": "digits", "model": "net", "regularizer": method, "method": method}
        for seed in seeds:
            told = pixels if seed == seeds[0] else 0 * pixels
            size = dict(zip(("channels", "height", "width"), shape, strict=True))
            images = [image.tobytes() for image in told]
            parts.append(table.assign(**cell, seed=seed, **size, pixels=images))
    both = pd.concat(parts, ignore_index=True)
    both["method"] = pd.Categorical(both["method"], list(methods), ordered=True)
    return Rows(*[pd.DataFrame()] * 5, both)


@pytest.fixture(autouse=True)
def style():
    mpl.use("Agg")
    look()
    yield
    plt.close("all")


def test_a_panel_shows_each_image_and_what_it_is_taken_for(classifier):
    rows = shown(classifier)
    figure = drawn(rows)
    assert [axes.get_title() for axes in figure.axes] == [
        "digits, net\nnatural", "digits, net\nFGSM-AT"
    ]  # fmt: skip
    first = rows.gallery[(rows.gallery["method"] == "natural") & (rows.gallery["seed"] == 3)]
    axes = figure.axes[0]
    hung = axes.get_images()
    assert len(hung) == 5 * 3 + 5
    texts = [text.get_text() for text in axes.texts]
    for (_, row), image in zip(first.iterrows(), hung, strict=False):
        assert np.asarray(image.get_array()) == pytest.approx(picture(row)[0])
        mark = "✓" if row["correct"] else "✗"
        assert f"{row['prediction']} {mark} {100 * row['confidence']:.0f}%" in texts
    assert texts[-5:] == [str(label) for label in first.drop_duplicates("image")["label"]]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["true class", "clean", "FGSM", "PGD-50", "PGD-50 − clean"]


def test_right_and_wrong_differ_by_colour_line_and_mark(classifier):
    rows = shown(classifier, methods=("natural",), seeds=(0,))
    axes = drawn(rows).axes[0]
    frames = [patch for patch in axes.patches if patch.get_linewidth() == RIGHT.width]
    found = [mpl.colors.to_hex(frame.get_edgecolor()) for frame in frames]
    outcomes = [RIGHT if right else WRONG for right in rows.gallery["correct"]]
    assert {RIGHT, WRONG} == set(outcomes)
    assert found == [outcome.colour for outcome in outcomes]
    assert [frame.get_linestyle() for frame in frames] == [outcome.line for outcome in outcomes]
    assert RIGHT.line != WRONG.line
    assert RIGHT.mark != WRONG.mark


def test_the_last_line_is_what_the_attack_added_as_a_share_of_the_radius(classifier):
    rows = shown(classifier, methods=("natural",), seeds=(0,))
    table = rows.gallery
    clean, attacked = (table[table["under"] == name] for name in ("clean", "PGD-50"))
    added = [
        picture(one)[0] - picture(other)[0]
        for (_, one), (_, other) in zip(attacked.iterrows(), clean.iterrows(), strict=True)
    ]
    last = drawn(rows).axes[0].get_images()[-5:]
    for image, change in zip(last, added, strict=True):
        expected = (0.5 + change / (2 * EPSILON)).clip(0, 1)
        assert np.asarray(image.get_array()) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("shape", "drawn_as"),
    [((3, 4, 4), (4, 4, 3)), ((1, 2, 6), (2, 6)), ((2, 6, 2), (6, 2)), ((1, 1, 1), (1, 1))],
)
def test_images_of_any_shape_keep_theirs(classifier, shape, drawn_as):
    figure = drawn(shown(classifier, shape=shape))
    figure.canvas.draw()
    image = figure.axes[0].get_images()[0]
    assert image.get_array().shape == drawn_as
    left, right, bottom, top = image.get_extent()
    assert (bottom - top) / (right - left) == pytest.approx(shape[1] / shape[2])


def test_many_panels_stand_in_lines(classifier):
    methods = [f"m{place}" for place in range(7)]
    figure = drawn(shown(classifier, methods=methods))
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == [f"digits, net\n{method}" for method in methods]
    assert figure.axes[0].get_subplotspec().get_gridspec().ncols == 3


def test_a_report_without_images_says_so():
    without = load(REPORTS / "demo")._replace(gallery=UNSHOWN)
    for rows in (Rows(*[pd.DataFrame()] * 5, UNSHOWN), without):
        (axes,) = drawn(rows).axes
        assert "No images were kept" in axes.texts[0].get_text()
