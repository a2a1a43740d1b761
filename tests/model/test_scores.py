"""Scores against direct formulas on label arrays, and logits resized as PyTorch does it."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segkey.model import score_resizing
from segkey.model.evaluation import Scores, confusion_matrix, why_no_score

VOID = 255
NAMES = ("sky", "road", "tree", "car")


def scores_of(pairs, classes=4, ignore_index=VOID) -> Scores:
    """Counts pooled over pairs of a true and a predicted mask, as evaluation pools batches."""
    total = torch.zeros(classes, classes, dtype=torch.int64)
    for truth, predicted in pairs:
        truth, predicted = (torch.from_numpy(np.ascontiguousarray(m)) for m in (truth, predicted))
        total += confusion_matrix(truth, predicted.long(), classes, ignore_index)
    return Scores(total, NAMES[:classes], len(pairs))


def by_sets(pairs, classes=4, ignore_index=VOID) -> dict:
    """The same scores from sets of pixels, as the definitions state them."""
    truth = np.concatenate([t.reshape(-1) for t, _ in pairs])
    predicted = np.concatenate([p.reshape(-1) for _, p in pairs])
    known = truth != ignore_index
    truth, predicted = truth[known], predicted[known]
    iou = {}
    for number in range(classes):
        is_true, is_said = truth == number, predicted == number
        iou[NAMES[number]] = (
            (is_true & is_said).sum() / (is_true | is_said).sum() if is_true.any() else None
        )
    present = [value for value in iou.values() if value is not None]
    counts = np.bincount(truth, minlength=classes)
    most = int(counts.argmax())
    everywhere = [
        (counts[number] / len(truth) if number == most else 0.0)
        for number in range(classes)
        if counts[number]
    ]
    return {
        "iou": iou,
        "mean_iou": float(np.mean(present)) if present else None,
        "pixel_accuracy": float((truth == predicted).mean()) if len(truth) else None,
        "majority": (NAMES[most], float(np.mean(everywhere))) if len(truth) else (None, None),
    }


@st.composite
def pairs_of_masks(draw):
    shape = (draw(st.integers(1, 4)), draw(st.integers(1, 5)))
    labels = st.sampled_from([0, 1, 2, 3, VOID])
    return [
        (
            draw(hnp.arrays(np.uint8, shape, elements=labels)),
            draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, 3))),
        )
        for _ in range(draw(st.integers(1, 3)))
    ]


@given(pairs_of_masks())
def test_scores_are_those_of_their_definitions(pairs):
    made, expected = scores_of(pairs), by_sets(pairs)
    assert made.iou == {
        name: None if value is None else pytest.approx(value)
        for name, value in expected["iou"].items()
    }
    for name in ("mean_iou", "pixel_accuracy"):
        value = expected[name]
        assert getattr(made, name) == (None if value is None else pytest.approx(value))
    name, value = expected["majority"]
    baseline = made.majority_class
    assert baseline.name == name
    assert baseline.mean_iou == (None if value is None else pytest.approx(value))
    summary = made.summary()
    assert (summary.mean_iou, summary.iou) == (made.mean_iou, made.iou)


def test_mean_iou_is_pooled_over_the_split_and_no_mean_over_images():
    """A small object that is missed in one image weighs as its pixels, not as an image."""
    easy = np.array([[0, 0, 0, 1]], np.uint8), np.array([[0, 0, 0, 1]], np.uint8)
    hard = np.array([[0, 0, 0, 1]], np.uint8), np.array([[0, 0, 0, 0]], np.uint8)
    pooled = scores_of([easy, hard])
    assert pooled.iou["road"] == pytest.approx(1 / 2)
    assert pooled.iou["sky"] == pytest.approx(6 / 7)
    mean_of_means = np.mean([scores_of([pair]).mean_iou for pair in (easy, hard)])
    assert pooled.mean_iou != pytest.approx(mean_of_means)


def test_a_class_that_is_only_predicted_lowers_the_others_and_is_not_averaged_itself():
    truth = np.zeros((2, 4), np.uint8)
    predicted = truth.copy()
    predicted[0] = 3
    made = scores_of([(truth, predicted)])
    assert made.iou == {"sky": 0.5, "road": None, "tree": None, "car": None}
    assert made.mean_iou == 0.5


@pytest.mark.parametrize("ignore_index", [0, 2, 7, 255])
def test_any_value_may_mean_void_even_that_of_a_class(ignore_index):
    rng = np.random.default_rng(ignore_index)
    truth = rng.integers(0, 4, (8, 8)).astype(np.uint8)
    truth[::3] = ignore_index
    predicted = rng.integers(0, 4, (8, 8)).astype(np.uint8)
    made = scores_of([(truth, predicted)], ignore_index=ignore_index)
    expected = by_sets([(truth, predicted)], ignore_index=ignore_index)
    assert made.mean_iou == pytest.approx(expected["mean_iou"])
    assert int(made.matrix.sum()) == int((truth != ignore_index).sum())


def test_void_alone_gives_no_score_and_the_reason():
    made = scores_of([(np.full((3, 3), VOID, np.uint8), np.zeros((3, 3), np.uint8))])
    assert (made.mean_iou, made.pixel_accuracy) == (None, None)
    assert set(made.iou.values()) == {None}
    assert "every pixel of the test masks is void" in why_no_score(made.mean_iou)
    assert why_no_score(0.0) is None


def test_rows_of_the_matrix_are_the_truth_and_columns_the_prediction():
    truth, predicted = np.array([[0, 0, 1, 2]], np.uint8), np.array([[0, 1, 1, 0]], np.uint8)
    assert scores_of([(truth, predicted)], classes=3).matrix.tolist() == [
        [1, 1, 0],
        [0, 1, 0],
        [1, 0, 0],
    ]


def test_the_majority_class_is_the_first_of_those_that_are_as_frequent():
    truth = np.array([[1, 2, 2, 1]], np.uint8)
    made = scores_of([(truth, truth)]).majority_class
    assert (made.name, made.mean_iou) == ("road", 0.25)


# ------------------------------------------------------------------ resizing


def logits(*shape, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def torchs(given: np.ndarray, size) -> np.ndarray:
    made = torch.from_numpy(given)[None]
    return F.interpolate(made, size, mode="bilinear", align_corners=False)[0].numpy()


SIZES = [
    ((8, 8), (8, 8)),
    ((8, 8), (32, 20)),
    ((7, 5), (50, 3)),
    ((1, 1), (6, 6)),
    ((2, 9), (2, 40)),
    ((32, 32), (5, 7)),
    ((3, 3), (1, 1)),
]


@pytest.mark.parametrize(("before", "after"), SIZES, ids=str)
def test_resized_logits_are_pytorchs(before, after):
    given = logits(4, *before)
    assert np.allclose(score_resizing.enlarged(given, after), torchs(given, after), atol=1e-5)


@pytest.mark.parametrize(("before", "after"), SIZES, ids=str)
@pytest.mark.parametrize("rows", [1, 2, 100])
def test_classes_are_those_of_the_resized_logits_in_bands_of_any_height(before, after, rows):
    given = logits(5, *before, seed=3)
    bands = [given[:, top : top + rows] for top in range(0, before[0], rows)]
    found = score_resizing.classes_of_bands(bands, before[0], after)
    expected = torchs(given, after)
    assert found.dtype == np.uint8
    assert found.shape == after
    top_two = np.sort(expected, 0)[-2:]
    clear = top_two[1] - top_two[0] > 1e-4
    assert np.array_equal(found[clear], expected.argmax(0)[clear])
    assert clear.mean() > 0.9
    assert np.array_equal(score_resizing.classes_at(given, after), found)


@pytest.mark.parametrize("at_once", [1, 120, 600, 10**9])
def test_classes_do_not_depend_on_how_much_is_enlarged_at_a_time(monkeypatch, at_once):
    given, after = logits(3, 8, 8), (64, 40)
    whole = score_resizing.classes_at(given, after)
    monkeypatch.setattr(score_resizing, "BAND", at_once)
    assert np.array_equal(score_resizing.classes_at(given, after), whole)


@pytest.mark.parametrize("classes", [1, 2, 5, 255])
def test_the_likeliest_class_is_the_first_of_the_highest(classes):
    given = np.random.default_rng(1).integers(0, 3, (classes, 6, 7)).astype(np.float32)
    found = score_resizing.likeliest(given)
    assert found.dtype == np.uint8
    assert np.array_equal(found, given.argmax(0))


@given(hnp.arrays(np.float32, (4, 2, 3), elements=st.floats(-1e4, 1e4, width=32)))
def test_probabilities_add_up_to_1_however_large_logits_are(given):
    made = score_resizing.softmax(given)
    assert np.all(np.isfinite(made))
    assert np.allclose(made.sum(0), 1, atol=1e-5)
    assert np.allclose(made, torch.from_numpy(given).softmax(0).numpy(), atol=1e-6)
    assert np.array_equal(score_resizing.softmax(given), score_resizing.softmax(given.copy()))
