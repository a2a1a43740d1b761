"""The attack on stored statistics: the key that explains what batch normalisation remembers.

A batch normalisation keeps the running mean and variance of its input over the training, in which
images were encrypted with the right key. An attacker encrypts images of their own with candidates,
and takes the one under which they give the stored values.

A selection (NP, FFX) is found in closed form at the stem, see `segkey.attacks.stem_moments`: by
gradient descent on a relaxed selection from several random starts, then by swaps of two positions.
Shifts of the selection by the stem's stride give the stem nearly the same values; all layers decide
among them. Large blocks have more positions than the stem's statistics determine; there a selection
descends through all layers, see `segkey.attacks.fitted_selection`. A permutation (SHF) is relaxed
to a doubly stochastic matrix (Sinkhorn's normalisation) and fitted to the first layers; rounding is
a linear assignment. A locked model's key is read off its weights, but for a few signs, see
`segkey.attacks.locked_statistics`.

FFX's table need not be known: any other table maps values as arbitrarily.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from segkey.attacks.cipher_parts import agreement, random_key, secret_parts
from segkey.attacks.fitted_permutation import fitted_permutations
from segkey.attacks.fitted_selection import fitted_selection
from segkey.attacks.layer_statistics import Judge
from segkey.attacks.locked_statistics import locked_candidates
from segkey.attacks.registry import Budget, Result, attack
from segkey.attacks.stem import why_lock_tells_nothing
from segkey.attacks.stem_moments import StemMoments, stride_within
from segkey.attacks.target import Target
from segkey.crypto.ciphers import Cipher
from segkey.errors import SegkeyError
from segkey.model.batches import as_pixels
from segkey.model.locked_conv import LockedConv
from segkey.model.results import UNLABELLED
from segkey.model.stem import Stem, find_stem
from segkey.system.seeds import seeded

_STARTS = 24  # random selections to descend from
_MANY_POSITIONS = 192  # more than the stem's statistics determine
_STEPS = 120  # of gradient descent on a selection
_BEST = 3  # local optima that are kicked on; all layers judge these and where they got to
_KICKS = 150  # per local optimum of a block of `_KICKED_POSITIONS`
_KICKED_POSITIONS = 48  # c·M·M at M = 4; judging all swaps takes the square of their number
_HARDEST_KICK = 6  # swaps at once
_TABLES = 4  # random tables to choose from, where FFX's is unknown
_MOST_ROUNDS = 100  # of swaps in a selection
_BATCH = 16


def _obstacle(target: Target) -> str:
    if not secret_parts(target.cipher):
        return ""
    if unknown := set(target.cipher.PARTS) - {"selected", "permutation", "values"}:
        return f"this does not know how to guess a part of a key like {', '.join(sorted(unknown))}"
    return why_no_statistics(target) or why_lock_tells_nothing(target)


def why_no_statistics(target: Target) -> str:
    """Why a model's stored statistics tell nothing; empty if they may."""
    try:
        stem = find_stem(target.model)
    except SegkeyError as error:
        return error.what
    if is_folded(stem):
        return ""
    if stem.normalisation is None:
        return "no batch normalisation follows the first convolution (it may have been folded)"
    if stem.normalisation.running_mean is None:
        return "the batch normalisation after the first convolution stores no statistics"
    return ""


def is_folded(stem: Stem) -> bool:
    """Whether a batch normalisation seems to have been folded into the stem.

    Then its outputs have a mean of about 0 and a variance of about 1, as the scale and offset of a
    normalisation stay near 1 and 0, where training begins.
    """
    if isinstance(stem.convolution, LockedConv):
        return stem.normalisation is None and bool(stem.convolution.offset.any())
    return stem.normalisation is None and stem.convolution.bias is not None


@attack(
    "statistics",
    "the method and M, and a few plain images of any kind without labels",
    obstacle=_obstacle,
    required_access=UNLABELLED,
)
def statistics(target: Target, budget: Budget, seed: int) -> Result:
    """Take the key under which the attacker's images give the statistics that the model stores."""
    own, loader = target.cipher, target.unlabelled(budget.images)
    images = torch.cat([images for images, _ in loader.batches(_BATCH)])
    name = f"statistics/{loader.split.header.split}/{seed}/{len(loader)}"
    with target.task("statistics", len(target.loader)):
        if secret_parts(own):
            found = target.cached(name, lambda: _search(target, images, seed).document)
            guess = _Guess.read(own, found)
        else:  # the only key
            guess = _Guess(own, 0.0)
        mean_iou = target.evaluate(f"{name}/all", guess.cipher).mean_iou
    agreed = agreement(own, guess.cipher)
    details = {
        "split": loader.split.header.split,
        "images": len(loader),
        "loss": guess.loss,
        "folded": is_folded(find_stem(target.model)),
        "agreement": agreed,
        "found": guess.cipher.same_as(own),
    }
    if "selected" in agreed:
        words = "the key itself" if agreed["selected"] == 1 else "another selection"
        if details["found"] is False and agreed["selected"] == 1:
            words = "the key's own selection"
    else:
        words = "the key itself" if details["found"] else "another permutation"
    summary = f"{words}, from {len(loader)} images"
    return Result(mean_iou, summary, details, chosen_on_test=target.is_judged_on(loader))


@dataclass(frozen=True)
class _Guess:
    """A cipher that was found, and its divergence from the stored statistics of all layers."""

    cipher: Cipher
    loss: float

    @property
    def document(self) -> dict:
        """What the journal of an attack under way keeps; as secret as a key."""
        parts = {name: getattr(self.cipher, name).tolist() for name in self.cipher.PARTS}
        return {"loss": self.loss, "parts": parts}

    @classmethod
    def read(cls, own: Cipher, document: dict) -> "_Guess":
        """The guess that `document` told."""
        parts = {
            name: np.array(values, getattr(own, name).dtype)
            for name, values in document["parts"].items()
        }
        return cls(own.with_parts(**parts), document["loss"])


def _search(target: Target, images: Tensor, seed: int) -> _Guess:
    """The best guess; the owner's cipher gives the method, M, and a fixed FFX table only."""
    generator = seeded("statistics", seed)
    unknown = _unknown(target.cipher, seed)
    with _frozen(target.model):
        if isinstance(find_stem(target.model).convolution, LockedConv):
            candidates = locked_candidates(target, images, unknown, generator)
        elif "permutation" in unknown.PARTS:
            candidates = fitted_permutations(target, images, unknown, generator)
        else:
            candidates = _selections(target, images, unknown, generator)
        judge = Judge(target, images, len(candidates))
        guesses = [_Guess(each, judge.divergence(each)) for each in candidates]
        return min(_with_tables(guesses, judge, target.cipher, generator), key=lambda g: g.loss)


def _unknown(own: Cipher, seed: int) -> Cipher:
    """A cipher of the method and block size that shares nothing secret with the owner's."""
    return own.rekeyed(random_key("segkey-statistics", seed)).with_parts(
        **{name: getattr(own, name) for name in own.PARTS if name not in secret_parts(own)}
    )


@contextlib.contextmanager
def _frozen(model: torch.nn.Module) -> Iterator[None]:
    """Parameters need no gradients while a key is searched for."""
    needing = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in needing:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in needing:
            parameter.requires_grad_(True)


def _with_tables(
    guesses: list[_Guess], judge: Judge, own: Cipher, generator: np.random.Generator
) -> list[_Guess]:
    """The best guess with other tables, too, if the method has one that is unknown."""
    if "values" not in secret_parts(own):
        return guesses
    best = min(guesses, key=lambda guess: guess.loss)
    for _ in range(_TABLES - 1):
        values = generator.permutation(own.max_value + 1)[: len(best.cipher.values)]
        cipher = best.cipher.with_parts(values=values.astype(best.cipher.values.dtype))
        guesses = [*guesses, _Guess(cipher, judge.divergence(cipher))]
    return guesses


def _selections(
    target: Target, images: Tensor, unknown: Cipher, generator: np.random.Generator
) -> list[Cipher]:
    """In closed form, unless a block has too many positions; by descent, if it has many."""
    positions, found = len(unknown.selected), []
    if positions <= _MANY_POSITIONS:
        found += _at_the_stem(target, images, unknown, generator)
    if positions >= _MANY_POSITIONS:
        found.append(fitted_selection(target, images, unknown, generator))
    return found


def _at_the_stem(
    target: Target, images: Tensor, unknown: Cipher, generator: np.random.Generator
) -> list[Cipher]:
    """Local optima at the stem, and their shifts by its stride."""
    model, stem = target.model, find_stem(target.model)
    everything = unknown.with_parts(selected=np.ones_like(unknown.selected))
    plain, changed = (
        (as_pixels(each, target.cipher.max_value) - model.mean) / model.std
        for each in (images, everything.encrypt(images))
    )
    moments = StemMoments(stem, plain.cpu(), changed.cpu(), unknown.block_size)
    optima: dict[bytes, tuple[float, Tensor]] = {}
    for start in descend(moments, _STARTS, _STEPS, generator):
        loss, selection = climb(moments, start)
        optima[selection.numpy().tobytes()] = loss, selection
    best = sorted(optima.values(), key=lambda found: found[0])[:_BEST]
    best += [kicked(moments, *found, generator) for found in best]
    shifted = {
        shift.tobytes(): shift
        for _, selection in best
        for shift in _shifts(selection.numpy() > 0.5, stem, unknown)
    }
    return [unknown.with_parts(selected=selected) for selected in shifted.values()]


def _shifts(selected: np.ndarray, stem: Stem, cipher: Cipher) -> list[np.ndarray]:
    """A selection moved within the block by multiples of the stride, which the stem cannot tell."""
    m, (down, across) = cipher.block_size, stride_within(stem, cipher.block_size)
    block = selected.reshape(cipher.channels, m, m)
    return [
        np.roll(block, (row, column), (1, 2)).reshape(-1)
        for row in range(0, m, down)
        for column in range(0, m, across)
    ]


def descend(
    moments: StemMoments, starts: int, steps: int, generator: np.random.Generator
) -> list[Tensor]:
    """Selections, float (positions,) of 0 and 1, from gradient descent on relaxed ones.

    Half of the positions are selected, as both methods do.
    """
    shape = (starts, moments.positions)
    logits = torch.from_numpy(generator.normal(0, 0.5, shape).astype(np.float32)).requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.15)
    for _ in range(steps):
        optimizer.zero_grad()
        moments.loss(logits.sigmoid()).sum().backward()
        optimizer.step()
    selections = torch.zeros(shape)
    selections.scatter_(1, logits.detach().topk(moments.positions // 2, 1).indices, 1.0)
    return list(selections)


def climb(moments: StemMoments, selection: Tensor) -> tuple[float, Tensor]:
    """The local optimum that swaps lead to: its loss, and the selection.

    In every round all swaps are judged and the best is taken.
    """
    best = float(moments.loss(selection[None]))
    for _ in range(_MOST_ROUNDS):
        selected, others, losses = moments.after_swaps(selection)
        if not losses.numel() or float(losses.min()) >= best - 1e-6:
            break
        i, j = divmod(int(losses.argmin()), len(others))
        best, selection = float(losses[i, j]), selection.clone()
        selection[selected[i]], selection[others[j]] = 0, 1
    return best, selection


def kicked(
    moments: StemMoments, loss: float, selection: Tensor, generator: np.random.Generator
) -> tuple[float, Tensor]:
    """A better local optimum nearby: swap a few positions at random, climb, keep what is better.

    Descent from random starts alone misses the key of a stem with few filters (iterated local
    search, `Lourenço et al. 2003 <https://doi.org/10.1007/0-306-48056-5_11>`_).
    """
    share = min(1.0, (_KICKED_POSITIONS / moments.positions) ** 2)
    for _ in range(round(_KICKS * share)):
        other = selection.clone()
        swaps = min(int(generator.integers(2, _HARDEST_KICK + 1)), moments.positions // 2)
        for value in (1.0, 0.0):
            places = (selection == value).nonzero()[:, 0].numpy()
            other[generator.choice(places, min(swaps, len(places)), replace=False)] = 1.0 - value
        reached, other = climb(moments, other)
        if reached < loss - 1e-6:
            loss, selection = reached, other
    return loss, selection
