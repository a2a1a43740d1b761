"""The networks: an alias of `segkey.model.networks`, where they are described."""

from segkey.model.network_registry import NETWORKS, Network, find, network
from segkey.model.networks import Segmenter, build

__all__ = ["NETWORKS", "Network", "Segmenter", "build", "find", "network"]
