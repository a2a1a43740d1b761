"""The paper's Table 1 beside an experiment's: mean IoU with the correct key, by method and M."""

from collections import Counter
from dataclasses import asdict, dataclass, replace

from segkey.crypto import BLOCK_SIZES, PROTECTED
from segkey.model import comparability
from segkey.model.recipes import RECIPES
from segkey.model.results import NOTHING_TO_MEASURE
from segkey.paper.experiment_settings import upgraded
from segkey.paper.results import Results
from segkey.paper.variant_scores import models_of
from segkey.paper.variants import in_order, variant_name
from segkey.reports.text import Shown, TextTable, number

# Table 1 of the paper: mean IoU on the 1449 validation images of PASCAL VOC 2012, correct key.
BASELINE = 0.7080
_SHF = (0.6597, 0.5941, 0.4723, 0.2958, 0.1575, 0.0693, 0.0600, 0.0380)
_NP = (0.6216, 0.5695, 0.5173, 0.4329, 0.3880, 0.3733, 0.3218, 0.3007)
_FFX = (0.5271, 0.4944, 0.4651, 0.3444, 0.2763, 0.2628, 0.2417, 0.2367)
TABLE_1 = {
    method: dict(zip(BLOCK_SIZES, values, strict=True))
    for method, values in zip(PROTECTED, (_SHF, _NP, _FFX), strict=True)
}
PAPERS_SETTINGS = {"network": "fcn_resnet50", "size": [256, 256]}  # its recipe stands in RECIPES

LOCKED_NOTE = (
    "locked: the baseline itself, whose first convolution was changed with the key after its "
    "training (segkey lock)"
)
_MARKS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Line:
    """A method and block size under one set of conditions, with the paper's value.

    Attributes:
        method, block_size, device: which.
        seeds: how many were trained.
        mean, std: mean IoU with the correct key over them; std is None for one.
        paper: the paper's, on PASCAL VOC 2012; None if it has none.
        difference: ``mean`` less ``paper``; None if the images are not the paper's.
        differs: in which conditions it differs from most of the table, in words.
        variant: the number of its conditions among those of the table, from 0.
    """

    method: str
    block_size: int
    device: str
    seeds: int
    mean: float
    std: float | None
    paper: float | None
    difference: float | None
    differs: str = ""
    variant: int = 0


def papers_value(method: str, block_size: int) -> float | None:
    """Mean IoU in the paper's Table 1; None if it has none."""
    return BASELINE if method == "none" else TABLE_1.get(method, {}).get(block_size)


def lines_of(results: Results) -> list[Line]:
    """A line per method, block size and conditions of an experiment."""
    variants, usual = list(variants_of(results)), usual_of(results)
    lines = []
    for model in (each for several in models_of(results.cells).values() for each in several):
        paper = papers_value(model.method, model.block_size)
        line = Line(
            method=model.method,
            block_size=model.block_size,
            device=model.device,
            seeds=len(model.correct),
            mean=model.accuracy,
            std=model.spread,
            paper=paper,
            difference=model.accuracy - paper if results.full_voc and paper is not None else None,
            differs=comparability.joined(comparability.differences(model.conditions, usual)),
            variant=variants.index(comparability.key(model.conditions)),
        )
        lines.append(line)
    return lines


def variants_of(results: Results) -> dict[str, dict]:
    """The conditions of an experiment's cells, by their key, with the device's own description."""
    found: dict[str, dict] = {}
    for cell in results.cells:
        made = cell.made_under
        found.setdefault(comparability.key(made), made | {"device": cell.device})
    return found


def usual_of(results: Results) -> dict:
    """The conditions that most cells have."""
    found = [cell.made_under for cell in results.cells]
    counts = Counter(map(comparability.key, found))
    return max(found, key=lambda made: counts[comparability.key(made)], default={})


class Table1:
    """The paper's Table 1 with this experiment's values.

    The paper's stand beside each value, with the difference, if the images are the paper's;
    otherwise in columns of their own, labelled as those of other images, and no difference is
    taken.
    """

    def __init__(self, results: Results):
        results = replace(results, settings=upgraded(results.settings))
        self.results, self.lines = results, lines_of(results)
        self.full = results.full_voc
        self.methods = in_order({line.method for line in self.lines} - {"none"})
        self.papers_methods = [method for method in self.methods if method in TABLE_1]
        self.block_sizes = sorted({line.block_size for line in self.lines if line.method != "none"})
        self.variants = list(variants_of(results).values())

    @property
    def title(self) -> str:
        """What the numbers are of."""
        settings = self.results.settings
        height, width = settings["size"]
        images = max((cell.images for cell in self.results.cells), default=0)
        return (
            f"Mean IoU with the correct key ({settings['network']}, {settings['recipe']['epochs']} "
            f"epochs from {weights_in_words(settings)}, {settings['data']['images']['train']} "
            f"training images, {height}x{width}, {images} test images, "
            f"{len(settings['data']['classes'])} classes)"
        )

    @property
    def notes(self) -> list[str]:
        """What a reader must know to compare."""
        notes = [
            f"baseline, nothing encrypted: {self._own('none', 1) or 'not there yet'}; in the paper "
            f"{BASELINE:.4f}"
        ]
        if self.full:
            if difference := self._difference("none", 1):
                notes[0] += f" ({difference})"
            different = _unlike_the_paper(self.results.settings)
            if different:
                notes.append(f"unlike in the paper: {', '.join(different)}")
        else:
            notes.append(
                "paper: measured on PASCAL VOC 2012 with COCO weights, other images than these; "
                "compare the order and the trend, not the values"
            )
        seeds = sorted({line.seeds for line in self.lines})
        if seeds and seeds[-1] > 1:
            number_of = f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f"{seeds[0]}"
            notes.append(
                f"±: mean and standard deviation over {number_of} seeds, which differ in nothing "
                f"else"
            )
        if any(cell.locked for cell in self.results.cells):
            notes.append(LOCKED_NOTE)
        if self.results.left_out:
            notes.append(
                f"left out, as their runs or results cannot be used: "
                f"{', '.join(self.results.left_out)}"
            )
        if unmeasured := sum(not cell.has_score for cell in self.results.cells):
            notes.append(
                f"{unmeasured} model{'s' * (unmeasured > 1)} missing: {NOTHING_TO_MEASURE}"
            )
        if self.results.diverged:
            notes.append(f"missing, as their training diverged: {', '.join(self.results.diverged)}")
        if len(self.variants) > 1:
            notes.append(self._variants())
        return notes

    def _variants(self) -> str:
        """What the letters of the table mean."""
        varying = comparability.varying(self.variants)
        others = [name for name in varying if name not in ("device", "trained on", "tested on")]

        def told(variant: dict) -> str:
            """Conditions in words: the device, and what else differs."""
            words = [variant["device"]] if "device" in varying else []
            return ", ".join(
                [*words, *(comparability.in_words(name, variant.get(name)) for name in others)]
            )

        marks = "; ".join(f"{_mark(n)}: {told(variant)}" for n, variant in enumerate(self.variants))
        how = "trained or tested differently" if others else "computed on different devices"
        return f"{how}, which are not averaged: {marks}"

    def header(self) -> list[str]:
        """Names of the columns of `rows`."""
        if self.full:
            names = [(variant_name(method), self._parts(method)) for method in self.methods]
            return ["M", *(f"{name}{part}" for name, parts in names for part in parts)]
        papers = [f"paper {variant_name(method)}" for method in self.papers_methods]
        return ["M", *map(variant_name, self.methods), *papers]

    def _parts(self, method: str) -> tuple[str, ...]:
        """The columns of a method beside the paper's."""
        return ("", " paper", " diff.") if method in self.papers_methods else ("",)

    def rows(self) -> list[list[str]]:
        """The cells of the table, one row per block size."""
        return [[str(m), *self._row(m)] for m in self.block_sizes]

    def _row(self, m: int) -> list[str]:
        if not self.full:
            own = [self._own(method, m) for method in self.methods]
            return own + [self._papers(method, m) for method in self.papers_methods]
        found = []
        for method in self.methods:
            three = self._own(method, m), self._papers(method, m), self._difference(method, m)
            found += three[: len(self._parts(method))]
        return found

    def _lines(self, method: str, m: int) -> list[Line]:
        return [line for line in self.lines if (line.method, line.block_size) == (method, m)]

    def _own(self, method: str, m: int) -> str:
        """What was measured here; under each of the conditions, if there are several."""
        scores = [self._score(line) for line in self._lines(method, m)]
        return Shown(" / ".join(scores), " / ".join(score.tex for score in scores) or "--")

    def _score(self, line: Line) -> Shown:
        """Mean, deviation over the seeds if there are several, and the letter of its conditions."""
        text = tex = number(line.mean)
        if line.std is not None:
            text, tex = f"{text} ± {line.std:.4f}", rf"{tex} $\pm$ {line.std:.4f}"
        if len(self.variants) > 1:
            mark = _mark(line.variant)
            text, tex = f"{text} ({mark})", f"{tex}$^{{{mark}}}$"
        return Shown(text, tex)

    def _difference(self, method: str, m: int) -> str:
        found = [line.difference for line in self._lines(method, m) if line.difference is not None]
        text = " / ".join(f"{difference:+.4f}" for difference in found)
        return Shown(text, f"${text}$" if text else "--")

    @staticmethod
    def _papers(method: str, m: int) -> str:
        value = papers_value(method, m)
        return "" if value is None else number(value)

    def by_block_size(self) -> TextTable:
        """The table as the paper has it: one row per M, one column per method."""
        return TextTable(self.title, self.header(), self.rows(), self.notes)

    def by_line(self) -> TextTable:
        """One row per method, block size and set of conditions, with all digits."""
        paper = "paper" if self.full else "paper_on_pascal_voc_2012"
        head = ["method", "block_size", "device", "seeds", "mean_iou", "std", paper]
        rows = [list(asdict(line).values())[:-1] for line in self.lines]  # without the variant
        return TextTable(self.title, [*head, "difference", "differs_in"], rows)

    def as_json(self) -> dict:
        """All of it for programs."""
        lines = [asdict(line) for line in self.lines]
        return {"title": self.title, "notes": self.notes, "full_voc": self.full, "rows": lines}


def _mark(variant: int) -> str:
    """A letter for conditions; two from the 27th on."""
    more, last = divmod(variant, len(_MARKS))
    return (_MARKS[more - 1] if more else "") + _MARKS[last]


def weights_in_words(settings: dict) -> str:
    """What the training starts from, such as "COCO weights"; of a file, only its name."""
    recipe = settings["recipe"]
    known = {"none": "random weights", "coco": "COCO weights", "imagenet": "ImageNet weights"}
    words = known.get(recipe["weights"]) or _file_name(recipe["weights"])
    encoder = recipe.get("encoder_weights")  # which earlier versions do not state
    return f"{words}, the encoder from {_file_name(encoder)}" if encoder else words


def _file_name(path: str) -> str:
    """A table goes to other people, who need not know the folders."""
    return path.replace("\\", "/").rsplit("/", 1)[-1]


def _unlike_the_paper(settings: dict) -> list[str]:
    """In what settings differ from the paper's."""
    papers = asdict(RECIPES["paper"])
    different = [
        f"{name} {settings[name]}"
        for name, value in PAPERS_SETTINGS.items()
        if settings[name] != value
    ]
    recipe = settings["recipe"]
    different += [
        f"{name.replace('_', ' ')} {_file_name(str(recipe[name]))}"
        for name in papers
        if recipe.get(name, papers[name]) != papers[name]
    ]
    if settings["wrong_keys"] != 100:
        different.append(f"{settings['wrong_keys']} wrong keys")
    return different
