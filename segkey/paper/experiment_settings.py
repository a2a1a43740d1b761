"""Settings of an experiment: the data and all else that must agree within one table."""

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from segkey.crypto.keys import Key
from segkey.data import intake, voc
from segkey.data.items import Item, Source
from segkey.errors import SegkeyError
from segkey.model.network_registry import canonical
from segkey.model.package_versions import now, versions
from segkey.model.recipes import Recipe
from segkey.system import distributed
from segkey.system.files import is_folder_there, is_there, open_regular
from segkey.system.json_files import read_json, write_json
from segkey.system.seeds import digest

FORMAT = "segkey-reproduction-v1"
PASSWORD = "segkey reproduce"  # FFX's, fixed as in the paper; no secret
FULL_VOC = {"train": 1318, "val": 146, "test": 1449}
WORKING = "working"  # a folder per cell, which the process that makes the cell holds
FOLDERS = ("runs", "plain", "keys", WORKING)  # in the folder of an experiment
FILES = (  # there, too
    "settings.json",
    "results.json",
    "keys/experiment.key",
    "keys/.gitignore",
    "table1.txt",
    "table1.csv",
    "table1.md",
    "table1.tex",
    "table1.json",
    "findings.txt",
    "fig4.png",
    "fig5.png",
    "fig6.png",
    "tradeoff.png",
    ".lock",
)
LEAST = {"train": 2, "val": 1, "test": 1}  # images a split needs; batch normalisation needs two


@dataclass(frozen=True)
class Settings:
    """How every cell is made.

    Attributes:
        size: (H, W) of images.
        recipe, network: how to train, and what.
        wrong_keys: how many are tried on a model.
        limit: only so many test images; all, if None.
    """

    size: tuple[int, int]
    recipe: Recipe
    network: str
    wrong_keys: int
    limit: int | None = None

    def document(self, source: Source, key_id: str) -> dict:
        """All that must agree before results stand in one table."""
        return upgraded(asdict(self)) | {
            "size": list(self.size),
            "data": {
                "images": {split: len(items) for split, items in source.splits.items()},
                "names": {
                    split: digest(item.name for item in items)
                    for split, items in source.splits.items()
                },
                "content": {split: _content(items) for split, items in source.splits.items()},
                "classes": source.classes,
                "ignore_index": source.ignore_index,
            },
            "key_id": key_id,
            "ffx_password": PASSWORD,
        }


def _content(items: list[Item]) -> str:
    """Fingerprint of the bytes of some images and masks, 16 hex digits, whatever their names."""
    with ThreadPoolExecutor() as pool:
        files = [file for item in items for file in (item.image, item.mask)]
        return digest(pool.map(_digest_of, files))


def _digest_of(file: Path | None) -> str:
    """SHA-256 of a file in hex; empty for no mask."""
    if file is None:
        return ""
    try:
        with open_regular(file, follow=True) as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except (OSError, SegkeyError):  # it is left out when shards are made, and named there
        return "unreadable"


def open_data(path: Path, workers: int | None = None) -> Source:
    """The images to work on, with masks and class names.

    Raises:
        SegkeyError: no masks, a split with too few images, a mask with a class that nothing names.
    """
    taken = intake.take_in(path, every=True, workers=workers)
    source = taken.source
    if not source.has_masks:
        raise SegkeyError(
            f"{path} has no masks, so nothing can be trained on it",
            "give a VOC devkit, or images/ and masks/",
        )
    few = [split for split, least in LEAST.items() if len(source.splits.get(split, ())) < least]
    if few:
        there = ", ".join(f"{split} {len(source.splits.get(split, ()))}" for split in LEAST)
        needed = ", ".join(f"{split} {least}" for split, least in LEAST.items())
        raise SegkeyError(
            f"{path} has too few images for the split{'s' * (len(few) > 1)} {' and '.join(few)} "
            f"(there are: {there})",
            f"give at least: {needed}; in folders train/, val/ and test/, or more images, which "
            f"are dealt out 80/10/10",
        )
    source.splits = {split: source.splits[split] for split in LEAST}
    if (highest := taken.highest_class()) >= len(source.classes):
        names = source.classes
        raise SegkeyError(
            f"the masks of {path} hold class {highest}, but there are {len(names)} (0 '{names[0]}' "
            f"to {len(names) - 1} '{names[-1]}')",
            "give masks of those classes (255 is void), or name all classes in classes.txt",
        )
    taken.require()
    source.findings = taken.findings
    return source


def is_full_voc(settings: dict) -> bool:
    """Whether the images are those of the paper: all of PASCAL VOC 2012's train and val lists."""
    data = settings["data"]
    return (
        settings["limit"] is None
        and data["images"] == FULL_VOC
        and data["classes"] == voc.VOC_CLASSES
    )


def key_for(out: Path) -> Key:
    """The key that an experiment made for itself; made now, if there is none.

    It protects nothing but the experiment's own models: its FFX password is public.
    """
    file = out / "keys" / "experiment.key"
    is_folder_there(file.parent)
    if distributed.is_main() and not is_there(file):
        Key.generate().save(file)
    distributed.barrier()
    return Key.load(file)


def check_folder(out: Path) -> None:
    """Raise `SegkeyError` if a folder was made by another version, or for something else.

    The folder itself may be a link; nothing in it may, of all that is read or written there.
    """
    for name in FOLDERS:
        is_folder_there(out / name)
    for name in FILES:
        is_there(out / name)
    for name in ("settings.json", "results.json"):
        file = out / name
        if is_there(file):
            document = read_json(file, "made by segkey reproduce")
            if document.get("format") != FORMAT or not isinstance(document.get("settings"), dict):
                raise SegkeyError(
                    f"{file} has the format {str(document.get('format'))[:40]!r}, this segkey "
                    f"reads {FORMAT!r}",
                    "choose another --out, or go on with the segkey that made it",
                )
    if not is_there(out / "settings.json"):
        strange = [
            name for name in ("runs", "plain", "results.json") if os.path.lexists(out / name)
        ]
        if strange:
            raise SegkeyError(
                f"{out} holds {strange[0]}, but no settings.json: it was not made by segkey "
                f"reproduce",
                "choose another folder with --out",
            )


def claim(out: Path, wanted: dict, say: Callable[[str], None]) -> None:
    """Write the settings before anything is made with them, or check those written before."""
    file = out / "settings.json"
    if is_there(file):
        document = read_json(file, "the settings of an experiment")
        kept = document["settings"]
        if isinstance(kept.get("data"), dict) and "content" not in kept["data"]:
            say(
                f"{file} is of an earlier version and does not say what the images and masks held: "
                "they are taken to be the same, and compared from now on"
            )
            kept["data"]["content"] = wanted["data"]["content"]
            write_json(file, document)
        kept = upgraded(kept)
        if _grows(kept, wanted):
            kept["wrong_keys"] = wanted["wrong_keys"]
            write_json(file, document | {"settings": kept})
        different = differences(kept, wanted)
        if different:
            raise SegkeyError(
                f"{out} holds results of other settings: {'; '.join(different[:5])}",
                "give the settings it was begun with, or another folder with --out",
            )
    else:
        document = {
            "format": FORMAT,
            "created": now(),
            "versions": versions(),
            "settings": wanted,
        }
        write_json(file, document)


def _grows(kept: dict, wanted: dict) -> bool:
    """Whether more wrong keys are wanted, and nothing else that is different."""
    before, now = kept.get("wrong_keys"), wanted["wrong_keys"]
    more = isinstance(before, int) and before < now
    return more and not differences(kept | {"wrong_keys": now}, wanted)


def upgraded(settings: dict) -> dict:
    """Settings that an earlier version may have written, as this one writes them."""
    settings = dict(settings)
    if "backbone" in settings:
        settings["network"] = settings.pop("backbone")
    if isinstance(settings.get("network"), str):
        settings["network"] = canonical(settings["network"])
    if isinstance(settings.get("recipe"), dict):  # what was added later was as it is by default
        added = {each.name: each.default for each in fields(Recipe)}
        settings["recipe"] = added | settings["recipe"]
    return settings


def differences(kept: dict, wanted: dict, prefix: str = "") -> list[str]:
    """Where two settings differ, in words: what is wanted, and what was kept."""
    different = []
    for name in dict.fromkeys([*wanted, *kept]):
        old, new, label = kept.get(name), wanted.get(name), f"{prefix}{name.replace('_', ' ')}"
        if isinstance(old, dict) and isinstance(new, dict):
            different += differences(old, new, "" if name == "recipe" else f"{label}: ")
        elif old != new:
            # Lists of the same length are told apart by their first words that differ.
            if _are_names(old) and _are_names(new) and len(old) == len(new):
                old, new = next(pair for pair in zip(old, new, strict=True) if pair[0] != pair[1])
            different.append(f"{label} {_short(new)}, not {_short(old)}")
    return different


def _are_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _short(value: object) -> str:
    if isinstance(value, list):
        return (
            "x".join(map(str, value))
            if all(isinstance(each, int) for each in value)
            else f"({len(value)})"
        )
    return "all" if value is None else str(value)
