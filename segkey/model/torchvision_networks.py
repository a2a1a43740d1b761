"""torchvision's segmentation networks, and `resnet14`, an FCN small enough for a laptop."""

from collections.abc import Callable

from torch import nn
from torchvision.models import MobileNet_V3_Large_Weights, ResNet50_Weights, ResNet101_Weights
from torchvision.models import segmentation as tv
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.models.segmentation.fcn import FCN, FCNHead

from segkey.model.network_registry import NETWORKS, Factory, Network


def with_channels(module: nn.Module, path: str, channels: int) -> nn.Module:
    """A network whose first convolution, at ``path``, takes images with so many channels."""
    old = module.get_submodule(path)
    if old.in_channels != channels:
        new = nn.Conv2d(
            channels,
            old.out_channels,
            old.kernel_size,
            old.stride,
            old.padding,
            bias=old.bias is not None,
        )
        module.set_submodule(path, new)
    return module


def _fcn(stages: tuple[int, ...]) -> Factory:
    """FCN on a ResNet of output stride 8; what torchvision builds, in the order it always had.

    The order decides which random weights a seed gives.
    """

    def build(classes: int, channels: int) -> nn.Module:
        resnet = ResNet(Bottleneck, list(stages), replace_stride_with_dilation=[False, True, True])
        fcn = FCN(IntermediateLayerGetter(resnet, {"layer4": "out"}), FCNHead(2048, classes))
        return with_channels(fcn, "backbone.conv1", channels)

    return build


def _torchvisions(function: Callable[..., nn.Module], stem: str) -> Factory:
    def build(classes: int, channels: int) -> nn.Module:
        module = function(weights=None, weights_backbone=None, num_classes=classes, aux_loss=False)
        return with_channels(module, stem, channels)

    return build


def _lraspp(classes: int, channels: int) -> nn.Module:
    module = tv.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=classes)
    return with_channels(module, "backbone.0.0", channels)


def _register(name: str, factory: Factory, coco: object = None, imagenet: object = None) -> None:
    known = {"coco": coco, "imagenet": imagenet}
    NETWORKS[name] = Network(
        name,
        factory,
        "segkey" if name == "resnet14" else "torchvision",
        encoder="backbone",
        pretrained={weights: what for weights, what in known.items() if what is not None},
    )


_R50, _R101 = ResNet50_Weights.IMAGENET1K_V1, ResNet101_Weights.IMAGENET1K_V1
_MOBILE = MobileNet_V3_Large_Weights.IMAGENET1K_V1

_register(
    "fcn_resnet50",
    _fcn((3, 4, 6, 3)),
    tv.FCN_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1,
    _R50,
)
_register(
    "fcn_resnet101",
    _fcn((3, 4, 23, 3)),
    tv.FCN_ResNet101_Weights.COCO_WITH_VOC_LABELS_V1,
    _R101,
)
_register(
    "deeplabv3_resnet50",
    _torchvisions(tv.deeplabv3_resnet50, "backbone.conv1"),
    tv.DeepLabV3_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1,
    _R50,
)
_register(
    "deeplabv3_resnet101",
    _torchvisions(tv.deeplabv3_resnet101, "backbone.conv1"),
    tv.DeepLabV3_ResNet101_Weights.COCO_WITH_VOC_LABELS_V1,
    _R101,
)
_register(
    "deeplabv3_mobilenet_v3_large",
    _torchvisions(tv.deeplabv3_mobilenet_v3_large, "backbone.0.0"),
    tv.DeepLabV3_MobileNet_V3_Large_Weights.COCO_WITH_VOC_LABELS_V1,
    _MOBILE,
)
_register(
    "lraspp_mobilenet_v3_large",
    _lraspp,
    tv.LRASPP_MobileNet_V3_Large_Weights.COCO_WITH_VOC_LABELS_V1,
    _MOBILE,
)
_register("resnet14", _fcn((1, 1, 1, 1)))
