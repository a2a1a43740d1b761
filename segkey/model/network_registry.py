"""The registry of networks: `network` registers a factory under a name, `find` finds it again.

A factory is a function ``(classes, channels) -> nn.Module`` whose forward maps normalised images,
float (N, channels, H, W), to logits (N, classes, H, W), or to ``{"out": logits}`` as torchvision's
do. Names with a colon belong to a family, such as ``smp:Unet/resnet34``: the package makes them.
"""

import difflib
import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from segkey.errors import SegkeyError
from segkey.system import plugins

if TYPE_CHECKING:  # reports name networks without importing torch
    from torch import nn

Factory = Callable[[int, int], "nn.Module"]

DEFAULT = "fcn_resnet50"
BUILT_IN = (  # `segkey.model.torchvision_networks` registers them
    "fcn_resnet50",
    "fcn_resnet101",
    "deeplabv3_resnet50",
    "deeplabv3_resnet101",
    "deeplabv3_mobilenet_v3_large",
    "lraspp_mobilenet_v3_large",
    "resnet14",
)
ALIASES = {"resnet50": "fcn_resnet50", "resnet101": "fcn_resnet101"}  # names of earlier versions
# What a run may call its network: nothing of it is ever a path, or code.
NAME = re.compile(r"(?:smp|timm):\w[\w.+-]{0,99}(?:/\w[\w.+-]{0,99})?|\w[\w.+-]{0,99}", re.ASCII)
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_OWN = re.compile(r"[A-Za-z][\w.+-]{0,99}", re.ASCII)
MAX_CHANNELS = 16


@dataclass(frozen=True)
class Network:
    """A network that can be asked for by name.

    Attributes:
        name: as ``--network`` takes it.
        factory: makes it, with random weights.
        origin: who wrote it: ``torchvision``, ``segkey``, ``smp``, ``timm``, ``own``.
        channels: numbers of image channels that it takes.
        mean, std: what pixels 0 … 1 are normalised by, a value for each of three channels.
        encoder: path of the submodule that ``--encoder-weights`` fills; empty if there is none.
        pretrained: torchvision's weights, by ``coco`` or ``imagenet``.
        download: makes it with weights that its own package downloads; None if it has none.
    """

    name: str
    factory: Factory
    origin: str
    channels: tuple[int, ...] = tuple(range(1, MAX_CHANNELS + 1))
    mean: tuple[float, ...] = IMAGENET[0]
    std: tuple[float, ...] = IMAGENET[1]
    encoder: str = ""
    pretrained: Mapping[str, Any] = field(default_factory=dict)
    download: Factory | None = None

    def normalisation(self, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation for each channel; 0.5 and 0.25 where none are known."""
        if channels == len(self.mean):
            return self.mean, self.std
        return (0.5,) * channels, (0.25,) * channels

    def build(self, classes: int, channels: int = 3) -> "nn.Module":
        """The network, with random weights.

        Raises:
            SegkeyError: it does not take so many channels, or its factory fails.
        """
        from torch import nn

        self.check_channels(channels)
        try:
            module = self.factory(classes, channels)
        except SegkeyError:
            raise
        except Exception as error:
            raise SegkeyError(
                f"network {self.name} cannot be made for {classes} classes and {channels} "
                f"channels: {in_a_line(error)}",
                _cure(self.origin),
            ) from error
        if not isinstance(module, nn.Module):
            raise SegkeyError(
                f"network {self.name} is no torch.nn.Module but a {type(module).__name__}",
                _cure(self.origin),
            )
        return module

    def check_channels(self, channels: int) -> None:
        """Raise `SegkeyError` unless the network takes images with so many channels."""
        if channels not in self.channels:
            raise SegkeyError(
                f"network {self.name} takes images with {_numbers(self.channels)} channels, "
                f"not {channels}",
                "encrypt with another --channels, or take another --network",
            )


@dataclass(frozen=True)
class Family:
    """Networks that a package makes, by names ``prefix:…``.

    Attributes:
        find: the network that a name stands for, or None; imports the package.
        package: as pip installs it.
        extra: of segkey's that installs it.
        names: names of the family, for lists and completion; imports the package.
    """

    find: Callable[[str], Network | None]
    package: str
    extra: str
    names: Callable[[], list[str]]


NETWORKS: dict[str, Network] = {}
FAMILIES: dict[str, Family] = {}


def network(
    name: str,
    *,
    channels: int | Sequence[int] = 3,
    mean: Sequence[float] = IMAGENET[0],
    std: Sequence[float] = IMAGENET[1],
    encoder: str = "",
) -> Callable[[Factory], Factory]:
    """Register a function ``(classes, channels) -> nn.Module`` as a network: a decorator.

    Args:
        name: as ``--network`` takes it: letters, digits, ``.``, ``_``, ``+`` and ``-``.
        channels: numbers of image channels that it takes.
        mean, std: what pixels 0 … 1 are normalised by before they reach it, one value per channel;
            ImageNet's by default.
        encoder: path of the submodule that ``--encoder-weights`` fills, such as ``"encoder"``.

    Raises:
        ValueError: there is a network of that name, or it is no name, or mean and std are none.
    """
    if not _OWN.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a network: letters, digits, '.', '_', '+', '-'")
    if name in NETWORKS or name in ALIASES:
        raise ValueError(f"there is a network '{name}' already")
    if len(mean) != len(std) or not all(value > 0 for value in std):
        raise ValueError("mean and std need one value per channel, and std values above 0")
    numbers = (channels,) if isinstance(channels, int) else tuple(channels)

    def register(factory: Factory) -> Factory:
        NETWORKS[name] = Network(name, factory, "own", numbers, tuple(mean), tuple(std), encoder)
        return factory

    return register


def register_all() -> None:
    """Register the built-in networks and families, which import torchvision; more than once is
    harmless."""
    for module in ("torchvision_networks", "other_networks"):
        importlib.import_module(f"segkey.model.{module}")


def canonical(name: str) -> str:
    """The name under which a network is recorded: ``resnet50`` stands for ``fcn_resnet50``."""
    return ALIASES.get(name, name)


def recorded(model: dict) -> str:
    """The network's name in a run's ``model``; earlier versions wrote it as ``backbone``."""
    return canonical(model["name"] if "name" in model else model["backbone"])


def find(name: str) -> Network:
    """The network of a name.

    Plug-ins that the environment names are loaded if it is not known.

    Raises:
        SegkeyError: there is none; the hint names the package or plug-in that is missing.
    """
    name = canonical(name)
    register_all()
    if name not in NETWORKS and ":" not in name:
        plugins.load_named()
    if found := NETWORKS.get(name):
        return found
    prefix, colon, rest = name.partition(":")
    if not colon:
        raise SegkeyError(f"there is no network '{name}'", _unknown(name))
    if prefix not in FAMILIES:
        raise SegkeyError(
            f"there is no network '{name}'",
            f"names with a colon begin with {' or '.join(f'{each}:' for each in FAMILIES)}",
        )
    return _of_family(FAMILIES[prefix], name, rest)


def _of_family(family: Family, name: str, rest: str) -> Network:
    try:
        found = family.find(rest)
    except ImportError as error:
        if error.name and error.name.split(".")[0] != family.package.replace("-", "_"):
            raise  # the package is there, and broken
        raise SegkeyError(
            f"network {name} needs the package {family.package}, which is not installed",
            f"pip install 'segkey[{family.extra}]'",
        ) from None
    if found is None:
        near = difflib.get_close_matches(name, family.names(), 1, cutoff=0.75)
        raise SegkeyError(
            f"{family.package} has no network '{rest}'",
            f"did you mean {near[0]}?" if near else f"list them: segkey networks {name[:5]}",
        )
    return found


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, [*NETWORKS, *ALIASES], 1)
    first = f"did you mean {near[0]}? " if near else ""
    return (
        f"{first}'segkey networks' lists them; a network of your own must be registered by a file "
        "that SEGKEY_PLUGINS names"
    )


def _cure(origin: str) -> str:
    if origin == "own":
        return "mend its factory, in the file that SEGKEY_PLUGINS names"
    return "take another --network; 'segkey networks' lists them"


def _numbers(numbers: Sequence[int]) -> str:
    if len(numbers) > 3 and list(numbers) == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]} to {numbers[-1]}"
    return " or ".join(map(str, numbers))


def in_a_line(error: BaseException, most: int = 200) -> str:
    """What an error of other people's code says, as one line."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= most else text[:most] + "…"
