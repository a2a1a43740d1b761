"""``segkey export``: a run as one ONNX file, compared with PyTorch on images before it is written.

The graph takes pixels 0 … 1 of encrypted images and normalises them itself. Encryption stays
outside of it, so that the file holds nothing of the key.
"""

import contextlib
import io
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from segkey.crypto import age
from segkey.crypto.ciphers import Cipher
from segkey.data import augment, decode, scenes, sources
from segkey.data.items import ALL
from segkey.errors import SegkeyError
from segkey.model import leakage, package_versions, sealed_runs, tiling
from segkey.model.batches import as_pixels
from segkey.model.network_registry import in_a_line
from segkey.model.networks import Segmenter
from segkey.model.onnx_file import INPUT, MOST_BYTES, OUTPUT, Exported, OnnxFile, with_property
from segkey.model.onnx_model import OnnxModel
from segkey.model.runs import Run
from segkey.shards import open_splits
from segkey.shards.header import needed_of_images
from segkey.system.files import is_there, make_folder, written_whole

OPSET = 18
LEAST_EQUAL = 0.999  # of the pixels whose class must be the same
_IMAGES = 8  # that are compared
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Images:
    """What the file is compared on.

    Attributes:
        pixels: uint8 or uint16 (N, C, h, w), as the network is fed.
        divided_by: what makes them 0 … 1.
        origin: where they come from, in words.
        real: whether they are images of the user's.
    """

    pixels: np.ndarray
    divided_by: int
    origin: str
    real: bool


@dataclass(frozen=True)
class Export:
    """An exported file.

    Attributes:
        path, bytes: the file and its size.
        exported: what it says of itself.
        recipients: for whom it is sealed; empty if it is not.
        equal: the share of pixels with the same class as in PyTorch.
        compared: on what.
    """

    path: Path
    bytes: int
    exported: Exported
    recipients: tuple[str, ...]
    equal: float
    compared: Images


def export(
    run: Run,
    out: Path | None = None,
    images: Path | None = None,
    cipher: Cipher | None = None,
    recipients: Sequence[str] = (),
    force: bool = False,
) -> Export:
    """Write a run as an ONNX file that predicts without PyTorch.

    Args:
        run: any run; of a sealed one, which has been given its key (`Run.unlock`), the file is
            sealed for the same recipients unless others are given.
        out: the file; ``NAME.onnx``, or ``NAME.onnx.age`` if it is sealed, if not given.
        images: compare on these; on the run's own shards, if not given, or on drawn scenes.
        cipher: encrypts plain images before they are compared.
        recipients: public texts ``age1…``; seal the file for these, so that it is never written
            unencrypted.
        force: replace a file.

    Raises:
        SegkeyError: ONNX packages are missing, the network cannot be exported, or its classes
            differ from PyTorch's in more than 0.1 % of the pixels. Nothing is written then.
    """
    _require_packages()
    chosen = sealed_runs.sealed_as_made_of(run, recipients)
    path = out or Path(f"{run.name}.onnx" + sealed_runs.SUFFIX * bool(chosen))
    if is_there(path) and not force:
        raise SegkeyError(f"{path} already exists", "choose another --out, or use --force")
    network, compared = run.load_model(CPU), _images(run, images, cipher)
    data, described, equal = _graph(run, network, compared)
    whole = with_property(data, described)
    if len(whole) > MOST_BYTES:
        raise SegkeyError(
            f"{run.name} takes {len(whole) >> 20} MB, and an ONNX file has at most 2 GB",
            "train a smaller network",
        )
    readers = chosen.recipients if chosen else ()
    if readers:
        whole = age.encrypted(whole, readers)
    make_folder(path.parent)
    with written_whole(path, replace=force) as file:
        file.write(whole)
    return Export(path, len(whole), described, tuple(readers), equal, compared)


def _require_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise SegkeyError(
            f"export needs the package {error.name}, which is not installed",
            "pip install 'segkey[onnx]'",
        ) from None


# ------------------------------------------------------------------ graph


def _graph(run: Run, network: Segmenter, compared: Images) -> tuple[bytes, Exported, float]:
    """The first graph that computes what the network does: for any size, or for its own.

    Raises:
        SegkeyError: none does.
    """
    said = []
    for any_size, exporter in _ways():
        try:
            data = exporter(network, _example(network, compared), any_size)
            described = _described(run, network, any_size)
            equal = _equal(network, with_property(data, described), run, compared)
            if equal >= LEAST_EQUAL:
                return data, described, equal
            said.append(f"{equal:.2%} of the pixels have the same class as in PyTorch")
        except Exception as error:  # of torch's exporters, or of ONNX Runtime
            said.append(error.what if isinstance(error, SegkeyError) else in_a_line(error))
    raise SegkeyError(
        f"network {network.name} cannot be exported: {said[-1]}",
        "take another --network; 'segkey predict' works with the run itself",
    )


def _ways() -> Iterator[tuple[bool, Callable[[Segmenter, Tensor, bool], bytes]]]:
    # Tracing takes a second where torch.export takes half a minute, and needs no package; the
    # comparison finds what it cannot follow.
    for any_size in (True, False):
        for exporter in (_traced, _by_torch_export):
            yield any_size, exporter


def _traced(network: Segmenter, example: Tensor, any_size: bool) -> bytes:
    axes = {0: "images"} | ({2: "height", 3: "width"} if any_size else {})
    file = io.BytesIO()
    with warnings.catch_warnings(), torch.inference_mode(), _silent():
        warnings.simplefilter("ignore")  # of what depends on the size: the comparison tells
        torch.onnx.export(
            network,
            (example,),
            file,
            dynamo=False,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes={INPUT: axes, OUTPUT: axes},
            opset_version=OPSET,
        )
    return file.getvalue()


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Nothing on stdout: of what it cannot trace, torch prints the whole graph, and from C++."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        with tempfile.TemporaryFile() as nowhere:
            os.dup2(nowhere.fileno(), 1)
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _by_torch_export(network: Segmenter, example: Tensor, any_size: bool) -> bytes:
    free = torch.export.Dim.DYNAMIC
    axes = {0: free} | ({2: free, 3: free} if any_size else {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=(axes,),
            external_data=False,
            opset_version=OPSET,
            verbose=False,
        )
    return program.model_proto.SerializeToString()


def _example(network: Segmenter, compared: Images) -> Tensor:
    """Two images, as one would be taken for a batch that is always of one."""
    return _pixels(np.resize(compared.pixels[:2], (2, *compared.pixels.shape[1:])), compared)


def _described(run: Run, network: Segmenter, any_size: bool) -> Exported:
    header = run.header
    return Exported(
        run=run.name,
        created=package_versions.now(),
        versions=package_versions.versions(),
        network=network.name,
        **needed_of_images(header),
        pixel_range=header.pixel_range,
        size=run.size,
        mean=tuple(network.description["mean"]),
        std=tuple(network.description["std"]),
        any_size=any_size,
        multiple=tiling.needed_multiple(header.block_size, network.multiple),
        opset=OPSET,
        weights_sha256=run.configuration.weights_sha256,
    )


# ------------------------------------------------------------------ comparison


def _equal(network: Segmenter, data: bytes, run: Run, compared: Images) -> float:
    """The share of pixels with the same class; of other sizes and batches too, if they differ."""
    model = OnnxModel(OnnxFile(run.path / "exported.onnx", data), "cpu")
    tried = [compared.pixels, compared.pixels[:1]]
    if model.fixed is None:
        tried.append(_larger(compared.pixels[:1], model.multiple))
    same = [_same(network, model, each, compared) for each in tried]
    return min(same)


def _same(network: Segmenter, model: OnnxModel, pixels: np.ndarray, compared: Images) -> float:
    made = model.logits(pixels, compared.divided_by).argmax(1)
    with torch.inference_mode():
        wanted = network(_pixels(pixels, compared)).argmax(1).numpy()
    return float((made == wanted).mean())


def _larger(images: np.ndarray, multiple: int) -> np.ndarray:
    """Images of another size, higher and wider by different steps."""
    more = ((0, 0), (0, 0), (0, multiple), (0, 3 * multiple))
    return np.pad(images, more, mode="wrap")


def _pixels(images: np.ndarray, compared: Images) -> Tensor:
    return as_pixels(torch.from_numpy(images), compared.divided_by)


def _images(run: Run, given: Path | None, cipher: Cipher | None) -> Images:
    """Images to compare on: those given, some of the run's own shards, or drawn ones."""
    if given:
        source = sources.find_pictures(given)
        items = source.splits[ALL][:_IMAGES]
        header = run.header
        pictures = [
            decode.load_image(item.image, header.range_of_pixels, channels=header.channels)
            for item in items
        ]
        plain = np.stack([augment.as_array(each, run.size, is_image=True) for each in pictures])
        return _fed(plain, cipher, str(given), True)
    return _of_own_shards(run, cipher) or _fed(_drawn(run), cipher, "drawn scenes", False)


def _of_own_shards(run: Run, cipher: Cipher | None) -> Images | None:
    """Images of the run's shards, those of the test split if it is there; None if none are."""
    try:
        splits = open_splits(leakage.own_shards(run))
    except SegkeyError:
        return None
    name = next((n for n in ("test", "val", "train") if n in splits), None)
    if name is None or splits[name].size != run.size:
        return None
    split = splits[name]
    pixels = split.read_batch("images", np.arange(min(_IMAGES, len(split))))
    origin = f"the split {name} of the run's shards"
    if split.header.method == "none":
        return _fed(pixels, cipher, origin, True)
    return Images(pixels, split.header.max_value, origin, True)


def _fed(plain: np.ndarray, cipher: Cipher | None, origin: str, real: bool) -> Images:
    if cipher is None:
        return Images(plain, 255, origin, real)
    return Images(cipher.encrypt(plain), cipher.max_value, f"{origin}, encrypted", real)


def _drawn(run: Run) -> np.ndarray:
    """uint8 (N, C, h, w): built-in scenes, their channels repeated if the network takes more."""
    side = max(*run.size, 32)
    drawn = [scenes.draw(0, number, side)[0].transpose(2, 0, 1) for number in range(_IMAGES)]
    channels = np.arange(run.header.channels) % 3
    height, width = run.size
    return np.ascontiguousarray(np.stack(drawn)[:, channels, :height, :width])
