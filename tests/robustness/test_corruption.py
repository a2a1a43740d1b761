"""One flipped bit, anywhere in a shard, a run or a key, is found, or changes nothing that anybody
reads.

SEGKEY_FLIPS says how many bits are flipped in each kind of file (a tenth of that where reading
takes long).
"""

import contextlib
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from making import SMALL_NETWORK
from tools import amount
from typer.testing import CliRunner

from segkey.cli import app
from segkey.crypto import keys
from segkey.crypto.keys import Key
from segkey.errors import SegkeyError
from segkey.model import weights_files
from segkey.model.batches import BatchLoader
from segkey.model.checkpoint import write_state
from segkey.model.runs import Run
from segkey.reports import inspection
from segkey.shards import Shard, Shards, Split
from segkey.system.seeds import seeded

FLIPS = amount("SEGKEY_FLIPS", 40)
CPU = torch.device("cpu")


@contextlib.contextmanager
def flipped(file: Path, position: int, bit: int) -> Iterator[None]:
    """The file with one bit changed, in place."""

    def flip() -> None:
        with open(file, "r+b") as opened:
            opened.seek(position)
            value = opened.read(1)[0]
            opened.seek(position)
            opened.write(bytes([value ^ 1 << bit]))

    flip()
    try:
        yield
    finally:
        flip()


def flip_and_count(
    file: Path, flips: int, verify: Callable[[], list[str]], content: Callable[[], object]
) -> Counter:
    """Flip bits one at a time; count those that were found, those that change nothing, and those
    that were silent.

    Args:
        file: where.
        flips: how many.
        verify: what ``segkey inspect --verify`` finds.
        content: all that is read of the file, in a form that can be compared.
    """
    expected, counts, random = (
        content(),
        Counter(found=0, harmless=0, silent=0),
        seeded("flips", file.name),
    )
    assert verify() == []
    for position in random.integers(0, file.stat().st_size, flips):
        with flipped(file, int(position), int(random.integers(8))):
            seen = [complaint(verify), complaint(content)]
            same = bool(seen[1]) or content() == expected
        if seen[0] or seen[1]:
            assert seen[0], f"byte {position} is noticed in use ({seen[1]}), but not by --verify"
            assert same, (
                f"byte {position} is found by --verify ({seen[0]}), but changes what is used"
            )
            assert str(file) in seen[0] or str(file.parent) in seen[0], seen[0]
        counts["found" if seen[0] else "harmless" if same else "silent"] += 1
    print(f"{file.name}: {flips} bits flipped, {dict(counts)}")
    return counts


def complaint(read: Callable[[], object]) -> str:
    """What is said about damage, or nothing."""
    try:
        found = read()
        return found[0] if isinstance(found, list) and found else ""
    except SegkeyError as error:
        return error.what


def damage(file: Path) -> list[str]:
    return inspection.describe(file, verify=True)[0]["damage"]


# ------------------------------------------------------------------ shards


def read_shard(file: Path) -> tuple:
    """All that training and attacks read of a shard."""
    with Shard(file) as shard:
        (images, masks), *_ = BatchLoader(Split(Shards([shard.path])), CPU, resident=True).batches(
            1000
        )
        return (
            shard.header,
            shard.names,
            shard.original_sizes.tobytes(),
            images.numpy().tobytes(),
            masks.numpy().tobytes(),
        )


@pytest.mark.parametrize("split", ["train", "test"])
def test_shards(tmp_path, shards_folder, split):
    file = Path(shutil.copy(shards_folder / f"{split}.h5", tmp_path))
    counts = flip_and_count(file, FLIPS, lambda: damage(file), lambda: read_shard(file))
    assert counts["silent"] == 0
    assert counts["found"] > FLIPS / 2


@pytest.mark.parametrize("kind", ["images", "masks"])
def test_a_bit_in_the_pixels_is_found_and_file_dataset_and_row_are_named(
    tmp_path, shards_folder, kind
):
    file, random = Path(shutil.copy(shards_folder / "train.h5", tmp_path)), seeded("rows", kind)
    with Shard(file) as shard:
        names, rows = shard.names, len(shard._datasets[kind])
        where = [shard._datasets[kind].id.get_chunk_info(row) for row in range(rows)]
    expected, harmless = read_shard(file), 0
    for _ in range(FLIPS):
        row = int(random.integers(rows))
        position = where[row].byte_offset + int(random.integers(where[row].size))
        place = f"row {where[row].chunk_offset[0]} ({names[row % len(names)]})"
        named = f"{file} is damaged: dataset '{kind}', {place}"
        with flipped(file, position, int(random.integers(8))):
            found = damage(file)
            if (
                not found and kind == "masks"
            ):  # some bits of zlib mean nothing: zeros may be copied from anywhere
                assert read_shard(file) == expected
                harmless += 1
                continue
            assert [what.startswith(named) for what in found] == [True], found
            with pytest.raises(SegkeyError) as caught:
                read_shard(file)
            assert caught.value.what.startswith(named)
    assert harmless < max(2, FLIPS / 10)
    print(
        f"{kind}: {FLIPS} bits flipped, {FLIPS - harmless} found and named by file, dataset and "
        f"row, {harmless} harmless"
    )


# ------------------------------------------------------------------ runs


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory, trained_run):
    """A copy of a run, with results as evaluate and attack keep them."""
    folder = Path(shutil.copytree(trained_run.path, tmp_path_factory.mktemp("runs") / "run"))
    run, scores = (
        Run.open(folder),
        {"mean_iou": 0.1 + 0.2, "pixel_accuracy": 2 / 3, "iou": {"ground": 1 / 3, "disc": None}},
    )
    wrong = {"keys": 2, "mean": 8 / 63, "std": 0.02, "min": 1 / 9, "max": 1 / 7}
    constant = {"class": "ground", "mean_iou": 0.2}
    run.write_result(
        "evaluate",
        {"run": "run", "split": "test", "images": 6, "correct": scores, "constant": constant},
    )
    about = {"run": "run", "method": "np", "block_size": 4, "images": 6, "key_space_bits": 44.9}
    wrong |= {"values": [1 / 7, 1 / 9]}
    run.write_result(
        "attack",
        about | {"correct": scores, "plain": scores, "incorrect": wrong, "constant": constant},
    )
    return folder


def known(document: dict, fields: set[str]) -> dict:
    """A document without fields that nobody reads: a flip in the word ``checksum`` makes one."""
    return {name: value for name, value in document.items() if name in fields}


@pytest.mark.parametrize("name", ["run.json", "history.jsonl", "evaluate.json", "attack.json"])
def test_what_a_run_says_of_itself(run_folder, monkeypatch, name):
    monkeypatch.setattr(
        Run, "load_model", lambda *_: None
    )  # they have a test of their own, and take long
    file, run = run_folder / name, Run.open(run_folder)
    documents = {
        "run.json": lambda: [Run.open(run_folder).configuration.document],
        "history.jsonl": run.history,
    }
    read = documents.get(name, lambda: [run.result(file.stem).document])
    fields = {field for document in read() for field in document}
    counts = flip_and_count(
        file,
        FLIPS,
        lambda: damage(run_folder),
        lambda: tuple(str(known(each, fields)) for each in read()),
    )
    assert counts["silent"] == 0
    assert counts["found"] > FLIPS / 2


def test_weights(run_folder):
    def tensors() -> str:
        return weights_files.checksum(Run.open(run_folder).load_model(CPU).weights())

    counts = flip_and_count(
        run_folder / "model.safetensors", max(4, FLIPS // 10), lambda: damage(run_folder), tensors
    )
    assert counts["silent"] == 0
    assert counts["found"] > counts["harmless"]


def test_starting_weights_and_what_a_training_goes_on_from(tmp_path):
    """Both as torch saves them; small ones, as damage does not depend on the size."""
    file = tmp_path / "resume.pt"
    state = {
        "epoch": 3,
        "model": {"a": torch.randn(40, 40), "b": torch.arange(9)},
        "history": [{"loss": 0.25}],
    }
    write_state(file, state)

    def read() -> str:
        return str(
            [
                (k, v.tolist() if torch.is_tensor(v) else v)
                for k, v in flat(weights_files.read_archive(file))
            ]
        )

    counts = flip_and_count(file, FLIPS, lambda: weights_files.read_archive(file) and [], read)
    assert counts["silent"] == 0
    assert counts["found"] > FLIPS / 2


def flat(document: dict, above: str = "") -> Iterator[tuple[str, object]]:
    for name, value in document.items():
        if isinstance(value, dict):
            yield from flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


# ------------------------------------------------------------------ keys


@pytest.mark.parametrize("passphrase", [None, "correct horse"], ids=["plain", "sealed"])
def test_keys(tmp_path, key, passphrase):
    """What is used of a key is its secret; the date beside it decides nothing, and is not covered
    in a plain key."""
    file = key.save(tmp_path / "some.key", passphrase)

    def verify() -> list[str]:
        if passphrase is None:
            return keys.damage(file)
        Key.load(file, passphrase)
        return []

    counts = flip_and_count(
        file,
        FLIPS if passphrase is None else FLIPS // 2,
        verify,
        lambda: Key.load(file, passphrase),
    )
    assert counts["silent"] == 0
    assert counts["found"] > FLIPS / 4


# ------------------------------------------------------------------ before a number is printed


@pytest.mark.parametrize(
    "command, split",
    [("train", "train"), ("train", "val"), ("evaluate", "test"), ("attack", "test")],
)
def test_no_command_prints_a_number_that_damage_has_touched(
    tmp_path, monkeypatch, shards_folder, run_folder, key, command, split
):
    monkeypatch.chdir(tmp_path)
    key.save("keys/segkey.key")
    shutil.copytree(shards_folder, "shards")
    file = tmp_path / "shards" / f"{split}.h5"
    with Shard(file) as shard:
        position = shard._offset + int(np.prod(shard.size)) * 3 * (shard.images - 1) + 5
    how = {
        "train": (
            "shards",
            *SMALL_NETWORK,
            "--epochs",
            "1",
            "--batch-size",
            "4",
        ),
    }.get(command, (str(run_folder), "--shards", "shards"))
    with flipped(file, position, 0):
        done = CliRunner().invoke(app, [command, *how, "--device", "cpu"])
    assert done.exit_code == 1, done.stdout
    assert done.stdout == "", done.stdout
    assert f"shards/{split}.h5 is damaged: dataset 'images', row" in done.stderr
    assert "epoch" not in done.stderr
    assert "IoU" not in done.stderr
