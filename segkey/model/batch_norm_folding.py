"""Folding batch normalisation into convolutions: the same predictions, with no statistics left.

In evaluation mode a batch normalisation is affine per channel, so that the convolution before it
can do its work (Jacob et al. 2018, section 3.2). The network is run on a small image to see which
normalisation follows which convolution; nothing is assumed of its architecture.
"""

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from segkey.errors import SegkeyError
from segkey.model.locked_conv import LockedConv

_SIDE = 64  # pixels of the image that a network is tried on
_CLOSE = 1e-3  # of the largest output: what rounding may change in float32


def fold_batchnorm(model: nn.Module, example: Tensor | None = None) -> nn.Module:
    """A copy of a network in which batch normalisation is folded into convolutions.

    Folded are normalisations with running statistics whose input is the output of one convolution,
    and that output nothing else uses; each becomes an `nn.Identity` (or its activation, if it has
    one, as timm's do), and its convolution has a bias. Others stay as they are. The model given is
    not changed.

    Args:
        model: any network; it is taken in evaluation mode.
        example: float (1, C, H, W), an input; by default random, as the first convolution takes it.

    Returns:
        The copy, in evaluation mode; the very model if nothing can be folded.
    """
    example = _input_of(model) if example is None else example
    whole = copy.deepcopy(model).eval()
    pairs, expected = _trace(whole, example)
    if not pairs:
        return model.eval()
    _fold_agreeing(whole, pairs, example, expected)
    return whole


def put_in_place(model: nn.Module, pairs: Iterable[tuple[str, str]]) -> None:
    """Give a network the modules of a folded one: convolutions with a bias, no normalisation.

    Args:
        model: with random weights; it is changed.
        pairs: from `foldable` of the network that was folded.

    Raises:
        SegkeyError: the network has no such pair.
    """
    for convolution_at, normalisation_at in pairs:
        try:
            convolution = model.get_submodule(convolution_at)
            normalisation = model.get_submodule(normalisation_at)
        except AttributeError:
            convolution = normalisation = None
        if not _is_convolution(convolution) or not isinstance(normalisation, _BatchNorm):
            raise SegkeyError(
                f"there is nothing to fold at {convolution_at} and {normalisation_at}",
                "restore run.json from a backup, or fold the original again",
            )
        if convolution.bias is None and not isinstance(convolution, LockedConv):
            outputs = normalisation.num_features
            convolution.bias = nn.Parameter(convolution.weight.new_zeros(outputs))
        _put(model, normalisation_at, _what_remains(normalisation))


def foldable(model: nn.Module, example: Tensor | None = None) -> list[tuple[str, str]]:
    """The convolutions of a network, each with the batch normalisation that follows it, by path.

    Arguments as for `fold_batchnorm`.
    """
    training = model.training
    try:
        return _trace(model.eval(), _input_of(model) if example is None else example)[0]
    finally:
        model.train(training)


def _input_of(model: nn.Module) -> Tensor:
    """A random input, float (1, C, side, side), where the network's weights are."""
    first = next((each for each in model.modules() if isinstance(each, nn.Conv2d)), None)
    if first is None:
        return torch.zeros(1, 3, _SIDE, _SIDE)
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, first.in_channels, _SIDE, _SIDE, generator=generator)
    return image.to(first.weight.device, first.weight.dtype)


def _trace(model: nn.Module, example: Tensor) -> tuple[list[tuple[str, str]], list[Tensor]]:
    """Pairs that may be folded, by path, and what the network makes of the example."""
    paths = {module: path for path, module in model.named_modules()}
    calls: dict[nn.Module, int] = {}
    made_by: dict[int, tuple[nn.Module, Tensor]] = {}  # with the tensor, whose id must stay its own
    follows: dict[nn.Module, nn.Module] = {}

    def note(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        """A hook: count the call; a normalisation follows what made its input."""
        calls[module] = calls.get(module, 0) + 1
        if isinstance(module, _BatchNorm):
            before, _ = made_by.get(id(inputs[0]), (None, None))
            if before is not None and module.running_mean is not None:
                follows[before] = module
        else:
            made_by[id(output)] = module, output

    hooks = [
        module.register_forward_hook(note)
        for module in paths
        if isinstance(module, _BatchNorm) or _is_convolution(module)
    ]
    try:
        outputs = _outputs(model, example)
    finally:
        for hook in hooks:
            hook.remove()
    once = {module for module, number in calls.items() if number == 1}
    pairs = [(a, b) for a, b in follows.items() if a in once and b in once]
    return [(paths[a], paths[b]) for a, b in pairs], outputs


def _is_convolution(module: nn.Module) -> bool:
    if isinstance(module, nn.ConvTranspose2d):
        return module.groups == 1
    return isinstance(module, LockedConv) or (
        isinstance(module, nn.Conv2d) and type(module).forward is nn.Conv2d.forward
    )


class _Activation(nn.Module):
    """What timm's normalisations do besides: dropout and an activation, under their old names."""

    def __init__(self, normalisation: nn.Module):
        super().__init__()
        self.drop, self.act = normalisation.drop, normalisation.act

    def forward(self, values: Tensor) -> Tensor:
        return self.act(self.drop(values))


def _what_remains(normalisation: nn.Module) -> nn.Module:
    """What takes the place of a normalisation that was folded."""
    if isinstance(getattr(normalisation, "act", None), nn.Module):
        return _Activation(normalisation)
    return nn.Identity()


def _fold_agreeing(
    model: nn.Module, pairs: list[tuple[str, str]], example: Tensor, expected: list[Tensor]
) -> None:
    """Fold, in place, all pairs after which the outputs are still as expected.

    They are not if the output of some convolution is used elsewhere, too, where no module sees it;
    then each half of the pairs is tried.
    """
    before = [(path, model.get_submodule(path)) for pair in pairs for path in pair]
    _fold(model, pairs)
    if _agree(_outputs(model, example), expected):
        return
    for path, module in before:
        _put(model, path, module)
    if len(pairs) > 1:
        middle = len(pairs) // 2
        _fold_agreeing(model, pairs[:middle], example, expected)
        _fold_agreeing(model, pairs[middle:], example, expected)


@torch.no_grad()
def _fold(model: nn.Module, pairs: list[tuple[str, str]]) -> None:
    """Replace pairs by what does the work of both; in double, so that a weight is rounded once."""
    for convolution_at, normalisation_at in pairs:
        convolution = model.get_submodule(convolution_at)
        normalisation = model.get_submodule(normalisation_at)
        if isinstance(convolution, LockedConv):
            layers = copy.deepcopy(convolution).double(), copy.deepcopy(normalisation).double()
            fused = _fused_locked(*layers).to(convolution.weight.dtype)
        else:
            fused = _fused(convolution, copy.deepcopy(normalisation).double())
        _put(model, convolution_at, fused)
        _put(model, normalisation_at, _what_remains(normalisation))


def _fused(convolution: nn.Module, normalisation: nn.Module) -> nn.Module:
    """A copy of a convolution with the normalisation (in double) that follows it."""
    weight, bias = convolution.weight, convolution.bias
    scale = (normalisation.running_var + normalisation.eps).rsqrt()
    shift = normalisation.running_mean if bias is None else normalisation.running_mean - bias
    if normalisation.affine:
        scale = scale * normalisation.weight
    offset = -shift * scale
    if normalisation.affine:
        offset = offset + normalisation.bias
    outputs_at = 1 if isinstance(convolution, nn.ConvTranspose2d) else 0
    # Weights are shared until they are replaced: copying them would take half of the time.
    fused = copy.deepcopy(convolution, {id(weight): weight, id(bias): bias})
    by_output = scale.unflatten(0, [-1 if at == outputs_at else 1 for at in range(4)])
    scaled = (weight * by_output).to(weight.dtype, memory_format=torch.preserve_format)
    fused.weight = nn.Parameter(scaled, weight.requires_grad)
    fused.bias = nn.Parameter(offset.to(weight.dtype), weight.requires_grad)
    return fused


def _fused_locked(layer: LockedConv, normalisation: nn.Module) -> LockedConv:
    """A locked convolution with the normalisation that follows it; it is changed."""
    scale = (normalisation.running_var + normalisation.eps).rsqrt()
    if normalisation.affine:
        scale = scale * normalisation.weight
    outputs = len(layer.weight) // len(scale)  # of each filter in a block
    layer.weight.mul_(scale.repeat_interleave(outputs).view(-1, 1, 1, 1))
    layer.border.mul_(scale.view(-1, 1, 1))
    offset = (layer.offset - normalisation.running_mean) * scale
    layer.offset.copy_(offset + (normalisation.bias if normalisation.affine else 0))
    return layer


def _put(model: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)


@torch.no_grad()
def _outputs(model: nn.Module, example: Tensor) -> list[Tensor]:
    """All tensors that a network returns, alone, in a list or by name."""
    made = model(example)
    if isinstance(made, dict):
        made = list(made.values())
    return [made] if isinstance(made, Tensor) else [each for each in made if torch.is_tensor(each)]


def _agree(outputs: list[Tensor], expected: list[Tensor]) -> bool:
    return all(
        torch.allclose(a, b, rtol=0, atol=_CLOSE * float(b.abs().max().clamp(min=1e-6)))
        for a, b in zip(outputs, expected, strict=True)
    )
