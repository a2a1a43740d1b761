"""Losses, class weights, patience, the moving average, and logs."""

import csv
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from making import CPU, trained
from torch import nn

from segkey.errors import SegkeyError
from segkey.model import logs, losses, network_registry, recipes, training
from segkey.model.losses import Loss, class_weights, read_class_weights
from segkey.model.moving_average import MovingAverage
from segkey.model.networks import Segmenter
from segkey.model.runs import Run
from segkey.shards import open_splits

VOID = 255
NAMES = ("ground", "disc", "box")


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(4, 3, 6, 6, generator=generator)
    masks = torch.randint(0, 3, (4, 6, 6), generator=generator, dtype=torch.uint8)
    masks[0, :3] = VOID
    masks[3] = VOID
    return logits, masks


def mean(loss, logits, masks):
    return loss.summed(logits, masks) / loss.divisor(loss.amount(masks))


def wanted(name):
    if "dice" in name:
        pytest.importorskip("segmentation_models_pytorch")
    return name


@pytest.mark.parametrize("weights", [None, [1.0, 0.2, 5.0]])
def test_cross_entropy_is_torchs(batch, weights):
    logits, masks = batch
    weights = weights and torch.tensor(weights)
    expected = F.cross_entropy(logits, masks.long(), weights, ignore_index=VOID)
    assert torch.isclose(mean(Loss("ce", VOID, weights), logits, masks), expected)


def test_dice_is_smps(batch):
    wanted("dice")
    from segmentation_models_pytorch.losses import DiceLoss

    logits, masks = batch
    expected = DiceLoss("multiclass", ignore_index=VOID)(logits, masks.long())
    assert torch.isclose(mean(Loss("dice", VOID), logits, masks), expected)
    both = mean(Loss("ce+dice", VOID), logits, masks)
    assert torch.isclose(both, expected + mean(Loss("ce", VOID), logits, masks))


def test_focal_is_torchvisions_over_the_pixels_that_are_not_void(batch):
    from torchvision.ops import sigmoid_focal_loss

    logits, masks = batch
    known = masks != VOID
    pixels = logits.movedim(1, -1)[known]
    targets = F.one_hot(masks[known].long(), 3).float()
    expected = sigmoid_focal_loss(pixels, targets).sum(-1).mean()
    assert torch.isclose(mean(Loss("focal", VOID), logits, masks), expected)
    ones = torch.ones(3)
    assert torch.isclose(mean(Loss("focal", VOID, ones), logits, masks), expected)


@pytest.mark.parametrize("name", recipes.LOSSES)
@pytest.mark.parametrize("weights", [None, [1.0, 0.2, 5.0]])
def test_void_counts_nothing_and_a_void_batch_is_no_error(batch, name, weights):
    logits, masks = batch
    loss = Loss(wanted(name), VOID, weights and torch.tensor(weights))
    other = torch.where(masks[:, None] == VOID, logits + 7, logits)
    assert torch.isclose(mean(loss, logits, masks), mean(loss, other, masks), atol=1e-6)
    void = torch.full_like(masks, VOID)
    assert mean(loss, logits, void) == 0


def in_plain_loops(name: str, logits, masks, weights) -> float:
    """The mean loss of a batch, pixel by pixel, as papers write it."""
    total = amount = 0.0
    for image, truth in zip(logits.double().numpy(), masks.numpy(), strict=True):
        for place in np.ndindex(*truth.shape):
            if truth[place] == VOID:
                continue
            scores, true = image[(slice(None), *place)], truth[place]
            if name == "ce":  # minus the logarithm of the true class's softmax
                loss = np.log(np.exp(scores).sum()) - scores[true]
            else:  # Lin et al. 2017 of each class: alpha 0.25, gamma 2
                p = 1 / (1 + np.exp(-scores))
                right = np.where(np.arange(len(p)) == true, p, 1 - p)
                alpha = np.where(np.arange(len(p)) == true, 0.25, 0.75)
                loss = -(alpha * (1 - right) ** 2 * np.log(right)).sum()
            total, amount = total + weights[true] * loss, amount + weights[true]
    return total / amount


@pytest.mark.parametrize("name", ["ce", "focal"])
@pytest.mark.parametrize("weights", [None, [1.0, 0.2, 5.0], [0.0, 0.0, 2.0]])
def test_losses_are_those_of_the_papers_pixel_by_pixel(batch, name, weights):
    loss = Loss(name, VOID, weights and torch.tensor(weights))
    expected = in_plain_loops(name, *batch, weights or [1.0, 1.0, 1.0])
    assert float(mean(loss, *batch)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["ce", "focal"])
def test_parts_of_a_batch_add_up(batch, name):
    logits, masks = batch
    loss = Loss(name, VOID, torch.tensor([1.0, 0.2, 5.0]))
    halves = [(logits[:2], masks[:2]), (logits[2:], masks[2:])]
    total = sum(loss.summed(*half) for half in halves)
    amount = sum(loss.amount(half[1]) for half in halves)
    assert torch.isclose(total / amount, mean(loss, logits, masks))


def test_automatic_weights_balance_the_classes(shards_folder):
    split = open_splits([shards_folder], ("train",))["train"]
    masks = np.concatenate(
        [
            split.read("masks", row, view)[None]
            for row in range(len(split))
            for view in range(split.header.views)
        ]
    )
    shares = np.bincount(masks.reshape(-1), minlength=256)[: len(split.header.classes)]
    weights = np.array(class_weights("auto", split))
    assert np.allclose(weights * shares, np.median(shares))
    assert weights[0] < 1 < weights.max()
    assert class_weights(None, split) is None
    assert class_weights([1, 2, 3, 4, 5], split) == (1, 2, 3, 4, 5)
    with pytest.raises(SegkeyError, match="3 class weights for 5 classes"):
        class_weights([1, 2, 3], split)


@pytest.mark.parametrize(
    "text",
    ["1\n2.5\n0\n", "ground 1\nbox: 0\ndisc,2.5", "# rare\n\nground\t1\ndisc\t2.5\nbox\t0\n"],
)
def test_class_weights_from_a_file(tmp_path, text):
    (tmp_path / "weights.txt").write_text(text)
    assert read_class_weights(tmp_path / "weights.txt", NAMES) == (1, 2.5, 0)


def test_names_of_classes_may_hold_what_separates_them_from_their_weight(tmp_path):
    names = ("road, paved", "car: parked", "traffic  light", "7 eleven", "5")
    lines = zip(names, (" 1", ": 2", "\t3", ",4", "  5e-1"), strict=True)
    (tmp_path / "weights.txt").write_text("\n".join(map("".join, lines)))
    assert read_class_weights(tmp_path / "weights.txt", names) == (1, 2, 3, 4, 0.5)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("1\n2\n", "has no weight of 'box'"),
        ("ground 1\nground 2\ndisc 2\nbox 3", "has two weights of 'ground'"),
        ("1\n2\n3\nground 1", "has two weights of 'ground'"),
        ("0\n0\n0", "every class a weight of 0"),
        ("ground: 0, disc: 1, box: 2", "names 'ground: 0, disc: 1, box'"),
        ("1\n2\ninf", "below 0, or no number"),
        ("", "has no weight of 'ground'"),
        ("1\n2\n3\n4\n", "names 'line 4'"),
        ("ground 1\ndisc 2\nbax 3", "names 'bax'"),
        ("1\n2\n-1", "below 0, or no number"),
        ("1\n2\nx", "below 0, or no number"),
        ("1\n2\nnan", "below 0, or no number"),
        (None, "No such file"),
    ],
)
def test_files_that_give_no_class_weights(tmp_path, text, what):
    file = tmp_path / "weights.txt"
    if text is not None:
        file.write_text(text)
    with pytest.raises(SegkeyError, match=what):
        read_class_weights(file, NAMES)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"loss": "mse"}, "there is no loss 'mse'"),
        ({"ema": 1.0}, "decay of the moving average must be from 0 to below 1"),
        ({"patience": -1}, "patience must not be below 0"),
    ],
)
def test_impossible_values(values, message):
    with pytest.raises(SegkeyError, match=message):
        recipes.recipe("scratch", **values)


def test_the_papers_recipe_has_none_of_it():
    paper = recipes.RECIPES["paper"]
    assert (paper.loss, paper.class_weights, paper.patience, paper.ema) == ("ce", None, 0, 0)
    assert paper.encoder_weights is None
    assert recipes.recipe("paper", encoder_weights="x.pth").weights == "none"


def test_dice_without_smp_names_the_package(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch.losses", None)
    with pytest.raises(SegkeyError, match="not installed") as caught:
        losses.Loss("ce+dice", VOID)
    assert caught.value.hint.startswith("pip install 'segkey[smp]'")


def test_the_average_follows_the_weights_with_a_decay_that_grows():
    model = Segmenter("tiny", 2)
    average = MovingAverage(model, 0.5)
    name = "3.bias"
    expected = None
    for step, value in enumerate((1.0, 3.0, 2.0)):
        with torch.no_grad():
            model.fcn.state_dict()[name].fill_(value)
        average.update(model)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = value if expected is None else decay * expected + (1 - decay) * value
        assert torch.allclose(average.model.weights()[name], torch.tensor(expected))
    other = MovingAverage(Segmenter("tiny", 2), 0.5)
    other.restore(average.state())
    with torch.no_grad():
        model.fcn.state_dict()[name].fill_(9.0)
    for each in (average, other):
        each.update(model)
    assert torch.equal(average.model.weights()[name], other.model.weights()[name])


# Whole trainings, of a network that takes no time.


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    network_registry.register_all()
    monkeypatch.setattr(network_registry, "NETWORKS", dict(network_registry.NETWORKS))

    @network_registry.network("tiny")
    def build(classes, channels):
        return nn.Sequential(
            nn.Conv2d(channels, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, classes, 1),
        )


def train(shards, folder, epochs=2, **values):
    how = {key: values.pop(key) for key in ("log", "name") if key in values}
    recipe = recipes.recipe("scratch", epochs=epochs, batch_size=4, **values)
    splits = open_splits([shards], ("train", "val"))
    return training.train(
        splits, folder, recipe, shards=[shards], device=CPU, network="tiny", **how
    )


@pytest.mark.parametrize("loss", ["ce+dice", "focal"])
def test_training_with_another_loss_learns(tmp_path, shards_folder, loss):
    run = train(shards_folder, tmp_path, 3, loss=wanted(loss), class_weights="auto")
    first, *_, last = [line["loss"] for line in run.history()]
    assert last < first
    assert Run.open(run.path).configuration.recipe.loss == loss


def test_patience_ends_a_training_that_gets_no_better(tmp_path, shards_folder, monkeypatch):
    values = itertools.chain([3.0, 2.0], itertools.repeat(2.5))
    monkeypatch.setattr("segkey.model.training_loop.Trainer.validate", lambda self: next(values))
    run = Run.open(train(shards_folder, tmp_path, 9, patience=2).path)
    assert [line["val_loss"] for line in run.history()] == [3.0, 2.0, 2.5, 2.5]
    assert run.configuration.best.epoch == 2
    assert run.configuration.stopped_early
    assert run.epochs_missing == 0
    assert not run.state_file.exists()
    with pytest.raises(SegkeyError, match="has all its"):
        training.resume(run, open_splits([shards_folder], ("train", "val")), device=CPU)


def test_a_training_with_an_average_ends_the_same_after_an_interruption(
    tmp_path, shards_folder, monkeypatch
):
    def cut(log, history):
        if len(history) == 2:
            raise KeyboardInterrupt

    whole = train(shards_folder, tmp_path, 3, ema=0.9, name="whole")
    with monkeypatch.context() as patch:
        patch.setattr(logs.NoLog, "__call__", cut)
        with pytest.raises(KeyboardInterrupt):
            train(shards_folder, tmp_path, 3, ema=0.9, name="cut")
    run = Run.open(tmp_path / "cut")
    run = training.resume(run, open_splits([shards_folder], ("train", "val")), device=CPU)
    mine, other = run.load_model(CPU).weights(), whole.load_model(CPU).weights()
    assert all(torch.equal(mine[name], other[name]) for name in other)
    without = trained(shards_folder, tmp_path, 3, name="without", network="tiny")
    plain = without.load_model(CPU).weights()
    assert not torch.equal(plain["3.weight"], other["3.weight"])


def test_logs_for_other_programs(tmp_path, shards_folder):
    run = train(shards_folder, tmp_path, log="csv", name="csv")
    with open(run.path / "log.csv", encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["epoch"] for line in lines] == ["1", "2"]
    assert [float(line["val_loss"]) for line in lines] == [e["val_loss"] for e in run.history()]
    assert Run.open(run.path).configuration.log == "csv"
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = train(shards_folder, tmp_path, log="tensorboard", name="board")
    events = EventAccumulator(str(run.path / "tensorboard"))
    events.Reload()
    assert [each.step for each in events.Scalars("loss/val")] == [1, 2]


def test_an_unknown_log_is_refused_before_anything_is_trained(tmp_path, shards_folder):
    with pytest.raises(SegkeyError, match="there is no log 'wandb'"):
        train(shards_folder, tmp_path, log="wandb")
    assert not list(tmp_path.iterdir())
