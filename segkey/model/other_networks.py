"""Networks of other packages: ``smp:Unet/resnet34`` and ``timm:tf_efficientnet_lite0``.

Each package is imported when one of its networks is asked for. Its code runs, as its user
installed it; a name is only looked up in its own tables.
"""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segkey.model.network_registry import FAMILIES, Family, Network

_DEFAULT_ENCODER = "resnet34"  # smp's own default
_WIDTH = 128  # channels of the head on timm's features


def _smp_architectures() -> dict[str, str]:
    """smp's architectures by their names in small letters."""
    import segmentation_models_pytorch as smp

    return {name.lower(): cls.__name__ for name, cls in smp.MODEL_ARCHITECTURES_MAPPING.items()}


def _smp_encoders() -> list[str]:
    import segmentation_models_pytorch as smp

    return smp.encoders.get_encoder_names()


def _find_smp(rest: str) -> Network | None:
    """``Unet/resnet34``, ``Unet``, or ``Unet/tu-resnet18`` with an encoder of timm's."""
    import segmentation_models_pytorch as smp

    architecture, _, encoder = rest.partition("/")
    encoder = encoder or _DEFAULT_ENCODER
    proper = _smp_architectures().get(architecture.lower())
    known = encoder in _smp_encoders() or encoder.startswith(("tu-", "timm-"))
    if proper is None or not known:
        return None

    def build(classes: int, channels: int, weights: str | None = None) -> nn.Module:
        return smp.create_model(proper, encoder, weights, in_channels=channels, classes=classes)

    return Network(
        f"smp:{proper}/{encoder}",
        build,
        "smp",
        encoder="encoder",
        download=functools.partial(build, weights="imagenet"),
    )


def _smp_names() -> list[str]:
    """Every architecture with every encoder."""
    encoders = _smp_encoders()
    return [f"smp:{name}/{each}" for name in _smp_architectures().values() for each in encoders]


class TimmSegmenter(nn.Module):
    """A small two-level head on timm's features at output stride 16.

    The features at stride 16 are brought to the size of those at stride 8 and joined with them; a
    3×3 and a 1×1 convolution make logits, which are enlarged to the image's size.

    Args:
        name: timm's.
        classes: number of classes.
        channels: of images.
        pretrained: with timm's weights, which it downloads.

    Raises:
        RuntimeError: timm cannot make features of it.
    """

    def __init__(self, name: str, classes: int, channels: int = 3, pretrained: bool = False):
        super().__init__()
        self.encoder = _timm_features(name, channels, pretrained)
        strides, widths = (
            self.encoder.feature_info.reduction(),
            self.encoder.feature_info.channels(),
        )
        self.low = max((n for n, s in enumerate(strides) if s <= 8), default=0)
        self.squeeze = _conv(widths[self.low], 32, 1)
        self.lift = _conv(widths[-1], _WIDTH, 1)
        self.mix = _conv(_WIDTH + 32, _WIDTH, 3)
        self.classifier = nn.Conv2d(_WIDTH, classes, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        """float (N, channels, H, W) to logits (N, classes, H, W)."""
        features = self.encoder(pixels)
        low, high = self.squeeze(features[self.low]), self.lift(features[-1])
        high = F.interpolate(high, low.shape[-2:], mode="bilinear", align_corners=False)
        logits = self.classifier(self.mix(torch.cat([high, low], 1)))
        return F.interpolate(logits, pixels.shape[-2:], mode="bilinear", align_corners=False)


def _conv(inputs: int, outputs: int, size: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def _timm_features(name: str, channels: int, pretrained: bool) -> nn.Module:
    """timm's network without its classifier, at output stride 16 if it can be had."""
    import timm

    how = {"pretrained": pretrained, "in_chans": channels, "features_only": True}
    try:
        return timm.create_model(name, output_stride=16, **how)
    except (NotImplementedError, TypeError, AssertionError):  # it has one output stride only
        return timm.create_model(name, **how)


def _find_timm(rest: str) -> Network | None:
    import timm

    if not timm.is_model(rest.partition(".")[0]):
        return None
    config = timm.get_pretrained_cfg(rest)
    return Network(
        f"timm:{rest}",
        lambda classes, channels: TimmSegmenter(rest, classes, channels),
        "timm",
        mean=tuple(config.mean),
        std=tuple(config.std),
        encoder="encoder",
        download=lambda classes, channels: TimmSegmenter(rest, classes, channels, True),
    )


def _timm_names() -> list[str]:
    import timm

    return [f"timm:{name}" for name in timm.list_models()]


def timm_order(name: str) -> list[str]:
    """The names of all weights of timm's own network, classifier included, in its order."""
    import timm

    with torch.device("meta"):
        return list(timm.create_model(name, pretrained=False).state_dict())


FAMILIES["smp"] = Family(_find_smp, "segmentation-models-pytorch", "smp", _smp_names)
FAMILIES["timm"] = Family(_find_timm, "timm", "timm", _timm_names)
