"""Locked runs: write them from a plainly trained run, for one key or for each of many customers."""

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch

from segkey.crypto import ciphers
from segkey.crypto.ciphers import Cipher
from segkey.crypto.ciphers.base import check_size
from segkey.crypto.keys import Key
from segkey.errors import SegkeyError
from segkey.model import run_names, runs, sealed
from segkey.model.configuration import Configuration, Lock
from segkey.model.lock import SignedPermutation, lock_network
from segkey.model.locked_conv import LockedConv
from segkey.model.networks import Segmenter
from segkey.model.stem import find_stem
from segkey.system import distributed
from segkey.system.files import explain_os_errors, is_folder_there, make_folder, sole_writer
from segkey.system.progress import SILENT, Progress


def lock_run(
    run: runs.Run,
    key: Key,
    method: str,
    block_size: int,
    name: str | None = None,
    progress: Progress = SILENT,
) -> runs.Run:
    """Write a run that needs images encrypted with a key, and predicts as the original does.

    Args:
        run: trained on plain images; of a sealed one, which has been given its key
            (`segkey.model.runs.Run.unlock`), the new run is sealed for the same recipients.
        key: that images will be encrypted with.
        method: ``np``, ``shf``, ``shf+np``, or one of a user's own that permutes and inverts.
        block_size: M, a multiple of the stride of the network's first convolution.
        name: of the new run, in the same folder; by default from the run's, the method and M.
        progress: hears of the run.

    Raises:
        SegkeyError: the run is encrypted or locked already, its network or the method cannot be
            locked, M does not fit; or the name is taken. Nothing is written then.
    """
    (made,) = lock_runs(run, {name: key}, method, block_size, progress)
    return made


def lock_for_customers(
    run: runs.Run,
    keys: Iterable[tuple[str, Key]],
    method: str,
    block_size: int,
    name: str | None = None,
    progress: Progress = SILENT,
) -> list[runs.Run]:
    """`lock_run` for each of some customers.

    Args:
        run, method, block_size: as for `lock_run`.
        keys: with the customer, whose name ends that of the run.
        name: begins it; by default that of `lock_run`.
        progress: hears of every run.

    Raises:
        SegkeyError: as `lock_run`; one key for two customers, or two customers of one name.
            Nothing is written then.
    """
    base, by_name, of_key = name or default_name(run, method, block_size), {}, {}
    for customer, key in keys:
        chosen = f"{base}-{run_names.as_name(customer)}"
        if chosen in by_name:
            raise SegkeyError(
                f"two customers' runs would be called {chosen}", "rename one of the key files"
            )
        if key.id in of_key:
            raise SegkeyError(
                f"{of_key[key.id]} and {customer} have the same key, {key.id}",
                "make a key for each customer with 'segkey keygen NAME'",
            )
        by_name[chosen], of_key[key.id] = key, customer
    return lock_runs(run, by_name, method, block_size, progress)


def lock_runs(
    run: runs.Run,
    by_name: dict[str | None, Key],
    method: str,
    block_size: int,
    progress: Progress = SILENT,
) -> list[runs.Run]:
    """`lock_run` for several keys by the names of their runs."""
    _check_can_be_locked(run)
    if method == "none":
        raise SegkeyError("method 'none' has no key", "lock with --method np, shf or shf+np")
    check_size(*run.size, block_size)
    folder = run.path.absolute().parent if run.path.name == "" else run.path.parent
    default = default_name(run, method, block_size)
    paths = {
        folder / (name or runs.free_name(folder, default)): key for name, key in by_name.items()
    }
    of_path = {}
    for path, key in paths.items():
        run_names.check_name(path.name)
        runs.check_free(path)
        of_path[path] = ciphers.from_key(method, key, block_size, run.header.channels)
        SignedPermutation.of(of_path[path])
    distributed.barrier()  # no rank looks for a run that the first one has made since
    if distributed.is_main():
        network = run.load_model(torch.device("cpu"))
        stem = find_stem(network)
        with progress.task("lock", len(paths), "runs") as advance:
            for path, cipher in of_path.items():
                _write(run, path, lock_network(network, cipher, stem), stem.path, cipher)
                advance(1)
    distributed.barrier()
    return [runs.Run.open(path) for path in paths]


def default_name(run: runs.Run, method: str, block_size: int) -> str:
    """What a locked run is called unless it is given a name."""
    return f"{run.name}-locked-{run_names.of_method(method, block_size)}"


def _check_can_be_locked(run: runs.Run) -> None:
    if run.is_locked:
        raise SegkeyError(
            f"{run.path} is locked already, with key {run.header.key_id}",
            "lock the run that it was made of, with the other key",
        )
    if run.header.method != "none":
        raise SegkeyError(
            f"{run.path} was trained on encrypted images ({run.header.method}, M = "
            f"{run.header.block_size}); only a plainly trained run can be locked",
            "give a run that was trained on plain images",
        )
    run.require_weights()


def _write(run: runs.Run, path: Path, locked: Segmenter, stem: str, cipher: Cipher) -> None:
    """Write the run of a locked network, whole or not at all."""
    lock = _lock_of(run, locked.get_submodule(stem), stem, cipher)
    partial = path.with_name(f".{path.name}.partial")
    is_folder_there(partial)
    with sole_writer(make_folder(partial)):
        made = runs.Run(partial, _configuration(run, path.name, lock, cipher))
        made.save_weights(locked.weights())
        made.write_history(run.history())
        made.save()
        with explain_os_errors(path):
            os.rename(partial, path)
    run_names.point_to_latest(path.parent, path.name)


def _lock_of(run: runs.Run, layer: LockedConv, stem: str, cipher: Cipher) -> Lock:
    return Lock(
        stem=stem,
        block_size=cipher.block_size,
        whole_blocks=layer.rows.whole,
        original=run.weights_checksum,
        created=runs.now(),
        versions=runs.versions(),
    )


def _configuration(run: runs.Run, name: str, lock: Lock, cipher: Cipher) -> Configuration:
    """``run.json`` of a locked run: that of its original, with the lock and what images need."""
    made, needed = run.configuration, ("method", "block_size", "max_value", "key_id")
    return replace(
        made,
        name=name,
        sealed=sealed.sealed_for(run.recipients) if run.is_sealed else None,
        model=replace(made.model, lock=lock),
        data=replace(made.data, **{each: getattr(cipher, each) for each in needed}),
    )
