"""`thin`: a network like `resnet14`, with a hundredth of its weights, for tests of other things.

A plug-in, which tests/conftest.py names in the environment: real processes know the network too.
"""

from collections import OrderedDict

from segkey.model.network_registry import MAX_CHANNELS, network


@network("thin", channels=range(1, MAX_CHANNELS + 1), encoder="backbone")
def thin(classes: int, channels: int):
    """FCN on a ResNet's stem and two dilated convolutions, under torchvision's names."""
    from torch import nn  # only when it is built: every command imports this file
    from torchvision.models._utils import IntermediateLayerGetter
    from torchvision.models.segmentation.fcn import FCN, FCNHead

    layers = OrderedDict(
        conv1=nn.Conv2d(channels, 64, 7, 2, 3, bias=False), bn1=nn.BatchNorm2d(64), relu=nn.ReLU()
    )
    layers["maxpool"] = nn.MaxPool2d(3, 2, 1)
    for number in (1, 2):
        conv = nn.Conv2d(64, 64, 3, padding=number, dilation=number, bias=False)
        layers[f"layer{number}"] = nn.Sequential(conv, nn.BatchNorm2d(64), nn.ReLU())
    backbone = IntermediateLayerGetter(nn.Sequential(layers), {"layer2": "out"})
    return FCN(backbone, FCNHead(64, classes))
