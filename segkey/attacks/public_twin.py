"""The attack with a public twin: the weights that a model was fine-tuned from show what was moved.

Fine-tuning changes the first layer of a network little. So the weights of a locked stem are those
of the public one, moved and negated by the key: for each position of the encrypted block the
position of the plain block is found whose weights in the public stem are the same up to sign. A
model that was fine-tuned on encrypted images is compared likewise; what its first layer has learned
since is all that tells of the key there.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from segkey.attacks.cipher_parts import agreement, random_key
from segkey.attacks.registry import Budget, Result, attack
from segkey.attacks.target import Target
from segkey.crypto.ciphers import Cipher
from segkey.errors import SegkeyError
from segkey.model import networks
from segkey.model.lock import plain_stem
from segkey.model.locked_conv import LockedConv
from segkey.model.networks import Segmenter
from segkey.model.results import MODEL
from segkey.model.runs import Run
from segkey.model.stem import find_stem


def public_network(run: Run) -> Segmenter:
    """The network with the public weights that a run was fine-tuned from.

    Raises:
        SegkeyError: there are none, or they cannot be had.
    """
    made, recipe = run.configuration.model, run.configuration.recipe
    weights, encoder = (recipe.weights, recipe.encoder_weights) if recipe else ("none", None)
    if weights == "none" and not encoder:
        raise SegkeyError(
            "the model was not fine-tuned from public weights", "leave public-twin out"
        )
    classes = list(run.header.classes)
    return networks.build(made.network, classes, weights, made.channels, encoder).eval()


def _obstacle(target: Target) -> str:
    if why := why_no_match(target.model, target.cipher):
        return why
    try:
        public = public_network(target.run)
        _stems(target.model, public, target.cipher.block_size)
    except SegkeyError as error:
        return error.what
    return ""


def why_no_match(model: Segmenter, cipher: Cipher) -> str:
    """Why a public stem tells nothing about a key; empty if it may."""
    if not cipher.PARTS:
        return "there is no key"
    if unknown := set(cipher.PARTS) - {"selected", "permutation"}:
        return f"this does not know how to find a part of a key like {', '.join(sorted(unknown))}"
    try:
        layer = find_stem(model).convolution
    except SegkeyError as error:
        return error.what
    if isinstance(layer, LockedConv):
        return ""
    if isinstance(layer.padding, str) or max(layer.dilation) > 1:
        return "this does not know a first convolution that is dilated or padded by name"
    if "permutation" in cipher.PARTS and _period(layer, cipher.block_size) < cipher.block_size:
        return (
            "the first convolution was trained on encrypted images with a stride that is no "
            "multiple of M: its weights have no order of a block's positions"
        )
    return ""


@attack(
    "public-twin",
    "the method and M, and the public weights that the model was fine-tuned from",
    obstacle=_obstacle,
    required_access=MODEL,
)
def public_twin(target: Target, budget: Budget, seed: int) -> Result:
    """Take the key that turns the public first layer into that of the model."""
    own = target.cipher

    def work() -> dict:
        cipher = matched(target.model, public_network(target.run), own)
        return {name: getattr(cipher, name).tolist() for name in cipher.PARTS}

    with target.task("public-twin", len(target.loader)):
        parts = target.cached("public-twin", work)
        guess = own.with_parts(
            **{name: np.array(each, getattr(own, name).dtype) for name, each in parts.items()}
        )
        mean_iou = target.evaluate("public-twin/all", guess).mean_iou
    details = {
        "agreement": agreement(own, guess),
        "found": guess.same_as(own),
    }
    words = "the key itself" if details["found"] else "another key"
    return Result(mean_iou, f"{words}, by the public first layer", details)


def matched(model: Segmenter, public: Segmenter, own: Cipher) -> Cipher:
    """The key under which a model's stem is most like the public one.

    Args:
        model: the target's, locked or fine-tuned on encrypted images.
        public: the network with the weights that it was fine-tuned from.
        own: gives the method and M only.

    Raises:
        SegkeyError: the stems have other shapes.
    """
    moves, inverts = "permutation" in own.PARTS, "selected" in own.PARTS
    here, there = _stems(model, public, own.block_size)
    if moves:
        alike = _unit(here) @ _unit(there).T
        order = linear_sum_assignment(-(alike.abs() if inverts else alike).numpy())[1]
    else:
        order = np.arange(len(here))
    parts = {"permutation": order} if moves else {}
    if inverts:
        negative = ((here * there[torch.from_numpy(order)]).sum(1) < 0).numpy()
        parts["selected"] = _all_positions(negative, own)
    return own.rekeyed(random_key("segkey-public-twin")).with_parts(**parts)


def _unit(columns: Tensor) -> Tensor:
    return columns / columns.norm(dim=1, keepdim=True).clamp(min=1e-30)


def _all_positions(negative: np.ndarray, cipher: Cipher) -> np.ndarray:
    """Of a period, bool (c·g·g,), for all positions of the block, bool (c·M·M,)."""
    period = math.isqrt(negative.size // cipher.channels)
    times = cipher.block_size // period
    return np.tile(negative.reshape(cipher.channels, period, period), (1, times, times)).ravel()


def _period(convolution: nn.Conv2d, block: int) -> int:
    """Pixels after which a convolution cannot tell positions of a block apart; M if it can all."""
    return math.gcd(block, *convolution.stride)


def _stems(model: Segmenter, public: Segmenter, block: int) -> tuple[Tensor, Tensor]:
    """The weights of both stems by position, float (c·g·g, N); of a locked one g is M."""
    here, there = (find_stem(each).convolution for each in (model, public))
    if isinstance(here, LockedConv):
        twin = plain_stem(there, public, block)
        both = [each.over_blocks().detach().cpu().float() for each in (here, twin)]
        columns = [_by_position(each, block) for each in both]
    else:
        columns = [_of_convolution(each, _period(here, block)) for each in (here, there)]
    if columns[0].shape != columns[1].shape:
        raise SegkeyError(
            "the public network's first convolution has another shape than the model's",
            "leave public-twin out",
        )
    return columns[0], columns[1]


def _of_convolution(convolution: nn.Conv2d, period: int) -> Tensor:
    """The weights of a convolution by position within a period that divides its stride."""
    pads = []
    for kernel, padding in zip(
        convolution.kernel_size[::-1], convolution.padding[::-1], strict=True
    ):
        before = -padding % period
        pads += [before, -(before + kernel) % period]
    return _by_position(F.pad(convolution.weight.detach().cpu().float(), pads), period)


def _by_position(weight: Tensor, side: int) -> Tensor:
    """float (F, C, n·side, n·side) to (C·side·side, F·n·n)."""
    filters, channels, height, width = weight.shape
    blocks = weight.view(filters, channels, height // side, side, width // side, side)
    return blocks.permute(1, 3, 5, 0, 2, 4).reshape(channels * side * side, -1)
