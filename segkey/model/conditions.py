"""Conditions of a training and a test: what must agree before numbers are compared or averaged.

Conditions are values by name, None for what a run does not tell (runs of earlier versions tell
less). Two unknown values count as equal, an unknown and a known one do not. The seed and the key
are no conditions: runs that differ in nothing else are repetitions of one experiment. Neither are
method and block size, which are what is compared.
"""

import json
import re

from segkey.model.network_registry import recorded
from segkey.model.results import Result

_UNSHOWN = {
    "classes": "other classes",
    "test masks": "other test images",
}  # values that tell a reader nothing


def of_run(config: dict, result: Result | None) -> dict[str, object]:
    """Conditions of a run and of one of its results.

    Args:
        config: what ``run.json`` holds.
        result: of ``segkey evaluate`` or ``segkey attack``; None if there is none.
    """
    return of_training(config) | of_test(result)


def of_training(config: dict) -> dict[str, object]:
    """How a run was trained, from its ``run.json``."""
    data, recipe, record = config["data"], dict(config["recipe"]), _part(config, "training")
    images = _part(data, "images")
    crop_scale = recipe.pop("crop_scale", None)
    if record:  # the recipe's is not used where images were augmented beforehand
        crop_scale = record.get("crop_scale") if record.get("augmented") else None
    weights = (
        str(recipe.pop("weights", "")).replace("\\", "/").rsplit("/", 1)[-1]
    )  # without the folder of a file, which is private
    return {
        "classes": list(data["classes"]),
        "size": "x".join(map(str, data["size"])),
        "void value": data.get("ignore_index"),
        "network": recorded(config["model"]),
        "starting weights": weights or None,
        "training images": images.get("train"),
        "validation images": images.get("val"),
        "epochs done": config["epochs_done"],
        **{name.replace("_", " "): value for name, value in sorted(recipe.items())},
        "augmented": record.get("augmented"),
        "augmented on the fly": record.get("on_the_fly", data.get("on_the_fly")),
        "views": record.get("views", data.get("views")),
        "crop scale": crop_scale,
        "precise": bool(config.get("precise")),
        "compiled": bool(config.get("compiled")),
        "training in": _over_segments(config, "dtype", record.get("dtype")),
        "ranks": _over_segments(config, "world_size", record.get("world_size")),
        "trained on": device_kind(config.get("device")),
        **{
            name: _over_segments(config, name, _major(config, name)) for name in ("segkey", "torch")
        },
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


def of_cell(cell: dict) -> dict[str, object]:
    """Conditions of a cell of ``results.json``; those of earlier versions tell a few of them."""
    told = _part(cell, "conditions")
    early = {
        "epochs done": cell.get("epochs"),
        "test images": cell.get("images"),
        **{name: _major(cell, name) for name in ("segkey", "torch")},
    }
    device = device_kind(cell.get("device"))
    return {"trained on": device} | {name: v for name, v in early.items() if v is not None} | told


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


def _part(document: dict, name: str) -> dict:
    """A dictionary in an untrusted document; empty if there is none."""
    part = document.get(name)
    return part if isinstance(part, dict) else {}


def _major(config: dict, name: str) -> str | None:
    """The significant part of a version: up to the first number that is not 0."""
    return _significant(_part(config, "versions").get(name))


def _significant(version: object) -> str | None:
    found = re.match(r"(?:0\.)*\d+", version) if isinstance(version, str) else None
    return found.group() if found else None


def _over_segments(config: dict, name: str, only: object) -> object:
    """A value of a training that was resumed: all that it had, in their order."""
    segments = config.get("segments")
    segments = (
        [each for each in segments if isinstance(each, dict)] if isinstance(segments, list) else []
    )
    values = [each.get(name) if name in each else _major(each, name) for each in segments]
    values = [value for value in values if value is not None] or [only]
    distinct = list(dict.fromkeys(map(str, values)))
    return values[0] if len(distinct) == 1 else ", then ".join(distinct)
