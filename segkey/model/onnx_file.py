"""The file that ``segkey export`` makes, ``segkey-onnx-v1``: an ONNX graph and its origin.

Read without the package onnx: of an ONNX file only its list of metadata is looked at, before the
file is given to ONNX Runtime. A sealed file is the same bytes in an age file. See
segkey/FORMATS.md.
"""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from segkey.crypto import age
from segkey.crypto.age import Identity
from segkey.crypto.ciphers import METHODS
from segkey.crypto.keys import Key
from segkey.data.decode import MAX_PIXELS
from segkey.errors import SegkeyError
from segkey.model.network_registry import MAX_CHANNELS
from segkey.model.network_registry import NAME as NETWORK_NAME
from segkey.model.run_names import NAME as RUN_NAME
from segkey.shards.header import (
    KEY_ID,
    MAX_BLOCK,
    PASSWORD_HASH,
    PIXEL_RANGE,
    Header,
    needed_of_images,
)
from segkey.system import json_records
from segkey.system.files import explain_os_errors, open_regular
from segkey.system.json_files import finite
from segkey.system.json_records import Misfit, stated
from segkey.system.validators import (
    HEX_64,
    NAME,
    YES_OR_NO,
    many,
    named,
    number,
    or_none,
    pattern,
    text,
    whole,
)

FORMAT = "segkey-onnx-v1"
PROPERTY = "segkey"  # the name of our metadata in the file
INPUT, OUTPUT = "pixels", "logits"
MOST_BYTES = (1 << 31) - 1  # of a protobuf message
_MOST_TEXT = 1 << 20
_AGE = b"age-encryption.org/"
_METADATA = 14  # the field of ModelProto that holds key and value, in fields 1 and 2


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What an exported file says of itself: all that prediction rests on, and never the key.

    Attributes:
        run: the name of the run.
        created, versions: when and with what it was exported.
        network: its name.
        method, block_size, channels, max_value, key_id, password_hash, classes, ignore_index,
            pixel_range: as in `segkey.shards.Header`.
        size: (H, W) of the images it was trained on.
        mean, std: that the graph normalises pixels 0 … 1 by itself.
        any_size: whether the graph takes other sizes; only ``size``, if not.
        multiple: what other sizes must be multiples of.
        opset: of ONNX.
        weights_sha256: checksum of the run's weights.
    """

    format: str = stated(text(100), default=FORMAT)
    run: str = stated(pattern(RUN_NAME.pattern, "letters, digits, '.', '_' and '-'"))
    created: str = stated(text(40))
    versions: dict[str, str] = stated(named(text(100), 50))
    network: str = stated(pattern(NETWORK_NAME.pattern, "a network's name"))
    method: str = stated(text(64, 1))
    block_size: int = stated(whole(1, MAX_BLOCK))
    channels: int = stated(whole(1, MAX_CHANNELS))
    max_value: int = stated(whole(1, 65535))
    key_id: str = stated(KEY_ID)
    password_hash: str = stated(PASSWORD_HASH, default="")
    classes: tuple[str, ...] = stated(many(NAME, 255, 1))
    ignore_index: int = stated(whole(0, 255))
    pixel_range: str = stated(PIXEL_RANGE, default="")
    size: tuple[int, int] = stated(many(whole(1, 1 << 16), 2, 2))
    mean: tuple[float, ...] = stated(many(number(-100, 100), MAX_CHANNELS, 1))
    std: tuple[float, ...] = stated(many(number(0, 100, above=True), MAX_CHANNELS, 1))
    any_size: bool = stated(YES_OR_NO)
    multiple: int = stated(whole(1, 1 << 16))
    opset: int = stated(whole(1, 1000))
    weights_sha256: str | None = stated(or_none(HEX_64), default=None)
    unknown: dict = json_records.unknown_fields()

    @property
    def header(self) -> Header:
        """As a shard would say it."""
        return Header("train", **needed_of_images(self), pixel_range=self.pixel_range)

    @property
    def text(self) -> str:
        """As it stands in the file."""
        return json.dumps(json_records.as_json(self), ensure_ascii=False, allow_nan=False)


def read(document: str) -> Exported:
    """What the metadata of a file say; untrusted.

    Raises:
        Misfit: no JSON, or a field that cannot be.
        SegkeyError: another version of the format, or a method that is not known here.
    """
    try:
        found = finite(json.loads(document))
    except (ValueError, RecursionError):
        raise Misfit("they are no JSON") from None
    if isinstance(found, dict) and found.get("format") != FORMAT:
        raise SegkeyError(
            f"it has the format {str(found.get('format'))[:40]!r}, this segkey reads {FORMAT!r}",
            "upgrade segkey: pip install --upgrade segkey",
        )
    made = json_records.read(Exported, found)
    if problem := made.header.complaint():
        raise Misfit(problem)
    (height, width), m = made.size, made.block_size
    if height * width > MAX_PIXELS or height % m or width % m or made.multiple % m:
        raise Misfit(f"'size' and 'multiple' do not fit blocks of {m}, or are too large")
    if len(made.mean) != made.channels or len(made.std) != made.channels:
        raise Misfit("'mean' and 'std' are for another number of channels")
    if made.method not in METHODS:
        raise SegkeyError(
            f"it needs the method '{made.method}', which is not known here",
            "name the file that defines it in SEGKEY_PLUGINS",
        )
    return made


class OnnxFile:
    """An exported file, in memory.

    Attributes:
        path: where it lies.
        is_sealed: whether it has to be opened with `unlock` first.
        data: the ONNX model.
    """

    def __init__(self, path: Path, data: bytes):
        self.path, self.data = path, data
        self.is_sealed = data.startswith(_AGE)
        self._exported = None if self.is_sealed else _exported(path, data)

    @classmethod
    def open(cls, path: str | Path) -> "OnnxFile":
        """Read a file that the user named.

        Raises:
            SegkeyError: no such file, too large, no ONNX, or not made by ``segkey export``.
        """
        path = Path(path)
        with explain_os_errors(path), open_regular(path, limit=MOST_BYTES, follow=True) as file:
            return cls(path, file.read())

    def unlock(self, key: Key | Identity | None) -> "OnnxFile":
        """Open a sealed file, in memory only; without effect on others. Returns the file.

        Raises:
            SegkeyError: no key, another one than it was sealed for, or a damaged file.
        """
        if not self.is_sealed or self._exported:
            return self
        if key is None:
            raise SegkeyError(
                f"{self.path} is sealed, and no key was given", "give the key that it is sealed for"
            )
        identity = Identity.of(key) if isinstance(key, Key) else key
        try:
            self.data = age.decrypted(io.BytesIO(self.data), identity).getvalue()
        except age.NoMatch:
            raise SegkeyError(
                f"{self.path} is not sealed for {identity.name}",
                "give the key that it was sealed for with --key, or with --identity if --key is "
                "for images",
            ) from None
        except ValueError as error:
            raise SegkeyError(
                f"{self.path} is damaged: it does not open ({error})", "ask for the file again"
            ) from None
        self._exported = _exported(self.path, self.data)
        return self

    @property
    def exported(self) -> Exported:
        """What it says of itself.

        Raises:
            SegkeyError: it is sealed, and `unlock` was not called.
        """
        if self._exported is None:
            self.unlock(None)
        return self._exported

    @property
    def header(self) -> Header:
        """What its run was trained on, as a shard would say it."""
        return self.exported.header


def _exported(path: Path, data: bytes) -> Exported:
    try:
        found = dict(_properties(data))
    except (ValueError, IndexError):
        raise SegkeyError(
            f"{path} is not an ONNX file", "give a run, or a file that 'segkey export' made"
        ) from None
    if PROPERTY not in found:
        raise SegkeyError(
            f"{path} was not made by segkey: nothing in it says what its images are",
            "import the weights ('segkey import') and export the run ('segkey export')",
        )
    try:
        return read(found[PROPERTY])
    except Misfit as misfit:
        raise SegkeyError(
            f"{path} is damaged: of its metadata, {misfit}", "export the run again"
        ) from None
    except SegkeyError as error:
        raise SegkeyError(f"{path}: {error.what}", error.hint) from None


def with_property(data: bytes, exported: Exported) -> bytes:
    """An ONNX model with our metadata: protobuf lets a repeated field be appended."""
    pair = _field(1, PROPERTY.encode()) + _field(2, exported.text.encode())
    return data + _field(_METADATA, pair)


def _field(place: int, data: bytes) -> bytes:
    return _varint(place << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _properties(data: bytes) -> Iterator[tuple[str, str]]:
    """Names and values in ModelProto.metadata_props, of a few kilobytes each at most.

    Raises:
        ValueError, IndexError: it is no protobuf message.
    """
    if not data:
        raise ValueError
    for place, content in _fields(memoryview(data)):
        if place == _METADATA and content is not None:
            pair = {n: bytes(c) for n, c in _fields(content) if c is not None}
            if len(pair.get(2, b"")) > _MOST_TEXT:
                raise ValueError
            yield pair.get(1, b"").decode(), pair.get(2, b"").decode()


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | None]]:
    """The fields of a protobuf message: number and content; None for numbers."""
    at = 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        place, kind = tag >> 3, tag & 7
        content = None
        if kind == 2:
            size, at = _read_varint(message, at)
            content = message[at : at + size]
        elif kind == 0:
            _, after = _read_varint(message, at)
            size = after - at
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError
        at += size
        if at > len(message) or not place:
            raise ValueError
        yield place, content


def _read_varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for place in range(10):
        byte = message[at + place]
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value, at + place + 1
    raise ValueError
