"""The ciphers as modules: the code for tensors on a device, torchvision, nobody's randomness
disturbed."""

import copy
import math
import random

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from segkey.crypto import ciphers, torchvision_transforms
from segkey.crypto.keys import Key
from segkey.errors import SegkeyError

KEY = Key(bytes(range(32)))
METHODS = ["none", "shf", "np", "ffx", "shf+np"]

every_method = pytest.mark.parametrize("method", METHODS)


def picture(*shape):
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


LAYOUTS = {
    "CHW": picture(3, 8, 12),
    "NCHW": picture(2, 3, 8, 12),
    "ABCHW": picture(2, 2, 3, 4, 4),
    "channels last": picture(2, 8, 8, 3).permute(0, 3, 1, 2),
    "strided": picture(2, 3, 16, 16)[..., ::2, ::2],
    "expanded": picture(3, 8, 8).expand(2, 3, 8, 8),
}


# `encrypt` sends tensors on the CPU to NumPy's kernels; `encrypt_images` is for those on a GPU.
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("block_size", [1, 2, 4])
@every_method
def test_device_path_equals_numpy(method, block_size, layout):
    images, cipher = LAYOUTS[layout], ciphers.from_key(method, KEY, block_size)
    before, encrypted = images.clone(), cipher.encrypt_images(images)
    assert encrypted.dtype == getattr(torch, cipher.dtype)
    assert encrypted.data_ptr() != images.data_ptr()
    assert np.array_equal(encrypted.numpy(), cipher.encrypt(images.numpy()))
    turned = (
        encrypted.transpose(-1, -2).contiguous().transpose(-1, -2)
    )  # the way back, not contiguous
    decrypted = cipher.decrypt_images(turned)
    assert decrypted.dtype == torch.uint8
    assert torch.equal(decrypted, images)
    assert torch.equal(images, before)


@pytest.mark.parametrize("value", [999, 1000, 1500, 5000])
def test_device_path_refuses_impossible_ffx_values(value):
    encrypted = torch.full((3, 2, 2), value, dtype=torch.int16).view(torch.uint16)
    with pytest.raises(SegkeyError, match="cannot have made"):
        ciphers.from_key("ffx", KEY, 2).decrypt_images(encrypted)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@every_method
def test_cuda_equals_the_cpu(method):
    images, transform = LAYOUTS["NCHW"], torchvision_transforms.from_key(method, KEY, 4)
    encrypted = transform(images.cuda())
    assert encrypted.is_cuda
    assert np.array_equal(encrypted.cpu().numpy(), transform(images).numpy())
    assert torch.equal(transform.decrypt(encrypted).cpu(), images)


@every_method
def test_fits_a_torchvision_compose(method):
    transform = torchvision_transforms.from_key(method, KEY, 4)
    divide = v2.Lambda(lambda images: images.float() / transform.max_value)
    images = picture(2, 3, 12, 12)
    ready = v2.Compose([v2.CenterCrop(8), transform, divide])(images)
    encrypted = ciphers.from_key(method, KEY, 4).encrypt(images[..., 2:10, 2:10].numpy())
    assert np.array_equal(ready.numpy(), encrypted.astype(np.float32) / transform.max_value)
    assert ready.min() >= 0
    assert ready.max() <= 1


@every_method
def test_is_a_module_that_learns_and_stores_nothing(method):
    images, transform = LAYOUTS["NCHW"], torchvision_transforms.from_key(method, KEY, 4)
    assert torch.equal(transform.decrypt(transform(images)), images)
    # Nothing of the key gets into the checkpoint of a model that holds a transform.
    model = torch.nn.Sequential(transform)
    assert not [*model.parameters(), *model.buffers()]
    assert not model.state_dict()
    assert np.array_equal(copy.deepcopy(model)(images).numpy(), transform(images).numpy())
    assert repr(transform) == f"BlockTransform({transform.cipher!r})"
    assert "secret" not in repr(transform)


@pytest.mark.parametrize("container", [np.asarray, torch.as_tensor, np.ndarray.tolist])
def test_explicit_permutation_and_selection(container):
    images, selected = picture(2, 3, 4, 8), ciphers.from_key("np", KEY, 2).selected
    shuffle = torchvision_transforms.Shuffle(container(KEY.permutation("shf", 2, 3)), 2)
    negative = torchvision_transforms.NegativePositive(container(selected), 2)
    feistel = torchvision_transforms.FFX(container(selected), 2, b"fixed")
    assert torch.equal(shuffle(images), torchvision_transforms.from_key("shf", KEY, 2)(images))
    assert torch.equal(negative(images), torchvision_transforms.from_key("np", KEY, 2)(images))
    places = np.tile(selected.reshape(3, 2, 2), (2, 1, 2, 4))
    expected = np.where(places, feistel.cipher.values[images.numpy()], images.numpy())
    assert np.array_equal(feistel(images).numpy(), expected)
    assert all(torch.equal(t.decrypt(t(images)), images) for t in (shuffle, negative, feistel))


@pytest.mark.parametrize(
    "method, largest, ways", [("none", 255, 1), ("np", 255, 924), ("ffx", 998, 2**256)]
)
def test_tells_its_largest_value_and_key_space(method, largest, ways):
    transform = torchvision_transforms.from_key(method, KEY, 2)
    assert transform.max_value == largest
    assert transform.key_space_bits == pytest.approx(math.log2(ways))


def test_global_random_states_stay_as_they_are():
    def states():
        return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()

    torch.rand(1), np.random.rand(), random.random()  # away from the state that seeding leaves
    before = states()
    Key.generate()
    for method in METHODS:
        transform = torchvision_transforms.from_key(method, KEY, 2)
        transform.decrypt(transform(LAYOUTS["CHW"]))
    assert states() == before
