"""Wrong keys are wrong, deterministic and counted; a run that was killed goes on."""

import hashlib
import json
import shutil
import zlib
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch

from segkey import attacks
from segkey.attacks.target import plain_loader
from segkey.crypto import ciphers
from segkey.crypto.keys import Key
from segkey.data.preparation import Preparation
from segkey.errors import SegkeyError, SegkeyWarning
from segkey.model import evaluation, evaluation_splits, inference
from segkey.model.results import MajorityClass, Measured, Plain, Score
from segkey.model.runs import Run
from segkey.system.progress import Progress

CPU, KEY = torch.device("cpu"), Key(bytes(range(32)))  # the key of the fixture ``key``


@pytest.fixture(scope="module")
def small(trained_run, attacked):
    """Two epochs on six images: quick, and enough where scores need only differ."""
    return attacked(trained_run)


def test_the_test_images_are_decrypted_exactly(small, scenes_source):
    ((images, _),) = small.loader.batches(100)
    preparation = Preparation((32, 32), 5)
    for image, item in zip(images, scenes_source.splits["test"], strict=True):
        assert np.array_equal(image.numpy(), preparation.load(item)[0][0])


def test_document(small, trained_run):
    document = attacks.correct_plain_incorrect(small, wrong_keys=3, seed=5).document
    wrong = document["incorrect"]
    assert (document["run"], document["method"], document["block_size"], document["images"]) == (
        "small",
        "np",
        4,
        6,
    )
    assert wrong["keys"] == len(wrong["values"]) == 3
    assert wrong["mean"] == pytest.approx(np.mean(wrong["values"]))
    assert wrong["std"] == pytest.approx(np.std(wrong["values"], ddof=1))
    assert (wrong["min"], wrong["max"]) == (min(wrong["values"]), max(wrong["values"]))
    assert wrong["values"] == sorted(
        wrong["values"]
    )  # with the seed, another order would tell which key reached what
    evaluated = evaluation.evaluate(
        trained_run, evaluation_splits.open_test_split(trained_run), None, CPU
    ).document
    assert document["correct"] == evaluated["correct"]
    assert document["constant"] == evaluated["constant"]
    assert json.loads(json.dumps(document)) == document
    assert attacks.correct_plain_incorrect(small, wrong_keys=3, seed=5).document == document
    assert (
        list(attacks.correct_plain_incorrect(small, wrong_keys=3, seed=6).incorrect.values)
        != wrong["values"]
    )


def test_each_score_is_that_of_its_cipher(small):
    """What is reported for a wrong key is what encrypting with that key by hand gives."""
    values = attacks.correct_plain_incorrect(small, wrong_keys=2).incorrect.values
    header = small.run.header
    ((images, masks),) = small.loader.batches(100)
    by_hand = []
    for cipher in islice(attacks.wrong_ciphers(small.cipher, 0), 2):
        pixels = torch.from_numpy(cipher.encrypt(images.numpy())).float() / 255
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=False):
            predicted = small.model(pixels.to(memory_format=torch.channels_last)).argmax(1)
        matrix = evaluation.confusion_matrix(masks, predicted, 5, 255)
        by_hand.append(evaluation.Scores(matrix, header.classes, 6).mean_iou)
    assert values == pytest.approx(sorted(by_hand), abs=0.02)


def with_cipher(target, cipher):
    return replace(target, cipher=cipher)


def test_plain_images_are_divided_by_255_and_by_the_methods_largest_value(small, key):
    cipher = ciphers.from_key("ffx", key, 4)
    ffx = with_cipher(small, cipher)
    assert cipher.max_value > 255
    assert ffx.score(None).matrix.tolist() == small.score(None).matrix.tolist()
    assert set(ffx.plain()) == {255, cipher.max_value}
    model = inference.for_inference(small.model, small.device, small.loader.split.size)
    by_hand = evaluation.score(model, small.loader, cipher.max_value)
    assert ffx.plain()[cipher.max_value].mean_iou == by_hand.mean_iou
    result = attacks.ATTACKS["plain"].function(ffx, attacks.Budget(), 0)
    assert result.mean_iou == max(scores.mean_iou for scores in ffx.plain().values())


def test_the_better_way_of_feeding_plain_images_is_what_an_attack_reports(small, key, monkeypatch):
    """FFX's plain images divided by 255 only would flatter the key, where the other way reaches
    more."""
    ffx = with_cipher(small, ciphers.from_key("ffx", key, 4))
    scores = {"plain": 0.0694, f"plain/{ffx.cipher.max_value}": 0.0969, "correct": 0.4}

    def evaluate(self, name, cipher, max_value=None):
        score = Score(mean_iou=scores.get(name, 0.05))
        return Measured(score, MajorityClass(name="ground", mean_iou=0.04))

    monkeypatch.setattr(attacks.Target, "evaluate", evaluate)
    by_divisor = {"255": 0.0694, str(ffx.cipher.max_value): 0.0969}
    plain = attacks.correct_plain_incorrect(ffx, wrong_keys=2).plain
    better = Plain(mean_iou=0.0969, iou={}, divided_by=ffx.cipher.max_value, by_divisor=by_divisor)
    assert plain == better
    assert attacks.run_attacks(ffx, ["plain"]).no_key_baseline == better
    scores["plain"] = 0.2  # it is no rule which of them is better
    assert attacks.correct_plain_incorrect(ffx, wrong_keys=2).plain.divided_by == 255


@pytest.mark.parametrize("method", ["np", "ffx"])
def test_no_wrong_key_means_the_owners_transformation(key, method):
    """At M = 1 with 3 channels there are three selections: every third random key is the owner's by
    chance."""
    own = ciphers.from_key(method, key, 1, 3, b"fixed" if method == "ffx" else None)
    wrong = list(islice(attacks.wrong_ciphers(own, seed=0), 30))
    assert not any(cipher.same_as(own) for cipher in wrong)
    if method == "ffx":  # they differ in the selection alone, as in the paper
        assert all(np.array_equal(cipher.values, own.values) for cipher in wrong)
        assert all(not np.array_equal(cipher.selected, own.selected) for cipher in wrong)


def test_wrong_keys_with_a_derived_password_differ_in_their_tables_too(key):
    own = ciphers.from_key("ffx", key, 2)
    tables = {cipher.values.tobytes() for cipher in islice(attacks.wrong_ciphers(own, seed=0), 5)}
    assert len(tables | {own.values.tobytes()}) == 6


def test_the_only_key_of_a_method_has_no_wrong_one(key):
    with pytest.raises(SegkeyError, match="single key"):
        next(attacks.wrong_ciphers(ciphers.from_key("np", key, 1, channels=1), seed=0))


class Killed(BaseException):
    pass


class KilledAfter(Progress):
    def __init__(self, images):
        self.left = images

    def task(self, description, total, unit="images"):
        from contextlib import nullcontext

        def advance(count):
            self.left -= count
            if self.left < 0:
                raise Killed

        return nullcontext(advance)


def keeping(target, keep, images=None, **how):
    how = {"key": KEY} | how
    return replace(target, keep=keep, **how, progress=KilledAfter(images) if images else Progress())


def test_an_attack_that_was_killed_goes_on_and_ends_with_the_same_numbers(
    small, tmp_path, monkeypatch
):
    keep = tmp_path / "attack.partial.jsonl"
    whole = attacks.correct_plain_incorrect(small, wrong_keys=4)
    with pytest.raises(Killed):
        attacks.correct_plain_incorrect(keeping(small, keep, 4 * 6 + 3), wrong_keys=4)
    assert len(keep.read_text().splitlines()) == 1 + 4
    with open(keep, "a") as file:
        file.write('["wrong key 0/2", {"value": {"mean_iou": 1')  # a line that the kill has cut
    scored = []
    score = attacks.Target.score
    monkeypatch.setattr(
        attacks.Target, "score", lambda self, *a, **k: scored.append(1) or score(self, *a, **k)
    )
    again = keeping(small, keep)
    assert attacks.correct_plain_incorrect(again, wrong_keys=4) == whole
    assert len(scored) == 2  # only what was missing
    again.journal.remove()
    assert not keep.exists()


def test_kept_scores_of_another_attack_are_not_mixed_in(small, tmp_path):
    keep = tmp_path / "attack.partial.jsonl"
    with pytest.raises(Killed):
        attacks.correct_plain_incorrect(keeping(small, keep, 20), wrong_keys=2, seed=1)
    expected = attacks.correct_plain_incorrect(small, wrong_keys=2, seed=2)
    assert attacks.correct_plain_incorrect(keeping(small, keep), wrong_keys=2, seed=2) == expected
    with pytest.warns(SegkeyWarning, match="since it was written, .*the precision changed"):
        assert len(keeping(small, keep, precise=True).journal) == 0
    keep.write_text("{ damaged")
    with pytest.warns(SegkeyWarning, match="it is damaged, or was not written with key"):
        assert (
            attacks.correct_plain_incorrect(keeping(small, keep), wrong_keys=2, seed=2) == expected
        )


def made_by_a_provider(line: str) -> str:
    """What an attacker without the key can make of a line: its content, and a code of some kind."""
    text = json.dumps(json.loads(line.partition(" ")[2]))
    return f"{hashlib.sha256(text.encode()).hexdigest()} {text}\n"


FORGED = {"correct": 0.99, "plain": 0.02, "wrong key 0/0": 0.015, "wrong key 0/1": 0.015}


@pytest.mark.parametrize(
    "how", ["as an earlier version wrote it", "another key", "entries below a head of the owner's"]
)
def test_planted_entries_are_not_used_and_that_is_told(small, tmp_path, how):
    """A run that comes back from a provider holds an attack that never was."""
    keep, expected = (
        tmp_path / "attack.partial.jsonl",
        attacks.correct_plain_incorrect(small, wrong_keys=2).document,
    )
    entries = {
        name: {
            "value": expected["correct"] | {"mean_iou": value, "majority_class": ["ground", 0.1]},
            "cost": {"queries": 1, "images": 6, "seconds": 1.0},
        }
        for name, value in FORGED.items()
    }
    stranger = Key(bytes(range(1, 33)))
    if how == "another key":
        forger = keeping(small, keep, key=stranger)
        for name, entry in entries.items():
            forger.journal.add(name, entry)
    else:
        head = json.dumps(small.settings)
        lines = [json.dumps(entry) for entry in entries.items()]
        keep.write_text(
            "".join(f"{zlib.crc32(each.encode()):08x} {each}\n" for each in [head, *lines])
        )
    if how == "entries below a head of the owner's":
        lines = keep.read_text().splitlines(keepends=True)
        keep.unlink()
        keeping(small, keep).journal.add("nothing", {})
        own = keep.read_text().splitlines(keepends=True)
        keep.write_text("".join([*own, *map(made_by_a_provider, lines[1:])]))
    with pytest.warns(
        SegkeyWarning, match="not used.* not written with key|are not used: they are damaged"
    ):
        again = keeping(small, keep)
    assert attacks.correct_plain_incorrect(again, wrong_keys=2).document == expected
    with pytest.warns(SegkeyWarning, match="without a key nobody can tell who wrote it"):
        assert len(replace(small, keep=keep).journal) == 0


def test_an_owners_entry_does_not_pass_under_another_name_or_in_another_attack(small, tmp_path):
    keep = tmp_path / "attack.partial.jsonl"
    for number, name in enumerate(("correct", "wrong key 0/0")):
        keeping(small, keep).journal.add(name, {"value": number})
    head, correct, wrong = keep.read_text().splitlines(keepends=True)
    keep.write_text(head + correct.replace('"correct"', '"wrong key 0/0"') + wrong)
    with pytest.warns(SegkeyWarning, match="1 of 2 lines"):
        assert keeping(small, keep).journal.get("wrong key 0/0") == {"value": 1}
    other = tmp_path / "other.jsonl"
    keeping(small, other, batch_size=7).journal.add("correct", {"value": 2})
    keep.write_text(head + other.read_text().splitlines(keepends=True)[1])
    with pytest.warns(SegkeyWarning, match="1 of 1 lines"):
        assert len(keeping(small, keep).journal) == 0


def test_entries_are_not_used_when_masks_weights_or_version_have_changed(
    small, trained_run, corrected_shards, key, tmp_path, monkeypatch
):
    """Every name stays as it was; what stands behind it changes."""
    keep = tmp_path / "attack.partial.jsonl"

    def refused(what: str, **how):
        with pytest.warns(SegkeyWarning, match=f"since it was written, .*{what}.* changed"):
            assert len(keeping(small, keep, **how).journal) == 0

    keeping(small, keep).journal.add("correct", {"value": 1})
    assert len(keeping(small, keep).journal) == 1
    split = evaluation_splits.open_test_split(trained_run, [corrected_shards])
    assert split.names == small.loader.split.names
    assert split.origin["training_data"] == "same"
    refused("the test images or masks", loader=plain_loader(split, small.cipher, CPU))
    refused("the attacker's own images", splits=small.splits | {"val": split})
    run = Run(shutil.copytree(trained_run.path, tmp_path / "small"), trained_run.configuration)
    assert len(keeping(small, keep, run=run).journal) == 1
    run.save_weights({name: tensor + 1 for name, tensor in small.model.weights().items()})
    # An attacker who replaces weights need not say so in run.json.
    run.configuration = trained_run.configuration
    with pytest.warns(SegkeyWarning, match="run.json belongs to other weights"):
        refused("the weights", run=run)
    monkeypatch.setattr(evaluation, "VERSION", "9.9.9")
    refused("the version of segkey")


def test_the_cost_of_an_attack_does_not_depend_on_where_it_was_cut(small, tmp_path):
    keep = tmp_path / "attack.partial.jsonl"
    budget = attacks.Budget(keys=4)
    names = ["plain", "wrong-keys"]
    whole = attacks.run_attacks(small, names, budget)
    with pytest.raises(Killed):
        attacks.run_attacks(keeping(small, keep, 4 * 6), names, budget)
    again = attacks.run_attacks(keeping(small, keep), names, budget)
    for a, b in zip(whole.attacks, again.attacks, strict=True):
        assert (a.queries, a.images, a.mean_iou) == (b.queries, b.images, b.mean_iou)
        assert b.seconds > 0
    assert [(line.queries, line.images) for line in again.attacks] == [(1, 6), (4, 24)]


def test_a_model_without_protection_scores_the_same_with_every_key(open_run, attacked):
    document = attacks.correct_plain_incorrect(attacked(open_run), wrong_keys=3).document
    assert document["plain"] == document["correct"] | {
        "divided_by": 255,
        "by_divisor": {"255": document["correct"]["mean_iou"]},
    }
    assert document["incorrect"]["values"] == [document["correct"]["mean_iou"]] * 3
    assert document["key_space_bits"] == 0
