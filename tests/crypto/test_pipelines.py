"""The transforms in other people's pipelines: torchvision v2, Pillow, DataLoader, threads."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from segkey.crypto import ciphers, torchvision_transforms
from segkey.crypto.keys import Key

KEY = Key(bytes(range(32)))
METHODS = ["shf", "np", "ffx"]

every_method = pytest.mark.parametrize("method", METHODS)


def pixels(*shape):
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


def encrypted(method, images, channels=3):
    return ciphers.from_key(method, KEY, 4, channels).encrypt(images)


def same(a, b):
    return torch.equal(torch.as_tensor(a).long(), torch.as_tensor(b).long())


@every_method
@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3), ("RGBA", 4)])
def test_pillow_images_become_pillow_images_if_their_values_fit(method, mode, channels):
    image = pixels(channels, 8, 12)
    picture = v2.functional.to_pil_image(image, mode)
    made = torchvision_transforms.from_key(method, KEY, 4, channels)(picture)
    if method == "ffx":
        assert isinstance(made, tv_tensors.Image)
        assert made.dtype == torch.uint16
    else:
        assert isinstance(made, Image.Image)
        assert made.mode == mode
        made = v2.functional.pil_to_tensor(made)
    assert same(made, encrypted(method, image, channels))


@pytest.mark.parametrize("mode", ["P", "1", "I", "F", "L", "RGBA"])
def test_pillow_images_of_other_modes_are_refused_with_the_cure(mode):
    with pytest.raises(ValueError, match=rf"mode {mode} .*convert\('RGB'\)"):
        torchvision_transforms.from_key("np", KEY, 4)(Image.new(mode, (8, 8)))


@every_method
@pytest.mark.parametrize("kind", [tv_tensors.Image, tv_tensors.Video])
def test_tv_tensors_keep_their_type(method, kind):
    images = pixels(2, 3, 8, 8)
    made = torchvision_transforms.from_key(method, KEY, 4, dtype=torch.float32)(kind(images))
    assert type(made) is kind
    cipher = ciphers.from_key(method, KEY, 4)
    expected = ciphers.signed(cipher.encrypt(images)).float() / cipher.max_value
    assert torch.equal(made.as_subclass(torch.Tensor), expected)
    assert made.min() >= 0
    assert made.max() <= 1
    integers = torchvision_transforms.from_key(method, KEY, 4)(tv_tensors.Image(images))
    assert isinstance(integers, tv_tensors.Image)
    assert same(integers, cipher.encrypt(images))


@every_method
def test_nested_samples_inside_compose(method):
    image, mask = tv_tensors.Image(pixels(3, 16, 16)), tv_tensors.Mask(pixels(16, 16))
    sample = {"image": image, "target": [mask, {"label": 3, "extra": torch.ones(3)}], "name": "a"}
    turned = v2.RandomHorizontalFlip(1)
    made = v2.Compose([turned, torchvision_transforms.from_key(method, KEY, 4)])(sample)
    assert same(made["image"], encrypted(method, image.flip(-1)))
    assert type(made["target"][0]) is tv_tensors.Mask
    assert torch.equal(made["target"][0], mask.flip(-1))
    assert made["target"][1]["label"] == 3
    assert torch.equal(made["target"][1]["extra"], torch.ones(3))
    assert made["name"] == "a"


def test_of_plain_tensors_the_first_is_the_image():
    image, mask = pixels(3, 8, 8), pixels(8, 8)
    made, same_mask = torchvision_transforms.from_key("np", KEY, 4)(image, mask)
    assert same(made, encrypted("np", image))
    assert same_mask is mask


@pytest.mark.parametrize(
    "sample", [np.zeros((8, 8, 3), np.uint8), {"name": "a"}, [tv_tensors.Mask(pixels(8, 8))], ()]
)
def test_a_sample_without_an_image_is_refused_and_not_passed_on(sample):
    with pytest.raises(TypeError, match="no image to encrypt"):
        torchvision_transforms.from_key("np", KEY, 4)(sample)


def test_images_that_were_scaled_before_are_refused():
    image = tv_tensors.Image(pixels(3, 8, 8))
    chain = v2.Compose(
        [v2.ToDtype(torch.float32, scale=True), torchvision_transforms.from_key("np", KEY, 4)]
    )
    with pytest.raises(TypeError, match="takes uint8 images here, not float32"):
        chain(image)


# FFX makes values above 255, which uint16's largest value must not divide.


@every_method
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, None])
@pytest.mark.parametrize("wrapped", [True, False])
def test_scaling_afterwards_is_right_or_an_error(method, dtype, wrapped):
    image, cipher = pixels(3, 8, 8), ciphers.from_key(method, KEY, 4)
    chain = v2.Compose(
        [
            torchvision_transforms.from_key(method, KEY, 4, dtype=dtype),
            v2.RandomHorizontalFlip(0.0),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )
    made = chain(tv_tensors.Image(image) if wrapped else image)
    expected = ciphers.signed(cipher.encrypt(image)).float() / cipher.max_value
    atol = 1e-3 if dtype == torch.float16 else 1e-7
    assert torch.allclose(made.as_subclass(torch.Tensor), expected, atol=atol)
    assert type(made) is not torchvision_transforms.EncryptedImage


def test_an_image_of_ffx_is_never_scaled_by_a_wrong_value():
    image = torchvision_transforms.from_key("ffx", KEY, 4)(pixels(3, 8, 8))
    assert image.max_value == image.clone().max_value == ciphers.from_key("ffx", KEY, 4).max_value
    with pytest.raises(ValueError, match=r"cannot be scaled to torch.uint8.*dtype=torch.float32"):
        v2.functional.to_dtype(image, torch.uint8, scale=True)
    image.max_value = None
    with pytest.raises(ValueError, match="an unknown maximum"):
        v2.functional.to_dtype(image, torch.float32, scale=True)
    whole = v2.functional.to_dtype(image, torch.int32)  # not scaled
    assert same(whole, image)


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_of_a_loader_know_what_to_be_divided_by(workers):
    data = Images(torchvision_transforms.from_key("ffx", KEY, 4))
    cipher = ciphers.from_key("ffx", KEY, 4)
    expected = ciphers.signed(cipher.encrypt(data.images)).float() / cipher.max_value
    start = "fork" if workers else None
    loader = DataLoader(data, batch_size=8, num_workers=workers, multiprocessing_context=start)
    (batch,) = loader
    scaled = v2.ToDtype(torch.float32, scale=True)
    for part in (slice(None), slice(2, 4), 3):
        made = scaled(batch["image"][part])
        assert type(made) is tv_tensors.Image
        assert torch.allclose(made.as_subclass(torch.Tensor), expected[part])
    for part, wanted in zip(batch["image"].flip(-1), expected.flip(-1), strict=True):
        assert torch.allclose(scaled(part).as_subclass(torch.Tensor), wanted)
    other = torchvision_transforms.EncryptedImage.of(batch["image"].as_subclass(torch.Tensor), 77)
    with pytest.raises(ValueError, match="an unknown maximum"):
        scaled(torch.cat([batch["image"], other]))
    assert type(batch["image"].float()) is torch.Tensor


def test_whole_types_are_no_float_output():
    with pytest.raises(TypeError, match="floating-point type, not torch.int64"):
        torchvision_transforms.from_key("ffx", KEY, 4, dtype=torch.int64)


class Images(Dataset):
    def __init__(self, transform):
        self.transform, self.images = transform, pixels(8, 3, 16, 16)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        sample = {"image": tv_tensors.Image(self.images[index]), "label": index}
        return self.transform(sample)


@every_method
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_of_a_data_loader(method, start):
    if start == "spawn" and method != "ffx":
        pytest.skip("one method is enough: starting processes takes seconds")
    data = Images(torchvision_transforms.from_key(method, KEY, 4, dtype=torch.float32))
    loader = DataLoader(data, batch_size=4, num_workers=2, multiprocessing_context=start)
    batches = list(loader)
    cipher = ciphers.from_key(method, KEY, 4)
    made = torch.cat([batch["image"] for batch in batches])
    expected = ciphers.signed(cipher.encrypt(data.images)).float() / cipher.max_value
    assert torch.equal(made, expected)
    assert torch.cat([batch["label"] for batch in batches]).tolist() == list(range(8))


@every_method
def test_threads_may_share_a_transform(method):
    """With more sizes than a cipher remembers, so that tables come and go."""
    transform = torchvision_transforms.from_key(method, KEY, 4)
    sizes = [(4 * (1 + n % 23), 4 * (1 + n % 7)) for n in range(400)]
    images = {size: pixels(3, *size) for size in set(sizes)}
    single = torchvision_transforms.from_key(method, KEY, 4)
    expected = {size: single(image) for size, image in images.items()}
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda size: transform(images[size]), sizes))
    assert all(same(a, expected[size]) for a, size in zip(made, sizes, strict=True))


def test_the_repr_of_a_transform_shows_no_secret():
    for method in METHODS:
        shown = repr(torchvision_transforms.from_key(method, KEY, 2, dtype=torch.float32))
        assert "block_size=2, channels=3" in shown
        assert "dtype=torch.float32" in shown
        assert "[" not in shown
