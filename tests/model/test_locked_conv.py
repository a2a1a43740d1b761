"""A locked convolution gives what the original gives, whatever its geometry."""

import numpy as np
import pytest
import torch
from torch import nn

from segkey.crypto import ciphers
from segkey.crypto.keys import Key
from segkey.errors import SegkeyError
from segkey.model.lock import SignedPermutation, plain_stem, transform_weight
from segkey.model.locked_conv import CENTRE, SCALE, Axis, LockedConv, axes_of

KEY = Key(bytes(range(32)))
METHODS = ("np", "shf", "shf+np")


class Normalised(nn.Module):
    """What a lock needs of a network: the statistics that pixels are normalised with."""

    def __init__(self, channels=3):
        super().__init__()
        self.mean = torch.linspace(0.3, 0.7, channels, dtype=torch.float64).view(1, -1, 1, 1)
        self.std = torch.linspace(0.2, 0.5, channels, dtype=torch.float64).view(1, -1, 1, 1)


def locked(convolution: nn.Conv2d, network: Normalised, cipher: ciphers.Cipher) -> LockedConv:
    transform = SignedPermutation.of(cipher)
    layer = plain_stem(convolution, network, cipher.block_size, transform.moves)
    with torch.no_grad():
        layer.weight.copy_(transform_weight(layer, transform))
    return layer


def images(channels, height, width):
    shape = (2, channels, height, width)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def centred(encrypted):
    return (torch.from_numpy(encrypted).double() / 255 - CENTRE) / SCALE


def assert_same(convolution, cipher, height, width, channels=3):
    network, plain = Normalised(channels), images(channels, height, width)
    convolution = convolution.double()
    layer = locked(convolution, network, cipher)
    with torch.no_grad():
        expected = convolution(
            (torch.from_numpy(plain).double() / 255 - network.mean) / network.std
        )
        found = layer(centred(cipher.encrypt(plain)))
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)


GEOMETRIES = {
    "ResNet": dict(kernel_size=7, stride=2, padding=3),
    "3 stride 2": dict(kernel_size=3, stride=2, padding=1),
    "3 stride 1": dict(kernel_size=3, padding=1),
    "patches of 4": dict(kernel_size=4, stride=4),
    "patches of 2": dict(kernel_size=2, stride=2),
    "overlapping patches": dict(kernel_size=7, stride=4, padding=3),
    "1 x 1": dict(kernel_size=1),
    "no bias": dict(kernel_size=7, stride=2, padding=3, bias=False),
    "dilated": dict(kernel_size=3, stride=2, padding=2, dilation=2),
    "grouped": dict(kernel_size=3, stride=2, padding=1, groups=3),
    "fewer outputs": dict(kernel_size=3, stride=2),
    "more outputs": dict(kernel_size=3, padding=2),
    "much padding": dict(kernel_size=5, stride=2, padding=9),
    "same": dict(kernel_size=5, padding="same"),
    "valid": dict(kernel_size=5, padding="valid"),
    "kernel within the stride": dict(kernel_size=2, stride=4),
    "not square": dict(kernel_size=(3, 5), stride=(1, 2), padding=(1, 2), dilation=(2, 1)),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_every_geometry_borders_included(geometry, method):
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 6, **GEOMETRIES[geometry])
    for block_size in (4, 8):
        assert_same(convolution, ciphers.from_key(method, KEY, block_size), 16, 24)


@pytest.mark.parametrize("block_size", [2, 4, 6, 16])
@pytest.mark.parametrize("method", METHODS)
def test_every_multiple_of_the_stride_and_images_of_one_block(method, block_size):
    convolution = nn.Conv2d(3, 4, 7, stride=2, padding=3)
    cipher = ciphers.from_key(method, KEY, block_size)
    for rows, columns in [(1, 1), (1, 3), (4, 2)]:
        assert_same(convolution, cipher, rows * block_size, columns * block_size)


@pytest.mark.parametrize("channels", [1, 4])
def test_other_numbers_of_channels(channels):
    cipher = ciphers.from_key("shf+np", KEY, 4, channels)
    assert_same(nn.Conv2d(channels, 4, 3, padding=1), cipher, 16, 16, channels)


def test_a_method_of_a_users_own_that_permutes_and_inverts():
    class Mirrored(ciphers.Cipher):
        method, PARTS = "mirrored", ()

        def encrypt_images(self, images):
            shape = (*images.shape[:-1], images.shape[-1] // self.block_size, self.block_size)
            return 255 - images.reshape(shape)[..., ::-1].reshape(images.shape)

    assert_same(nn.Conv2d(3, 4, 7, stride=2, padding=3), Mirrored(4, 3), 8, 16)


class Doubling(ciphers.Cipher):
    """Neither permutes nor inverts."""

    method, PARTS = "doubling", ()

    def encrypt_images(self, images):
        return images // 2 * 2


@pytest.mark.parametrize(
    "cipher",
    [ciphers.from_key("ffx", KEY, 4), ciphers.FFX(np.zeros(48), 4, b"x"), Doubling(4, 3)],
    ids=["ffx", "ffx that selects nothing", "own"],
)
def test_what_is_not_affine_is_refused(cipher):
    with pytest.raises(
        SegkeyError, match="a model cannot be locked with (FFX|DOUBLING)"
    ) as refusal:
        SignedPermutation.of(cipher)
    assert "shf, np or shf+np" in refusal.value.hint


@pytest.mark.parametrize("method", METHODS)
def test_the_signed_permutation_is_that_of_the_key_and_its_inverse_undoes_it(method):
    cipher = ciphers.from_key(method, KEY, 4)
    found = SignedPermutation.of(cipher)
    permutation = getattr(cipher, "permutation", np.arange(48))
    assert np.array_equal(found.permutation, permutation)
    assert np.array_equal(found.signs < 0, getattr(cipher, "selected", np.zeros(48, bool)))
    x = np.random.default_rng(0).normal(size=48)
    y = found.signs * x[found.permutation]
    assert np.array_equal(found.inverse.signs * y[found.inverse.permutation], x)


@pytest.mark.parametrize("method", METHODS)
def test_the_inverse_leads_back_to_the_weights_over_plain_blocks(method):
    cipher, network = ciphers.from_key(method, KEY, 4), Normalised()
    transform = SignedPermutation.of(cipher)
    convolution = nn.Conv2d(3, 4, 7, stride=2, padding=3).double()
    plain = plain_stem(convolution, network, 4, transform.moves)
    layer = locked(convolution, network, cipher)
    assert not torch.equal(layer.weight, plain.weight)
    assert torch.equal(transform_weight(layer, transform.inverse), plain.weight)
    assert layer.over_blocks().shape == (16, 3, 12, 12)
    assert torch.equal(plain.over_blocks(), plain_stem(convolution, network, 4).weight)


def test_what_is_stored_for_the_border_is_the_same_for_every_key():
    network, convolution = Normalised(), nn.Conv2d(3, 4, 7, stride=2, padding=3).double()
    keys = [Key(bytes([number] * 32)) for number in range(3)]
    for method in METHODS:
        layers = [locked(convolution, network, ciphers.from_key(method, k, 4)) for k in keys]
        for other in layers[1:]:
            assert not torch.equal(other.weight, layers[0].weight)
            assert torch.equal(other.border, layers[0].border)
            assert torch.equal(other.offset, layers[0].offset)


def test_the_border_holds_no_more_sums_than_it_needs():
    """Rows 0, then 1 and 2, then 5 and 6 of the kernel leave the image together; 3 and 4 never."""
    convolution = nn.Conv2d(3, 4, 7, stride=2, padding=3, bias=False).double()
    layer = locked(convolution, Normalised(), ciphers.from_key("np", KEY, 4))
    assert layer.rows.steps == [2, 1, 1, 0, 0, -1, -1]
    assert layer.border.shape == (4, 4, 4)
    assert torch.equal(layer.border[:, 2, 2], torch.zeros(4, dtype=torch.float64))
    constant = layer.constant(64, 64)
    inside = constant[:, 2:-1, 2:-1]
    assert torch.equal(inside, layer.offset[:, None, None].expand_as(inside))
    assert not torch.equal(constant[:, 0], constant[:, 5])


def test_without_padding_nothing_is_stored_for_the_border():
    for geometry in ("patches of 4", "valid", "fewer outputs"):
        convolution = nn.Conv2d(3, 4, **GEOMETRIES[geometry]).double()
        layer = locked(convolution, Normalised(), ciphers.from_key("np", KEY, 4))
        assert not layer.border.any()


def test_grey_of_127_5_is_left_as_it_is_by_every_key():
    """So the response to it, which anybody can compute, is no secret of any lock."""
    network, convolution = Normalised(), nn.Conv2d(3, 4, 7, stride=2, padding=3).double()
    with torch.no_grad():
        grey = torch.full((1, 3, 16, 16), 0.5, dtype=torch.float64)
        expected = convolution((grey - network.mean) / network.std)
        layer = locked(convolution, network, ciphers.from_key("shf+np", KEY, 4))
        assert torch.allclose(layer((grey - CENTRE) / SCALE), expected, atol=1e-12)


@pytest.mark.parametrize(
    "geometry, block_size, fitting",
    [
        ("ResNet", 3, "2, 4, 8, 16"),
        ("overlapping patches", 2, "4, 8"),
        ("not square", 3, "2, 4"),
    ],
)
def test_a_block_size_that_is_no_multiple_of_the_stride(geometry, block_size, fitting):
    convolution = nn.Conv2d(3, 4, **GEOMETRIES[geometry])
    with pytest.raises(SegkeyError, match=f"blocks of {block_size} pixels do not fit") as refusal:
        axes_of(convolution, block_size, whole=True)
    assert f"block sizes that fit: {fitting}" in refusal.value.hint


def test_more_than_twenty_million_weights_are_refused_and_the_sizes_that_fit_named():
    convolution = nn.Conv2d(3, 64, 7, stride=2, padding=3)
    with pytest.raises(SegkeyError, match="would have 28,311,552 weights") as refusal:
        axes_of(convolution, 16, whole=True)
    assert refusal.value.hint == "block sizes that fit: 2, 4, 8"
    axes_of(convolution, 16, whole=False)  # where values keep their places, less is needed
    with pytest.raises(SegkeyError, match="at most 20,000,000") as refusal:
        axes_of(convolution, 32, whole=False)
    assert refusal.value.hint == "block sizes that fit: 2, 4, 8, 16"


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_other_padding_is_refused_by_name(mode):
    with pytest.raises(SegkeyError, match=f"pads with '{mode}', which cannot be locked"):
        axes_of(nn.Conv2d(3, 4, 3, padding=1, padding_mode=mode), 4, whole=True)


def test_uneven_padding_is_refused():
    with pytest.raises(SegkeyError, match="pads one side more than the other"):
        axes_of(nn.Conv2d(3, 4, 4, padding="same"), 4, whole=True)


def test_the_geometry_stands_with_the_weights():
    layer = LockedConv(nn.Conv2d(3, 4, 7, stride=2, padding=3), 8, whole=True)
    rows, columns = (Axis(*fields) for fields in layer.state_dict()["geometry"].tolist())
    assert (rows, columns) == (layer.rows, layer.columns)


def test_autocast_rounds_no_constant():
    network, convolution = Normalised(), nn.Conv2d(3, 4, 7, stride=2, padding=3).double()
    layer = locked(convolution, network, ciphers.from_key("np", KEY, 4)).float()
    expected = layer.constant(16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer.constant(16, 16), expected)


# ------------------------------------------------------------------ what a lock does not hide


def locked_with_np(convolution, network, block_size):
    """A convolution locked with NP, and the signs of its key, (C, M, M)."""
    cipher = ciphers.from_key("np", KEY, block_size)
    signs = torch.from_numpy(SignedPermutation.of(cipher).signs)
    return locked(convolution, network, cipher), signs.view(-1, block_size, block_size)


def pixels_of(axis, phase):
    """Which pixel of a block each tap reads, int64 (taps,)."""
    return (torch.arange(axis.kernel) + phase * axis.stride - axis.padding) % axis.block


def phases_of(layer):
    """By phase, the taps of all filters, float (filters, C, k, k), and the pixels they read."""
    p, q = layer.rows.phases, layer.columns.phases
    weight = layer.weight.detach().view(layer.filters, p, q, *layer.weight.shape[1:])
    for i in range(p):
        for j in range(q):
            taps = weight[:, i, j][:, :, layer.rows.taps(i), layer.columns.taps(j)]
            yield taps, pixels_of(layer.rows, i), pixels_of(layer.columns, j)


def test_the_outputs_of_a_block_tell_which_signs_belong_together():
    """As `segkey.model.lock` says: one sign per channel and pixel of a stride is left to guess."""
    convolution = nn.Conv2d(3, 8, 7, stride=2, padding=3, bias=False).double()
    layer, signs = locked_with_np(convolution, Normalised(), 4)
    guessed = torch.zeros(3, 4, 4, dtype=torch.float64)
    guessed[:, :2, :2] = signs[:, :2, :2]  # the 12 that are left
    (first, rows, columns), *others = phases_of(layer)
    at = {phase: taps[0] for phase, (taps, *_) in enumerate([(first,), *others])}
    for phase, (_, down, across) in enumerate(others, 1):
        same = (at[phase] / at[0]).sign()
        for i in range(7):
            for j in range(7):
                here, there = (rows[i], columns[j]), (down[i], across[j])
                known = guessed[:, here[0], here[1]] * same[:, i, j]
                if not guessed[:, there[0], there[1]].any() and known.all():
                    guessed[:, there[0], there[1]] = known
    assert torch.equal(guessed, signs)


@pytest.mark.parametrize("block_size", [4, 8])
def test_the_border_of_a_network_that_pads_with_colour_gives_an_np_key_away(block_size):
    """As `segkey.model.lock` says; the weights alone, no image, no query."""
    network, convolution = Normalised(), nn.Conv2d(3, 16, 7, stride=2, padding=3).double()
    network.mean = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64).view(1, 3, 1, 1)
    layer, signs = locked_with_np(convolution, network, block_size)
    colour = ((CENTRE - network.mean) / SCALE).view(-1)
    lines, sums = [], []
    for taps, rows, columns in phases_of(layer):
        for r, down in enumerate(layer.rows.groups):
            for c, across in enumerate(layer.columns.groups):
                if (r, c) == (layer.rows.never_lost.start, layer.columns.never_lost.start):
                    continue
                line = torch.zeros(16, *signs.shape, dtype=torch.float64)
                for i in np.flatnonzero(np.equal(layer.rows.steps, down)):
                    for j in np.flatnonzero(np.equal(layer.columns.steps, across)):
                        line[:, :, rows[i], columns[j]] += taps[:, :, i, j] * colour
                lines.append(line.flatten(1))
                sums.append(layer.border[:, r, c])
    solved = torch.linalg.lstsq(torch.cat(lines), torch.cat(sums)[:, None], driver="gelsd").solution
    assert torch.equal(solved.view(signs.shape).sign(), signs)


def test_a_network_that_pads_with_grey_127_5_stores_nothing_for_its_border():
    network, convolution = Normalised(), nn.Conv2d(3, 4, 7, stride=2, padding=3).double()
    network.mean.fill_(CENTRE)
    layer, _ = locked_with_np(convolution, network, 4)
    assert not layer.border.any()
    assert torch.allclose(layer.offset, convolution.bias)
