"""Names that segkey looks for by itself, in folders that may come from anybody.

Under each of them may stand a link to the owner's key, a link to nothing, a pipe, a folder, or a
file of 3 GB.
"""

import ast
import hashlib
import os
import shutil
import socket
import stat
from pathlib import Path

import pytest
from making import SMALL_NETWORK, reconfigure
from test_hostile import TORCH, session

import segkey
from segkey.crypto.age import Identity
from segkey.errors import SegkeyError
from segkey.model import run_names, runs, seal
from segkey.model.runs import Run
from segkey.paper import experiment_settings
from segkey.system.files import append, create, is_there, make_folder, open_regular, written_whole
from segkey.system.folder_lock import sole_writer
from segkey.system.json_files import read_json

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs links and pipes")

SECRET = b"the owner's key, which nobody may touch\n"
CPU = ("--device", "cpu")
TRAIN = (
    "train",
    "shards",
    *SMALL_NETWORK,
    "--epochs",
    1,
    "--batch-size",
    4,
    *CPU,
)
RESUME = ("train", "shards", "--resume", "--name", "cut", *CPU)
GRID = (
    "reproduce",
    "scenes",
    "--out",
    "results",
    "--methods",
    "np",
    "-M",
    4,
    "--size",
    32,
    *SMALL_NETWORK,
    "--epochs",
    1,
    "--batch-size",
    6,
    "--wrong-keys",
    2,
    "--workers",
    1,
    *CPU,
)
ENCRYPT = ("encrypt", "scenes", "--size", 32, "--views", 2, "--shard-size", 0.00005, "--workers", 1)
EVALUATE, ATTACK = (
    ("evaluate", "runs/small", *CPU),
    ("attack", "runs/small", "--wrong-keys", 2, *CPU),
)
DECRYPT, INSPECT = (
    ("decrypt", "shards", "--force", "--workers", 1),
    ("inspect", "--verify", "runs/small"),
)
PREDICT = ("predict", "runs/small", "scenes/images/test", "--overlay", "--force", *CPU)
PHOTO = "scenes/images/test/scene0000.jpg"
SHEET = ("inspect", "shards/test.h5", "--sheet", "sheet.png", "--force")
KEYGEN = ("keygen", "--force")
PAGE, PREVIEW = (
    ("report", "--html", "report.html"),
    ("preview", PHOTO, "--out", "preview.png", "--force"),
)


@pytest.fixture(scope="module")
def world(tmp_path_factory, scenes_folder, trained_run, key) -> Path:
    """A folder in which every command has run; cases work on copies of hard links, as segkey
    changes no file in place."""
    folder = tmp_path_factory.mktemp("world")
    shutil.copytree(scenes_folder, folder / "scenes")
    key.save(folder / "keys/segkey.key")
    shutil.copytree(trained_run.path, folder / "runs/small")
    commands = (
        ENCRYPT,
        EVALUATE,
        ATTACK,
        (*ATTACK, "--plain"),
        DECRYPT,
        PREDICT,
        SHEET,
        PREVIEW,
        (*TRAIN, "--name", "cut", "--log", "csv"),
        PAGE,
        GRID,
    )
    for outcome in session(folder, *commands, imports=TORCH):
        assert outcome["status"] == 0, outcome
    reconfigure(Run.open(folder / "runs/cut"), epochs_done=1, recipe={"epochs": 2}).save()
    shutil.copytree(folder / "runs/cut", folder / "runs/sealed")
    seal.seal(Run.open(folder / "runs/sealed"), Identity.of(key).recipients)
    for name in (
        "runs/cut/resume.pt",
        "runs/sealed/resume.pt.age",
        "runs/small/attack.partial.jsonl",
    ):  # there while segkey computes
        (folder / name).touch()
    return folder


# What stands in each folder: by its path in the world, the commands that read or write it. A file
# of 3 GB is refused by
# those that read it; to those that only replace it or look whether it is there (WRITTEN), it is a
# file like any other.

SHARDS = {
    "shards/.lock": [ENCRYPT],
    "shards/train.index.json": [DECRYPT, ENCRYPT],
    "shards/test.h5": [DECRYPT, ENCRYPT],
    "shards/train-00001-of-00002.h5": [DECRYPT, ENCRYPT],
}
KEYS = {"keys/segkey.key": [ENCRYPT, KEYGEN, DECRYPT], "keys/.gitignore": [("keygen", "other")]}
RUNS = {
    "runs/small/run.json": [EVALUATE, ATTACK, INSPECT, PREDICT, ("report",)],
    "runs/latest": [("evaluate", *CPU)],
    "runs/small/model.safetensors": [EVALUATE, ATTACK, PREDICT, INSPECT],
    "runs/small/history.jsonl": [INSPECT],
    "runs/small/evaluate.json": [("report",), INSPECT],
    "runs/small/attack.json": [("report",), INSPECT],
    "runs/small/suite.json": [(*ATTACK, "--plain")],
    "runs/small/attack.partial.jsonl": [ATTACK],
    "runs/small/.lock": [ATTACK],
    "runs/cut/resume.pt": [RESUME],
    "runs/cut/log.csv": [RESUME],
    "runs/sealed/model.safetensors.age": [
        ("evaluate", "runs/sealed", *CPU),
        ("inspect", "--verify", "runs/sealed"),
    ],
    "runs/sealed/resume.pt.age": [("train", "shards", "--resume", "--name", "sealed", *CPU)],
}
RESULTS = {f"results/{name}": [GRID] for name in experiment_settings.FILES} | {
    "results/plain/test.h5": [GRID],
    "results/runs/np-m4/cell.json": [GRID],
    "results/runs/np-m4/run.json": [GRID],
    "results/runs/np-m4/model.safetensors": [GRID],
}
OUTPUTS = {
    "report.html": [PAGE],
    "preview.png": [PREVIEW],
    "sheet.png": [SHEET],
    "decrypted/test/scene0000.png": [DECRYPT],
    "predicted/masks/scene0000.png": [PREDICT],
    "predicted/overlays/scene0000.jpg": [PREDICT],
    "predicted/outputs.tsv": [PREDICT],
}
WRITTEN = {
    ("keys/segkey.key", KEYGEN),
    ("runs/small/evaluate.json", EVALUATE),
    ("runs/small/attack.json", ATTACK),
    ("shards/train.index.json", ENCRYPT),
    ("runs/cut/log.csv", RESUME),
    *((name, command) for name, commands in OUTPUTS.items() for command in commands),
    *(
        (f"results/{name}", GRID)
        for name in experiment_settings.FILES
        if name.endswith((".txt", ".csv", ".md", ".tex", ".png"))
    ),
    ("results/table1.json", GRID),
    ("results/keys/.gitignore", GRID),
}
# segkey removes what a killed process left: a link of such a name goes, and nothing happens to what
# it leads to.
LEFT = {
    "shards/test.h5.partial": [(*ENCRYPT, "--force")],
    "runs/small/.run.json.01234567.partial": [ATTACK],
}
FOLDERS = {
    **{f"results/{name}": [GRID] for name in experiment_settings.FOLDERS},
    "results/runs/np-m4": [GRID],
    "decrypted/test": [DECRYPT],
    "predicted/masks": [PREDICT],
    "predicted/overlays": [PREDICT],
}
AREAS = {
    "keys": KEYS,
    "shards": SHARDS,
    "runs": RUNS,
    "results": RESULTS,
    "outputs": OUTPUTS,
    "left": LEFT,
    "folders": FOLDERS,
}


def plant(path: Path, kind: str, outside: Path) -> None:
    """Put something in the place of a file or folder; ``outside`` is what no command may touch."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "link":
        path.symlink_to(os.path.relpath(outside / "secret.key", path.parent))
    elif kind == "link to a folder":
        path.symlink_to(os.path.relpath(outside, path.parent))
    elif kind == "dangling":
        path.symlink_to(outside.absolute() / "made")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "file":
        path.touch()
    else:
        path.touch()
        os.truncate(path, 3 << 30)  # holes take no disk


KINDS = ("link", "dangling", "pipe", "folder", "3 GB")


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


@pytest.mark.parametrize("area", AREAS)
def test_nothing_but_a_file_is_opened_replaced_or_waited_for(tmp_path, world, area):
    kinds = ("link", "link to a folder", "dangling", "pipe", "file") if area == "folders" else KINDS
    cases = [(n, c, k) for n, commands in AREAS[area].items() for c in commands for k in kinds]
    cases = [
        (name, command, kind)
        for name, command, kind in cases
        if kind != "3 GB" or (name, command) not in WRITTEN
    ]
    places, before = [], digests(world)
    for number, (name, _, kind) in enumerate(cases):
        place, outside = tmp_path / f"{number}/world", tmp_path / f"{number}/outside"
        shutil.copytree(world, place, symlinks=True, copy_function=os.link)
        outside.mkdir()
        (outside / "secret.key").write_bytes(SECRET)
        plant(place / name, kind, outside)
        places.append(place)
    outcomes = session(
        tmp_path, *(command for _, command, _ in cases), imports=TORCH, folders=places
    )
    for (name, command, kind), place, outcome in zip(cases, places, outcomes, strict=True):
        outside = place.with_name("outside")
        assert [path.name for path in outside.iterdir()] == ["secret.key"], (name, kind, outcome)
        assert (outside / "secret.key").read_bytes() == SECRET, (name, kind, outcome)
        if name not in LEFT:
            said = (
                outcome["stdout"] + outcome["stderr"]
            )  # 'inspect --verify' lists damage in its table
            # What cannot be used is named; a report leaves it out, an experiment measures it again.
            named = any(how in said for how in ("left out", "measured again", "does not count"))
            goes_on = command[0] in ("report", "reproduce") and named
            assert outcome["status"] == (0 if goes_on else 1), (name, kind, outcome)
            assert name in said, (name, kind, outcome)
            assert kind in ("folder", "file") or os.path.lexists(place / name)
    assert (
        digests(world) == before
    )  # what has a second name, as every file of a case has, is not changed in place


def test_every_name_that_segkey_makes_is_tried(world):
    """A new file in a run, beside shards, in an experiment's folder or beside a key fails here
    until it is tried above."""
    tried = {name for names in AREAS.values() for name in names}
    tried |= {f"runs/cut/{name}" for name in runs.NAMES} | {
        f"runs/small/{name}" for name in runs.NAMES
    }
    tried |= {f"runs/sealed/{name}" for name in runs.NAMES}
    tried |= {f"results/runs/{cell}/{name}" for cell in ("np-m4", "plain") for name in runs.NAMES}
    patterns = (
        "shards/*.h5",
        "results/plain/*.h5",
        "decrypted/*/*.png",
        "decrypted/*/*/*.png",
        "predicted/*/*.png",
        "predicted/*/*.jpg",
        "scenes/**",
        "runs/latest",
        "results/runs/latest",
        "results/plain/.lock",
        "results/working/*/.lock",  # opened as the other locks are
    )
    made = [
        path.relative_to(world)
        for path in world.rglob("*")
        if path.is_symlink() or not path.is_dir()
    ]
    unknown = [
        str(p) for p in made if str(p) not in tried and not any(p.match(each) for each in patterns)
    ]
    assert not [name for name in unknown if not name.startswith("scenes/")]
    assert {name for names in (KEYS, RUNS, SHARDS) for name in names} <= {
        str(path) for path in made
    }
    known = {Path(name).name for name in RUNS} | {"cell.json"}
    assert set(runs.NAMES) <= known


# ------------------------------------------------------------------ no other way to a file

OPENING = {
    "open",
    "os.open",
    "h5py.File",
    "safe_open",
    "torch.load",
    "np.load",
    "np.save",
    "np.fromfile",
    "Image.open",
    "os.symlink",
    "os.link",
    "os.replace",
    "os.rename",
    "shutil.copy",
    "shutil.copyfile",
    "shutil.copytree",
    "shutil.move",
    "zipfile.ZipFile",
}
METHODS = {
    "read_text",
    "read_bytes",
    "write_text",
    "write_bytes",
    "touch",
    "symlink_to",
    "hardlink_to",
    "rename",
    "unlink",
}
ALLOWED = {
    (
        "system/torchrun.py",
        "Path(file).write_text",
    ): "torchrun's own file, named by its environment",
    ("crypto/keys.py", "os.link"): "a second name for the earlier key; fails if it is taken",
    (
        "crypto/keys.py",
        "os.replace",
    ): "the earlier key gets another name; the key's own was looked at",
    ("model/run_names.py", "os.symlink"): "runs/latest, under a name that was just removed",
    ("model/run_names.py", "os.replace"): "runs/latest is a link by design, and is replaced itself",
    (
        "model/derived_runs.py",
        "os.rename",
    ): "a folder that was just made gets its name; fails if taken",
    ("model/weights_files.py", "safe_open"): "maps a file by its path, while open_regular holds it",
    ("model/weights_files.py", "torch.load"): "takes what open_regular opened",
    ("model/weights_files.py", "zipfile.ZipFile"): "takes what open_regular opened",
    ("data/decode.py", "Image.open"): "takes what open_regular opened",
    ("data/file_header.py", "Image.open"): "takes what open_regular opened",
    ("data/deep_colours.py", "Image.open"): "takes bytes in memory",
    ("shards/reader.py", "h5py.File"): "compared with what open_regular opened",
    ("shards/writer.py", "h5py.File"): "made exclusively: mode x",
    (
        "reports/page.py",
        "resources.files('segkey.reports').joinpath('page.html').read_text",
    ): "comes with segkey",
    (
        "data/scenes.py",
        "(folder / 'classes.txt').write_text",
    ): "built-in scenes, in a folder that was just made",
    ("reports/benchmark.py", "file.unlink"): "in a temporary folder",
    ("reports/benchmark.py", "os.link"): "in a temporary folder",
    ("reports/benchmark.py", "np.fromfile"): "in a temporary folder",
}


def test_files_are_opened_in_one_module():
    """Whoever opens, replaces or removes a file by its path elsewhere gives a reason here, or uses
    `segkey.system.files`."""
    root, found = Path(segkey.__file__).parent, set()
    for path in sorted(root.rglob("*.py")):
        if path.name == "files.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                call = ast.unparse(node.func)
                if call in OPENING or (
                    isinstance(node.func, ast.Attribute) and node.func.attr in METHODS
                ):
                    found.add((path.relative_to(root).as_posix(), call))
    assert found == set(ALLOWED)


# ------------------------------------------------------------------ the primitives


def kinds(folder: Path) -> dict[str, Path]:
    (folder / "secret.key").write_bytes(SECRET)
    made = {kind: folder / kind.replace(" ", "") for kind in KINDS[:-1]}
    for kind, path in made.items():
        plant(path, kind, folder)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(folder / "socket"))  # the name of a socket is short
    return made | {"socket": folder / "socket", "device": Path("/dev/null")}


PRIMITIVES = {
    "is_there": is_there,
    "open_regular": open_regular,
    "append": lambda path: append(path, "x"),
    "create": create,
    "read_json": lambda path: read_json(path, "a run"),
    "written_whole": lambda path: written_whole(path).__enter__(),
    "sole_writer": lambda path: sole_writer(path.parent).__enter__(),
}


@pytest.mark.parametrize("primitive", PRIMITIVES)
def test_what_is_no_file_is_refused_in_words(tmp_path, monkeypatch, primitive):
    monkeypatch.chdir(tmp_path)
    words = {
        "link": "a symbolic link",
        "dangling": "a symbolic link",
        "pipe": "a named pipe",
        "folder": "a folder",
        "socket": "a socket",
        "device": "a device",
    }
    for kind, path in kinds(tmp_path).items():
        if primitive == "sole_writer":
            if kind == "device":
                continue
            (tmp_path / f"in {kind}").mkdir()
            path = path.rename(tmp_path / f"in {kind}/.lock")
        with pytest.raises(SegkeyError) as told:
            PRIMITIVES[primitive](path)
        assert str(path) in told.value.what
        if (
            primitive != "append"
        ):  # which is for what segkey has just made: the system's own words will do
            assert f"{path} is {words[kind]}, not a file" == told.value.what
            assert "remove it" in told.value.hint
    assert (tmp_path / "secret.key").read_bytes() == SECRET
    assert not (tmp_path / "made").exists()
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["latest", ".latest.partial"])
def test_latest_is_replaced_if_it_is_a_link_or_a_file(tmp_path, name, kind):
    outside, folder = tmp_path / "outside", tmp_path / "runs"
    (folder / "small").mkdir(parents=True)
    outside.mkdir()
    (outside / "secret.key").write_bytes(SECRET)
    plant(folder / name, kind, outside)
    if kind == "folder" or (kind == "pipe" and name == "latest"):
        with pytest.raises(SegkeyError, match=name):
            run_names.point_to_latest(folder, "small")
    else:
        run_names.point_to_latest(folder, "small")
        assert os.readlink(folder / "latest") == "small"
    assert [path.name for path in outside.iterdir()] == ["secret.key"]
    assert (outside / "secret.key").read_bytes() == SECRET


@pytest.mark.parametrize(
    "to", ["../elsewhere", "/elsewhere", "a/..", ".", "linked", "latest", "secret.key"]
)
def test_latest_names_a_run_beside_it(tmp_path, trained_run, to):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/run.json").write_bytes((trained_run.path / "run.json").read_bytes())
    (tmp_path / "runs/a").mkdir(parents=True)
    (tmp_path / "runs/linked").symlink_to("../elsewhere")
    (tmp_path / "runs/secret.key").write_bytes(SECRET)
    (tmp_path / "runs/latest").symlink_to(to)
    with pytest.raises(
        SegkeyError,
        match="runs/(latest does not name a run beside it|linked is a symb|secret.key is a file)",
    ):
        Run.open(tmp_path / "runs/latest")


def test_a_lock_with_a_second_name_keeps_its_bytes(tmp_path):
    (tmp_path / "secret.key").write_bytes(SECRET)
    (tmp_path / "run").mkdir()
    os.link(tmp_path / "secret.key", tmp_path / "run/.lock")
    with sole_writer(tmp_path / "run"):
        assert (tmp_path / "secret.key").read_bytes() == SECRET


def test_no_folder_below_is_a_link(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").symlink_to("elsewhere")  # what the user names may be one
    assert make_folder(tmp_path / "out/a/b", below=tmp_path / "out").is_dir()
    (tmp_path / "elsewhere/c").symlink_to("../elsewhere")
    with pytest.raises(SegkeyError, match="out/c is a symbolic link, not a folder"):
        make_folder(tmp_path / "out/c/d", below=tmp_path / "out")


# ------------------------------------------------------------------ what a user names may be a link


def test_links_that_a_user_names_are_followed(tmp_path, world):
    folder = tmp_path / "work"
    shutil.copytree(world, folder, symlinks=True, copy_function=os.link)
    for link, to in (
        ("my.key", "keys/segkey.key"),
        ("photos", "scenes/images/test"),
        ("data", "shards"),
        ("best", "runs/small"),
        ("test.h5", "shards/test.h5"),
        ("names.txt", "scenes/classes.txt"),
        ("out", "space"),
    ):
        (folder / link).symlink_to(to)
    for name in ("space", "linked"):
        (folder / name).mkdir()
    (folder / "linked/a.jpg").symlink_to(f"../{PHOTO}")
    (folder / "words").write_text("correct horse\n")
    outcomes = session(
        folder,
        ("evaluate", "best", "--shards", "data", *CPU),
        ("predict", "best", "photos", "--key", "my.key", *CPU, "--out", "out/p"),
        ("decrypt", "test.h5", "--key", "my.key", "--out", "out/d"),
        ("inspect", "my.key", "test.h5", "best", "runs/latest"),
        (
            "encrypt",
            "linked",
            "--size",
            32,
            "--key",
            "my.key",
            "--workers",
            1,
            "--out",
            "out/shards",
        ),
        (
            "encrypt",
            "scenes",
            "--classes",
            "names.txt",
            "--size",
            32,
            "--out",
            "space/named",
            "--workers",
            1,
        ),
        (
            "train",
            "data",
            *TRAIN[2:],
            "--runs",
            "out",
            "--weights",
            "runs/small/model.safetensors",
            "--name",
            "more",
        ),
        imports=TORCH,
    )
    assert [outcome["status"] for outcome in outcomes] == [0] * len(outcomes), outcomes


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="needs /dev/fd")
def test_a_passphrase_comes_through_a_pipe_and_never_from_an_endless_file(tmp_path):
    from segkey.cli.given_inputs import read_passphrase

    read, write = os.pipe()
    os.write(write, b"correct horse\n")
    os.close(write)
    assert read_passphrase(Path(f"/dev/fd/{read}")) == "correct horse"
    os.close(read)
    (tmp_path / "long").touch()
    os.truncate(tmp_path / "long", 3 << 30)
    for file in (tmp_path / "long", Path("/dev/zero"), tmp_path):
        with pytest.raises(SegkeyError, match=str(file)):
            read_passphrase(file)


def test_lists_of_three_gigabytes_are_refused(tmp_path, scenes_folder):
    shutil.copytree(scenes_folder, tmp_path / "scenes")
    for name in ("list.txt", "scenes/classes.txt", "names"):
        plant(tmp_path / name, "3 GB", tmp_path)
    shutil.copytree(scenes_folder, tmp_path / "piped")
    plant(tmp_path / "piped/classes.txt", "pipe", tmp_path)
    how = ("--method", "none", "--size", 32, "--workers", 1)
    outcomes = session(
        tmp_path,
        ("encrypt", "list.txt", *how),
        ("encrypt", "scenes", *how),
        ("encrypt", "piped", *how),
        ("encrypt", "scenes", "--classes", "names", *how),
    )
    for outcome, name in zip(
        outcomes, ("list.txt", "scenes/classes.txt", "piped/classes.txt", "names"), strict=True
    ):
        assert outcome["status"] == 1, outcome
        assert name in outcome["stderr"], outcome


def test_json_that_grows_in_memory(tmp_path, world):
    """16 MB of empty objects take 25 times as much once they are read."""
    for name in ("run", "history"):
        folder = tmp_path / name
        shutil.copytree(world / "runs/small", folder, copy_function=os.link)
        file = folder / ("run.json" if name == "run" else "history.jsonl")
        file.unlink()
        file.write_text('{"a": [' + "{}," * 5_592_000 + "{}]}")
    outcomes = session(
        tmp_path,
        ("inspect", "run"),
        ("inspect", "--verify", "history"),
        ("report", "run"),
        imports=TORCH,
    )
    assert [outcome["status"] for outcome in outcomes] == [1, 1, 1], outcomes
