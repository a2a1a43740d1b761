"""Files that somebody made to harm: refused in words, in bounded time and under 1 GB of memory."""

import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from making import SMALL_NETWORK, reconfigure
from PIL import Image
from test_shards import REFUSED, write

import segkey
from segkey.crypto.keys import Key
from segkey.model.runs import Run
from segkey.system.json_files import with_checksum

TORCH = ("segkey.model.training", "segkey.model.evaluation")
MEMORY, SECONDS = 1000, 60  # MB; and generous, as other work may slow this machine down

pytestmark = pytest.mark.skipif(os.name != "posix", reason="measures memory as POSIX does")


def session(
    folder: Path, *commands: tuple, imports: tuple[str, ...] = (), folders: list[Path] | None = None
) -> list[dict]:
    """Run commands in one process; each ends in time, says nothing that moves the cursor, and shows
    no traceback.

    ``imports`` are modules whose own memory does not count: torch takes up to 700 MB before it has
    done anything. ``folders`` are where each command runs, if not all in ``folder``.
    """
    places = folders or [folder] * len(commands)
    steps = [
        (str(place), list(map(str, command)))
        for place, command in zip(places, commands, strict=True)
    ]
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("hostile_session.py")), *imports],
        input=json.dumps(steps),
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(segkey.__file__).parents[1])},
        timeout=SECONDS * 5,
    )
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(outcomes) == len(commands), done.stderr
    for outcome in outcomes:
        assert outcome["unexpected"] is None, outcome
        assert outcome["status"] in (0, 1, 2), outcome
        assert outcome["seconds"] < SECONDS, outcome
        assert outcome["peak"] < MEMORY, outcome
        assert all(c.isprintable() or c == "\n" for c in outcome["stdout"] + outcome["stderr"]), (
            outcome
        )
    print(
        f"{len(commands)} commands, at most {max(o['seconds'] for o in outcomes):.1f} s, "
        f"{outcomes[-1]['peak']} MB"
    )
    return outcomes


def refused(outcomes: list[dict]) -> None:
    for outcome in outcomes:
        assert outcome["status"] == 1, outcome
        assert outcome["stderr"].count("segkey: error: ") == 1, outcome


# ------------------------------------------------------------------ pictures


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *chunks: bytes, pixels: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + b"".join(chunks)
        + chunk(b"IDAT", zlib.compress(pixels, 9))
        + chunk(b"IEND", b"")
    )


def tiff(*tags: tuple[int, int, int, int], then: int = 0) -> bytes:
    """A TIFF of one directory; tags are (number, type, count, value), ``then`` is where the next
    directory is."""
    body = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return (
        struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + body + struct.pack("<I", then) + bytes(64)
    )


def pictures(folder: Path) -> dict[str, str]:
    """Write hostile pictures and one good one; what must be said of each, or nothing where it may
    be used."""
    folder.mkdir()
    bomb = zlib.compress(bytes(300 << 20), 9)
    whole = png(8, 8, pixels=bytes(72))
    square, strips = (
        [(256, 3, 1, 9), (257, 3, 1, 9), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)],
        [(273, 4, 1, 8)],
    )
    written = {
        "good.png": (whole, ""),
        "wide.png": (png(100_000, 1, pixels=bytes(100_001)), ""),
        "square.png": (png(100_000, 100_000), "too many pixels"),
        "huge.png": (png(2**31 - 1, 2**31 - 1), "too many pixels"),
        "empty.png": (b"", "not an image"),
        "zero.png": (png(0, 0), "not an image"),
        "text.jpg": (b"no picture", "not an image"),
        "program.jpg": (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(x) run",
            "not an image",
        ),
        "cut.png": (whole[:40], "not an image|truncated"),
        "long.png": (png(8, 8, pixels=bytes(200 << 20)), ""),
        "comment.png": (png(8, 8, chunk(b"zTXt", b"x\0\0" + bomb), pixels=bytes(72)), "|truncated"),
        "profile.png": (png(8, 8, chunk(b"iCCP", b"x\0\0" + bomb), pixels=bytes(72)), "|truncated"),
        "header.bmp": (
            b"BM"
            + struct.pack("<IIIIiiHHIIIIII", 99, 0, 54, 40, 2**31 - 1, 1, 1, 24, 0, 0, 0, 0, 0, 0),
            "too many",
        ),
        "negative.bmp": (
            b"BM" + struct.pack("<IIIIiiHHIIIIII", 99, 0, 54, 40, -9, -9, 1, 24, 0, 0, 0, 0, 0, 0),
            "not an|trunc|too many",
        ),
        "loop.tif": (tiff(*square, *strips, (278, 3, 1, 9), (279, 4, 1, 81), then=8), "|truncated"),
        "tile.tif": (
            tiff(
                *square, (322, 4, 1, 2**30), (323, 4, 1, 2**30), (324, 4, 1, 8), (325, 4, 1, 2**31)
            ),
            "trunc|not an",
        ),
        "counts.tif": (tiff(*square, (273, 4, 2**31, 8), (279, 4, 2**31, 8)), "trunc|not an"),
        "\x1b[2J[red]\n.png": (b"no picture", "not an image"),
        "x" * 200 + ".png": (b"no picture", "not an image"),
        os.fsdecode(b"\xff\xfe.png"): (b"no picture", "not an image"),
    }
    for name, (data, _) in written.items():
        (folder / name).write_bytes(data)
    os.mkfifo(folder / "pipe.png")
    (folder / "zeros.png").symlink_to("/dev/zero")
    (folder / "loop.png").symlink_to("loop.png")
    os.truncate(folder / "text.jpg", 3 << 30)  # holes take no disk
    progressive = Image.new("RGB", (900, 900))
    progressive.save(folder / "scans.jpg", progressive=True)
    data = (folder / "scans.jpg").read_bytes()
    (folder / "scans.jpg").write_bytes(
        data[:-2] + 5000 * data[data.rindex(b"\xff\xda") : -2] + data[-2:]
    )
    others = {
        "pipe.png": "not a file|Not a directory",
        "zeros.png": "not a file|Not a directory",
        "loop.png": "ymbolic links|nothing at",
        "scans.jpg": "scans",
    }
    return {name: says for name, (_, says) in written.items()} | others


def test_pictures(tmp_path):
    expected = pictures(tmp_path / "photos")
    (outcome,) = session(
        tmp_path, ("encrypt", "photos", "--method", "none", "--size", 32, "--workers", 1)
    )
    assert outcome["status"] == 0, outcome
    found = session(tmp_path, ("decrypt", "shards"))
    assert found[0]["status"] == 0
    kept, left_out = {path.name for path in (tmp_path / "decrypted/all").iterdir()}, 0
    commands = [
        (
            "encrypt",
            tmp_path / "photos" / name,
            "--method",
            "none",
            "--size",
            32,
            "--workers",
            1,
            "--out",
            "one",
            "--force",
        )
        for name in expected
    ]
    for (name, says), alone in zip(expected.items(), session(tmp_path, *commands), strict=True):
        if alone["status"] == 0:
            assert "" in says.split("|"), name
            assert Path(name).stem + ".png" in kept, name
            continue
        left_out += 1
        assert any(why and why in alone["stderr"] for why in says.split("|")), (
            name,
            alone["stderr"],
        )
    assert len(kept) + left_out == len(expected)
    print(f"{left_out} of {len(expected)} pictures refused")


@pytest.mark.parametrize("kind", ["webp", "jpg", "png", "tif"])
def test_the_largest_pictures_that_are_read_stay_under_a_gigabyte(tmp_path, kind):
    """Each format's hungriest way, just below the limit of pixels."""
    how = {
        "webp": ("RGBA", {"lossless": True, "method": 0, "quality": 0}),
        "jpg": ("CMYK", {"progressive": True}),
        "png": ("I;16", {"compress_level": 1}),
        "tif": ("I", {"compression": "tiff_lzw"}),
    }
    mode, options = how[kind]
    (tmp_path / "photos").mkdir()
    Image.new(mode, (7070, 7070)).save(tmp_path / f"photos/a.{kind}", **options)
    (outcome,) = session(
        tmp_path, ("encrypt", "photos", "--method", "none", "--size", 32, "--workers", 1)
    )
    assert outcome["status"] == 0, outcome
    assert "1 image (" in outcome["stdout"], outcome


def test_masks_with_surprising_modes(tmp_path):
    labels = np.zeros((8, 8), np.uint8)
    masks = {
        "rgb": Image.new("RGB", (8, 8), (1, 2, 3)),
        "rgba": Image.new("RGBA", (8, 8)),
        "la": Image.new("LA", (8, 8)),
        "many": Image.fromarray(labels + 9),
        "deep": Image.fromarray(labels.astype(np.uint16) + 300),
        "size": Image.new("L", (8, 7)),
        "good": Image.fromarray(labels),
        "palette": Image.new("P", (8, 8)),
        "bits": Image.new("1", (8, 8)),
        "sixteen": Image.fromarray(labels.astype(np.uint16)),
    }
    tiffs = {
        "float": Image.new("F", (8, 8)),
        "cmyk": Image.new("CMYK", (8, 8)),
        "below": Image.new("I", (8, 8), -1),
    }
    for name, mask in (masks | tiffs).items():
        for folder in ("images", "masks"):
            (tmp_path / "data" / folder).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / f"data/images/{name}.png")
        mask.save(tmp_path / f"data/masks/{name}.{'tif' if name in tiffs else 'png'}")
    (tmp_path / "data/classes.txt").write_text("a\nb\n")
    (outcome,) = session(
        tmp_path,
        ("encrypt", "data", "--method", "none", "--size", 8, "--workers", 1, "--split", "all"),
    )
    # Equal channels are grey, and whole floating-point numbers are numbers.
    fine = {"good", "palette", "bits", "sixteen", "rgba", "la", "float", "cmyk"}
    assert outcome["stdout"].startswith(f"{len(fine)} images"), outcome
    for name in (set(masks) | set(tiffs)) - fine:
        assert f"left out {name}.png: " in outcome["stderr"], name


@pytest.mark.parametrize("name", ["classes.txt", "ImageSets/Segmentation/train.txt"])
def test_lists_beside_the_pictures(tmp_path, name):
    folder = tmp_path / "data"
    for sub in ("images", "masks", "ImageSets/Segmentation"):
        (folder / sub).mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(folder / "images/a.png")
    Image.new("L", (8, 8)).save(folder / "masks/a.png")
    if name == "classes.txt":
        shutil.rmtree(folder / "ImageSets")
    (folder / name).touch()
    os.truncate(folder / name, 3 << 30)
    refused(session(tmp_path, ("encrypt", "data", "--method", "none", "--size", 8, "--workers", 1)))


# ------------------------------------------------------------------ shards


def unknown_filter(file: h5py.File) -> None:
    """Masks through a filter that nobody has."""
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_chunk(file["masks"].chunks)
    layout.set_filter(305, h5py.h5z.FLAG_OPTIONAL)
    space, kind = file["masks"].id.get_space(), file["masks"].id.get_type()
    del file["masks"]
    h5py.h5d.create(file.id, b"masks", kind, space, layout)


def unknown_filter_of_names(file: h5py.File) -> None:
    """Names through a filter that nobody has: reading them fails inside HDF5."""
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    names = file["names"]
    layout.set_chunk(names.shape)
    layout.set_filter(305, h5py.h5z.FLAG_OPTIONAL)
    space, kind, width = (
        names.id.get_space(),
        names.id.get_type(),
        names.dtype.itemsize * len(names),
    )
    del file["names"]
    made = h5py.h5d.create(file.id, b"names", kind, space, layout)
    made.write_direct_chunk((0,), bytes(width))


CHANGES = {name: change for name, (_, change) in REFUSED.items()} | {
    "unknown filter": unknown_filter,
    "unknown filter of names": unknown_filter_of_names,
    "block size": lambda file: file.attrs.create("block_size", 65_535),
}


def test_shards(tmp_path):
    write(tmp_path / "whole.h5", views=2)
    files = []
    for number, change in enumerate(CHANGES.values()):
        files.append(Path(shutil.copy(tmp_path / "whole.h5", tmp_path / f"hostile{number}.h5")))
        with h5py.File(files[-1], "r+") as file:
            change(file)
    Key(bytes(32)).save(tmp_path / "keys/segkey.key")
    refused(session(tmp_path, *((*("inspect", "--verify"), file) for file in files)))
    refused(session(tmp_path, *(("decrypt", file, "--out", "out") for file in files)))
    assert not (tmp_path / "out").exists()
    print(f"{len(files)} shards refused")


NAMES = [
    "../../up.png",
    "/tmp/segkey-absolute.png",
    "..",
    "a\nb.png",
    "\x1b[2J\x9b2J.png",
    "[red]x[/red]",
    "x" * 10_000,
    "a/" * 5_000 + "b",
    "\u202egnp.exe",
    "C:\\x",
    "\0",
    "~/x",
    "con.png",
    "\udcff",
]


def test_names(tmp_path):
    folder = tmp_path / "deep/er"
    folder.mkdir(parents=True)
    write(folder / "train.h5", NAMES, method="none", block_size=1, key_id="")
    inspected, decrypted = session(
        folder, ("inspect", "--verify", "train.h5"), ("decrypt", "train.h5")
    )
    assert inspected["status"] == decrypted["status"] == 0, decrypted
    written = [path for path in tmp_path.rglob("*.png") if path.is_file()]
    assert len(written) == len(NAMES)
    assert not Path("/tmp/segkey-absolute.png").exists()
    assert all(path.resolve().is_relative_to(folder / "decrypted/train") for path in written)
    with open(folder / "train.h5", "r+b") as file:  # damaged rows are named
        file.seek(h5py.File(folder / "train.h5")["images"].id.get_chunk_info(4).byte_offset)
        file.write(b"damage")
    (outcome,) = session(folder, ("decrypt", "train.h5", "--out", "again"))
    refused([outcome])
    assert r"row 4 (\x1b[2J\x9b2J.png)" in outcome["stderr"]


# ------------------------------------------------------------------ keys, runs and weights


def test_keys(tmp_path):
    good = json.loads(Key(bytes(range(32))).save(tmp_path / "good.key").read_text())
    contents = {
        "nested": b"[" * 16_000,
        "objects": b'{"format":' * 3_000,
        "binary": os.urandom(5_000),
        "empty": b"",
        "number": b"1e999",
        "long": json.dumps(good | {"created": "x" * 15_000}).encode() + b" " * 9_000,
        "surrogate": b'{"format": "\\ud800"}',
    }
    for field in good:
        for number, value in enumerate([None, 7, -1.5, [], {}, "", "\x1b[2J", "x" * 9_000, True]):
            contents[f"{field}{number}"] = json.dumps(good | {field: value}).encode()
    contents |= {
        f"sealed{number}": json.dumps(
            {k: v for k, v in good.items() if k != "secret"} | {"sealed": value}
        ).encode()
        for number, value in enumerate(
            [
                None,
                7,
                [],
                {},
                "x",
                {
                    "kdf": "scrypt",
                    "n": 2**60,
                    "r": 8,
                    "p": 1,
                    "salt": "",
                    "nonce": "",
                    "ciphertext": "",
                },
            ]
        )
    }
    for name, data in contents.items():
        (tmp_path / f"{name}.key").write_bytes(data)
    (tmp_path / "large.key").touch()
    os.truncate(tmp_path / "large.key", 1 << 30)
    os.mkfifo(tmp_path / "pipe.key")
    (tmp_path / "zero.key").symlink_to("/dev/zero")
    (tmp_path / "folder.key").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "words").write_text("words\n")
    names = [path.name for path in sorted(tmp_path.glob("*.key")) if path.name != "good.key"]
    opened = session(
        tmp_path,
        *(
            (
                "encrypt",
                "a.png",
                "--size",
                8,
                "--key",
                name,
                "--passphrase-file",
                "words",
                "--out",
                "out",
                "--workers",
                1,
                "--force",
            )
            for name in names
        ),
    )
    harmless = {name for name, outcome in zip(names, opened, strict=True) if outcome["status"] == 0}
    assert {name.removesuffix(".key").rstrip("0123456789") for name in harmless} <= {
        "created"
    }  # any date is a date
    refused([outcome for name, outcome in zip(names, opened, strict=True) if name not in harmless])
    shown = session(tmp_path, *(("inspect", "--verify", name) for name in names))
    assert all(outcome["status"] in (0, 1) for outcome in shown)
    print(f"{len(names) - len(harmless)} of {len(names)} keys refused")


def bare_copy(run: Run, folder: Path) -> Path:
    """A run without its weights."""
    return Path(shutil.copytree(run.path, folder, ignore=shutil.ignore_patterns("*.safetensors")))


class Payload:
    """A pickle that leaves a file behind if anybody opens it."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self):
        return os.mkdir, (str(self.file),)


def test_weights_that_are_pickles_or_bombs(tmp_path, trained_run, shards_folder):
    proof, payload = tmp_path / "proof", Payload(tmp_path / "proof")
    (tmp_path / "pickle.pth").write_bytes(pickle.dumps(payload))
    (tmp_path / "pickle.safetensors").write_bytes(pickle.dumps(payload))
    torch.save({"model": payload}, tmp_path / "zip.pth")
    torch.save({"model": payload}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "length.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}")
    shape = json.dumps(
        {"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}
    ).encode()
    (tmp_path / "shape.safetensors").write_bytes(struct.pack("<Q", len(shape)) + shape)
    torch.save({"a": torch.zeros(4)}, tmp_path / "plain.pth")
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as bomb,
    ):
        for name in plain.namelist():
            with bomb.open(name, "w", force_zip64=True) as member:
                for _ in range(1100 if name.endswith("/data/0") else 0):
                    member.write(bytes(1 << 20))
                member.write(plain.read(name))
    weights = sorted(tmp_path.glob("*.pth")) + sorted(tmp_path.glob("*.safetensors"))
    train = (
        "train",
        shards_folder,
        *SMALL_NETWORK,
        "--epochs",
        1,
        "--device",
        "cpu",
    )
    runs = []
    for name in (
        "pickle.pth",
        "zip.pth",
        "old.pth",
        "bomb.pth",
        "length.safetensors",
        "shape.safetensors",
    ):
        runs.append(Path(bare_copy(trained_run, tmp_path / "runs" / name.replace(".", "-"))))
        shutil.copy(tmp_path / name, runs[-1] / "model.safetensors")
        shutil.copy(tmp_path / name, runs[-1] / "resume.pt")
        reconfigure(Run.open(runs[-1]), epochs_done=1).save()
    refused(
        session(
            tmp_path,
            *((*train, "--weights", file) for file in weights),
            *(("evaluate", run, "--device", "cpu") for run in runs),
            *(
                ("train", "--resume", "--runs", "runs", "--name", run.name, "--device", "cpu")
                for run in runs
            ),
            *(("inspect", "--verify", run) for run in runs),
            imports=TORCH,
        )
    )
    assert not proof.exists()
    print(f"{len(weights)} weights and {len(runs)} runs refused; no pickle was run")


def test_runs(tmp_path, trained_run):
    """Whoever trains for you returns a run, with checksums that match."""
    config, folders = json.loads((trained_run.path / "run.json").read_text()), []
    config.pop("checksum")
    data = config["data"]
    changes = [
        {"data": data | change}
        for change in (
            {"size": [60_000, 60_000]},
            {"size": [32, "32"]},
            {"size": [-32, -32]},
            {"size": []},
            {"block_size": 2**40},
            {"block_size": 0},
            {"block_size": 31},
            {"channels": 2**20},
            {"max_value": 0},
            {"max_value": "255"},
            {"classes": ["x"] * 100_000},
            {"classes": [1]},
            {"classes": []},
            {"method": "rot13"},
            {"method": []},
            {"key_id": 7},
            {"ignore_index": 10**9},
            {"shards": "x"},
            {"shards": [7]},
            {"shards": ["\0"]},
            {"password_hash": None},
        )
    ]
    changes += [
        {"format": "segkey-run-v9"},
        {"model": {"backbone": "../x"}},
        {"model": 7},
        {"recipe": []},
        {"seconds": "x"},
        {"created": 7},
        {"best": {"val_loss": "x"}},
        {"best": 7},
        {"seed": "x"},
        {"epochs_done": None},
    ]
    for number, change in enumerate(changes):
        folders.append(tmp_path / f"run{number}")
        folders[-1].mkdir()
        (folders[-1] / "run.json").write_text(json.dumps(with_checksum(config | change)))
    for name, text in (("nested", "[" * 99_999), ("text", "x")):
        folders.append(tmp_path / name)
        folders[-1].mkdir()
        (folders[-1] / "run.json").write_text(text)
    folders.append(tmp_path / "large")
    folders[-1].mkdir()
    (folders[-1] / "run.json").touch()
    os.truncate(folders[-1] / "run.json", 3 << 30)
    results = [
        {},
        {"correct": 7},
        {"correct": {"mean_iou": "x"}},
        {"correct": {"mean_iou": None, "iou": []}},
        {"correct": {"mean_iou": 1, "iou": {"a": "b"}}, "constant": {"mean_iou": 0}},
    ]
    for number, result in enumerate(results):
        for name in ("evaluate", "attack"):
            folders.append(bare_copy(trained_run, tmp_path / f"{name}{number}"))
            (folders[-1] / f"{name}.json").write_text(json.dumps(result))
    endless = bare_copy(trained_run, tmp_path / "endless")
    os.truncate(endless / "history.jsonl", 3 << 30)
    shown = [(command, folder) for command in ("inspect", "report") for folder in folders]
    refused(session(tmp_path, *shown, ("inspect", "--verify", endless), imports=TORCH))
    print(f"{len(folders) + 1} runs refused")
