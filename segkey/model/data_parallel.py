"""A network on all ranks: the same weights, averaged gradients, common batch normalisation."""

from typing import Any

from segkey.system.distributed import all_reduce_sum, broadcast, is_main, is_single, world_size


def same_weights(model: Any) -> Any:
    """Copy the main rank's weights to all ranks; returns the model."""
    if not is_single():
        state = broadcast(
            {name: tensor.cpu() for name, tensor in model.state_dict().items()}
            if is_main()
            else None
        )
        model.load_state_dict(state)
    return model


def parallel(network: Any, device: Any) -> Any:
    """A network whose gradients are averaged over all ranks; unchanged if there is one process."""
    if is_single():
        return network
    from torch.nn.parallel import DistributedDataParallel

    how = {"device_ids": [device.index], "process_group": _gpus()} if device.type == "cuda" else {}
    # Statistics of batch normalisation are not copied from the main rank at every step: GPUs
    # compute them together.
    return DistributedDataParallel(
        network, broadcast_buffers=False, gradient_as_bucket_view=True, **how
    )


def sync_batchnorm(model: Any, device: Any) -> Any:
    """A model whose batch normalisation sees the batches of all ranks; unchanged on CPUs.

    torch has no such layer for CPUs.
    """
    if is_single() or device.type != "cuda":
        return model
    from torch.nn import SyncBatchNorm

    return SyncBatchNorm.convert_sync_batchnorm(model, _gpus())


def average_buffers(model: Any) -> None:
    """Average the statistics of batch normalisation over all ranks, in place."""
    if is_single():
        return
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.copy_(all_reduce_sum(buffer.contiguous()) / world_size())


_group_of_gpus: Any = None


def _gpus() -> Any:
    """The process group that communicates by NCCL."""
    global _group_of_gpus
    if _group_of_gpus is None:
        import torch.distributed as dist

        _group_of_gpus = dist.new_group(backend="nccl")
    return _group_of_gpus
