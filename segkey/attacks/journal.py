"""The journal of an attack: its finished steps, kept to resume from, and what they cost."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segkey.crypto.keys import Key
from segkey.model.authenticity import differences, same_text
from segkey.system import devices, distributed
from segkey.system.files import append, is_there, open_regular, read_text, remove, written_whole

_MAX_KEPT = 16 << 20  # bytes of finished entries, which are under 1 kB each


@dataclass
class Cost:
    """What an attacker spends.

    Attributes:
        queries: keys (or plain images, or estimates) tried on some images.
        images: images run through the network; a training image counts once per epoch.
        seconds: of wall time.
    """

    queries: int = 0
    images: int = 0
    seconds: float = 0.0

    def add(self, other: "Cost") -> None:
        """Spend as much as ``other`` more."""
        self.queries, self.images, self.seconds = (
            self.queries + other.queries,
            self.images + other.images,
            self.seconds + other.seconds,
        )


class Journal:
    """Finished entries of an attack, in a file that exists while it is under way.

    One line of JSON per entry, after the settings.

    The file lies in the run's folder, which may come from an untrusted source: every line is
    authenticated with the owner's key, together with the settings. So only entries that the owner
    made, under the same settings, are used again.

    Args:
        path: where; nowhere, if not given.
        settings: what must agree for an entry to be used again.
        key: the owner's. Without it nothing is read or written, as an entry could be forged.

    Under torchrun the first rank reads and writes the file for all.
    """

    def __init__(self, path: Path | None, settings: dict, key: Key | None = None):
        self.path, self._settings, self._key = (
            path if distributed.is_main() and key else None,
            settings,
            key,
        )
        self._begun = False
        if path and not key and os.path.lexists(path) and distributed.is_main():
            devices.warn(f"{path} is not used: without a key nobody can tell who wrote it")
        self._entries = distributed.broadcast(
            self._read() if self.path and is_there(self.path) else {}
        )

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, name: str) -> dict | None:
        """The entry of that name; None if there is none."""
        return self._entries.get(name)

    def add(self, name: str, entry: dict) -> None:
        """Keep an entry; when this returns, it survives a kill."""
        self._entries[name] = entry
        if not self.path:
            return
        if (
            not self._begun
        ):  # written anew, without lines that a kill has cut or that are not the owner's
            self._begun = True
            with written_whole(self.path, "w") as file:
                file.write(self._line("settings", self._settings))
                file.writelines(self._line("entry", each) for each in self._entries.items())
            return
        append(self.path, self._line("entry", (name, entry)))

    def remove(self) -> None:
        """Forget all: the results are written."""
        if self.path:
            remove(self.path)

    def _line(self, kind: str, content: object) -> str:
        return f"{self._authenticate(kind, content)} {json.dumps(content, allow_nan=False)}\n"

    def _authenticate(self, kind: str, content: object) -> str:
        # An entry belongs to its settings; the settings stand for themselves, so that one can say
        # how they differ.
        bound = [content, self._settings] if kind == "entry" else content
        return self._key.authenticate(f"attack journal, {kind}", bound)

    def _read(self) -> dict[str, dict]:
        """The entries that the owner made under these settings; reports what is not used."""
        open_regular(self.path, limit=_MAX_KEPT).close()
        try:
            lines = read_text(self.path, _MAX_KEPT).splitlines(keepends=True)
        except ValueError:
            lines = []
        whole = [line for line in lines if line.endswith("\n")]  # a kill may have cut the last one
        head = self._content("settings", whole[0]) if whole else None
        if head is None:
            devices.warn(
                f"{self.path} is not used: it is damaged, or was not written with key "
                f"{self._key.id}"
            )
            return {}
        # To JSON and back, as what was read was.
        if different := differences(head, json.loads(json.dumps(self._settings, allow_nan=False))):
            devices.warn(
                f"{self.path} is not used: since it was written, {' and '.join(different)} changed"
            )
            return {}
        entries = [self._content("entry", line) for line in whole[1:]]
        if None in entries:
            devices.warn(
                f"{entries.count(None)} of {len(entries)} lines of {self.path} are not used: they "
                f"are damaged, or were not written with key {self._key.id}"
            )
        return dict(entry for entry in entries if entry)

    def _content(self, kind: str, line: str) -> Any:
        """What a line holds, or None unless the owner wrote it."""
        stated, _, text = line.rstrip("\n").partition(" ")
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):
            return None
        return content if same_text(stated, self._authenticate(kind, content)) else None
