"""Conditions of a training and a test: what must agree before numbers are compared or averaged.

Conditions are values by name, None for what a run does not tell (runs of earlier versions tell
less). Two unknown values count as equal, an unknown and a known one do not. The seed and the key
are no conditions: runs that differ in nothing else are repetitions of one experiment. Neither are
method and block size, which are what is compared.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the configuration of a run imports torch, which tables do without
    from collections.abc import Callable

    from segkey.model.configuration import Configuration, Segment
    from segkey.model.results import Result

_UNSHOWN = {
    "classes": "other classes",
    "test masks": "other test images",
}  # values that tell a reader nothing


def of_run(made: Configuration, result: Result | None) -> dict[str, object]:
    """Conditions of a run and of one of its results.

    Args:
        made: the run's.
        result: of ``segkey evaluate`` or ``segkey attack``; None if there is none.
    """
    return of_training(made) | of_test(result)


def of_training(made: Configuration) -> dict[str, object]:
    """How a run was trained, from its ``run.json``."""
    data, record, recipe = made.data, made.training, asdict(made.recipe) if made.recipe else {}
    images = data.images or {}
    crop_scale = recipe.pop("crop_scale", None)
    if record:  # the recipe's is not used where images were augmented beforehand
        crop_scale = record.crop_scale if record.augmented else None
    weights, encoder = (  # without the folder of a file, which is private
        str(recipe.pop(name, None) or "").replace("\\", "/").rsplit("/", 1)[-1]
        for name in ("weights", "encoder_weights")
    )
    return {
        "classes": list(data.classes),
        "size": "x".join(map(str, data.size)),
        "void value": data.ignore_index,
        "network": made.model.network,
        "starting weights": weights or None,
        "encoder weights": encoder or None,
        "training images": images.get("train"),
        "validation images": images.get("val"),
        "epochs done": made.epochs_done,
        **{name.replace("_", " "): value for name, value in sorted(recipe.items())},
        "augmented": record and record.augmented,
        "augmented on the fly": record.on_the_fly if record else data.on_the_fly,
        "views": record.views if record else data.views,
        "crop scale": crop_scale,
        "precise": made.precise,
        "compiled": bool(made.compiled),
        "training in": _over_segments(made, lambda part: part.dtype, record and record.dtype),
        "ranks": _over_segments(made, lambda part: part.world_size, record and record.world_size),
        "trained on": device_kind(made.device),
        **{name: _version(made, name) for name in ("segkey", "torch")},
    }


def of_test(result: Result | None) -> dict[str, object]:
    """On what and how a run was tested; all None if it was not."""
    tested = result.tested if result else {}
    return {
        "test images": result and result.images,
        "test masks": tested.get("labels"),
        "tested split": tested.get("split", result and result.split),
        "tested in": tested.get("dtype"),
        "tested on": device_kind(result and result.device),
    }


def key(conditions: dict[str, object]) -> str:
    """The same text for the same conditions; names without a value do not count."""
    known = {name: value for name, value in conditions.items() if value is not None}
    return json.dumps(known, sort_keys=True, default=str, allow_nan=False)


def differences(conditions: dict[str, object], other: dict[str, object]) -> list[str]:
    """What differs, in words: the value in ``conditions``, and in brackets that of ``other``."""
    found = []
    for name in dict.fromkeys([*conditions, *other]):
        value, others = conditions.get(name), other.get(name)
        if key({name: value}) == key({name: others}):
            continue
        if value is None or others is None:
            found.append(f"{name} not recorded{' there' * (others is None)}")
        elif name in _UNSHOWN or isinstance(value, bool):
            found.append(in_words(name, value))
        else:
            found.append(f"{in_words(name, value)} (not {_short(others)})")
    return found


def in_words(name: str, value: object) -> str:
    """A condition and its value."""
    if value is None:
        return f"{name} not recorded"
    if name in _UNSHOWN:
        return _UNSHOWN[name]
    if isinstance(value, bool):
        return name if value else f"not {name}"
    return f"{name} {_short(value)}"


def varying(several: list[dict[str, object]]) -> list[str]:
    """Names of conditions that are not the same in all of several."""
    names = dict.fromkeys(name for conditions in several for name in conditions)
    return [
        name
        for name in names
        if len({key({name: conditions.get(name)}) for conditions in several}) > 1
    ]


def joined(differing: list[str], most: int = 6) -> str:
    """Differences as one line, with the number of those that are left out."""
    rest = len(differing) - most
    return ", ".join(differing[:most]) + (f" and {rest} more" if rest > 0 else "")


def device_kind(device: object) -> str | None:
    """The kind of a device: its description without the number of threads."""
    return re.sub(r", \d+ threads?", "", device) if isinstance(device, str) else None


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str, allow_nan=False)
    return text if len(text) <= 60 else text[:57] + "…"


def _version(made: Configuration, name: str) -> object:
    """The significant part of a package's version, over all segments of a training."""
    only = significant((made.versions or {}).get(name))
    return _over_segments(made, lambda part: significant(part.versions.get(name)), only)


def significant(version: object) -> str | None:
    """The significant part of a version: up to the first number that is not 0."""
    found = re.match(r"(?:0\.)*\d+", version) if isinstance(version, str) else None
    return found.group() if found else None


def _over_segments(made: Configuration, of: Callable[[Segment], object], only: object) -> object:
    """A value of a training that was resumed: all that it had, in their order.

    ``only`` stands for runs of earlier versions, which have no segments.
    """
    values = [value for part in made.segments or () if (value := of(part)) is not None] or [only]
    distinct = list(dict.fromkeys(map(str, values)))
    return values[0] if len(distinct) == 1 else ", then ".join(distinct)
