"""The configuration of a run, ``run.json``, and the checks of its form.

It may come from elsewhere. Fields that `records.stated` gives a default were not written by all
earlier versions.
"""

from dataclasses import dataclass

from segkey.crypto.ciphers import METHODS
from segkey.data.decode import MAX_PIXELS
from segkey.model import network_registry, recipes
from segkey.model.network_registry import MAX_CHANNELS
from segkey.model.run_names import NAME as RUN_NAME
from segkey.shards import Header
from segkey.shards.header import MAX_BLOCK
from segkey.system import records
from segkey.system.records import Misfit, stated
from segkey.system.validators import (
    HEX_64,
    NAME,
    OBJECT,
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

_OF_HEADER = (
    "method",
    "block_size",
    "channels",
    "max_value",
    "key_id",
    "password_hash",
    "ignore_index",
)
_TIME = pattern(
    r"\d{4}-\d\d-\d\d([T ][0-9:.+Z-]{0,30})?", "a time such as 2024-12-31T12:00:00+00:00"
)
_EPOCHS = 10**9


@dataclass(frozen=True, kw_only=True)
class Network:
    """The network that was trained; `segkey.model.networks.described` builds it.

    A name that is not known here is no damage: its package or plug-in may be missing.
    """

    name: str = stated(
        pattern(network_registry.NAME.pattern, "a network's name"), "name", "backbone"
    )
    channels: int = stated(whole(1, MAX_CHANNELS), default=3)
    mean: tuple[float, ...] | None = stated(many(number(-100, 100), MAX_CHANNELS, 1), default=None)
    std: tuple[float, ...] | None = stated(
        many(number(0, 100, above=True), MAX_CHANNELS, 1), default=None
    )


@dataclass(frozen=True, kw_only=True)
class Data:
    """The images that a run was trained on; `Header` checks the rest of its fields."""

    method: str = stated(one_of(METHODS))
    block_size: int = stated(whole(1, MAX_BLOCK))
    channels: int = stated(whole(1, MAX_CHANNELS))
    classes: tuple[str, ...] = stated(many(NAME, 255, 1))
    size: tuple[int, int] = stated(many(whole(1, MAX_PIXELS), 2, 2))
    images: dict[str, int] | None = stated(named(whole(), 10), default=None)
    views: int | None = stated(whole(1, 1 << 20), default=None)
    on_the_fly: bool | None = stated(YES_OR_NO, default=None)
    shards: tuple[str, ...] = stated(many(PATH, 10_000))
    fingerprint: str | None = stated(or_none(text(1000)), default=None)


@dataclass(frozen=True, kw_only=True)
class Best:
    """The epoch whose weights were kept."""

    epoch: int | None = stated(whole(1, _EPOCHS), default=None)
    val_loss: float | None = stated(or_none(number()), default=None)


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """``run.json``; `segkey.model.recipes` checks the recipe."""

    name: str | None = stated(
        pattern(RUN_NAME.pattern, "letters, digits, '.', '_' and '-'"), default=None
    )
    created: str = stated(_TIME)
    versions: dict[str, str] | None = stated(named(text(100), 50), default=None)
    device: str | None = stated(text(1000), default=None)
    job: str | None = stated(or_none(text(1000)), default=None)
    precise: bool = stated(YES_OR_NO)
    compiled: bool | None = stated(YES_OR_NO, default=None)
    windowed: bool | None = stated(YES_OR_NO, default=None)
    seed: int = stated(whole(-(2**63)))
    epochs_done: int = stated(whole(0, _EPOCHS))
    seconds: float = stated(number(0))
    model: Network = stated(Network)
    data: Data = stated(Data)
    recipe: dict = stated(OBJECT)
    weights_sha256: str | None = stated(HEX_64, default=None)
    best: Best | None = stated(Best, default=None)


def complaint(config: dict) -> str:
    """The field of ``run.json`` that cannot be, and what was expected; or nothing."""
    try:
        data = records.read(Configuration, config).data
    except Misfit as misfit:
        return str(misfit)
    missing = [name for name in _OF_HEADER if name not in config["data"]]
    if problem := f"{missing[0]!r} is missing" if missing else header_of(config).complaint():
        return f"in 'data', {problem}"
    if problem := recipes.complaint(config["recipe"]):
        return f"in 'recipe', {problem}"
    if problem := _channels_disagree(records.read(Configuration, config)):
        return problem
    (height, width), m = data.size, data.block_size
    if height * width > MAX_PIXELS or height % m or width % m:
        return (
            f"'data.size' is {height}x{width}; expected sides that M = {m} divides, of at most "
            f"{MAX_PIXELS} pixels"
        )
    return ""


def _channels_disagree(config: Configuration) -> str:
    """The field that has another number of channels than the images, or nothing."""
    model, channels = config.model, config.data.channels
    found = {"model.channels": model.channels}
    found |= {
        f"model.{kind}": len(getattr(model, kind) or (0,) * channels) for kind in ("mean", "std")
    }
    for name, number_of in found.items():
        if number_of != channels:
            return f"'{name}' is for {number_of} channels; expected {channels}, as 'data' has"
    return ""


def header_of(config: dict) -> Header:
    """What a run was trained on, as a shard would say it."""
    data = config["data"]
    fields = {name: data[name] for name in _OF_HEADER}
    return Header(split="train", classes=tuple(data["classes"]), **fields)
