"""Files that name classes: plain lists, and those of labelme, CVAT, Roboflow, Kaggle, ADE20K.

Each kind says something else: names alone (the line is the number), numbers of mask files, or
colours of mask files. A file that is none of these is refused; no line is a name by accident.
"""

import csv
import io
import os
import re
from dataclasses import dataclass
from pathlib import Path

from segkey.data.name_roles import understood
from segkey.data.reading import VOID
from segkey.errors import SegkeyError
from segkey.system.files import read_given_text, read_text
from segkey.system.validators import NAME

# Looked for beside images, in this order.
FILES = (
    "classes.txt",
    "labelmap.txt",
    "class_names.txt",
    "labels.txt",
    "_classes.csv",
    "class_dict.csv",
    "class_dict_seg.csv",
    "class_mapping.csv",
    "label_colors.txt",
    "objectInfo150.txt",
)
_VOID_NAMES = {"__ignore__", "_ignore_", "ignore", "void", "unlabeled", "unlabelled", "unknown"}
_HEX = re.compile(r"#([0-9a-fA-F]{6})")
_NUMBER_WORDS = {"pixel value", "value", "idx", "id", "index", "class id", "class_id", "number"}
_NAME_WORDS = {"class", "name", "label", "classes", "class name", "class_name", "classname"}
_COLOUR_WORDS = {"class_color", "class_colour", "color", "colour", "rgb", "hex"}
_HINT = (
    "write 1 to 255 different names of at most 200 printable characters, one per line, class 0 "
    "first; or 'name red green blue' on each line, for --colors"
)


@dataclass(frozen=True)
class Labels:
    """What a file says about classes.

    Attributes:
        file: where it says so.
        names: of the classes, in order.
        values: (value in mask files, class), if the file numbers its classes.
        colours: (red, green, blue, class), if it gives colours; 255 is void.
        notes: what was understood, if it is not plain.
    """

    file: Path
    names: tuple[str, ...]
    values: tuple[tuple[int, int], ...] = ()
    colours: tuple[tuple[int, int, int, int], ...] = ()
    notes: tuple[str, ...] = ()


def read_labels(file: Path, given: bool = False) -> Labels:
    """What a file of classes says.

    Args:
        file: the file.
        given: the user named it, so that it may be a pipe.

    Raises:
        SegkeyError: no such file, no text, not one of the kinds that are known, no name, names
            twice, or more than 255.
    """
    try:
        text = read_given_text(file) if given else read_text(file, limit=1 << 20, follow=True)
    except UnicodeDecodeError:
        raise _refuse(file, "it is not UTF-8 text", "save it as UTF-8; " + _HINT) from None
    except ValueError:
        raise _refuse(file) from None
    lines = _unquoted([line.strip() for line in text.rstrip().splitlines()])
    for understand in (_json_or_yaml, _cvat, _table, _coloured, _numbered, _plain):
        if found := understand(file, lines):
            return found
    raise _refuse(file)


def read_classes(file: Path, given: bool = False) -> list[str]:
    """The class names of a file alone; raises as `read_labels`."""
    return list(read_labels(file, given).names)


def labels_beside(path: Path) -> Path | None:
    """A file of classes in or beside a folder, or in one of its split folders."""
    inner = (path / split for split in ("train", "training", "Train"))
    for folder in (path, path.resolve().parent, *inner):
        for name in FILES:
            if os.path.lexists(folder / name):
                return folder / name
    return None


def differing(path: Path, chosen: Path) -> Path | None:
    """A file in another folder of a split that names other classes than the chosen one does."""
    if not path.is_dir():
        return None
    said = read_labels(chosen)
    for other in sorted(each / chosen.name for each in path.iterdir() if understood(each.name)):
        if other != chosen and other.is_file():
            told = read_labels(other)
            if (told.names, told.values, told.colours) != (said.names, said.values, said.colours):
                return other
    return None


def is_void_name(name: str) -> bool:
    """Whether a name says that its pixels belong to no class."""
    return name.strip().casefold() in _VOID_NAMES


def _refuse(file: Path, why: str = "", hint: str = _HINT) -> SegkeyError:
    return SegkeyError(f"{file} is not a list of classes{why and f': {why}'}", hint)


def _unquoted(lines: list[str]) -> list[str]:
    """Lines without quotes and commas around them, if all have them, as in a list in a program."""
    quoted = [re.fullmatch(r"""(["'])([^"']*)\1,?""", line) for line in lines]
    return [match[2].strip() for match in quoted] if all(quoted) else lines


def _checked(file: Path, names: list[str]) -> tuple[str, ...]:
    if twice := next((name for n, name in enumerate(names) if name in names[:n]), None):
        raise _refuse(file, f"'{twice[:40]}' stands there twice", "give each class its own name")
    if not 0 < len(names) < 256 or not all(map(NAME.fits, names)):
        raise _refuse(file)
    return tuple(names)


def _json_or_yaml(file: Path, lines: list[str]) -> None:
    """Refused by name: what these files call names differs from tool to tool."""
    if lines and (lines[0][:1] in "{[<" or file.suffix.lower() in (".json", ".xml")):
        raise _refuse(file, "it is JSON or XML", "write its names into a text file, one per line")
    listed = all(line.startswith("- ") for line in lines) and bool(lines)
    if (
        listed
        or file.suffix.lower() in (".yaml", ".yml")
        or any(re.match(r"(names|nc|train):", x) for x in lines)
    ):
        raise _refuse(file, "it is YAML", "write its names into a text file, one per line")


def _cvat(file: Path, lines: list[str]) -> Labels | None:
    """CVAT's labelmap.txt: ``name:red,green,blue:parts:actions``."""
    rows = [line.split(":") for line in lines if line and not line.startswith("#")]
    if not rows or not all(len(row) >= 2 and row[1].count(",") in (0, 2) for row in rows):
        return None
    if not all(re.fullmatch(r"\d+,\d+,\d+|", row[1].replace(" ", "")) for row in rows):
        return None
    if not any(row[1] for row in rows):
        return None
    colours = [(row[0].strip(), row[1].split(",")) for row in rows if row[1]]
    return _of_colours(file, colours, "CVAT's labelmap")


def _table(file: Path, lines: list[str]) -> Labels | None:
    """A CSV, or a table with tabs, under a line of titles: names beside numbers or colours."""
    mark = "\t" if lines and "\t" in lines[0] else ","
    rows = [
        [cell.strip() for cell in row]
        for row in csv.reader(io.StringIO("\n".join(lines)), delimiter=mark)
        if row
    ]
    titles = [title.casefold() for title in rows[0]] if rows else []
    name = next((n for n, title in enumerate(titles) if title in _NAME_WORDS), None)
    if name is None or len(titles) < 2:
        return None
    rows = [row for row in rows[1:] if any(row)]
    parts = [
        next((n for n, t in enumerate(titles) if t in (c, c[0])), None)
        for c in ("red", "green", "blue")
    ]
    wide = max(filter(lambda n: n is not None, [name, *parts]))
    if short := next((row for row in rows if len(row) <= wide), None):
        raise _refuse(file, f"a line has {len(short)} columns, its titles {len(titles)}")
    if None not in parts:
        coloured = [(row[name], [row[n] for n in parts]) for row in rows]
        return _of_colours(file, coloured, "a table of colours")
    number = next((n for n, title in enumerate(titles) if title in _NUMBER_WORDS), None)
    shown = next((n for n, title in enumerate(titles) if title in _COLOUR_WORDS), None)
    if number is None and shown is not None:  # V7 Darwin's class_mapping.csv
        return _of_cells(file, [(row[name], (row + [""] * shown)[shown]) for row in rows])
    if number is None:
        raise _refuse(file, f"its titles are {', '.join(titles)}", _HINT)
    return _of_values(file, [(row[number], row[name]) for row in rows])


def _of_cells(file: Path, rows: list[tuple[str, str]]) -> Labels:
    """Names beside cells of a colour, ``250 50 83`` or ``#fa3253``, or of a grey value."""
    if all(cell.isdigit() for _, cell in rows):
        return _of_values(file, [(cell, name) for name, cell in rows])
    spelled = [(name, _HEX.sub(_decimal, cell)) for name, cell in rows]
    split = [(name, re.findall(r"\d+", cell)) for name, cell in spelled]
    if bad := next((name for name, parts in split if len(parts) != 3), None):
        raise _refuse(file, f"'{bad[:40]}' has no colour of red, green and blue")
    return _of_colours(file, split, "a table of colours")


def _decimal(colour: re.Match) -> str:
    return " ".join(map(str, bytes.fromhex(colour[1])))


def _coloured(file: Path, lines: list[str]) -> Labels | None:
    """``name r g b``, ``r g b name`` or ``name #rrggbb`` on each line."""
    found = []
    for line in (line for line in lines if line and not line.startswith("# ")):
        line = _HEX.sub(_decimal, line)
        words = [word for word in re.split(r"[\s,;:()\[\]]+", line) if word]
        numbers = [word.isdigit() for word in words]
        if len(words) < 4 or not (all(numbers[-3:]) or all(numbers[:3])):
            return None
        first = not all(numbers[-3:])
        rest = words[3:] if first else words[:-3]
        # "0 road 128 64 128": the number of the class in front, which its line says already
        rest = rest[1:] if len(rest) > 1 and rest[0].isdigit() else rest
        found.append((" ".join(rest), words[:3] if first else words[-3:]))
    return _of_colours(file, found, "a list of colours") if found else None


def _numbered(file: Path, lines: list[str]) -> Labels | None:
    """``0 background``, ``0: background``, ``0,background`` or ``background=0`` on each line."""
    kept = [line for line in lines if line]
    rows = [re.fullmatch(r"(-?\d+)\s*[\s,:;=]\s*(\S.*)", line) for line in kept]
    if rows and all(rows):
        return _of_values(file, [(row[1], row[2]) for row in rows])
    rows = [re.fullmatch(r"(\S.*?)\s*[\s,:;=]\s*(-?\d+)", line) for line in kept]
    if len(rows) < 2 or not all(rows):
        return None
    # "lane 1" and "lane 2" are names; "road 0" and "car 1" are names and their numbers.
    names = {row[1] for row in rows}
    marked = all(re.search(r"[,:;=]\s*-?\d+$", line) for line in kept)
    counts = [int(row[2]) for row in rows] == list(range(len(rows))) and len(names) == len(rows)
    return _of_values(file, [(row[2], row[1]) for row in rows]) if marked or counts else None


def _plain(file: Path, lines: list[str]) -> Labels:
    """One name per line; labelme's begins with ``__ignore__``, which is void and no class."""
    if strange := next((line for line in lines if re.search(r"^#|\t|[{}<>]|,.*,", line)), None):
        raise _refuse(file, f"'{strange[:40]}' is no name of a class")
    if lines and lines[0] == "__ignore__":
        names = _checked(file, lines[1:])
        return Labels(file, names, notes=("labelme's __ignore__ is void",))
    if "" in lines:
        hint = "take it out, or write the name of the class with that number"
        raise _refuse(file, f"line {lines.index('') + 1} is empty", hint)
    if len(lines) > 1 and lines[0].isdigit() and int(lines[0]) == len(lines) - 1:
        raise _refuse(file, f"its first line, {lines[0]}, counts the others", "take that line out")
    return Labels(file, _checked(file, lines))


def _of_colours(file: Path, rows: list[tuple[str, list[str]]], kind: str) -> Labels:
    names: list[str] = []
    colours: dict[tuple[int, int, int], int] = {}
    void = []
    for name, parts in rows:
        colour = tuple(int(part) if part.strip().isdigit() else 256 for part in parts)
        if not name or max(colour) > 255:
            raise _refuse(file, f"'{name} {' '.join(parts)}' is no name and colour from 0 to 255")
        if is_void_name(name):
            void, number = [*void, name], VOID
        else:
            names += [name] if name not in names else []
            number = names.index(name)
        if colours.setdefault(colour, number) != number:
            raise _refuse(file, f"the colour {colour} stands for two classes", "give each its own")
    notes = (f"{file}: {kind}, {len(names)} classes",)
    notes += (f"'{void[0]}' is void",) if void else ()
    listed = tuple((*colour, number) for colour, number in colours.items())
    return Labels(file, _checked(file, names), colours=listed, notes=notes)


def _of_values(file: Path, rows: list[tuple[str, str]]) -> Labels:
    """Numbered names become classes in the order of their numbers; void is none of them."""
    try:
        numbered = {int(number): name for number, name in rows}
    except ValueError:
        raise _refuse(file, "a number of a class is none") from None
    if len(numbered) < len(rows):
        raise _refuse(file, "two classes have the same number")
    # Negative, as Cityscapes' licence plate: no value of a mask file.
    void = [
        n
        for n, name in numbered.items()
        if n < 0 or n > 65535 or (name.startswith("__") and is_void_name(name))
    ]
    kept = sorted(set(numbered) - set(void))
    # ADE20K gives synonyms; the first of each will do, if they differ.
    short = [re.split(r"[;,]", numbered[number])[0].strip() for number in kept]
    whole = [numbered[number] for number in kept]
    names = _checked(file, short if len(set(short)) == len(short) else whole)
    values = [(number, kept.index(number)) for number in kept]
    values += [(number, VOID) for number in void if 0 <= number <= 65535]
    notes = ()
    if kept != list(range(len(kept))):
        if 0 not in numbered:
            values.append((0, VOID))
        notes = (
            f"{file} numbers {len(kept)} classes from {kept[0]} to {kept[-1]}: "
            f"{kept[0]} becomes class 0" + ("" if 0 in numbered else "; 0 is void"),
        )
        return Labels(file, names, values=tuple(sorted(values)), notes=notes)
    return Labels(file, names, values=tuple(sorted(values)) if void else (), notes=notes)
