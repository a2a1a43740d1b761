"""Locked runs: write them from a plainly trained run, for one key or for each of many customers."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch

from segkey.crypto import ciphers
from segkey.crypto.age import Identity
from segkey.crypto.ciphers import Cipher
from segkey.crypto.ciphers.base import check_size
from segkey.crypto.keys import Key
from segkey.errors import SegkeyError
from segkey.model import derived_runs, run_names, runs, sealed_runs
from segkey.model.configuration import Configuration, Lock, Sealed
from segkey.model.lock import SignedPermutation, lock_network
from segkey.model.locked_conv import LockedConv
from segkey.model.package_versions import now, versions
from segkey.model.stem import find_stem
from segkey.system import distributed
from segkey.system.progress import SILENT, Progress


def lock_run(
    run: runs.Run,
    key: Key,
    method: str,
    block_size: int,
    name: str | None = None,
    progress: Progress = SILENT,
    recipients: Sequence[str] = (),
) -> runs.Run:
    """Write a run that needs images encrypted with a key, and predicts as the original does.

    Args:
        run: trained on plain images; of a sealed one, which has been given its key
            (`segkey.model.runs.Run.unlock`), the new run is sealed for the same recipients unless
            others are given.
        key: that images will be encrypted with.
        method: ``np``, ``shf``, ``shf+np``, or one of a user's own that permutes and inverts.
        block_size: M, a multiple of the stride of the network's first convolution.
        name: of the new run, in the same folder; by default from the run's, the method and M.
        recipients: public texts ``age1…``; seal the new run for these, so that its weights are
            never written unencrypted.

    Raises:
        SegkeyError: the run is encrypted or locked already, its network or the method cannot be
            locked, M does not fit; no recipient; or the name is taken. Nothing is written then.
    """
    seal = sealed_runs.sealed_as_made_of(run, recipients)
    (made,) = _lock_runs(run, {name: (key, seal)}, method, block_size, progress)
    return made


def lock_for_customers(
    run: runs.Run,
    keys: Iterable[tuple[str, Key]],
    method: str,
    block_size: int,
    name: str | None = None,
    progress: Progress = SILENT,
    recipients: Sequence[str] = (),
) -> list[runs.Run]:
    """`lock_run` for each of some customers.

    Args:
        run, method, block_size: as for `lock_run`.
        keys: with the customer, whose name ends that of the run.
        name: begins it; by default that of `lock_run`.
        recipients: as for `lock_run`; a run that is sealed is sealed for its customer's key, too.

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
        seal = sealed_runs.sealed_as_made_of(run, recipients, also=Identity.of(key).recipients)
        by_name[chosen], of_key[key.id] = (key, seal), customer
    return _lock_runs(run, by_name, method, block_size, progress)


def _lock_runs(
    run: runs.Run,
    by_name: dict[str | None, tuple[Key, Sealed | None]],
    method: str,
    block_size: int,
    progress: Progress,
) -> list[runs.Run]:
    """Lock for several keys, each with how its run is sealed, by the names of their runs."""
    _check_can_be_locked(run)
    if method == "none":
        raise SegkeyError("method 'none' has no key", "lock with --method np, shf or shf+np")
    check_size(*run.size, block_size)
    folder, default = run.folder, default_name(run, method, block_size)
    paths = {
        folder / (name or run_names.free_name(folder, default)): chosen
        for name, chosen in by_name.items()
    }
    of_path = {}
    for path, (key, seal) in paths.items():
        run_names.check_name(path.name)
        runs.check_free(path)
        cipher = ciphers.from_key(method, key, block_size, run.header.channels)
        SignedPermutation.of(cipher)
        of_path[path] = cipher, seal
    distributed.barrier()  # no rank looks for a run that the first one has made since
    if distributed.is_main():
        network = run.load_model(torch.device("cpu"))
        stem = find_stem(network)
        with progress.task("lock", len(paths), "runs") as advance:
            for path, (cipher, seal) in of_path.items():
                locked = lock_network(network, cipher, stem)
                lock = _lock_of(run, locked.get_submodule(stem.path), stem.path, cipher)
                made = _configuration(run, path.name, lock, cipher, seal)
                derived_runs.write(run, path, made, locked.weights())
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


def _lock_of(run: runs.Run, layer: LockedConv, stem: str, cipher: Cipher) -> Lock:
    return Lock(
        stem=stem,
        block_size=cipher.block_size,
        whole_blocks=layer.rows.whole,
        original=run.weights_checksum,
        created=now(),
        versions=versions(),
    )


def _configuration(
    run: runs.Run, name: str, lock: Lock, cipher: Cipher, seal: Sealed | None
) -> Configuration:
    """``run.json`` of a locked run: that of its original, with the lock and what images need."""
    made, needed = run.configuration, ("method", "block_size", "max_value", "key_id")
    return replace(
        made,
        name=name,
        sealed=seal,
        model=replace(made.model, lock=lock),
        data=replace(made.data, **{each: getattr(cipher, each) for each in needed}),
    )
