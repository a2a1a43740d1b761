"""Random key files, shard attributes, runs and command lines: an answer in words or a result, never
anything else.

SEGKEY_FUZZ says how many cases there are in all.
"""

import json
import os
import shutil
import signal
import time
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tools import amount
from typer.testing import CliRunner

from segkey import attacks
from segkey.cli import app
from segkey.crypto import passphrase
from segkey.crypto.keys import Key
from segkey.errors import SegkeyError
from segkey.model import evaluation, training
from segkey.model.runs import Run
from segkey.paper import demonstration
from segkey.reports import benchmark, inspection
from segkey.shards import Shard, encryption
from segkey.shards.header import checksum_attributes
from segkey.system.json_files import _checksum

CASES = amount("SEGKEY_FUZZ", 320)
fuzz = settings(
    max_examples=CASES // 4,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)

texts = st.text(st.characters(exclude_characters="\0"), max_size=30)
numbers = st.integers() | st.integers(-3, 300) | st.floats()
documents = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)


@pytest.fixture(autouse=True)
def never_a_hang():
    """Two minutes for all cases of a second each; a case that hangs fails with the place where it
    hung."""

    def tell(*_):
        raise TimeoutError("a case hangs")

    if not hasattr(signal, "SIGALRM"):
        yield
        return
    before = signal.signal(signal.SIGALRM, tell)
    signal.alarm(120 + CASES)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def changed(document: dict, path: list[int], value: object) -> dict:
    """A copy with another value somewhere inside; ``path`` chooses the field, level by level."""
    document = dict(document)
    name = sorted(document)[path[0] % len(document)]
    inner = document[name]
    document[name] = (
        changed(inner, path[1:], value)
        if len(path) > 1 and isinstance(inner, dict) and inner
        else value
    )
    return document


def allowed(action, *arguments) -> object:
    """What comes out, or None where it is refused in words."""
    try:
        return action(*arguments)
    except SegkeyError as error:
        assert error.what
        return None


paths = st.lists(st.integers(0, 40), min_size=1, max_size=3)


@fuzz
@given(
    data=st.binary(max_size=300) | documents,
    base=st.sampled_from(["plain", "sealed", None]),
    path=paths,
)
def test_key_files(tmp_path_factory, base, data, path):
    folder = tmp_path_factory.getbasetemp() / "fuzzed-keys"
    if not folder.exists():
        Key(bytes(32)).save(folder / "plain.key")
        Key(bytes(32)).save(folder / "sealed.key", "words")
    file, raw = folder / "some.key", data
    if not isinstance(data, bytes):
        document = (
            changed(json.loads((folder / f"{base}.key").read_text()), path, data) if base else data
        )
        raw = json.dumps(document).encode()
    file.write_bytes(raw)
    file.chmod(0o600)
    with pytest.MonkeyPatch.context() as patch:  # scrypt takes a tenth of a second
        patch.setattr(passphrase, "_derived", lambda *_: bytes(32))
        loaded = allowed(Key.load, file, "words")
        allowed(inspection.describe, file, True)
    assert loaded is None or loaded == Key(bytes(32)) or base != "sealed"


values = (
    st.integers(-(2**63), 2**64 - 1)
    | st.integers(-3, 300)
    | st.floats()
    | st.booleans()
    | st.binary(max_size=200).map(np.bytes_)
    | texts.map(lambda text: np.bytes_(text.encode("utf-8", "replace")))
    | st.lists(st.integers(0, 9), max_size=5)
    | documents.map(lambda document: np.bytes_(json.dumps(document).encode()))
    | st.just(h5py.Empty("i4"))
)


@fuzz
@given(
    name=st.integers(0, 40),
    value=values,
    sealed=st.booleans(),
    new=st.text("abcdefgh", min_size=1, max_size=8) | st.none(),
)
def test_shard_attributes(tmp_path_factory, shards_folder, name, value, sealed, new):
    """Also with a checksum that matches, as somebody would write it who wants to harm."""
    file = Path(
        shutil.copy(shards_folder / "test.h5", tmp_path_factory.getbasetemp() / "fuzzed.h5")
    )
    with h5py.File(file, "r+") as opened:
        names = sorted(opened.attrs)
        opened.attrs[new or names[name % len(names)]] = value
        if sealed:
            reseal(opened)

    def read() -> None:
        with Shard(file) as shard:
            for kind in ("images", "masks")[: 1 + shard.has_masks]:
                shard.read_rows(kind, np.arange(shard.images * shard.header.views))

    allowed(read)
    allowed(inspection.describe, file, True)


def reseal(opened: h5py.File) -> None:
    """Write the checksum of the attributes as they are, where that can be done at all."""
    try:
        plain = {
            n: v.item() if isinstance(v, np.generic) else v
            for n, v in opened.attrs.items()
            if n != "checksums"
        }
        text = {n: v.decode() if isinstance(v, bytes) else v for n, v in plain.items()}
        sums = json.loads(opened.attrs["checksums"]) | {"attributes": checksum_attributes(text)}
        opened.attrs["checksums"] = np.bytes_(json.dumps(sums).encode())
    except (TypeError, ValueError, AttributeError):
        pass


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory, trained_run, key):
    """A run with results, and weights that are not looked at here."""
    from segkey.model import evaluation_splits

    folder = tmp_path_factory.mktemp("fuzzed-runs") / "run"
    shutil.copytree(trained_run.path, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    run, split = Run.open(folder), evaluation_splits.open_test_split(trained_run)
    cpu = evaluation.torch.device("cpu")
    run.keep(evaluation.evaluate(trained_run, split, None, cpu))
    target = attacks.Target.create(trained_run, split, trained_run.cipher(key), cpu)
    run.keep(attacks.correct_plain_incorrect(target, 2))
    run.keep(attacks.run_attacks(target, ["plain", "wrong-keys"], attacks.Budget(keys=2)))
    return folder


@fuzz
@given(
    file=st.sampled_from(["run", "run", "evaluate", "attack", "suite"]),
    path=paths,
    value=documents,
    output=st.integers(0, 6),
)
def test_runs(run_folder, file, path, value, output):
    """With checksums that match."""
    place = run_folder / f"{file}.json"
    before = place.read_text()
    document = json.loads(before)
    document.pop("checksum")
    made = changed(document, path, value)  # it may hold NaN, as what earlier versions wrote did
    place.write_text(json.dumps(made | {"checksum": _checksum(made)}))
    try:
        shown = [
            ["report"],
            ["report", "--json"],
            ["report", "--csv"],
            ["report", "--latex"],
            ["report", "--per-class"],
            ["report", "--html", str(run_folder.parent / "r.html")],
            ["inspect"],
        ]
        answered(*shown[output], run_folder)
        run = allowed(Run.open, run_folder)
        if run:
            allowed(run.save)
            assert allowed(Run.open, run_folder).configuration == run.configuration
    finally:
        place.write_text(before)


def answered(*arguments: object) -> int:
    """The exit status of a command that must answer in words, and in time."""
    began = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a key that is replaced is kept, and that is said
        done = CliRunner().invoke(app, list(map(str, arguments)))
    assert isinstance(done.exception, SystemExit | None), (arguments, repr(done.exception))
    assert done.exit_code in (0, 1, 2), (arguments, done.exit_code)
    if done.exit_code == 1:
        assert done.stderr.count("segkey: error: ") == 1, (arguments, done.stderr)
    assert "Traceback" not in done.stderr, arguments
    assert time.monotonic() - began < 30, arguments
    assert all(c.isprintable() or c == "\n" for c in done.stdout), arguments
    return done.exit_code


COMMANDS = typer.main.get_command(app).commands


@st.composite
def command_lines(draw) -> list[str]:
    """A command with some of its options, of which many are given values that they can have."""
    name = draw(st.sampled_from(sorted(COMMANDS)))
    words = [name]
    things = [
        "shards",
        "shards/test.h5",
        "photos",
        "photos/a.png",
        "keys/segkey.key",
        "run",
        "missing",
        ".",
        "",
        "/dev/null",
        "x" * 300,
    ]
    sensible = [
        "np",
        "shf",
        "ffx",
        "none",
        "4",
        "2",
        "32",
        "0.5",
        "cpu",
        "all",
        "80/10/10",
        "16x32",
        "scratch",
        "thin",
        "test",
    ]
    given_values = st.sampled_from(things) | st.sampled_from(sensible) | numbers.map(str) | texts
    for parameter in draw(st.lists(st.sampled_from(COMMANDS[name].params), max_size=5)):
        if parameter.param_type_name == "argument":
            words.append(draw(st.sampled_from(things) | texts))
        elif getattr(parameter, "is_flag", False):
            words.append(draw(st.sampled_from(parameter.opts)))
        else:
            words += [draw(st.sampled_from(parameter.opts)), draw(given_values)]
    return words + draw(st.lists(texts, max_size=1))


@fuzz
@given(words=command_lines())
def test_command_lines(command_line_folder, words):
    answered(*words)


@pytest.fixture(scope="module")
def command_line_folder(tmp_path_factory, shards_folder, trained_run, scenes_folder, key):
    """A folder with a key, shards, pictures and a run; what takes long is refused as soon as it is
    asked for."""

    def refuse(*_, **__):
        raise SegkeyError("this would take long", "not here")

    folder = tmp_path_factory.mktemp("session")
    key.save(folder / "keys/segkey.key")
    shutil.copytree(shards_folder, folder / "shards")
    shutil.copytree(trained_run.path, folder / "run")
    (folder / "photos").mkdir()
    shutil.copy(next((scenes_folder / "masks/test").iterdir()), folder / "photos/a.png")
    before = Path.cwd()
    with pytest.MonkeyPatch.context() as patch:
        for module, name in (
            (demonstration.Demo, "run"),
            (benchmark, "run"),
            (training, "train"),
            (training, "resume"),
            (encryption, "encrypt"),
            (attacks, "correct_plain_incorrect"),
            (evaluation, "evaluate"),
        ):
            patch.setattr(module, name, refuse)
        patch.setattr(attacks.Target, "create", refuse)
        os.chdir(folder)
        yield folder
        os.chdir(before)
