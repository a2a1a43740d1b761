"""The attack on a stem that sees whole blocks: its weights alone give the key, without any image.

A locked model's first layer holds every number of the original filters at several places, once for
each output of a block, so that positions a stride apart tell of each other; see
`segkey.attacks.stem_taps`. What is left open (a sign, and the order of channels, for each pixel of
a stride) is told by the border that is stored beside the weights, by the mean that the
normalisation stores, or by the smoothness of natural filters; see `segkey.attacks.stem_signs`.
A stem whose stride is a multiple of M, as that of many transformers, that was trained on images
encrypted by NP sees every position with weights of its own; smoothness tells their signs.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import torch

from segkey.attacks.cipher_parts import agreement, random_key
from segkey.attacks.registry import Budget, Result, attack
from segkey.attacks.stem_signs import (
    Solution,
    Stored,
    border_coefficients,
    by_border,
    by_mean,
    mean_coefficients,
    nothing_known,
    smoothest,
)
from segkey.attacks.stem_taps import Taps, aligned_taps, locked_taps
from segkey.attacks.target import Target
from segkey.crypto.ciphers import Cipher
from segkey.errors import SegkeyError
from segkey.model.locked_conv import CENTRE, SCALE, LockedConv
from segkey.model.networks import Segmenter
from segkey.model.results import MODEL
from segkey.model.stem import Stem, find_stem
from segkey.system.seeds import seeded

_MOST_CHANNELS = 4  # all orders of which are tried
_TOO_MANY = f"this tries all orders of up to {_MOST_CHANNELS} channels"
_CLEAR = 0.3  # cosine of the stored mean and the sums of filters


def why_stem_tells_nothing(model: Segmenter, cipher: Cipher) -> str:
    """Why the weights of a model's first layer say nothing about a key; empty if they may."""
    if not cipher.PARTS:
        return "there is no key"
    if unknown := set(cipher.PARTS) - {"selected", "permutation"}:
        return f"this does not know how to find a part of a key like {', '.join(sorted(unknown))}"
    try:
        convolution = find_stem(model).convolution
    except SegkeyError as error:
        return error.what
    if isinstance(convolution, LockedConv):
        return ""
    if any(stride % cipher.block_size for stride in convolution.stride):
        return (
            "the first convolution was trained on encrypted images with a stride that is no "
            "multiple of M: each of its weights sees several positions of a block"
        )
    if convolution.groups > 1 or isinstance(convolution.padding, str):
        return "this does not know a first convolution with groups or with padding by name"
    return ""


def _obstacle(target: Target) -> str:
    if why := why_stem_tells_nothing(target.model, target.cipher):
        return why
    if target.cipher.channels > _MOST_CHANNELS:
        return _TOO_MANY
    if "permutation" not in target.cipher.PARTS:
        return ""
    if not isinstance(find_stem(target.model).convolution, LockedConv):
        return "finding a permutation from trained weights alone, by their smoothness, is not built"
    return why_lock_tells_nothing(target)


def why_lock_tells_nothing(target: Target) -> str:
    """Why a locked first layer does not tell positions apart; empty if it may, or is not locked."""
    stem = find_stem(target.model)
    if not isinstance(stem.convolution, LockedConv):
        return ""
    if target.cipher.channels > _MOST_CHANNELS:
        return _TOO_MANY
    try:
        taps_of(stem, target.cipher)
    except SegkeyError as error:
        return error.what
    return ""


@attack("stem", "the method and M; no image", obstacle=_obstacle, required_access=MODEL)
def stem(target: Target, budget: Budget, seed: int) -> Result:
    """Take the key that makes of the first layer's weights a plain and smooth filter."""
    own, name = target.cipher, f"stem/{seed}"
    with target.task("stem", 2 * len(target.loader)):
        document = target.cached(name, lambda: recovered_key(target.model, own, seed).document)
        found = Found.read(own, document)
        scores = [
            (target.evaluate(f"{name}/{place}", each).mean_iou, place)
            for place, each in enumerate(found.candidates)
        ]
    best, place = max(scores, key=lambda score: score[0])
    guess = found.candidates[place]
    details = {
        "source": found.source,
        "agreement": agreement(own, guess),
        "found": guess.same_as(own),
        "candidates": len(scores),
    }
    words = "the key itself" if details["found"] else "another key"
    return Result(best, f"{words}, by {found.source}", details, chosen_on_test=len(scores) > 1)


@dataclass(frozen=True)
class Found:
    """Keys that the weights leave possible, and what told the last open signs."""

    candidates: list[Cipher]
    source: str

    @property
    def document(self) -> dict:
        """What the journal of an attack under way keeps; as secret as a key."""
        parts = [{n: getattr(each, n).tolist() for n in each.PARTS} for each in self.candidates]
        return {"source": self.source, "parts": parts}

    @classmethod
    def read(cls, own: Cipher, document: dict) -> "Found":
        """What `document` told."""
        kinds = {name: getattr(own, name).dtype for name in own.PARTS}
        candidates = [
            own.with_parts(**{name: np.array(values, kinds[name]) for name, values in each.items()})
            for each in document["parts"]
        ]
        return cls(candidates, document["source"])


def recovered_key(model: Segmenter, own: Cipher, seed: int) -> Found:
    """The keys that fit a model's stem; the owner's cipher gives the method and M only.

    Raises:
        SegkeyError: the stem's geometry does not tell places of shuffled values apart.
    """
    layer, moves, inverts = find_stem(model), "permutation" in own.PARTS, "selected" in own.PARTS
    taps = taps_of(layer, own)
    stored = _stored_mean(model, layer, taps)
    known, source = _solved(model, layer, taps, stored, (moves, inverts))
    solution = known
    if not known.known.all():
        solution = smoothest(taps, known, seeded("stem", seed))
        source = (
            f"{source} and the smoothness of filters" if source else "the smoothness of filters"
        )
    solutions = [solution]
    if inverts and not known.signs.any():  # all may be the other ones
        solutions = _both_signs(taps, solution, stored)
    if moves and known.channels.max() < 0:  # all may be in another order
        solutions = [other for each in solutions for other in _all_orders(each)]
    unknown = own.rekeyed(random_key("segkey-stem", seed))
    return Found([cipher_of(unknown, taps, each) for each in solutions], source)


def taps_of(stem: Stem, cipher: Cipher) -> Taps:
    """What the weights of a stem say about each position of a block.

    Args:
        stem: locked, or with a stride that is a multiple of M.
        cipher: gives the method and M only.

    Raises:
        SegkeyError: as `segkey.attacks.stem_taps.locked_taps`.
    """
    layer = stem.convolution
    if not isinstance(layer, LockedConv):
        return aligned_taps(layer, cipher.block_size)
    return locked_taps(layer, "permutation" in cipher.PARTS, "selected" in cipher.PARTS)


def _stored_mean(model: Segmenter, stem: Stem, taps: Taps) -> Stored | None:
    """What the normalisation stores, as a mean of responses to centred images; None if nothing."""
    normalisation, layer = stem.normalisation, stem.convolution
    if normalisation is None or normalisation.running_mean is None:
        return None
    mean, std = (each.detach().cpu().double().view(-1, 1, 1) for each in (model.mean, model.std))
    filters = taps.filters / std
    constant = layer.offset if isinstance(layer, LockedConv) else layer.bias
    stored = normalisation.running_mean.detach().cpu().double()
    if constant is not None:
        stored = stored - constant.detach().cpu().double()
    if isinstance(layer, LockedConv):
        return Stored(filters, stored)
    return Stored(filters, stored - (filters * (CENTRE - mean)).sum((1, 2, 3)))


def _solved(
    model: Segmenter,
    stem: Stem,
    taps: Taps,
    stored: Stored | None,
    does: tuple[bool, bool],
) -> tuple[Solution, str]:
    """What linear equations tell, and which; ``does`` is whether values are moved and inverted."""
    found = told_by_border(model, stem, taps, does)
    if found.known.any():
        return found, "the stored border"
    if stored is not None and does[1]:
        coefficients = mean_coefficients(taps, stored)
        if coefficients is not None:
            return by_mean(coefficients, *does), "the stored mean"
    return found, ""


def told_by_border(model: Segmenter, stem: Stem, taps: Taps, does: tuple[bool, bool]) -> Solution:
    """What a locked layer's stored border tells; ``does`` is whether values move and invert."""
    channels = taps.filters.shape[1]
    if isinstance(stem.convolution, LockedConv):
        coefficients = border_coefficients(taps, stem.convolution)
        if coefficients is not None:
            colour = (CENTRE - np.array(model.entry.normalisation(channels)[0])) / SCALE
            return by_border(coefficients, colour, *does)
    return nothing_known((taps.count, channels), *does)


def _both_signs(taps: Taps, solution: Solution, stored: Stored | None) -> list[Solution]:
    """A solution and its negative; one of them, if what is stored tells that images are dark."""
    if stored is not None:
        signs = torch.from_numpy(solution.signs).double()[taps.residues].permute(2, 0, 1)
        bright = (stored.filters * signs).sum((1, 2, 3))
        alike = float(torch.cosine_similarity(bright, stored.mean, 0))
        if abs(alike) > _CLEAR:
            return [solution if alike < 0 else solution.negative]
    return [solution, solution.negative]


def _all_orders(solution: Solution) -> list[Solution]:
    """A solution with its channels in every order."""
    count = solution.channels.shape[1]
    orders = [np.array(each) for each in itertools.permutations(range(count))]
    return [Solution(solution.signs, order[solution.channels]) for order in orders]


def cipher_of(unknown: Cipher, taps: Taps, solution: Solution) -> Cipher:
    """The cipher of a solution: y[i] = signs[i] · x[permutation[i]] for centred values."""
    residues, m, parts = taps.residues_of_positions, unknown.block_size, {}
    if "permutation" in unknown.PARTS:
        channels = solution.channels[residues, taps.slots]
        parts["permutation"] = (channels * m + taps.pixels[:, 0]) * m + taps.pixels[:, 1]
    if "selected" in unknown.PARTS:
        parts["selected"] = taps.signs * solution.signs[residues, taps.slots] < 0
    return unknown.with_parts(**parts)
