"""The network: torchvision's FCN on a dilated ResNet, and the weights it starts from."""

import socket
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import ResNet50_Weights, ResNet101_Weights
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.models.segmentation import FCN_ResNet50_Weights, FCN_ResNet101_Weights
from torchvision.models.segmentation.fcn import FCN, FCNHead

from segkey.data.layouts import VOC_CLASSES
from segkey.errors import SegkeyError, SegkeyWarning
from segkey.model.locked_conv import put_in_place
from segkey.model.weights import WEIGHTS, read_weights

BACKBONES = {  # bottlenecks per stage, and where torchvision's weights are
    "resnet14": ((1, 1, 1, 1), {}),
    "resnet50": (
        (3, 4, 6, 3),
        {
            "coco": FCN_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1,
            "imagenet": ResNet50_Weights.IMAGENET1K_V1,
        },
    ),
    "resnet101": (
        (3, 4, 23, 3),
        {
            "coco": FCN_ResNet101_Weights.COCO_WITH_VOC_LABELS_V1,
            "imagenet": ResNet101_Weights.IMAGENET1K_V1,
        },
    ),
}


class Segmenter(nn.Module):
    """FCN with a ResNet backbone of output stride 8; logits upsampled to the input's size.

    Args:
        backbone: a name in `BACKBONES`.
        classes: number of classes.
    """

    # torchvision's weights expect inputs normalised with ImageNet's statistics; they belong to the
    # network, so that its input is always the same: pixels divided by the method's largest value.
    mean: Tensor
    std: Tensor

    def __init__(self, backbone: str, classes: int):
        super().__init__()
        if backbone not in BACKBONES:
            raise SegkeyError(
                f"there is no backbone '{backbone}'", f"backbones: {', '.join(BACKBONES)}"
            )
        self.backbone, self.classes = backbone, classes
        stages, _ = BACKBONES[backbone]
        resnet = ResNet(Bottleneck, list(stages), replace_stride_with_dilation=[False, True, True])
        self.fcn = FCN(IntermediateLayerGetter(resnet, {"layer4": "out"}), FCNHead(2048, classes))
        self.register_buffer(
            "mean", torch.tensor((0.485, 0.456, 0.406)).view(1, 3, 1, 1), persistent=False
        )
        self.register_buffer(
            "std", torch.tensor((0.229, 0.224, 0.225)).view(1, 3, 1, 1), persistent=False
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """float (N, 3, H, W) in 0 … 1 to logits (N, classes, H, W)."""
        return self.fcn((pixels - self.mean) / self.std)["out"]

    # Saved under torchvision's own names, so that a checkpoint loads into a plain fcn_resnet50 too.

    @property
    def bytes(self) -> int:
        """What the weights take, in memory and in a file."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.weights().values())

    @property
    def state_bytes(self) -> int:
        """The most bytes a checkpoint takes: weights, best weights, optimizer state, history."""
        return 5 * self.bytes + (16 << 20)

    def weights(self) -> dict[str, Tensor]:
        """The state dict of the FCN, with torchvision's names."""
        return self.fcn.state_dict()

    def load_weights(self, state: dict[str, Tensor], origin: str, new_head: bool = False) -> None:
        """Load a state dict of an FCN, or of a ResNet alone.

        The head stays random if it is missing, or if ``new_head``.

        Raises:
            SegkeyError: a tensor of another shape, or names of another network.
        """
        state = {
            name: tensor for name, tensor in state.items() if not name.startswith("aux_classifier.")
        }
        if "conv1.weight" in state:
            state = {
                f"backbone.{name}": tensor
                for name, tensor in state.items()
                if not name.startswith("fc.")
            }
        mine = self.fcn.state_dict()
        head = {"classifier.4.weight", "classifier.4.bias"}
        if new_head:
            state = {name: tensor for name, tensor in state.items() if name not in head}
        missing = [
            name for name in mine if name not in state and not name.startswith("classifier.")
        ]
        unknown = [name for name in state if name not in mine]
        if missing or unknown:
            example = f"{missing[0]} is missing" if missing else f"{unknown[0]} is not in it"
            raise SegkeyError(
                f"{origin} does not hold weights of an FCN with {self.backbone}: {example}",
                "give the weights of that backbone, or another --backbone",
            )
        for name, tensor in state.items():
            if tensor.shape != mine[name].shape:
                raise SegkeyError(
                    f"{origin}: {name} has shape {tuple(tensor.shape)}, needed is "
                    f"{tuple(mine[name].shape)}",
                    "give the weights of that backbone, or another --backbone",
                )
        self.fcn.load_state_dict(state, strict=False)


def described(model: dict, classes: list[str] | tuple[str, ...]) -> Segmenter:
    """The network that ``run.json`` describes under ``model``, with random weights."""
    network = Segmenter(model["backbone"], len(classes))
    if lock := model.get("lock"):
        put_in_place(network, lock["stem"], lock["block_size"], lock["whole_blocks"])
    return network


def build(backbone: str, classes: list[str], weights: str = "none") -> Segmenter:
    """A network for some classes, with its starting weights.

    Args:
        backbone: a name in `BACKBONES`.
        classes: names; if they are VOC's, the 21-class head of the COCO weights is used as it
            is, and otherwise replaced. A file's head is used if it has as many classes.
        weights: ``coco``, ``imagenet``, ``none``, or a file (``.safetensors``, or ``.pth`` without
            pickled code).

    Raises:
        SegkeyError: weights that are neither cached nor reachable, or do not fit. Never a silent
            fallback.
    """
    model = Segmenter(backbone, len(classes))
    if weights == "none":
        return model
    if weights not in WEIGHTS:
        state, origin = read_weights(Path(weights)), weights
    else:
        state, origin = _pretrained(backbone, weights)
    head = state.get("classifier.4.weight")
    new_head = (
        head is None
        or len(head) != len(classes)
        or (_is_coco(backbone, origin) and not _are_voc(classes))
    )
    if new_head and head is not None:
        warnings.warn(
            f"the {len(head)}-class head of {origin} is replaced by a new one for {len(classes)} "
            f"classes",
            SegkeyWarning,
            stacklevel=2,
        )
    model.load_weights(state, origin, new_head)
    return model


def _is_coco(backbone: str, origin: str) -> bool:
    """Whether weights are torchvision's COCO weights, from its cache or given as a file."""
    _, known = BACKBONES[backbone]
    return "coco" in known and Path(origin).name == known["coco"].url.rsplit("/", 1)[1]


def _are_voc(classes: list[str]) -> bool:
    return [name.strip("_").lower() for name in classes] == VOC_CLASSES


def _pretrained(backbone: str, weights: str) -> tuple[dict[str, Tensor], str]:
    """torchvision's weights, from its cache or from its server."""
    _, known = BACKBONES[backbone]
    if weights not in known:
        raise SegkeyError(
            f"there are no {weights} weights for {backbone}",
            "use --recipe scratch, or --weights FILE, or --backbone resnet50",
        )
    url = known[weights].url
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
                f"with --recipe scratch",
            ) from None
        finally:
            socket.setdefaulttimeout(patience)
    return read_weights(file), file.name
