"""The report as one HTML file: no script, no network, fits a phone and a sheet of paper."""

import base64
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path

import jinja2
import numpy as np
from PIL import Image

from segkey.crypto.ciphers import METHODS, Cipher, key_space_bits, method_label
from segkey.data.items import Problem
from segkey.data.palette import palette_mask, palette_of
from segkey.model.results import Attack, AttackLine, Evaluation
from segkey.reports.chart_geometry import Curves, KeyChart, key_chart, training_curves
from segkey.reports.command_output import attack_notes, attack_rows, attack_sentence
from segkey.reports.provenance import NOT_CHECKED, tested_on
from segkey.reports.tables import (
    AVERAGED,
    Row,
    baseline_of,
    cell,
    collect,
    grid_of,
    groups_of,
    notes_on,
    titled,
)
from segkey.reports.text import number, visible
from segkey.reports.verdicts import OPTIMISTIC, by_required_access, nothing_to_judge, suite_verdict
from segkey.system.files import written_whole
from segkey.system.shell_quoting import option, word
from segkey.system.wording import duration, per_cent
from segkey.version import VERSION

_WAYS = {
    "correct": "with the correct key",
    "wrong": "with a wrong key",
    "plain": "from the plain image",
    "truth": "ground truth",
}
_NO_KEY = "No test images are shown; add them with the model's key: segkey report --html --key KEY."


@dataclass(frozen=True)
class Tile:
    """An image in the strip of test images."""

    caption: str
    alt: str
    source: str
    mask: bool


@dataclass(frozen=True)
class Part:
    """What the page says of one run."""

    row: Row
    label: str
    how: str
    facts: list[tuple[str, str]]
    verdict: str
    attacks: list
    attack_notes: list[str]
    suite: list[AttackLine]
    wrong_values: list[float]
    curves: Curves | None
    commands: list[str]
    strip: list[list[Tile]]
    swatches: list[tuple[str, str]]
    note: str


@dataclass(frozen=True)
class Group:
    """Runs whose numbers can be compared."""

    about: str
    differs: str
    notes: list[str]
    parts: list[Part]
    methods: list[str]
    grid: list[tuple[int, list[str]]]
    baseline: str
    chart: KeyChart | None
    classes: tuple[str, ...]


def write_page(
    path: Path, runs: list, samples=None, left_out: Sequence[Problem] = (), key=None
) -> int:
    """Write `html_page` to a file; returns its size in bytes."""
    page = html_page(runs, samples, left_out, key).encode("utf-8", "replace")
    with written_whole(path) as file:
        file.write(page)
    return len(page)


def html_page(runs: list, samples=None, left_out: Sequence[Problem] = (), key=None) -> str:
    """The page about some runs.

    Args:
        runs: from `segkey.model.run_search.find`.
        samples: test images to show, from `segkey.reports.gallery.of_runs`; none, if not given.
        left_out: runs that cannot be used, and why.
        key: tells which results its owner made.
    """
    rows = collect(runs, key)
    by_name = {run.name: run for run in runs}
    groups = [
        _group(group, name, differs, by_name, samples)
        for group, name, differs in titled(groups_of(rows))
    ]
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": number, "per_cent": per_cent, "visible": visible}
    environment.globals["optimistic"] = OPTIMISTIC
    template = resources.files("segkey.reports").joinpath("page.html").read_text(encoding="utf-8")
    return (
        environment.from_string(template)
        .render(groups=groups, left_out=left_out, version=VERSION)
        .lstrip()
    )


def _group(rows: list[Row], name: str, differs: str, by_name: dict, samples) -> Group:
    rows = sorted(rows, key=lambda row: (row.method, row.block_size, row.run))
    methods, block_sizes, cells = grid_of(rows)
    labels = [_label(row) for row in rows]
    several = any(len(values) > 1 for values in cells.values())
    return Group(
        name,
        differs,
        ([AVERAGED] if several else []) + notes_on(rows),
        [_part(row, by_name[row.run], samples) for row in rows],
        methods,
        [(m, [cell(cells.get((method, m))) for method in methods]) for m in block_sizes],
        baseline_of(cells),
        key_chart(rows, labels),
        rows[0].classes,
    )


def _label(row: Row) -> str:
    label = method_label(row.method, row.block_size)
    return (
        visible(row.run)
        if row.run == label.lower().replace(" m=", "-m")
        else f"{visible(row.run)} ({label})"
    )


def _part(row: Row, run, samples) -> Part:
    attacked = row.attack
    strip = [
        _tiles(sample, row.classes)
        for sample in (samples.taken.get(row.run, []) if samples else [])
    ]
    return Part(
        row,
        method_label(row.method, row.block_size) + row.how,
        _how(run.header),
        _facts(run) + _provenance(row),
        _verdict(row, run.result("evaluate")),
        attack_rows(attacked) if attacked else [],
        attack_notes(attacked) if attacked else [],
        by_required_access(row.suite) if row.suite else [],
        list(attacked.incorrect.values) if attacked and attacked.is_measured else [],
        training_curves(run.history(), run.configuration.best and run.configuration.best.epoch),
        _commands(run, attacked),
        strip,
        _swatches(row.classes) if strip else [],
        samples.notes.get(row.run, "") if samples else _NO_KEY,
    )


def _swatches(classes: tuple[str, ...]) -> list[tuple[str, str]]:
    """A name and a CSS colour for each class, and for pixels without one."""
    colours = ["#" + colour.tobytes().hex() for colour in palette_of(classes)]
    return [
        *((visible(name), colours[n]) for n, name in enumerate(classes)),
        ("void (not scored)", colours[-1]),
    ]


def _how(header) -> str:
    m, c = header.block_size, header.channels
    return METHODS.get(header.method, Cipher).what.format(m=m, c=c, n=c * m * m)


def _facts(run) -> list[tuple[str, str]]:
    """What was protected and how, as names and values."""
    made, header = run.configuration, run.header
    encoder = made.recipe and made.recipe.encoder_weights
    start = _start(run.starting_weights or "none") + (
        f", encoder {_start(encoder)}" if encoder else ""
    )
    facts = [("network", f"{made.model.network}, {start}")]
    if header.method != "none":
        bits = key_space_bits(
            header.method, header.block_size, header.channels, bool(header.password_hash)
        )
        facts += [
            ("key", header.key_id),
            ("key space", f"{bits:.1f} bits" if bits < 256 else "256 bits, the key itself"),
        ]
    if run.is_locked:
        facts.append(("locked", "after a plain training, without loss"))
    counts = ", ".join(f"{count} {split}" for split, count in (made.data.images or {}).items())
    facts += [
        ("images", f"{counts}; {run.size[0]}×{run.size[1]} pixels"),
        ("classes", str(len(header.classes))),
        (
            "trained",
            f"{made.epochs_done} epochs of {made.epochs_done + run.epochs_missing}, "
            f"{duration(made.seconds)}, {made.device or 'unknown device'}",
        ),
        (
            "made",
            f"{made.created[:10]}, "
            f"{', '.join(f'{name} {v}' for name, v in (made.versions or {}).items())}",
        ),
    ]
    return [(name, visible(value)) for name, value in facts]


def _provenance(row: Row) -> list[tuple[str, str]]:
    """On what the run was tested, and what is known of who did it."""
    if not row.result:
        return []
    authentic = [f"{name}.json" for name, made in (row.authentic or {}).items() if made]
    checked = (
        f"{', '.join(authentic)}: made by the owner of the key (authenticated)"
        if authentic
        else NOT_CHECKED
    )
    facts = [
        ("tested on", tested_on(row.result, full=False).removeprefix("tested on ")),
        ("checked", checked),
    ]
    facts += [("note", note) for note in row.notes]
    return [(name, visible(value)) for name, value in facts]


def _start(weights: str) -> str:
    return "from random weights" if weights == "none" else f"from {_last(weights)} weights"


def _last(path: str) -> str:
    """The last name of a path: a page goes to other people."""
    return path.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]


def _verdict(row: Row, evaluated: Evaluation | None) -> str:
    """The suite's, if there is one: it knows more."""
    if row.suite:
        return suite_verdict(row.suite, row.sealed, row.locked)
    if row.attack:
        return attack_sentence(row.attack)
    if evaluated and not evaluated.is_measured:
        return nothing_to_judge(evaluated)
    return "How much the key is worth has not been measured yet."


def _commands(run, attacked: Attack | None) -> list[str]:
    """Commands that reproduce the numbers; of folders, only the last name, as a page is shared."""
    made, header = run.configuration, run.header
    data, (height, width), folder = made.data, run.size, word(f"runs/{run.name}")
    method = (
        ""
        if header.method == "none"
        else f" {option('method', header.method)} -M {header.block_size}"
    )
    password = " --ffx-password PASSWORD" if header.password_hash else ""
    size = str(height) if height == width else f"{height}x{width}"
    shards = [word(_last(path) or "shards") for path in data.shards] or ["shards"]
    name = "ORIGINAL" if run.is_locked else run.name
    settings = (asdict(made.recipe) if made.recipe else {}) | {"seed": made.seed, "name": name}
    values = " ".join(filter(None, (_option(*each) for each in settings.items())))
    plain = data.on_the_fly or not method or run.is_locked
    how = " --method none" if plain else method + password
    train = f"segkey train {' '.join(shards)} {option('network', made.model.network)} {values}"
    if data.on_the_fly and method and not run.is_locked:
        train += f" --key KEY{method}{password}"
    lock = f"segkey lock runs/ORIGINAL --key KEY{method} --name {word(run.name)}"
    commands = [
        f"segkey encrypt IMAGES{how} --size {size} --views {data.views or 1} --out {shards[0]}",
        train + (" --precise" if made.precise else ""),
        *[lock] * run.is_locked,
        f"segkey evaluate {folder}",
    ]
    if attacked:
        keys, seed = attacked.incorrect.keys or 1, attacked.seed or 0
        commands.append(
            f"segkey attack {folder} --wrong-keys {keys} {option('seed', seed)}{password}"
        )
    return ([f"# with key {visible(header.key_id)}"] if header.key_id else []) + commands


def _option(name: str, value: object) -> str:
    """A value of the recipe as an option; nothing for one that was not chosen."""
    if value is None or (name in ("patience", "ema") and not value):
        return ""
    return option(name, "WEIGHTS.txt" if isinstance(value, tuple) else _last(str(value)))


def _tiles(sample, classes: tuple[str, ...]) -> list[Tile]:
    """The tiles of one test image, each with a text alternative."""
    tiles = [Tile("image", f"{visible(sample.name)}: the test image", _photo(sample.image), False)]
    if sample.encrypted is not None:
        alt = f"{visible(sample.name)}: how it looks encrypted"
        tiles.append(Tile("encrypted", alt, _photo(sample.encrypted), False))
    for way, caption in _WAYS.items():
        if way in sample.masks:
            mask = sample.masks[way]
            alt = f"{visible(sample.name)}, {caption}: {_in_words(mask, classes)}"
            tiles.append(Tile(caption, alt, _data_uri(palette_mask(mask, classes), "PNG"), True))
    return tiles


def _in_words(mask: np.ndarray, classes: tuple[str, ...]) -> str:
    """Which classes a mask holds, and how much of each."""
    counts = np.bincount(mask.reshape(-1), minlength=256)
    shares = [(counts[n] / mask.size, visible(name)) for n, name in enumerate(classes) if counts[n]]
    return (
        ", ".join(f"{name} {per_cent(share)}" for share, name in sorted(shares, reverse=True)[:6])
        or "void"
    )


def _photo(image: np.ndarray) -> str:
    return _data_uri(
        Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))),
        "JPEG",
        quality=85,
        subsampling=0,
    )


def _data_uri(picture: Image.Image, format: str, **how: object) -> str:
    file = io.BytesIO()
    picture.save(file, format, optimize=True, **how)
    return f"data:image/{format.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"
