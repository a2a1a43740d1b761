"""What users give as an image: every kind becomes the same pixels, and what is none is named."""

import numpy as np
import pytest
import torch
from PIL import Image

from segkey.errors import SegkeyError
from segkey.model.input_images import are_many, is_tensor, upright

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)


def tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.atleast_3d(pixels).transpose(2, 0, 1)))


def read(image, **how) -> np.ndarray:
    return np.asarray(upright(image, **how))


@pytest.fixture
def file(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_every_kind_of_image_gives_the_same_pixels(file):
    kinds = [
        file,
        str(file),
        Image.open(file),
        PIXELS,
        PIXELS[:, ::-1][:, ::-1],  # a view with steps of its own
        np.asfortranarray(PIXELS),
        tensor(PIXELS),
        tensor(PIXELS).float() / 255,
        (tensor(PIXELS).double() / 255).requires_grad_(),
        tensor(PIXELS)[:, :, :].permute(0, 2, 1).contiguous().permute(0, 2, 1),
    ]
    for kind in kinds:
        made = upright(kind)
        assert made.mode == "RGB"
        assert np.array_equal(np.asarray(made), PIXELS)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_all_256_values_come_back_from_0_to_1(dtype):
    made = read((tensor(GREY).double() / 255).to(dtype))
    assert np.array_equal(made, np.stack([GREY] * 3, -1))


def test_bfloat16_keeps_what_its_eight_bits_hold():
    given = (tensor(GREY).double() / 255).to(torch.bfloat16)
    expected = np.rint(given.double().numpy()[0] * 255)
    assert np.array_equal(read(given)[..., 0], expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_images_have_the_channels_of_the_network(channels):
    for kind in (GREY, tensor(GREY), Image.fromarray(GREY)):
        made = read(kind, channels=channels)
        assert np.array_equal(made, GREY if channels == 1 else np.stack([GREY] * 3, -1))


@pytest.mark.parametrize("turned", range(1, 9))
def test_photographs_are_turned_upright(tmp_path, turned):
    exif = Image.Exif()
    exif[0x0112] = turned
    ways = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.rot90(a.transpose(1, 0, 2), 2),
        8: lambda a: np.rot90(a, 1),
    }
    Image.fromarray(PIXELS).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read(tmp_path / "a.png"), ways[turned](PIXELS))


NONE = {
    "None": (None, "a value of type NoneType is not an image"),
    "a number": (5, "a value of type int is not an image"),
    "bytes": (b"x", "a value of type bytes is not an image"),
    "an empty path": ("", "not a file"),
    "an empty array": (PIXELS[:0], "an image of 0x7 has no pixels"),
    "an empty grey array": (GREY[:, :0], "an image of 16x0 has no pixels"),
    "an empty image": (Image.new("RGB", (0, 4)), "an image of 4x0 has no pixels"),
    "an empty tensor": (torch.zeros(3, 0, 4), "an image of 0x4 has no pixels"),
    "an empty tensor of bytes": (tensor(PIXELS)[:, :0], "an image of 0x7 has no pixels"),
    "float array": (PIXELS / 255, r"an array of type float64 and shape \(5, 7, 3\)"),
    "bool array": (GREY > 3, "an array of type bool"),
    "one channel last": (GREY[..., None], r"shape \(16, 16, 1\) is not an image"),
    "channels first": (PIXELS.transpose(2, 0, 1), r"shape \(3, 5, 7\) is not an image"),
    "a batch": (PIXELS[None], r"shape \(1, 5, 7, 3\)"),
    "no dimension": (np.uint8(3) * np.ones((), np.uint8), "is not an image"),
    "a matrix": (torch.zeros(4, 4), r"a tensor of shape \(4, 4\) is not an image"),
    "two channels": (torch.zeros(2, 4, 4), "a tensor of shape"),
    "numbers of 64 bits": (torch.zeros(3, 4, 4, dtype=torch.int64), "an array of type int64"),
    "not a number": (torch.full((3, 2, 2), torch.nan), "values from nan to nan"),
    "normalised": (torch.full((3, 2, 2), -0.5), "values from -0.5 to -0.5"),
    "0 to 255": (tensor(PIXELS).float(), "values from"),
    "floating-point pixels": (Image.new("F", (4, 4)), "no known range"),
}


@pytest.mark.parametrize("kind", NONE)
def test_what_is_no_image_is_named_with_what_to_give(kind):
    image, what = NONE[kind]
    with pytest.raises(SegkeyError, match=what) as refused:
        upright(image)
    assert refused.value.hint or kind == "an empty path"


def test_several_images_are_a_list_or_a_batch_in_one_tensor():
    assert are_many([PIXELS])
    assert are_many(())
    assert are_many(torch.zeros(1, 3, 4, 4))
    assert not are_many(torch.zeros(3, 4, 4))
    assert not are_many(PIXELS[None])
    assert not are_many("a.png")
    assert is_tensor(torch.zeros(1))
    assert not is_tensor(PIXELS)
