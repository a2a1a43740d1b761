"""With which key's lock a found model was made: read from its weights.

A block has several outputs of the same filter if M is larger than the stride, so that the weights
of a locked model are a convolution's once the right key undoes the lock, and not with another key.
How much of them is one is the evidence: 1 for the right key, and for others what chance gives,
which is measured with random keys. With M = stride there is little to see, or nothing; the
original's weights tell it in any case.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from segkey.crypto import ciphers
from segkey.crypto.age import Identity
from segkey.crypto.keys import Key
from segkey.errors import SegkeyError
from segkey.model.lock import SignedPermutation, plain_stem, transform_weight
from segkey.model.locked_conv import Axis, LockedConv
from segkey.model.runs import Run
from segkey.model.stem import find_stem
from segkey.model.weights_files import read_weights
from segkey.shards.header import MAX_BLOCK
from segkey.system.shell_quoting import word

_STRANGERS = 10  # random keys that chance is measured with
_SAYS_NOTHING = 0.95  # chance so high that the right key could not be told
_MOST = 1 << 10  # of a kernel, its stride, padding and dilation, in a file from elsewhere


@dataclass(frozen=True)
class Match:
    """How well a key explains a found model.

    Attributes:
        customer: whose key it is.
        key_id: of the key.
        method: with which it explains it best.
        explained: share of the weights, up to 1.
        by_chance: the largest share with random keys.
    """

    customer: str
    key_id: str
    method: str
    explained: float
    by_chance: float

    @property
    def is_the_locks(self) -> bool:
        """Whether the model was locked with this key: it explains most of what chance does not."""
        return self.tells and self.explained > (1 + self.by_chance) / 2

    @property
    def tells(self) -> bool:
        """Whether the weights could tell this key from others at all."""
        return self.by_chance < _SAYS_NOTHING


def whose(model: Path, keys: Iterable[tuple[str, Key]], original: Run | None = None) -> list[Match]:
    """Compare some keys with a found model, the best first.

    Args:
        model: a run's folder, or a bare file of weights; nothing that ``run.json`` says is used.
        keys: with the name of each one's owner.
        original: the run that was locked: tells keys apart where the weights alone do not.

    Raises:
        SegkeyError: no weights there, or no locked layer in them; an original of another network.
    """
    keys = list(keys)
    layer = locked_layer(model, [key for _, key in keys])
    if original:
        _unlock(original, [key for _, key in keys])
    plain = _plain_of(original, layer) if original else None
    channels, m = layer.in_channels, layer.rows.block
    chance: dict[str, float] = {}

    def explained(method: str, key: Key) -> float:
        """How much of the weights is a convolution, or the original, under a key."""
        transform = SignedPermutation.of(ciphers.from_key(method, key, m, channels))
        weight = transform_weight(layer, transform.inverse)
        return _similarity(weight, plain) if plain is not None else _convolution_in(layer, weight)

    methods = ("shf", "shf+np") if layer.rows.whole else ("np",)
    for method in methods:
        strangers = [Key(bytes([number]) * 32) for number in range(_STRANGERS)]
        chance[method] = max(explained(method, stranger) for stranger in strangers)
    found = []
    for customer, key in keys:
        by_method = {method: explained(method, key) for method in methods}
        best = max(by_method, key=by_method.get)
        found.append(Match(customer, key.id, best, by_method[best], chance[best]))
    return sorted(found, key=lambda match: -match.explained)


def locked_layer(model: Path, keys: Sequence[Key] = ()) -> LockedConv:
    """The locked first layer of a run or of a file of weights; on the CPU, in float64.

    Args:
        model: a run's folder, or a file.
        keys: one of these opens a sealed run.

    Raises:
        SegkeyError: there is none, or none that can be; or a sealed run is not for any of the keys.
    """
    if {".onnx"} & set(model.suffixes):
        raise SegkeyError(
            f"{model} is an exported model, in which the layers of a lock are not looked for",
            "give the run that it was exported from, or its file of weights",
        )
    file, state = _read(model, keys)
    places = [name.removesuffix("geometry") for name in state if name.endswith(".geometry")]
    if not places:
        raise SegkeyError(
            f"{file} holds no locked layer: it was not locked by segkey, or that was taken out",
            "give a model that was made by 'segkey lock'",
        )
    try:
        return _layer(*(state[places[0] + name] for name in ("geometry", "weight", "border")))
    except (SegkeyError, KeyError, ValueError, RuntimeError, TypeError) as error:
        raise SegkeyError(
            f"{file} is damaged: its locked layer does not fit its own geometry "
            f"({type(error).__name__})",
            "give the model as it was found",
        ) from None


def _read(model: Path, keys: Sequence[Key]) -> tuple[Path, dict[str, Tensor]]:
    """The file of weights, and what it holds."""
    if not model.is_dir():
        return model, read_weights(model)
    run = Run.open(model)
    if run.is_sealed:
        return run.weights_file, _unlock(run, keys).load_model(torch.device("cpu")).weights()
    return run.weights_file, read_weights(run.weights_file)


def _unlock(run: Run, keys: Sequence[Key]) -> Run:
    """Give a sealed run the first of some keys that it was sealed for."""
    if not run.is_sealed:
        return run
    for key in keys:
        if set(Identity.of(key).recipients) & set(run.recipients):
            return run.unlock(key)
    raise SegkeyError(
        f"{run.path} is sealed, and not for any of these keys",
        f"add the file of a key that opens it, or unseal it: segkey unseal {word(run.path)}",
    )


def _layer(geometry: Tensor, weight: Tensor, border: Tensor) -> LockedConv:
    """A layer from the tensors of a file, which may come from elsewhere."""
    if geometry.shape != (2, 6) or weight.ndim != 4 or border.ndim != 3:
        raise ValueError
    rows, columns = geometry.long().tolist()
    limits = [(1, _MOST), (1, _MOST), (0, _MOST), (1, _MOST), (1, MAX_BLOCK), (0, 1)]
    for axis in (rows, columns):
        if not all(low <= value <= high for value, (low, high) in zip(axis, limits, strict=True)):
            raise ValueError
    if rows[4:] != columns[4:]:
        raise ValueError
    axes = Axis(*rows), Axis(*columns)
    if weight.shape[2:] != (axes[0].size, axes[1].size):
        raise ValueError
    kernel, stride, padding, dilation = zip(rows[:4], columns[:4], strict=True)
    with torch.device("meta"):  # only its shapes are needed
        like = nn.Conv2d(weight.shape[1], len(border), kernel, stride, padding, dilation)
        layer = LockedConv(like.double(), rows[4], bool(rows[5]))
    if layer.weight.shape != weight.shape:
        raise ValueError
    layer.weight = nn.Parameter(weight.detach().double(), requires_grad=False)
    return layer


def _plain_of(original: Run, layer: LockedConv) -> Tensor:
    """The first layer of an original over plain blocks."""
    network = original.load_model(torch.device("cpu"))
    plain = plain_stem(find_stem(network).convolution, network, layer.rows.block, layer.rows.whole)
    if plain.weight.shape != layer.weight.shape:
        raise SegkeyError(
            f"{original.path} cannot be the original of this model: its first layer has another "
            f"shape",
            "give the run that was locked with --original",
        )
    return plain.weight.detach()


def _convolution_in(layer: LockedConv, weight: Tensor) -> float:
    """The share of a weight over plain blocks that a convolution accounts for, 0 … 1."""
    phases = [(p, q) for p in range(layer.rows.phases) for q in range(layer.columns.phases)]
    by_phase = weight.view(
        layer.filters, layer.rows.phases, layer.columns.phases, *weight.shape[1:]
    )
    same = torch.stack(
        [by_phase[:, p, q, :, layer.rows.taps(p), layer.columns.taps(q)] for p, q in phases]
    ).mean(0)
    total = weight.square().sum()
    return float(len(phases) * same.square().sum() / total) if total > 0 else 0.0


def _similarity(weight: Tensor, plain: Tensor) -> float:
    """The cosine of two weights, at least 0."""
    sizes = weight.norm() * plain.norm()
    return max(0.0, float((weight * plain).sum() / sizes)) if sizes > 0 else 0.0
