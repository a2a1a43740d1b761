"""Networks as segkey uses them: any registered one, its normalisation, and its starting weights.

`segkey.model.network_registry` says what a network is and how to register one.
"""

import torch
from torch import Tensor, nn

from segkey.errors import SegkeyError
from segkey.model import batch_norm_folding, network_registry, starting_weights
from segkey.model.locked_conv import put_in_place
from segkey.model.network_registry import in_a_line, recorded

_KNOWN_TO_WORK = ("torchvision", "segkey")  # with images of any size
_USUAL_STRIDE = 32  # other encoders halve the image five times


class Segmenter(nn.Module):
    """A registered network behind its normalisation.

    Args:
        name: as `segkey.model.network_registry.find` takes it.
        classes: number of classes.
        channels: of images.
        mean, std: what pixels 0 … 1 are normalised by, a value per channel; the network's own by
            default.

    Attributes:
        name: under which it is recorded.
        mean, std: float (1, C, 1, 1).
        fcn: the network itself.

    Raises:
        SegkeyError: an unknown name, or a network that cannot be made.
    """

    # Weights expect inputs normalised as they were trained; that belongs to the network, so that
    # its input is always the same: pixels divided by the method's largest value.
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str,
        classes: int,
        channels: int = 3,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
    ):
        super().__init__()
        self.entry = network_registry.find(name)
        self.name, self.classes, self.channels = self.entry.name, classes, channels
        self.fcn = self.entry.build(classes, channels)
        own = self.entry.normalisation(channels)
        for kind, values in zip(("mean", "std"), (mean or own[0], std or own[1]), strict=True):
            self.register_buffer(kind, torch.tensor(values).view(1, -1, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """float (N, C, H, W) in 0 … 1 to logits (N, classes, H, W)."""
        made = self.fcn((pixels - self.mean) / self.std)
        return made["out"] if isinstance(made, dict) else made

    @property
    def multiple(self) -> int:
        """What the sides of images should be multiples of, besides the block size."""
        return 1 if self.entry.origin in _KNOWN_TO_WORK else _USUAL_STRIDE

    def check_size(self, height: int, width: int) -> None:
        """Raise `SegkeyError` unless an image of that size becomes logits of that size."""
        if self.entry.origin in _KNOWN_TO_WORK:
            return
        image = torch.zeros(1, self.channels, height, width, device=self.mean.device)
        training = self.training
        try:
            with torch.inference_mode(), torch.random.fork_rng(devices=[]):
                made = self.eval()(image)
        except Exception as error:
            raise SegkeyError(
                f"network {self.name} does not take images of {height}x{width}: {in_a_line(error)}",
                "encrypt with another --size, or take another --network",
            ) from error
        finally:
            self.train(training)
        wanted = (1, self.classes, height, width)
        if not isinstance(made, Tensor) or tuple(made.shape) != wanted:
            got = tuple(made.shape) if isinstance(made, Tensor) else type(made).__name__
            raise SegkeyError(
                f"network {self.name} makes {got} of an image of {height}x{width}; needed are "
                f"logits {wanted}",
                "let its factory return a network that gives logits in the size of the image",
            )

    @property
    def description(self) -> dict:
        """What ``run.json`` holds under ``model``; `described` builds the network again."""
        return {
            "name": self.name,
            "channels": self.channels,
            "mean": [round(value, 7) for value in self.mean.flatten().tolist()],
            "std": [round(value, 7) for value in self.std.flatten().tolist()],
        }

    @property
    def bytes(self) -> int:
        """What the weights take, in memory and in a file."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.weights().values())

    @property
    def state_bytes(self) -> int:
        """Upper limit of a checkpoint: weights, best and averaged ones, optimizer, history."""
        return 6 * self.bytes + (16 << 20)

    def weights(self) -> dict[str, Tensor]:
        """The state dict of the network itself, under its own names.

        A checkpoint of a torchvision network loads into torchvision's own, too.
        """
        return self.fcn.state_dict()

    def load_weights(self, state: dict[str, Tensor], origin: str) -> None:
        """Load a state dict of this network, all of it.

        Raises:
            SegkeyError: a tensor of another shape, one that is missing, or names of another
                network.
        """
        starting_weights.check_fit(state, self.weights(), origin, f"{self.name}")
        self.fcn.load_state_dict(state)


def described(model: dict, classes: list[str] | tuple[str, ...]) -> Segmenter:
    """The network that ``run.json`` describes under ``model``, with random weights.

    That of a locked run has the locked first convolution in the place of its own, that of a folded
    one no batch normalisation where it was folded.

    Raises:
        SegkeyError: its package or plug-in is missing, or a lock or what was folded does not fit.
    """
    network = Segmenter(
        recorded(model),
        len(classes),
        model.get("channels", 3),
        model.get("mean"),
        model.get("std"),
    )
    if lock := model.get("lock"):
        put_in_place(network, lock["stem"], lock["block_size"], lock["whole_blocks"])
    batch_norm_folding.put_in_place(network, model.get("folded") or ())
    return network


def build(
    name: str,
    classes: list[str],
    weights: str = "none",
    channels: int = 3,
    encoder_weights: str | None = None,
) -> Segmenter:
    """A network for some classes, with its starting weights.

    Args:
        name: as `segkey.model.network_registry.find` takes it.
        classes: names; if they are VOC's, the 21-class head of the COCO weights is used as it
            is, and otherwise replaced. A file's head is used if it has as many classes.
        weights: ``coco``, ``imagenet``, ``none``, or a file (``.safetensors``, or ``.pth`` without
            pickled code).
        channels: of images.
        encoder_weights: a file of weights for the encoder alone, such as those of a classifier.

    Raises:
        SegkeyError: weights that are neither cached nor reachable, or do not fit. Never a silent
            fallback.
    """
    model = Segmenter(name, len(classes), channels)
    if weights != "none":
        starting_weights.start(model, model.entry, weights, classes)
    if encoder_weights:
        starting_weights.start_encoder(model, model.entry, encoder_weights)
    return model


def names_of_family(prefix: str) -> list[str]:
    """The names of all networks that a package makes: ``smp`` or ``timm``.

    Raises:
        ImportError: the package is not installed.
    """
    return network_registry.FAMILIES[prefix].names()
