"""Write and read the weights of a run, and what its training goes on from; sealed or not."""

from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor

from segkey.crypto import age
from segkey.errors import SegkeyError
from segkey.model import networks, sealed_runs, weights_files
from segkey.system import json_records
from segkey.system.files import written_whole

if TYPE_CHECKING:
    from segkey.model.runs import Run


def write(run: "Run", state: dict[str, Tensor]) -> None:
    """Write the weights with their checksum, and nothing else; a training uses `Run.save_weights`.

    Those of a sealed run are encrypted in memory, and bound to its ``run.json``.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    stated = {"sha256": weights_files.checksum(state)}
    if run.is_sealed:
        stated["header"] = sealed_runs.header_digest(run.configuration.document)
    data = save(state, stated)
    if run.is_sealed:
        data = age.encrypted(data, run.recipients)
    with written_whole(run.weights_file) as file:
        file.write(data)


def load(run: "Run", device: torch.device) -> networks.Segmenter:
    """`segkey.model.runs.Run.load_model`."""
    run.require_weights()
    if run.is_sealed:
        sealed_runs.require(run)  # before the network is built, which takes a second
    model = _network(run)
    limit = 2 * model.bytes + (1 << 20)
    state = sealed_runs.read(run, limit) if run.is_sealed else _read(run, limit)
    model.load_weights(state, str(run.weights_file))
    return model.to(device, memory_format=torch.channels_last).eval()


def _network(run: "Run") -> networks.Segmenter:
    """Its network, with random weights."""
    return networks.described(json_records.as_json(run.configuration.model), run.header.classes)


def _read(run: "Run", limit: int) -> dict[str, Tensor]:
    """Weights that are not sealed, compared with the checksum in their own file."""
    try:
        state, expected = weights_files.read_safetensors(run.weights_file, limit)
    except (SafetensorError, OSError, ValueError):
        state, expected = {}, None
    if weights_files.checksum(state) != expected:
        raise SegkeyError(
            f"{run.weights_file} is damaged: it does not match its checksum",
            "restore it from a backup, or train again",
        )
    return state


def read_state(run: "Run", device: torch.device | str) -> dict:
    """`segkey.model.runs.Run.read_state`."""
    if run.is_sealed:
        sealed_runs.require(run)
    limit = _network(run).state_bytes + age.MOST_HEADER_BYTES * run.is_sealed
    identity = run.identity if run.is_sealed else None
    return weights_files.read_archive(run.state_file, device, limit, identity)
