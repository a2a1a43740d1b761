"""The statistics that a model stores give its key away: on planted models, whose truth is known."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from segkey import attacks
from segkey.attacks import fitted_permutation, fitted_selection, statistics, stem_moments
from segkey.attacks.layer_statistics import LayerStatistics
from segkey.attacks.stem_moments import StemMoments
from segkey.crypto import ciphers
from segkey.crypto.ciphers import Cipher
from segkey.data import scenes, sources
from segkey.model import evaluation_splits
from segkey.model.batch_norm_folding import fold_batchnorm
from segkey.model.batches import as_pixels
from segkey.model.networks import Segmenter
from segkey.model.stem import Stem, find_stem

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> torch.Tensor:
    """24 drawn scenes, uint8 (24, 3, 64, 64)."""
    folder = scenes.write(tmp_path_factory.mktemp("drawn"), train=24, val=1, test=1, size=64)
    items = sources.find(folder).splits["train"]
    from PIL import Image

    images = [np.asarray(Image.open(item.image).convert("RGB")) for item in items]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


@dataclass
class Planted:
    """A network whose statistics were gathered under a cipher: what `Target` tells an attack."""

    model: Segmenter
    cipher: Cipher
    device: torch.device = CPU
    precise: bool = False
    looked_at: int = 0

    def spend(self, images: int) -> None:
        self.looked_at += images


def planted(cipher: Cipher, images: torch.Tensor, seed: int = 0) -> Planted:
    """A network with random weights and the statistics of encrypted images, in every layer."""
    torch.manual_seed(seed)
    model = Segmenter("resnet14", 3)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the mean over all batches
    model.train()
    with torch.inference_mode(False), torch.no_grad():
        for part in images.split(12):
            model(as_pixels(cipher.encrypt(part), cipher.max_value))
    return Planted(model.eval(), cipher)


def moments_of(model: Segmenter, stem: Stem, cipher: Cipher, images: torch.Tensor) -> StemMoments:
    everything = cipher.with_parts(selected=np.ones_like(cipher.selected))
    plain, changed = (
        (as_pixels(each, cipher.max_value) - model.mean) / model.std
        for each in (images, everything.encrypt(images))
    )
    return StemMoments(stem, plain, changed, cipher.block_size)


@pytest.mark.parametrize(
    ("method", "block_size", "convolution"),
    [
        ("np", 4, nn.Conv2d(3, 8, 7, 2, 3, bias=False)),
        ("ffx", 2, nn.Conv2d(3, 8, 7, 2, 3, bias=False)),
        ("np", 8, nn.Conv2d(3, 6, 3, 2, 1, bias=True)),
        ("ffx", 4, nn.Conv2d(3, 5, 4, 4, bias=True)),
        ("np", 4, nn.Conv2d(3, 5, (3, 5), (1, 2), (0, 2), dilation=2)),
    ],
)
def test_the_closed_form_is_what_a_convolution_gives(plain, key, method, block_size, convolution):
    cipher = ciphers.from_key(method, key, block_size, 3)
    model = Segmenter("resnet14", 3)
    norm = nn.BatchNorm2d(convolution.out_channels)
    moments = moments_of(model, Stem("", convolution, norm), cipher, plain[:5])
    pixels = (as_pixels(cipher.encrypt(plain[:5]), cipher.max_value) - model.mean) / model.std
    with torch.no_grad():
        responses = nn.functional.conv2d(
            pixels,
            convolution.weight,
            None,
            convolution.stride,
            convolution.padding,
            convolution.dilation,
        )
    mean, square = moments.responses(torch.from_numpy(cipher.selected.astype(np.float32))[None])
    torch.testing.assert_close(mean[0], responses.mean((0, 2, 3)), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(square[0], responses.square().mean((0, 2, 3)), atol=1e-4, rtol=1e-3)


def test_losses_after_swaps_are_those_of_the_swapped_selections(plain, key):
    cipher = ciphers.from_key("np", key, 4, 3)
    target = planted(cipher, plain)
    moments = moments_of(target.model, find_stem(target.model), cipher, plain)
    selection = torch.zeros(48)
    selection[::2] = 1
    selected, others, losses = moments.after_swaps(selection)
    assert losses.shape == (24, 24)
    for i, j in ((0, 0), (3, 17), (23, 5)):
        swapped = selection.clone()
        swapped[selected[i]], swapped[others[j]] = 0, 1
        torch.testing.assert_close(
            losses[i, j], moments.loss(swapped[None])[0], atol=1e-3, rtol=1e-3
        )


def test_all_layers_miss_their_statistics_under_a_wrong_key_and_shallow_ones_stop_early(
    plain, key, other_key
):
    cipher = ciphers.from_key("np", key, 4, 3)
    target = planted(cipher, plain)
    wrong = ciphers.from_key("np", other_key, 4, 3)
    layers = LayerStatistics(target.model)
    with torch.inference_mode():
        right = float(layers.divergence(as_pixels(cipher.encrypt(plain), 255)))
        other = float(layers.divergence(as_pixels(wrong.encrypt(plain), 255)))
        first = float(LayerStatistics(target.model, 1).divergence(as_pixels(plain, 255)))
    assert right < 0.5 < other
    assert first > 0.01
    assert not any(m._forward_pre_hooks for m in target.model.modules())


@pytest.mark.parametrize(
    ("method", "block_size"), [("np", 2), ("np", 4), ("ffx", 4)], ids=lambda value: str(value)
)
def test_the_selection_is_found_from_other_images_than_those_of_the_training(
    plain, key, method, block_size
):
    """FFX's table is derived from the key, and stays unknown."""
    cipher = ciphers.from_key(method, key, block_size, 3)
    target = planted(cipher, plain[:12])
    found = statistics._search(target, plain[12:], seed=0).cipher
    assert np.array_equal(found.selected, cipher.selected)
    if method == "ffx":
        assert np.mean(found.values == cipher.values) < 0.05
    assert found.key_id == ""
    assert target.looked_at


def test_a_fixed_password_is_used_and_the_key_itself_is_found(plain, key):
    cipher = ciphers.from_key("ffx", key, 2, 3, b"password")
    target = planted(cipher, plain[:12])
    assert statistics._search(target, plain[12:], seed=0).cipher.same_as(cipher)


def test_a_selection_is_fitted_to_the_first_layers(plain, key, monkeypatch):
    """From other images than those of the training; FFX's table is unknown."""
    descents = fitted_selection.Descent(3, 40, 0.1), fitted_selection.Descent(4, 2, 0.01)
    monkeypatch.setattr(fitted_selection, "_DESCENTS", descents)
    cipher = ciphers.from_key("ffx", key, 2, 3)
    target = planted(cipher, plain[:12])
    unknown = statistics._unknown(cipher, 0)
    with statistics._frozen(target.model):
        found = fitted_selection.fitted_selection(
            target, plain[12:], unknown, np.random.default_rng(0)
        )
    assert np.array_equal(found.selected, cipher.selected)
    assert target.looked_at == 42 * 4


@pytest.mark.parametrize(
    ("positions", "ways"), [(12, {"stem"}), (192, {"stem", "all"}), (768, {"all"})]
)
def test_large_blocks_are_fitted_to_all_layers(monkeypatch, positions, ways):
    taken = set()
    monkeypatch.setattr(statistics, "_at_the_stem", lambda *_: [taken.add("stem")])
    monkeypatch.setattr(statistics, "fitted_selection", lambda *_: taken.add("all"))
    unknown = SimpleNamespace(selected=np.zeros(positions, bool))
    found = statistics._selections(None, None, unknown, None)
    assert taken == ways
    assert len(found) == len(ways)


def test_half_of_the_positions_are_chosen_with_the_gradient_of_a_sigmoid():
    scores = torch.tensor([0.0, 2.0, -1.0, 1.0], requires_grad=True)
    chosen = fitted_selection.halved(scores)
    (chosen * torch.tensor([1.0, 2.0, 3.0, 4.0])).sum().backward()
    assert chosen.tolist() == [0, 1, 0, 1]
    soft = scores.detach().sigmoid()
    torch.testing.assert_close(scores.grad, torch.tensor([1.0, 2, 3, 4]) * soft * (1 - soft))


def test_positions_lie_over_an_image_as_the_cipher_takes_them(plain, key):
    cipher = ciphers.from_key("np", key, 4, 3)
    pixels = as_pixels(plain[:1], 255)
    selected = torch.from_numpy(cipher.selected.astype(np.float32))
    over = fitted_selection.over_blocks(selected, cipher, pixels)
    torch.testing.assert_close(
        pixels + over * (1 - 2 * pixels), as_pixels(cipher.encrypt(plain[:1]), 255)
    )


def test_a_permutation_is_fitted_to_the_first_layers(plain, key):
    """No random one comes as near; the key itself is not found."""
    cipher = ciphers.from_key("shf", key, 4, 3)
    target = planted(cipher, plain)
    first = LayerStatistics(target.model, fitted_permutation._LAYERS)

    def divergence(permutation) -> float:
        encrypted = cipher.with_parts(permutation=permutation).encrypt(plain)
        with torch.inference_mode():
            return float(first.divergence(as_pixels(encrypted, 255)))

    found = fitted_permutation.fitted_permutations(
        target, plain, cipher.with_parts(permutation=np.arange(48)), np.random.default_rng(0)
    )[-1].permutation
    random = [divergence(np.random.default_rng(n).permutation(48)) for n in range(10)]
    assert sorted(found) == list(range(48))
    assert divergence(found) < min(random)


def test_swaps_follow_the_slopes_and_no_position_is_in_two_of_them():
    slopes = np.zeros((6, 6))
    slopes[0, 1] = slopes[1, 0] = -2
    slopes[1, 2] = slopes[2, 1] = -1.5
    slopes[2, 3] = slopes[3, 2] = -1
    start = np.array([5, 4, 3, 2, 1, 0])
    one, two = fitted_permutation.promising_swaps(start, slopes)
    assert one.tolist() == [4, 5, 3, 2, 1, 0]
    assert two.tolist() == [4, 5, 2, 3, 1, 0]
    assert fitted_permutation.promising_swaps(start, np.ones((6, 6))) == []


def test_nothing_is_found_where_nothing_was_stored(plain, key):
    """A network that was never trained stores a mean of 0 and a variance of 1, whatever the key."""
    cipher = ciphers.from_key("np", key, 4, 3)
    torch.manual_seed(0)
    found = statistics._search(Planted(Segmenter("resnet14", 3).eval(), cipher), plain, seed=0)
    assert np.mean(found.cipher.selected == cipher.selected) < 0.8


def test_a_single_image_is_enough_to_try(plain, key):
    cipher = ciphers.from_key("np", key, 4, 3)
    found = statistics._search(planted(cipher, plain), plain[:1], seed=0)
    assert found.cipher.selected.sum() == 24


def test_gradients_are_as_they_were(plain, key):
    target = planted(ciphers.from_key("np", key, 2, 3), plain[:12])
    frozen = target.model.fcn.classifier[0].weight.requires_grad_(False)
    statistics._search(target, plain[:4], seed=0)
    needing = [p.requires_grad for p in target.model.parameters() if p is not frozen]
    assert all(needing)
    assert not frozen.requires_grad


def test_sinkhorn_gives_a_doubly_stochastic_matrix():
    matrix = fitted_permutation.sinkhorn(
        torch.randn(9, 9, generator=torch.Generator().manual_seed(0)), 50
    )
    torch.testing.assert_close(matrix.sum(0), torch.ones(9), atol=1e-3, rtol=0)
    torch.testing.assert_close(matrix.sum(1), torch.ones(9), atol=1e-3, rtol=0)


def test_the_attack_scores_what_it_found_and_keeps_no_key(target):
    result = statistics.statistics(target, attacks.Budget(images=8), 0)
    assert 0 <= result.mean_iou <= 1
    assert result.details["split"] == "val"
    assert result.details["images"] == 8
    assert set(result.details["agreement"]) == {"selected"}
    assert "parts" not in result.details
    if result.details["found"]:
        assert result.mean_iou == target.correct().mean_iou


def test_photographs_of_another_kind_take_the_place_of_validation_images(
    target, attacked, tmp_path, photographs
):
    from PIL import Image

    for number, image in enumerate(photographs[:4]):
        Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "3.png").write_bytes(b"no image")
    (tmp_path / "4.png").write_bytes(b"not among the first four")
    split = evaluation_splits.photographs(target.run, tmp_path, 4)
    assert [problem.name for problem in split.problems] == ["3.png"]
    own = attacked(target.run, photographs=split)
    result = statistics.statistics(own, attacks.Budget(images=4), 0)
    assert (result.details["split"], result.details["images"]) == ("photographs", 3)
    assert not result.chosen_on_test
    assert own.settings["attackers_images"]["photographs"] == split.fingerprint


def test_a_folded_network_is_attacked_by_what_is_usual(plain, key):
    """Its normalisations began with a scale of 1 and an offset of 0, and stayed near them."""
    cipher = ciphers.from_key("np", key, 4, 3)
    target = planted(cipher, plain)
    for norm in (m for m in target.model.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.weight.data.add_(0.1 * torch.randn_like(norm.weight))
        norm.bias.data.add_(0.1 * torch.randn_like(norm.bias))
    target.model = fold_batchnorm(target.model, as_pixels(plain[:1], 255))
    assert statistics.is_folded(find_stem(target.model))
    assert statistics._obstacle(target) == ""
    assert LayerStatistics(target.model).folded
    found = statistics._search(target, plain, seed=0).cipher
    shifts = statistics._shifts(cipher.selected, find_stem(target.model), cipher)
    assert max(np.mean(found.selected == shift) for shift in shifts) > 0.8


def test_it_does_not_fit_without_statistics(target, attacked):
    assert statistics._obstacle(target) == ""
    bare = attacked(target.run)
    bare.model.fcn.backbone.bn1 = nn.Identity()
    assert "no batch normalisation follows" in statistics._obstacle(bare)
    bare.model.fcn.backbone.bn1 = nn.BatchNorm2d(64, track_running_stats=False)
    assert "stores no statistics" in statistics._obstacle(bare)


def test_channels_that_hardly_vary_do_not_decide():
    """As in pretrained networks, some of whose filters are dead."""
    mean = torch.tensor([0.0, 0.0])
    stored = torch.tensor([0.0, 0.001]), torch.tensor([1.0, 1e-19])
    found = stem_moments.gaussian_divergence(mean, torch.tensor([2.0, 1e-12]), *stored, 1e-3)
    assert found[1] < 1e-3 < found[0]


def test_kicks_reach_a_lower_divergence_than_descent_alone(plain, key):
    """The optimum that swaps of two positions lead to is not the best there is."""
    cipher = ciphers.from_key("np", key, 4, 3)
    target = planted(cipher, plain[:12])
    moments = moments_of(target.model, find_stem(target.model), cipher, plain[12:])
    start = torch.zeros(48)
    start[:24] = 1.0  # no descent at all
    climbed = statistics.climb(moments, start)
    loss, selection = statistics.kicked(moments, *climbed, np.random.default_rng(0))
    assert loss < climbed[0]
    assert loss == pytest.approx(float(moments.loss(selection[None])), rel=1e-3)
    assert int(selection.sum()) == 24
