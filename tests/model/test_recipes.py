"""Recipes: learning rates over whole trainings, optimizers, and values that are refused."""

import math
from dataclasses import fields

import pytest
import torch

from segkey.errors import SegkeyError
from segkey.model import recipes
from segkey.model.recipes import RECIPES, recipe


def rates(made, steps: int) -> list[float]:
    """The learning rate of every step of a training."""
    return [made.lr_at(epoch, step, steps) for epoch in range(made.epochs) for step in range(steps)]


@pytest.mark.parametrize(("epochs", "steps"), [(1, 1), (1, 2), (2, 3), (3, 7), (11, 10), (30, 37)])
@pytest.mark.parametrize("name", ["scratch", "laptop"])
def test_no_training_however_short_exceeds_the_highest_rate(name, epochs, steps):
    made = recipe(name, epochs=epochs)
    found = rates(made, steps)
    assert max(found) <= made.lr
    assert min(found) > 0
    if epochs * steps > 1:
        top = found.index(max(found))
        assert found[: top + 1] == sorted(found[: top + 1])  # up, once
        assert found[top:] == sorted(found[top:], reverse=True)  # and down


@pytest.mark.parametrize("steps", [20, 100, 200])
def test_the_warm_up_is_linear_over_a_twentieth(steps):
    made = recipe("scratch", epochs=10)
    found, warm = rates(made, steps), 10 * steps // 20
    assert found[:warm] == pytest.approx([made.lr * (n + 1) / warm for n in range(warm)])
    rest = 10 * steps - warm
    cosine = [made.lr * (1 + math.cos(math.pi * n / rest)) / 2 for n in range(rest)]
    assert found[warm:] == pytest.approx(cosine)


@pytest.mark.parametrize("restart", [1, 3, 10])
def test_restarts_bring_the_rate_back_to_the_top_and_keep_it_above_the_least(restart):
    made = recipe("paper", restart=restart, epochs=25, lr=0.2, lr_min=0.01)
    found = [made.lr_at(epoch) for epoch in range(25)]
    assert [epoch for epoch, rate in enumerate(found) if rate == made.lr] == list(
        range(0, 25, restart)
    )
    assert min(found) > made.lr_min or restart == 1
    assert found == [made.lr_at(epoch, step=4, steps=5) for epoch in range(25)]  # by epoch


@pytest.mark.parametrize(
    ("values", "what", "hint"),
    [
        ({"lr": 0.0}, "lr must be above 0, not 0.0", ""),
        ({"lr": -1.0}, "lr must be above 0", ""),
        ({"lr": math.nan}, "lr must be above 0, not nan", ""),
        ({"epochs": 0}, "epochs must be above 0", ""),
        ({"batch_size": 0}, "batch size must be above 0", ""),
        ({"crop_scale": 0.0}, "crop scale must be above 0", ""),
        ({"crop_scale": 1.5}, "crop scale must be a fraction of the area, not 1.5", ""),
        ({"weight_decay": -0.1}, "weight decay must not be below 0, as -0.1 is", ""),
        ({"momentum": math.nan}, "momentum must not be below 0, as nan is", ""),
        ({"lr_min": -1e-9}, "lr min must not be below 0", ""),
        ({"restart": -1}, "restart must not be below 0", ""),
        ({"ema": -0.1}, "from 0 to below 1", "--ema 0.999"),
        ({"ema": math.nan}, "from 0 to below 1", "--ema 0.999"),
        ({"loss": "hinge"}, "there is no loss 'hinge'", "losses: ce, dice, ce+dice, focal"),
        ({"optimizer": "lion"}, "there is no optimizer 'lion'", "optimizers: sgd, adamw"),
    ],
    ids=str,
)
def test_impossible_values_are_named_with_what_is_possible(values, what, hint):
    with pytest.raises(SegkeyError, match=what) as refused:
        recipe("scratch", **values)
    assert hint in refused.value.hint


def test_an_unknown_recipe_is_answered_with_those_there_are():
    with pytest.raises(SegkeyError, match="there is no recipe 'papers'") as refused:
        recipe("papers")
    assert refused.value.hint == f"recipes: auto, {', '.join(RECIPES)}"


@pytest.mark.parametrize("name", RECIPES)
def test_none_leaves_a_value_as_it_is(name):
    nothing = {field.name: None for field in fields(recipes.Recipe)}
    assert recipe(name, **nothing) == RECIPES[name]
    assert recipe(name, epochs=3, lr=None).epochs == 3


def test_weights_of_the_encoder_take_the_place_of_the_recipes_own_unless_both_are_given():
    assert recipe("paper", encoder_weights="e.pth").weights == "none"
    assert recipe("paper", encoder_weights="e.pth", weights="imagenet").weights == "imagenet"
    assert recipe("paper").weights == "coco"


@pytest.mark.parametrize(
    ("name", "kind", "values"),
    [
        ("paper", torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.005}),
        ("scratch", torch.optim.AdamW, {"lr": 0.001, "weight_decay": 0.01}),
    ],
)
def test_the_optimizer_has_the_values_of_the_recipe_and_leaves_frozen_weights(name, kind, values):
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    model[0].requires_grad_(False)
    optimizer = recipe(name).build_optimizer(model)
    assert type(optimizer) is kind
    (group,) = optimizer.param_groups
    assert {key: group[key] for key in values} == values
    assert [id(each) for each in group["params"]] == [id(each) for each in model[1].parameters()]


def test_fields_of_a_later_version_are_told():
    assert recipes.unknown_fields({"lr": 1, "warm_up": 3, "loss": "ce", "mixup": 0.1}) == [
        "warm_up",
        "mixup",
    ]
