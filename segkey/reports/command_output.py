"""Output of single commands: tables and sentences, made from results alone."""

from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from segkey.crypto import BLOCK_SIZES
from segkey.crypto.ciphers import (
    METHODS,
    has_password,
    key_space_bits,
    method_label,
    method_name,
    selections,
)
from segkey.model.results import NOTHING_TO_MEASURE, Attack, Evaluation, Plain
from segkey.reports.provenance import tested_on
from segkey.reports.text import SEARCHABLE_BITS, facts_of, number, printable, table_of, visible
from segkey.reports.verdicts import (
    OPTIMISTIC,
    few_images,
    majority_answer,
    nothing_to_judge,
    plain_in_words,
    plain_one_way,
)
from segkey.system.shell_quoting import word
from segkey.system.wording import counted, in_bytes, per_cent

KEY_SPACE_ADVICE = (
    "A key is an obstacle, not encryption: whoever has the weights of a model and a few "
    "photographs computes the keys of NP and FFX at M = 4 in seconds (segkey attack "
    "--statistics). Against the theft of a file, seal it (segkey seal). Among keys, take FFX with "
    "M = 4 and the password derived from the key (segkey encrypt --method ffx -M 4). At M = 2, NP "
    f"has only {selections(2)} keys, and so has FFX if its password is fixed (segkey attack "
    "--exhaustive). No key space protects any method from an attacker with encrypted images "
    "(segkey attack --ciphertext-only) or one image plain and encrypted (--known-pair)."
)


def key_space_table() -> Table:
    """Bits of key space by method and block size, three channels."""
    table = table_of(
        "Key space in bits (images with 3 channels)", "method", *(f"M={m}" for m in BLOCK_SIZES)
    )
    rows = [(method, False) for method in METHODS if method != "none"]
    rows += [(method, True) for method in METHODS if has_password(method)]
    for method, fixed in rows:
        bits = [key_space_bits(method, m, fixed_password=fixed) for m in BLOCK_SIZES]
        label = printable(method_name(method)) + (", password fixed" if fixed else "")
        table.add_row(
            label, *(f"[red]{b:.1f}[/]" if b < SEARCHABLE_BITS else f"{b:.0f}" for b in bits)
        )
    table.footnote = "below 40: within reach of a search; 256 is the key itself"
    return table


def describe_plan(source, plans, cipher, bytes_needed: int) -> str:
    """What is about to be done, and the disk space it takes."""
    splits = ", ".join(f"{split} {len(items)}" for split, items in source.splits.items())
    views = next((plan.header.views for plan in plans if plan.header.views > 1), 1)
    height, width = plans[0].preparation.size
    parts = [
        f"{source.kind}: {counted(len(source), 'image')} ({splits})",
        f"{method_name(cipher.method)}"
        + (f", M = {cipher.block_size}" if cipher.method != "none" else "")
        + f", {height}x{width}",
    ]
    if views > 1:
        parts.append(f"{views} augmented views of each training image")
    if not source.has_masks:
        parts.append("no masks, so no model can be trained on these")
    return "; ".join(parts) + f"; this takes {in_bytes(bytes_needed)} of disk"


def describe_encryption(result, problems, out: Path, cipher) -> str:
    """What was done."""
    total = sum(result.images.values())
    splits = ", ".join(f"{split} {count}" for split, count in result.images.items())
    text = f"{counted(total, 'image')} ({splits}) in {out}, {in_bytes(result.bytes)}"
    text += f", {result.seconds:.1f} s"
    if result.kept:
        text += f"; {counted(len(result.kept), 'finished shard')} of an earlier run kept"
    if problems:
        text += f"; {len(problems)} left out"
    if 0 < cipher.key_space_bits < SEARCHABLE_BITS:
        text += (
            f"\nOnly {cipher.key_space_bits:.1f} bits of key space: all keys can be tried. Take a "
            "larger M."
        )
    return text


def inspection_table(document: dict) -> Table:
    """A key, shard or run as two columns."""
    facts = []
    for name, value in document.items():
        if name in ("path", "kind"):
            continue
        if name == "class_shares":
            value = _shares(value)
        elif isinstance(value, dict):
            value = ", ".join(f"{k} {_short(v)}" for k, v in value.items())
        elif isinstance(value, list) and name == "size":
            value = "x".join(map(str, value))
        elif isinstance(value, list) and name == "damage":
            value = "\n".join(value[:20]) or "none: everything matches its checksum"
        elif isinstance(value, list):
            value = f"{len(value)}: {', '.join(map(str, value))}"
        elif name == "bytes":
            value = in_bytes(value)
        if value not in ("", None):
            facts.append((name.replace("_", " "), value))
    return facts_of(f"{document['kind']}  {document['path']}", facts)


def _shares(shares: dict) -> str:
    """Shares of classes, in per cent."""
    if isinstance(shares.get("unknown"), str):  # a class may have that name, too
        return f"n/a: {shares['unknown']}"
    cells = [
        f"{name} {'n/a' if share is None else per_cent(share, 1)}"
        for name, share in shares.items()
        if name != "of_images"
    ]
    return ", ".join(cells) + f" (of {counted(shares['of_images'], 'image')})"


def _short(value: object) -> object:
    if value is None:
        return "n/a"
    return f"({len(value)})" if isinstance(value, list) and len(value) > 4 else value


def describe_training(run) -> str:
    """Where a run is, how it went, and what to do next."""
    made, folder = run.configuration, word(run.path)
    best, data = made.best, made.data
    text = (
        f"run {run.path}: {counted(made.epochs_done, 'epoch')} in {made.seconds:.0f} s, best "
        f"validation loss {number(best.val_loss)} in epoch {best.epoch}\n"
        f"Next: segkey evaluate {folder}; segkey attack {folder}"
    )
    bits = key_space_bits(data.method, data.block_size, data.channels, bool(data.password_hash))
    if 0 < bits < SEARCHABLE_BITS:
        text += f"\nOnly {bits:.1f} bits of key space" + _searches(run)
    return text


def _searches(run) -> str:
    """The command that shows what a search finds of a run's key; none that would be refused."""
    from segkey.attacks import searches_that_fit  # imports torch, which a training has done

    data = run.configuration.data
    fixed = bool(data.password_hash)
    options = searches_that_fit(data.method, data.block_size, data.channels, fixed)
    if not options:
        return ". Take a larger M."
    password = " --ffx-password PASSWORD" if fixed else ""
    others = f" (or {' or '.join(options[1:])})" if options[1:] else ""
    return f": see what a search finds with segkey attack {run.path} {options[0]}{password}{others}"


def evaluation_table(result: Evaluation) -> Table:
    """Per-class IoU, and the mean beside the majority-class baseline."""
    table = table_of(
        f"{result.run}: {counted(result.images, 'image')} of split '{result.split}'",
        "class",
        "IoU",
    )
    for name, value in result.correct.iou.items():
        table.add_row(printable(name), number(value))
    table.add_section()
    table.add_row("[bold]mean IoU[/]", f"[bold]{number(result.correct.mean_iou)}[/]")
    table.add_row("pixel accuracy", number(result.correct.pixel_accuracy))
    baseline = result.majority_class
    answer = "the same class" if baseline.name is None else f"'{printable(baseline.name)}'"
    table.add_row(f"mean IoU of answering {answer} everywhere", number(baseline.mean_iou))
    nothing = [] if result.is_measured else [NOTHING_TO_MEASURE]
    table.footnote = "\n".join([*nothing, tested_on(result)])
    return table


_MOST_FILES = 20  # that a table shows; outputs.tsv and --json have all


def files_table(result) -> Table:
    """Which mask belongs to which image."""
    table = table_of("Masks", "image", "mask", left=2)
    for line in result.files[:_MOST_FILES]:
        table.add_row(printable(line["image"]), printable(line["mask"]))
    if (more := len(result.files) - _MOST_FILES) > 0:
        table.footnote = f"and {more} more, in outputs.tsv and with --json"
    return table


def prediction_table(result) -> Table:
    """The classes that were found, commonest first."""
    table = table_of("Classes found", "class", "images", "of all pixels")
    total = sum(result.pixels.values())
    for name, pixels in sorted(result.pixels.items(), key=lambda entry: -entry[1]):
        if pixels:
            share = per_cent(pixels / total, 1) if pixels >= total / 1000 else "< 0.1 %"
            table.add_row(printable(name), str(result.seen[name]), share)
    missing = [visible(name) for name, pixels in result.pixels.items() if not pixels]
    if missing:
        table.footnote = f"in no image: {', '.join(missing)}"
    return table


def describe_prediction(result, out: Path, overlays: bool = False) -> str:
    """What was written, and how fast."""
    rate = result.images / max(result.seconds, 1e-9)
    beside = f", overlays in {out}/overlays" if overlays else ""
    rate = f"{rate:.1f} images/s" if rate >= 0.1 else f"{1 / rate:.0f} s per image"
    masks = "1 mask" if result.images == 1 else f"{result.images} masks"
    text = f"{masks} in {out}/masks{beside}, {result.seconds:.1f} s, {rate}"
    return text + (f"; {len(result.problems)} left out" if result.problems else "")


@dataclass(frozen=True)
class AttackRow:
    """What one attempt reaches; ``of_correct`` is its share of the correct key's score.

    None if that score is 0.
    """

    attempt: str
    mean_iou: float | None
    of_correct: float | None

    @property
    def percent(self) -> str:
        """`of_correct` in per cent, or n/a."""
        return "n/a" if self.of_correct is None else per_cent(self.of_correct)


def attack_rows(attack: Attack) -> list[AttackRow]:
    """The attempts of ``segkey attack``, for the terminal and the page; the correct key first."""
    correct, wrong = attack.correct.mean_iou, attack.incorrect
    attempts = [
        ("correct key", correct),
        (f"plain{_divided(attack.plain)}", attack.plain.mean_iou),
        (f"incorrect keys, mean of {wrong.keys}", wrong.mean),
        ("  worst", wrong.min),
        ("  best", wrong.max),
        (majority_answer(attack), attack.majority_class.mean_iou),
    ]
    return [
        AttackRow(name, value, value / correct if correct and value is not None else None)
        for name, value in attempts
    ]


def _divided(plain: Plain) -> str:
    """By what plain images were divided, if there is more than one way."""
    return f", divided by {plain.divided_by}" if plain.chosen_among > 1 else ""


def attack_notes(attack: Attack) -> list[str]:
    """What a reader of `attack_rows` must know: which attempts were chosen, and on which images."""
    notes = [plain_in_words(attack.plain), plain_one_way(attack.method, attack.plain)]
    if attack.incorrect.keys > 1 and attack.method != "none":
        notes.append(f"best: of the incorrect keys, {OPTIMISTIC}")
    return list(filter(None, notes))


def attack_table(attack: Attack) -> Table:
    """Correct, plain and incorrect, as in the paper's Figure 6, with their spread."""
    method = method_label(attack.method, attack.block_size)
    table = table_of(
        f"{attack.run} ({method}): {counted(attack.images, 'image')}",
        "test images",
        "mean IoU",
        "of correct",
    )
    for row in attack_rows(attack):
        table.add_row(printable(row.attempt), number(row.mean_iou), row.percent)
        if row.attempt.startswith("incorrect"):
            std = attack.incorrect.std if attack.incorrect.keys > 1 else None
            table.add_row("  standard deviation", number(std), "")
    table.footnote = "\n".join([*attack_notes(attack), tested_on(attack)])
    return table


def attack_sentence(attack: Attack) -> str:
    """What the table means, in plain words, without flattery."""
    text = nothing_to_judge(attack) or _verdict(attack)
    if attack.method == "none" or not attack.is_measured:
        return text
    if few := few_images(attack.images):
        text += " " + few
    if attack.key_space_bits < SEARCHABLE_BITS:
        count = round(2**attack.key_space_bits)
        text += (
            f" There are only {count:,} different keys: trying them all finds yours."
            if count > 1
            else " There is only one key: whoever knows the method and M has it."
        )
    return text


def _verdict(attack: Attack) -> str:
    """How far the best attempt without the key came."""
    correct, plain, wrong = attack.correct.mean_iou, attack.plain.mean_iou, attack.incorrect
    best = max(plain, wrong.max)
    if plain >= wrong.max:
        way, chosen = "plain images reach", attack.plain.chosen_among > 1
    else:
        way, chosen = f"the best of {wrong.keys} wrong keys reaches", wrong.keys > 1
        way = way if chosen else "the one wrong key that was tried reaches"
    text = f"Without the key, {way} {best:.4f} where the key reaches {correct:.4f}: "
    if best >= 0.9 * correct:
        text += "the key adds next to nothing."
    elif best >= 0.5 * correct:
        text += "the key protects only a part of the model's worth."
    elif best >= 0.25 * correct:
        text += f"{per_cent(best / correct)} of the model's worth is left without its key."
    else:
        text += "against these attempts the model is worth little without its key."
    if wrong.keys < 100:
        keys = "One wrong key is" if wrong.keys == 1 else f"{wrong.keys} wrong keys are"
        text += f" {keys} few: luckier ones exist."
    if chosen:
        text += f" That attempt is {OPTIMISTIC}."
    return text


def bench_table(rows) -> Table:
    """Each stage beside its limit and beside what a user would do instead."""
    columns = ("stage", "rate", "limit", "ratio", "alternative", "speed-up")
    table = table_of("What this machine does", *columns)
    for row in rows:
        if row.rate is None:
            table.add_row(printable(row.stage), f"[dim]{printable(row.note)}[/]", *[""] * 4)
            continue
        table.add_row(
            printable(row.stage),
            f"{_rate(row.rate)} {row.unit}",
            _rate(row.limit),
            "" if row.ratio is None else f"{row.ratio:.2f}",
            _rate(row.alternative),
            "" if row.speed_up is None else f"{row.speed_up:,.0f}x",
        )
    return table


def _rate(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
