"""What a sealed run is: weights in an age file, and a ``run.json`` that is bound to them.

``sealed`` in ``run.json`` names the recipients and the checksum of the weights. The age file holds
the weights as safetensors, and in their metadata a digest of the header that prediction rests on
(network, classes, method, size): neither the file nor the header can be changed for that of another
model. Whoever can replace both is not held off, as sealing needs no secret.
`segkey.model.seal` seals and unseals.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from segkey.crypto import age
from segkey.errors import SegkeyError
from segkey.model import weights_files
from segkey.model.configuration import Configuration, Sealed
from segkey.system.files import is_there, open_regular

if TYPE_CHECKING:
    from segkey.model.runs import Run

SUFFIX = ".age"
_WITH = "with --key, or with --identity if --key is for images"
_UNBOUND = ("shards", "images", "views", "on_the_fly", "fingerprint")  # where it was trained


def sealed_for(recipients: Sequence[str]) -> Sealed:
    """What makes a new run a sealed one, if its configuration has it from the start.

    Its weights and its training's state are then never written unencrypted.

    Args:
        recipients: public texts ``age1…``.

    Raises:
        SegkeyError: none, too many, or one that is none.
    """
    return Sealed(recipients=tuple(age.check_recipients(recipients)))


def sealed_as_made_of(
    original: "Run", recipients: Sequence[str] = (), also: Sequence[str] = ()
) -> Sealed | None:
    """How a run is sealed that is made of another one; None if its weights are not encrypted.

    Args:
        original: if it is sealed, so is the new run, if need be for the same recipients.
        recipients: seal it for these instead.
        also: for these too, if it is sealed at all.

    Raises:
        SegkeyError: as `sealed_for`.
    """
    chosen = [*(recipients or original.recipients)]
    return sealed_for([*chosen, *also]) if chosen else None


def header_digest(document: Mapping) -> str:
    """SHA-256 of what prediction rests on in ``run.json``.

    Args:
        document: of ``run.json``, as it is in the file: a field that a later version of segkey adds
            to its records is not in the files of this one, and must not change their digest.
    """
    data = {name: value for name, value in document["data"].items() if name not in _UNBOUND}
    stated = {"model": document["model"], "data": data}
    text = json.dumps(stated, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def expect(made: Configuration) -> Configuration:
    """State the weights that are about to be written; those that may be there stay accepted.

    A kill between the writing of ``run.json`` and of the weights leaves the earlier ones.
    """
    checksum = made.weights_sha256
    others = tuple(each for each in dict.fromkeys(_accepted(made)) if each not in (None, checksum))
    return replace(made, sealed=replace(made.sealed, sha256=checksum, replaces=others or None))


def settle(made: Configuration) -> Configuration:
    """State that the expected weights, if they are sealed, are in their place."""
    return replace(made, sealed=replace(made.sealed, replaces=None)) if made.sealed else made


def _accepted(made: Configuration) -> tuple[str | None, ...]:
    """Checksums of the weights that may be there."""
    return made.sealed.sha256, *(made.sealed.replaces or ())


def require(run: "Run") -> None:
    """Raise `SegkeyError` unless a sealed run was given a key that it was sealed for."""
    recipients = run.recipients
    if run.identity is None:
        raise SegkeyError(
            f"{run.path} is sealed, and no key was given", f"give {_one_of(recipients)} {_WITH}"
        )
    if not set(recipients) & set(run.identity.recipients):
        raise _no_match(run)


def read(run: "Run", limit: int) -> dict[str, Tensor]:
    """The weights of a sealed run, opened in memory, and compared with ``run.json``.

    The file that a kill left of a training may be the one before; ``run.configuration`` then states
    that.

    Args:
        run: has been given its key.
        limit: the most bytes that its weights can take.

    Raises:
        SegkeyError: it was not sealed for that key, is damaged, or is that of another model.
    """
    require(run)
    file = run.weights_file
    try:
        with open_regular(file, limit + age.MOST_HEADER_BYTES) as opened:
            state, stated = weights_files.parsed(age.decrypted(opened, run.identity).getbuffer())
    except age.NoMatch:
        raise _damaged(file, "none of its recipients can open it") from None
    except (ValueError, OSError) as error:
        raise _damaged(file, str(error)) from None
    checksum = weights_files.checksum(state)
    if checksum not in _accepted(run.configuration):
        raise SegkeyError(
            f"{file} holds other weights than run.json states: it is of another model, or older",
            "restore the run's own file from a backup, or seal the run again",
        )
    if stated.get("header") not in (None, run.header_digest):
        raise SegkeyError(
            f"{run.path}/run.json is not the one that {file.name} was sealed with: its network, "
            "classes, method or size differ",
            "restore run.json from a backup",
        )
    stated_now = replace(run.configuration.sealed, sha256=checksum)
    run.configuration = replace(run.configuration, sealed=stated_now)
    return state


def damage_of_form(run: "Run") -> list[str]:
    """What is wrong with the age files of a sealed run, as far as shows without a key."""
    found, recipients = [], len(run.recipients)
    for file in (run.weights_file, run.state_file):
        if is_there(file):
            try:
                with open_regular(file) as opened:
                    count = age.count_recipients(opened)
                if count != recipients:
                    found.append(f"{file} is for {count} recipients, run.json names {recipients}")
            except ValueError as error:
                found.append(_damaged(file, str(error)).what)
    return found


def left_plain(run: "Run") -> list[Path]:
    """Unencrypted files beside a sealed run, as a sealing that was cut off leaves."""
    return [
        path
        for path in (run.path / n for n in ("model.safetensors", "resume.pt"))
        if is_there(path)
    ]


def warning_of(left: list[Path]) -> str:
    """What to say of `left_plain`."""
    return (
        f"{', '.join(map(str, left))} lies unencrypted beside the sealed weights: anybody who has "
        "the folder can use it; segkey seal again removes it"
    )


def _damaged(file: Path, why: str) -> SegkeyError:
    return SegkeyError(f"{file} is damaged: it does not open ({why})", "restore it from a backup")


def _no_match(run: "Run") -> SegkeyError:
    recipients = run.recipients
    return SegkeyError(
        f"{run.path} is not sealed for {run.identity.name}",
        f"give {_one_of(recipients)} {_WITH}",
    )


def _one_of(recipients: list[str]) -> str:
    return f"the key of {recipients[0]}" + (
        f" or of another of {len(recipients)} recipients" if recipients[1:] else ""
    )
