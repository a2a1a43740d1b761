"""Files of predictions: which one belongs to which image, and which an earlier run made.

``outputs.tsv`` in the folder says it, one line per image: the image, its mask and its overlay. A
later run into the same folder replaces what is listed there, and nothing else.
"""

from pathlib import Path, PurePosixPath

from segkey.data.items import Item
from segkey.errors import SegkeyError
from segkey.system.file_names import free_path
from segkey.system.files import is_there, make_folder, read_text, remove, written_whole
from segkey.system.wording import visible

NAME = "outputs.tsv"
_FOLDERS = {"masks": ".png", "overlays": ".jpg"}
_HEAD = "image\tmask\toverlay"
_MAX_BYTES = 1 << 30


class Outputs:
    """The files of one run of ``segkey predict``, named before anything is written.

    Args:
        out: the folder; no name leads out of it.
        overlays: whether images are drawn under their masks, too.

    Raises:
        SegkeyError: a file that would be written is there and was not made by an earlier run.
    """

    def __init__(self, out: Path, items: list[Item], overlays: bool):
        self.out, self._files = out, {}
        self._earlier = self._read()
        taken: set[Path] = set()
        for item in dict.fromkeys(items):
            mask = free_path(out / "masks", item.name, ".png", taken)
            beside = free_path(out / "overlays", item.name, ".jpg", taken) if overlays else None
            self._files[item] = (mask, beside)
        self._require_own()
        make_folder(out)
        planned = [self.line(item) for item in self._files]
        self._write(planned, self._earlier)

    def files_of(self, item: Item) -> tuple[Path, Path | None]:
        """Where the mask of an image goes, and its overlay."""
        return self._files[item]

    def line(self, item: Item) -> dict[str, str]:
        """What belongs to an image, by kind, as paths below the folder."""
        mask, beside = (
            file and file.relative_to(self.out).as_posix() for file in self._files[item]
        )
        return {"image": item.name, "mask": mask} | ({"overlay": beside} if beside else {})

    def finish(self, made: list[dict[str, str]]) -> None:
        """Remove what an earlier run made and this one did not, and list what is there."""
        now = {line[kind] for line in made for kind in ("mask", "overlay") if kind in line}
        for path in sorted(self._earlier - now):
            if not self._leads_out(path) and is_there(self.out / path):
                remove(self.out / path)
        self._write(made, set())

    def _leads_out(self, path: str) -> bool:
        """Whether a folder on the way to a listed file is a link."""
        folders = list((self.out / path).parents)
        return any(folder.is_symlink() for folder in folders[: folders.index(self.out)])

    def _require_own(self) -> None:
        for file in (file for files in self._files.values() for file in files if file):
            if file.relative_to(self.out).as_posix() not in self._earlier and is_there(file):
                raise SegkeyError(
                    f"{file} is there, and no run of segkey predict that {self.out / NAME} lists "
                    "made it",
                    "move it away, or choose another --out",
                )

    def _write(self, lines: list[dict[str, str]], earlier: set[str]) -> None:
        with written_whole(self.out / NAME, "w") as file:
            file.write(_HEAD + "\n")
            for line in lines:
                cells = (line["image"], line["mask"], line.get("overlay", ""))
                file.write("\t".join(visible(cell) for cell in cells) + "\n")
            for path in sorted(earlier):  # of an earlier run, until this one is finished
                file.write(f"\t{visible(path)}\t\n")

    def _read(self) -> set[str]:
        """What an earlier run made; the list is untrusted input."""
        if not is_there(self.out / NAME):
            return set()
        try:
            lines = read_text(self.out / NAME, limit=_MAX_BYTES).splitlines()
        except ValueError:
            return set()
        cells = (cell for line in lines[1:] for cell in line.split("\t")[1:])
        return {cell for cell in cells if _is_ours(cell)}


def _is_ours(path: str) -> bool:
    """Whether a listed path is one that a run could have written."""
    parts = PurePosixPath(path).parts
    plain = (
        not path.startswith("/") and ".." not in parts and PurePosixPath(path).as_posix() == path
    )
    return plain and len(parts) > 1 and _FOLDERS.get(parts[0]) == PurePosixPath(path).suffix
