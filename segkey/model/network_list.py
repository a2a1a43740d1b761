"""The list of networks that can be asked for."""

from dataclasses import asdict, dataclass

import torch

from segkey.errors import SegkeyError
from segkey.model.network_registry import FAMILIES, NETWORKS, Network, find, register_all
from segkey.system import plugins

_MOST = 40  # of which parameters are counted: each has to be made for that


@dataclass(frozen=True)
class Listed:
    """A network in the list.

    Attributes:
        name: as ``--network`` takes it.
        origin: who wrote it.
        channels: numbers of image channels that it takes.
        weights: what it can start from besides files.
        parameters: how many it has for 21 classes; None if they were not counted.
    """

    name: str
    origin: str
    channels: tuple[int, ...]
    weights: tuple[str, ...]
    parameters: int | None


@dataclass(frozen=True)
class Listing:
    """Networks, and what else there is.

    Attributes:
        networks: those that were asked for.
        more: sentences on families and packages.
    """

    networks: tuple[Listed, ...]
    more: tuple[str, ...] = ()


def listed(text: str = "") -> Listing:
    """Networks whose names begin with ``text``.

    Without a family's prefix these are the built-in ones and the user's own; the families are
    told of in a sentence each.

    Raises:
        SegkeyError: there is none, or the package of the family is missing.
    """
    register_all()
    plugins.load_named()
    prefix, colon, _ = text.partition(":")
    if not colon:
        found = [each for name, each in NETWORKS.items() if name.startswith(text)]
        more = tuple(_told(prefix) for prefix in FAMILIES if prefix.startswith(text))
        if not found and not more:
            find(text)  # says what is near
        return Listing(tuple(_listed(each, count=True) for each in found), more)
    names = _names_of(prefix, text)
    count = len(names) <= _MOST
    more = () if count else (f"{len(names)} networks; parameters are counted of up to {_MOST}",)
    return Listing(tuple(_listed(find(name), count) for name in names), more)


def document(listing: Listing) -> dict:
    """As JSON."""
    return {"networks": [asdict(each) for each in listing.networks], "more": list(listing.more)}


def _names_of(prefix: str, text: str) -> list[str]:
    if prefix not in FAMILIES:
        find(text)
    family = FAMILIES[prefix]
    try:
        names = [name for name in family.names() if name.lower().startswith(text.lower())]
    except ImportError:
        names = []
    if not names:
        find(text)  # says that the package is missing, or what is near
        names = [text]
    return names


def _told(prefix: str) -> str:
    """What there is of a family, or how it can be had."""
    family = FAMILIES[prefix]
    try:
        names = family.names()
    except ImportError:
        return f"{prefix}:… needs {family.package}: pip install 'segkey[{family.extra}]'"
    return f"{prefix}:… stands for {len(names)} networks: segkey networks {prefix}:"


def _listed(network: Network, count: bool) -> Listed:
    weights = (*network.pretrained, *(("imagenet",) if network.download else ()))
    parameters = _parameters(network) if count else None
    return Listed(network.name, network.origin, network.channels, weights, parameters)


def _parameters(network: Network) -> int | None:
    """How many there are; None if the network cannot be made without memory."""
    channels = 3 if 3 in network.channels else network.channels[0]
    try:
        with torch.device("meta"):
            return sum(each.numel() for each in network.build(21, channels).parameters())
    except SegkeyError:
        return None
