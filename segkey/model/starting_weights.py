"""The weights that a training starts from: downloaded, or from a file that may name them otherwise.

A whole network's weights fit by name; the head is replaced for other classes. Those of an encoder
alone, which a classifier was trained with, fit by name or, if all names differ, by order and shape.
"""

import socket
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from segkey.data.voc import VOC_CLASSES
from segkey.errors import SegkeyError, SegkeyWarning
from segkey.model.network_registry import Network, in_a_line
from segkey.model.other_networks import timm_order
from segkey.model.weights_files import WEIGHTS, read_weights

if TYPE_CHECKING:
    from segkey.model.networks import Segmenter

State = dict[str, Tensor]

_CLASSIFIERS = ("fc.", "classifier.", "head.", "last_linear.", "aux_classifier.")
_COUNTER = "num_batches_tracked"  # older files have none, and it changes no result
_GIVE = "give the weights of that network, or another --network"


def start(model: "Segmenter", network: Network, weights: str, classes: list[str]) -> None:
    """Fill a network with starting weights.

    Args:
        model: is filled.
        network: its entry in the registry.
        weights: ``coco``, ``imagenet`` or a file.
        classes: names.

    Raises:
        SegkeyError: the weights cannot be had, or do not fit.
    """
    if weights not in WEIGHTS:
        fill(model, network, read_weights(Path(weights)), weights, classes)
    elif weights in network.pretrained:
        state, origin = _from_torchvision(network, weights)
        fill(model, network, state, origin, classes)
    elif weights == "imagenet" and network.download:
        _from_package(model, network)
    else:
        raise SegkeyError(
            f"there are no {weights} weights for {network.name}",
            "use --recipe scratch, or --weights FILE, or --network fcn_resnet50",
        )


def start_encoder(model: "Segmenter", network: Network, file: str) -> None:
    """Fill the encoder of a network with the weights of a file.

    Raises:
        SegkeyError: the network says of no encoder, or the weights do not fit.
    """
    _fill_encoder(model, network, read_weights(Path(file)), file)


def fill(
    model: "Segmenter", network: Network, state: State, origin: str, classes: list[str]
) -> None:
    """Fill a network with the weights of a whole one, or of its encoder alone.

    The head is replaced, with a warning, if it has another number of classes, or if it is that of
    torchvision's COCO weights and the classes are not VOC's.
    """
    mine = model.weights()
    state = without_prefixes(state, mine)
    state = {name: each for name, each in state.items() if not name.startswith("aux_classifier.")}
    if not any(name in mine for name in state) or _is_encoder(state, network):
        _fill_encoder(model, network, state, origin)
        return
    head = head_names(model)
    given = {name: state[name] for name in head if name in state}
    other = any(each.shape != mine[name].shape for name, each in given.items())
    if given and (other or (_is_coco(network, origin) and not _are_voc(classes))):
        number = len(next(iter(given.values())))
        warnings.warn(
            f"the {number}-class head of {origin} is replaced by a new one for {len(classes)} "
            "classes",
            SegkeyWarning,
            stacklevel=2,
        )
        given = {}
    body = {name: each for name, each in state.items() if name not in head}
    new = {name: each for name, each in mine.items() if name in head}
    state = _for_channels(model, network, body | new | given)
    check_fit(state, mine, origin, network.name)
    model.fcn.load_state_dict(state)


def check_fit(state: State, mine: State, origin: str, what: str) -> None:
    """Raise `SegkeyError` unless a state dict has the names and shapes of another one."""
    missing = [name for name in mine if name not in state]
    unknown = [name for name in state if name not in mine]
    if missing or unknown:
        example = f"{missing[0]} is missing" if missing else f"{unknown[0]} is not in it"
        raise SegkeyError(f"{origin} does not hold weights of {what}: {example}", _GIVE)
    for name, tensor in state.items():
        if tensor.shape != mine[name].shape:
            raise SegkeyError(
                f"{origin}: {name} has shape {tuple(tensor.shape)}, needed is "
                f"{tuple(mine[name].shape)}",
                _GIVE,
            )


def without_prefixes(state: State, wanted: State) -> State:
    """A state dict without what wrappers put before all of its names.

    Such as ``module.`` (DataParallel), ``_orig_mod.`` (torch.compile) and ``model.`` (Lightning).
    """
    shorter = state
    while shorter and not any(name in wanted for name in shorter):
        firsts = {name.partition(".")[0] for name in shorter}
        if len(firsts) > 1 or not all("." in name for name in shorter):
            return state
        shorter = {name.partition(".")[2]: each for name, each in shorter.items()}
    return shorter


def _is_encoder(state: State, network: Network) -> bool:
    return bool(network.encoder) and all(name.startswith(f"{network.encoder}.") for name in state)


def _fill_encoder(model: "Segmenter", network: Network, state: State, origin: str) -> None:
    if not network.encoder:
        raise SegkeyError(
            f"network {network.name} does not say which part of it is its encoder",
            'register it with encoder="…", or give weights of the whole network',
        )
    encoder = model.fcn.get_submodule(network.encoder)
    mine = encoder.state_dict()
    state = without_prefixes(state, mine)
    order = timm_order(network.name[5:]) if network.origin == "timm" else list(mine)
    if not any(name in mine for name in state):
        state = _by_order(state, order, mine, origin, network)
    counters = {name: each for name, each in mine.items() if name.endswith(_COUNTER)}
    state = {
        name: each
        for name, each in state.items()
        if name in mine or not (name in order or name.startswith(_CLASSIFIERS))
    }
    prefix = f"{network.encoder}."
    state = {prefix + name: each for name, each in (counters | state).items()}
    state = _for_channels(model, network, state)
    wanted = {prefix + name: each for name, each in mine.items()}
    check_fit(state, wanted, origin, f"{network.name}'s encoder")
    encoder.load_state_dict({name.removeprefix(prefix): each for name, each in state.items()})


def _by_order(state: State, order: list[str], mine: State, origin: str, network: Network) -> State:
    """A state dict whose names all differ, under the names of ``order``.

    Shapes and the last part of each name must agree one by one: scale, shift and statistics of a
    normalisation have one shape. A classifier of up to two tensors may follow.

    Raises:
        SegkeyError: they do not agree; the first that differs is named.
    """
    wanted = [name for name in order if not name.endswith(_COUNTER)]
    given = [name for name in state if not name.endswith(_COUNTER)]
    for name, other in zip(wanted, given, strict=False):
        shape = tuple(mine[name].shape if name in mine else state[other].shape)
        same_kind = name.rpartition(".")[2] == other.rpartition(".")[2]
        if not same_kind or len(shape) != state[other].ndim or shape[:1] != state[other].shape[:1]:
            raise SegkeyError(
                f"{origin} does not hold weights of {network.name}'s encoder: {other} of shape "
                f"{tuple(state[other].shape)} stands where {name} of shape {shape} is needed",
                _GIVE,
            )
    if not 0 <= len(given) - len(wanted) <= 2:
        raise SegkeyError(
            f"{origin} does not hold weights of {network.name}'s encoder: it has {len(given)} "
            f"tensors, needed are {len(wanted)}",
            _GIVE,
        )
    return {name: state[other] for name, other in zip(wanted, given, strict=False)}


def head_names(model: "Segmenter") -> set[str]:
    """Names of the tensors whose shape depends on the number of classes."""
    return _depending(model, model.entry, classes=1)


def _depending(model: "Segmenter", network: Network, classes: int = 0, channels: int = 0) -> set:
    """Names of the tensors whose shape depends on the number of classes, or of channels."""
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        one = network.build(model.classes, model.channels).state_dict()
        other = network.build(
            model.classes + classes, 3 if channels else model.channels
        ).state_dict()
    return {name for name, each in one.items() if each.shape != other[name].shape}


def _for_channels(model: "Segmenter", network: Network, state: State) -> State:
    """Weights of three channels for images with another number of them.

    Grey images get the sum over the channels, which is what the network would make of three equal
    ones; for others, the channels' weights are repeated and scaled.
    """
    if model.channels == 3:
        return state
    adapted, mine = dict(state), model.weights()
    for name in _depending(model, network, channels=1) & set(state):
        given, channels = state[name], model.channels
        if given.ndim != 4 or given.shape[1] != 3 or given.shape[0] != mine[name].shape[0]:
            continue
        if channels == 1:
            adapted[name] = given.sum(1, keepdim=True)
        else:
            repeated = given[:, torch.arange(channels) % 3]
            adapted[name] = repeated * (3 / channels)
    return adapted


def _is_coco(network: Network, origin: str) -> bool:
    """Whether weights are torchvision's COCO weights, from its cache or given as a file."""
    known = network.pretrained
    return "coco" in known and Path(origin).name == known["coco"].url.rsplit("/", 1)[1]


def _are_voc(classes: list[str]) -> bool:
    return [name.strip("_").lower() for name in classes] == VOC_CLASSES


def _from_torchvision(network: Network, weights: str) -> tuple[State, str]:
    """torchvision's weights, from its cache or from its server."""
    url = network.pretrained[weights].url
    file = Path(torch.hub.get_dir(), "checkpoints", url.rsplit("/", 1)[1])
    if not file.exists():
        patience = socket.getdefaulttimeout()
        socket.setdefaulttimeout(20)  # urlopen would wait for ever on a network that drops packets
        try:
            torch.hub.load_state_dict_from_url(
                url, progress=False, check_hash=True, weights_only=True
            )
        except Exception as error:
            raise SegkeyError(
                f"the {weights} weights {file.name} are neither cached nor reachable "
                f"({type(error).__name__})",
                f"download {url} and put it at {file}, or give it with --weights FILE, or train "
                f"from random weights with --recipe scratch (--recipe laptop without a GPU)",
            ) from None
        finally:
            socket.setdefaulttimeout(patience)
    return read_weights(file), file.name


def _from_package(model: "Segmenter", network: Network) -> None:
    """ImageNet weights that smp or timm downloads, or has in its cache."""
    try:
        made = network.download(model.classes, model.channels)
    except Exception as error:
        raise SegkeyError(
            f"the imagenet weights of {network.name} are neither cached nor reachable: "
            f"{in_a_line(error)}",
            "give a file of them with --encoder-weights FILE, or train with --recipe scratch",
        ) from None
    encoder = made.get_submodule(network.encoder).state_dict()
    model.fcn.get_submodule(network.encoder).load_state_dict(encoder)
