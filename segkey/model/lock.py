"""Lock a plainly trained model with a key, without training.

Encrypting a block with SHF, NP or both permutes its c·M·M values, and replaces some by 255 less
themselves, which is a change of sign once values are centred at 127.5. So for centred values y of
an encrypted block and x of the plain one, y[i] = s[i] · x[P[i]], and a convolution over plain
blocks, Σ V[j] · x[j], is one over encrypted blocks: Σ W[i] · y[i] with W[i] = s[i] · V[P[i]]. It is
exact; no accuracy is lost, and nothing is learned anew.

What it does not do: hide the key from who has the weights. With M larger than the stride, a block
has several outputs of the same filter, whose weights in W are the same numbers at other positions:
they tell which positions belong together, and leave of NP's key one sign per channel and pixel of
a stride. Where the network pads with a mean colour other than grey 127.5, the response at the
border differs from that inside of the image by known sums of the original filters. These are
linear equations for the key, and solve NP's exactly. Both are properties of the function that is
computed: grey 127.5 is its own encryption, so that the response to it needs no key, and no exact
way of writing the layer down could hide them. A tested lower bound, and no claim that other
methods withstand it.
"""

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from segkey.crypto import ciphers
from segkey.crypto.ciphers import Cipher
from segkey.errors import SegkeyError
from segkey.model.batches import as_pixels
from segkey.model.locked_conv import CENTRE, SCALE, LockedConv, put_in_place
from segkey.model.networks import Segmenter
from segkey.model.stem import Stem, find_stem

_SIDE = 64  # pixels of the image that a locked network is tried on
_CLOSE = 1e-3  # of the spread of logits, by which it may miss the original's
_CONSTANT = 1e-9  # of the largest logit: a spread that says nothing


@dataclass(frozen=True)
class SignedPermutation:
    """What a cipher does to the centred values of a block: y[i] = signs[i] · x[permutation[i]].

    Attributes:
        permutation: int64 (c·M·M,).
        signs: float64 (c·M·M,), 1 or −1.
    """

    permutation: np.ndarray
    signs: np.ndarray

    @classmethod
    def of(cls, cipher: Cipher) -> "SignedPermutation":
        """Find it by encrypting a few blocks; works for methods of a user's own, too.

        Raises:
            SegkeyError: the cipher does something else, as FFX does.
        """
        shape = (cipher.channels, cipher.block_size, cipher.block_size)
        number = np.arange(np.prod(shape))
        bits = number >> np.arange(max(1, int(number[-1]).bit_length()))[:, None] & 1
        probes = np.concatenate([np.zeros((1, number.size)), 255 * bits]).astype(np.uint8)
        seen = cipher.encrypt(probes.reshape(-1, *shape)).reshape(-1, number.size).astype(np.int64)
        signs = np.where(seen[0] > 127, -1, 1)
        places = (seen[1:] != seen[0]).astype(np.int64)
        found = cls((places << np.arange(len(places))[:, None]).sum(0), signs.astype(np.float64))
        random = np.random.default_rng(0).integers(0, 256, (8, number.size), dtype=np.uint8)
        if not found._explains(random, cipher.encrypt(random.reshape(-1, *shape))):
            label = ciphers.method_name(cipher.method)
            raise SegkeyError(
                f"a model cannot be locked with {label}: it does more to a block than to permute "
                f"and invert its values",
                "lock with --method shf, np or shf+np",
            )
        return found

    def _explains(self, plain: np.ndarray, encrypted: np.ndarray) -> bool:
        """Whether this is what turned some blocks, uint8 (N, c·M·M), into others."""
        if encrypted.dtype != np.uint8 or self.permutation.max() >= plain.shape[1]:
            return False
        moved = plain[:, self.permutation]
        expected = np.where(self.signs < 0, 255 - moved, moved)
        return np.array_equal(expected, encrypted.reshape(expected.shape))

    @property
    def inverse(self) -> "SignedPermutation":
        """What undoes it."""
        back = np.argsort(self.permutation)
        return SignedPermutation(back, self.signs[back])

    @property
    def moves(self) -> bool:
        """Whether any value changes its place."""
        return not np.array_equal(self.permutation, np.arange(self.permutation.size))


def lock_network(network: Segmenter, cipher: Cipher, stem: Stem | None = None) -> Segmenter:
    """A copy of a network that gives for encrypted images what the original gives for plain ones.

    Args:
        network: in any floating-point type; its first convolution is over the normalised image.
        cipher: that images will be encrypted with.
        stem: the network's, from `segkey.model.stem.find_stem`, if it is known.

    Raises:
        SegkeyError: the network has no such convolution or sees the image elsewhere too; the
            convolution or the method cannot be locked; a block size that does not fit.
    """
    stem, transform = stem or find_stem(network), SignedPermutation.of(cipher)
    plain = plain_stem(stem.convolution, network, cipher.block_size, transform.moves)
    locked = copy.deepcopy(network)
    layer = put_in_place(locked, stem.path, cipher.block_size, transform.moves)
    with torch.no_grad():
        layer.weight.copy_(transform_weight(plain, transform))
        layer.border.copy_(plain.border)
        layer.offset.copy_(plain.offset)
        _move_offset_into_normalisation(layer, locked, network, stem)
    _check_same_predictions(network, locked, cipher)
    return locked


def plain_stem(
    convolution: nn.Conv2d, network: Segmenter, block: int, whole: bool = True
) -> LockedConv:
    """A convolution over pixels as one over plain blocks, not locked; on the CPU, in float64.

    Args:
        convolution: the network's first one, over normalised pixels.
        network: its ``mean`` and ``std`` normalise pixels.
        block: M.
        whole: over whole blocks.

    Returns:
        The layer; its weight is V of this module's docstring.

    Raises:
        SegkeyError: the convolution cannot be locked.
    """
    if type(convolution).forward is not nn.Conv2d.forward:  # such as timm's, which pads one side
        raise SegkeyError(
            f"the first convolution is a {type(convolution).__name__}, which computes otherwise "
            "than torch's Conv2d does",
            "take a network that begins with a plain convolution, as timm's without 'tf_' do",
        )
    like = copy.deepcopy(convolution).cpu().double()
    mean, std = (each.detach().cpu().double().view(-1) for each in (network.mean, network.std))
    # (pixel − mean) / std = (centred · SCALE + CENTRE − mean) / std
    dense = _dense(like)
    scaled = dense * (_stored(SCALE, network) / std).view(1, -1, 1, 1)
    layer = LockedConv(like, block, whole)
    rows, columns = layer.rows, layer.columns
    weight = layer.weight.detach().view(
        layer.filters, rows.phases, columns.phases, *layer.weight.shape[1:]
    )
    for p in range(rows.phases):
        for q in range(columns.phases):
            weight[:, p, q, :, rows.taps(p), columns.taps(q)] = scaled
    constant = (dense * ((CENTRE - mean) / std).view(1, -1, 1, 1)).sum(1)
    border = rows.grouping(like.weight).T @ constant @ columns.grouping(like.weight)
    with torch.no_grad():
        layer.offset.copy_(border.sum((1, 2)) + (0 if like.bias is None else like.bias))
        border[:, rows.never_lost, columns.never_lost] = 0  # so they need not be known
        layer.border.copy_(border)
    return layer


def _dense(convolution: nn.Conv2d) -> Tensor:
    """The weight of a convolution as if it had no groups: float (filters, C, k, k)."""
    weight, groups = convolution.weight.detach(), convolution.groups
    dense = weight.new_zeros(len(weight), convolution.in_channels, *weight.shape[2:])
    for group, part in enumerate(weight.chunk(groups)):
        first, wide = group * len(part), weight.shape[1]
        dense[first : first + len(part), group * wide : (group + 1) * wide] = part
    return dense


def _stored(value: float, network: Segmenter) -> Tensor:
    """A number as the network's own type holds it."""
    return torch.tensor(value, dtype=network.std.dtype).double()


def transform_weight(layer: LockedConv, transform: SignedPermutation) -> Tensor:
    """The weight of a layer that sees blocks after a transform, of one that sees them before it.

    Args:
        layer: its weight is V over plain blocks; over whole ones if the transform moves values.
        transform: from `SignedPermutation.of`; its `inverse` leads from W back to V.

    Returns:
        W[i] = signs[i] · V[permutation[i]], of the same shape.
    """
    weight, m = layer.weight.detach(), layer.rows.block
    channels, signs = weight.shape[1], torch.from_numpy(transform.signs).to(weight)
    if not transform.moves:
        rows, columns = (
            torch.arange(axis.first, axis.first + axis.size) % m
            for axis in (layer.rows, layer.columns)
        )
        return weight * signs.view(channels, m, m)[:, rows][:, :, columns]
    filters, _, height, width = weight.shape
    blocks = weight.view(filters, channels, height // m, m, width // m, m).permute(0, 2, 4, 1, 3, 5)
    permutation = torch.from_numpy(transform.permutation).to(weight.device)
    flat = blocks.reshape(*blocks.shape[:3], -1)[..., permutation] * signs
    return flat.view(blocks.shape).permute(0, 3, 1, 4, 2, 5).reshape(weight.shape)


def _move_offset_into_normalisation(
    layer: LockedConv, locked: Segmenter, original: Segmenter, stem: Stem
) -> None:
    """Subtract the offset from the mean that follows; by itself, it would be known exactly."""
    if stem.normalisation is None or stem.normalisation.running_mean is None:
        return
    path = next(p for p, module in original.named_modules() if module is stem.normalisation)
    locked.get_submodule(path).running_mean -= layer.offset
    layer.offset.zero_()


@torch.inference_mode()
def _check_same_predictions(network: Segmenter, locked: Segmenter, cipher: Cipher) -> None:
    """Raise `SegkeyError` unless both agree on a random image, as they do if only the stem sees it.

    One that was locked although the image goes elsewhere too would be worthless in silence. In
    float64, and relative to how far logits depend on the place in the image: those of a network
    that was hardly trained are almost constant.
    """
    side = -(-_SIDE // cipher.block_size) * cipher.block_size
    shape = (1, cipher.channels, side, side)
    plain = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    expected = _logits(network, plain)
    spread = (expected - expected.mean((0, 2, 3), keepdim=True)).abs().max()
    if spread <= _CONSTANT * expected.abs().max():
        raise SegkeyError(
            "the network predicts the same for every pixel, so that its lock cannot be tried",
            "train it first, or restore its weights from a backup",
        )
    close = max(_CLOSE, 16 * torch.finfo(network.mean.dtype).eps)
    if (_logits(locked, cipher.encrypt(plain)) - expected).abs().max() > close * spread:
        raise SegkeyError(
            "the network does not give the same once its first convolution is locked: it uses the "
            "image elsewhere too",
            "take a network in which only the first convolution sees the image",
        )


def _logits(network: Segmenter, images: np.ndarray) -> Tensor:
    """Float64 (N, classes, H, W) for images, uint8 (N, C, H, W)."""
    model = copy.deepcopy(network).double().eval()
    return model(as_pixels(torch.from_numpy(images), 255).to(model.mean)).cpu()
