"""The configuration of a run, ``run.json``: read with a check of every field, and written.

It may come from elsewhere. Fields that `records.stated` gives a default were not written by all
earlier versions; what a later version wrote beside them is kept.
"""

from dataclasses import dataclass, replace

from segkey.crypto.age import MOST_RECIPIENTS
from segkey.crypto.ciphers import METHODS
from segkey.data.decode import MAX_PIXELS
from segkey.model.logs import KINDS as LOGS
from segkey.model.network_registry import MAX_CHANNELS, canonical
from segkey.model.network_registry import NAME as NETWORK_NAME
from segkey.model.recipes import Recipe, unknown_fields
from segkey.model.run_names import NAME as RUN_NAME
from segkey.shards import Header
from segkey.shards.header import (
    KEY_ID,
    MAX_BLOCK,
    PASSWORD_HASH,
    PIXEL_RANGE,
    READING,
    needed_of_images,
)
from segkey.system import json_records
from segkey.system.json_records import Misfit, Several, stated
from segkey.system.validators import (
    HEX_64,
    NAME,
    PATH,
    YES_OR_NO,
    many,
    named,
    number,
    one_of,
    or_none,
    pattern,
    text,
    whole,
)

FORMAT = "segkey-run-v1"
_TIME = pattern(
    r"\d{4}-\d\d-\d\d([T ][0-9:.+Z-]{0,30})?", "a time such as 2024-12-31T12:00:00+00:00"
)
_EPOCHS = 10**9
_MODULE = pattern(r"\w+(\.\w+){0,50}", "a path of modules")


@dataclass(frozen=True, kw_only=True)
class Lock:
    """How the first convolution was locked; method and key stand in the run's data.

    Attributes:
        stem: path of the convolution, as `torch.nn.Module.get_submodule` takes it.
        block_size: M.
        whole_blocks: the new kernel covers whole blocks, see `segkey.model.locked_conv.Axis`.
        original: checksum of the weights it was made of.
        created, versions: when and with what.
    """

    stem: str = stated(_MODULE)
    block_size: int = stated(whole(1, MAX_BLOCK))
    whole_blocks: bool = stated(YES_OR_NO)
    original: str | None = stated(or_none(HEX_64), default=None)
    created: str | None = stated(or_none(_TIME), default=None)
    versions: dict[str, str] | None = stated(or_none(named(text(100), 50)), default=None)
    unknown: dict = json_records.unknown_fields()


@dataclass(frozen=True, kw_only=True)
class Network:
    """The network that was trained; `segkey.model.networks.described` builds it.

    A name that is not known here is no damage: its package or plug-in may be missing.

    Attributes:
        name: as the run says it.
        channels: of images.
        mean, std: that pixels 0 … 1 are normalised by; the network's own, if None. Those of the
            original, if it is locked.
        lock: how its first convolution was locked; None if it was not.
        folded: paths of convolutions, each with that of the batch normalisation that was folded
            into it (`segkey.model.batch_norm_folding`); None if none was.
    """

    name: str = stated(pattern(NETWORK_NAME.pattern, "a network's name"), "name", "backbone")
    channels: int = stated(whole(1, MAX_CHANNELS), default=3)
    mean: tuple[float, ...] | None = stated(
        many(number(-100, 100), MAX_CHANNELS, 1), default=None, omitted=True
    )
    std: tuple[float, ...] | None = stated(
        many(number(0, 100, above=True), MAX_CHANNELS, 1), default=None, omitted=True
    )
    lock: Lock | None = stated(Lock, default=None, omitted=True)
    folded: tuple[tuple[str, str], ...] | None = stated(
        many(many(_MODULE, 2, 2), 100_000), default=None, omitted=True
    )
    unknown: dict = json_records.unknown_fields()

    @property
    def network(self) -> str:
        """The name under which it is listed; earlier versions had other names."""
        return canonical(self.name)


@dataclass(frozen=True, kw_only=True)
class Imported:
    """Where the weights of a model came from that was trained elsewhere.

    Attributes:
        file: its name, without its folder.
        sha256: of its bytes.
    """

    file: str = stated(text(1000))
    sha256: str = stated(HEX_64)
    unknown: dict = json_records.unknown_fields()


@dataclass(frozen=True, kw_only=True)
class Data:
    """The images that a run was trained on.

    Attributes:
        method, block_size, channels, max_value, key_id, password_hash, classes, ignore_index: as
            in `segkey.shards.Header`.
        size: (H, W) in pixels.
        images: how many, by split.
        views: of each image.
        on_the_fly: whether images were augmented, and encrypted, on the device.
        shards: paths, as they were given.
        fingerprint: of the training images and masks.
        reading, pixel_range: as in `segkey.shards.Header`; None if they are empty there.
    """

    method: str = stated(one_of(METHODS))
    block_size: int = stated(whole(1, MAX_BLOCK))
    channels: int = stated(whole(1, MAX_CHANNELS))
    max_value: int = stated(whole(1, 65535))
    key_id: str = stated(KEY_ID)
    password_hash: str = stated(PASSWORD_HASH)
    classes: tuple[str, ...] = stated(many(NAME, 255, 1))
    ignore_index: int = stated(whole(0, 255))
    size: tuple[int, int] = stated(many(whole(1, MAX_PIXELS), 2, 2))
    images: dict[str, int] | None = stated(named(whole(), 10), default=None, omitted=True)
    views: int | None = stated(whole(1, 1 << 20), default=None, omitted=True)
    on_the_fly: bool | None = stated(YES_OR_NO, default=None, omitted=True)
    shards: tuple[str, ...] = stated(many(PATH, 10_000))
    fingerprint: str | None = stated(or_none(text(1000)), default=None)
    reading: str | None = stated(READING, default=None, omitted=True)
    pixel_range: str | None = stated(PIXEL_RANGE, default=None, omitted=True)
    unknown: dict = json_records.unknown_fields()


@dataclass(frozen=True, kw_only=True)
class Training:
    """How images were augmented and computed with; None where that was not recorded.

    Attributes:
        on_the_fly: whether images were augmented on the device.
        views: of each image in the shards.
        augmented: whether they were augmented at all.
        crop_scale: smallest area of a crop, as a fraction.
        augmentation_seed: of the crops.
        images: how many, by split.
        dtype: that the first part of the training was computed in.
        world_size: ranks of torchrun; 1 without.
    """

    on_the_fly: bool | None = stated(or_none(YES_OR_NO), default=None)
    views: int | None = stated(or_none(whole(1, 1 << 20)), default=None)
    augmented: bool | None = stated(or_none(YES_OR_NO), default=None)
    crop_scale: float | None = stated(or_none(number(0, 1)), default=None)
    augmentation_seed: int | None = stated(or_none(whole(-(2**63))), default=None)
    images: dict[str, int] | None = stated(or_none(named(whole(), 10)), default=None)
    dtype: str | None = stated(or_none(text(100)), default=None)
    world_size: int | None = stated(or_none(whole(1)), default=None)
    unknown: dict = json_records.unknown_fields()


@dataclass(frozen=True, kw_only=True)
class Segment:
    """What the part of a training was made with that begins after ``epoch`` epochs."""

    epoch: int = stated(whole(0, _EPOCHS))
    versions: dict[str, str] = stated(named(text(100), 50), factory=dict)
    device: str | None = stated(or_none(text(1000)), default=None)
    dtype: str | None = stated(or_none(text(100)), default=None)
    world_size: int | None = stated(or_none(whole(1)), default=None)
    unknown: dict = json_records.unknown_fields()


@dataclass(frozen=True, kw_only=True)
class Best:
    """The epoch whose weights were kept."""

    epoch: int | None = stated(whole(1, _EPOCHS), default=None, omitted=True)
    val_loss: float | None = stated(or_none(number()), default=None)
    unknown: dict = json_records.unknown_fields()


@dataclass(frozen=True, kw_only=True)
class Sealed:
    """For whom the weights are encrypted, and which they are; see `segkey.model.sealed_runs`.

    Attributes:
        recipients: public texts ``age1…``.
        sha256: checksum of the weights; None before there are any.
        replaces: checksums of earlier weights that a kill may have left in their place.
    """

    recipients: tuple[str, ...] = stated(
        many(pattern("age1[0-9a-z]{58}", "a recipient age1…"), MOST_RECIPIENTS, 1)
    )
    sha256: str | None = stated(or_none(HEX_64), default=None)
    replaces: tuple[str, ...] | None = stated(many(HEX_64, 1000), default=None, omitted=True)
    unknown: dict = json_records.unknown_fields()


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """``run.json``.

    Attributes:
        format: `FORMAT`.
        name: of the run, when it was begun.
        created: ISO 8601.
        versions: of packages, when it was begun.
        device: in words.
        segments: the parts of a training that was resumed; one if it was not.
        job: torchrun's, or None.
        windowed, shuffle_buffer: whether images are shuffled in a buffer, and of how many.
        precise: float32 even where the device computes in bfloat16.
        compiled: whether the network was compiled.
        training: how images were augmented and computed with.
        recipe: of the training; None if the run has none (``{}``).
        seed: of all randomness.
        epochs_done: epochs that are saved.
        seconds: that they took.
        differs_from_paper: how augmentation does, if the schedule is the paper's.
        weights_sha256: checksum of the weights.
        sealed: for whom the weights are encrypted; None if they are not.
        best: the epoch they are of.
        stopped_early: whether it ended before its last epoch, as nothing got better.
        log: other logs of it that are kept.
        imported: where they came from, if the model was trained elsewhere.
    """

    format: str = stated(text(100), default=FORMAT)
    name: str | None = stated(
        pattern(RUN_NAME.pattern, "letters, digits, '.', '_' and '-'"), default=None, omitted=True
    )
    created: str = stated(_TIME)
    versions: dict[str, str] | None = stated(named(text(100), 50), default=None, omitted=True)
    device: str | None = stated(text(1000), default=None, omitted=True)
    segments: tuple[Segment, ...] | None = stated(
        Several(Segment, "the segments"), default=None, omitted=True
    )
    job: str | None = stated(or_none(text(1000)), default=None)
    windowed: bool | None = stated(YES_OR_NO, default=None, omitted=True)
    shuffle_buffer: int | None = stated(whole(), default=None, omitted=True)
    precise: bool = stated(YES_OR_NO)
    compiled: bool | None = stated(YES_OR_NO, default=None, omitted=True)
    model: Network = stated(Network)
    data: Data = stated(Data)
    training: Training | None = stated(Training, default=None, omitted=True)
    recipe: Recipe | None = stated(Recipe)
    seed: int = stated(whole(-(2**63)))
    epochs_done: int = stated(whole(0, _EPOCHS))
    seconds: float = stated(number(0))
    differs_from_paper: str | None = stated(text(1000), default=None, omitted=True)
    weights_sha256: str | None = stated(HEX_64, default=None, omitted=True)
    sealed: Sealed | None = stated(Sealed, default=None, omitted=True)
    best: Best | None = stated(Best, default=None, omitted=True)
    stopped_early: bool | None = stated(YES_OR_NO, default=None, omitted=True)
    log: str | None = stated(one_of(LOGS), default=None, omitted=True)
    imported: Imported | None = stated(Imported, default=None, omitted=True)
    unknown: dict = json_records.unknown_fields()

    @property
    def header(self) -> Header:
        """What the run was trained on, as a shard would say it."""
        data = self.data
        reading, pixel_range = data.reading or "", data.pixel_range or ""
        needed = needed_of_images(data)
        return Header("train", **needed, reading=reading, pixel_range=pixel_range)

    @property
    def document(self) -> dict:
        """What ``run.json`` holds, without its checksum."""
        return json_records.as_json(self) | ({} if self.recipe else {"recipe": {}})


def read(document: dict) -> Configuration:
    """A run's configuration.

    Args:
        document: what ``run.json`` holds; untrusted.

    Raises:
        Misfit: a field is missing or cannot be; the message names it and says what was expected.
    """
    configuration = json_records.read(Configuration, document)
    if problem := configuration.header.complaint():
        raise Misfit(f"in 'data', {problem}")
    if unknown := unknown_fields(document["recipe"]):
        known = ", ".join(json_records.as_json(configuration.recipe))
        raise Misfit(f"in 'recipe', {unknown[0]!r} is unknown; expected {known}")
    _check_channels(configuration)
    data, lock = configuration.data, configuration.model.lock
    if lock and (data.method == "none" or lock.block_size != data.block_size):
        raise Misfit(
            f"'model.lock.block_size' is {lock.block_size}; expected that of 'data', "
            f"{data.block_size}, and a method other than none"
        )
    (height, width), m = data.size, data.block_size
    if height * width > MAX_PIXELS or height % m or width % m:
        raise Misfit(
            f"'data.size' is {height}x{width}; expected sides that M = {m} divides, of at most "
            f"{MAX_PIXELS} pixels"
        )
    return configuration if document["recipe"] else replace(configuration, recipe=None)


def _check_channels(configuration: Configuration) -> None:
    """Raise `Misfit` if the network takes another number of channels than the images have."""
    model, channels = configuration.model, configuration.data.channels
    found = {"model.channels": model.channels}
    found |= {
        f"model.{kind}": len(values)
        for kind, values in (("mean", model.mean), ("std", model.std))
        if values
    }
    for name, number_of in found.items():
        if number_of != channels:
            raise Misfit(
                f"'{name}' is for {number_of} channels; expected {channels}, as 'data' has"
            )
