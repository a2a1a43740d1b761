"""Wrong keys are wrong, deterministic and counted; a run that was killed goes on."""

import json
from itertools import islice

import numpy as np
import pytest
import torch

from segkey import attacks, ciphers, encryption, evaluation, testdata, training
from segkey.preparation import Preparation
from segkey.progress import Progress
from segkey.shards import open_splits

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def subject(trained_run, key):
    cipher = testdata.cipher_of(trained_run, key)
    return attacks.Subject.create(trained_run, testdata.open_test_split(trained_run, None, None, None), cipher, CPU)


def test_the_test_images_are_decrypted_exactly(subject, scenes_source):
    ((images, _),) = subject.feed.batches(100)
    preparation = Preparation((32, 32), 5)
    for image, item in zip(images, scenes_source.splits["test"], strict=True):
        assert np.array_equal(image.numpy(), preparation.load(item)[0][0])


def test_document(subject, trained_run):
    document = attacks.correct_plain_incorrect(subject, wrong_keys=3, seed=5)
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
    evaluated = evaluation.evaluate(trained_run, testdata.open_test_split(trained_run, None, None, None), None, CPU)
    assert document["correct"] == evaluated["correct"]
    assert document["constant"] == evaluated["constant"]
    assert json.loads(json.dumps(document)) == document
    assert attacks.correct_plain_incorrect(subject, wrong_keys=3, seed=5) == document
    assert attacks.correct_plain_incorrect(subject, wrong_keys=3, seed=6)["incorrect"]["values"] != wrong["values"]


def test_each_score_is_that_of_its_cipher(subject):
    """What basic() reports for a wrong key is what encrypting with that key by hand gives."""
    values = attacks.correct_plain_incorrect(subject, wrong_keys=2)["incorrect"]["values"]
    header = subject.run.header
    ((images, masks),) = subject.feed.batches(100)
    for value, cipher in zip(values, attacks.wrong_ciphers(subject, 0), strict=False):
        pixels = torch.from_numpy(cipher.encrypt(images.numpy())).float() / 255
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=False):
            predicted = subject.model(pixels.to(memory_format=torch.channels_last)).argmax(1)
        matrix = evaluation.confusion_matrix(masks, predicted, 5, 255)
        assert evaluation.Scores(matrix, header.classes, 6).mean_iou == pytest.approx(value, abs=0.02)


def test_plain_images_are_divided_by_255_whatever_the_methods_largest_value(subject, key):
    cipher = ciphers.from_key("ffx", key, 4)
    ffx = attacks.Subject(subject.run, subject.model, subject.feed, cipher)
    assert cipher.max_value > 255
    assert ffx.score(None).matrix.tolist() == subject.score(None).matrix.tolist()


@pytest.mark.parametrize("method", ["np", "ffx"])
def test_no_wrong_key_means_the_owners_transformation(subject, key, method):
    """At M = 1 with 3 channels there are three selections: every third random key is the owner's by chance."""
    password = b"fixed" if method == "ffx" else None
    own = ciphers.from_key(method, key, 1, 3, password)
    target = attacks.Subject(subject.run, subject.model, subject.feed, own, password)
    wrong = list(islice(attacks.wrong_ciphers(target, seed=0), 30))
    assert not any(cipher.same_as(own) for cipher in wrong)
    if method == "ffx":  # they differ in the selection alone, as in the paper
        assert all(np.array_equal(cipher.values, own.values) for cipher in wrong)
        assert all(not np.array_equal(cipher.selected, own.selected) for cipher in wrong)


def test_wrong_keys_with_a_derived_password_differ_in_their_tables_too(subject, key):
    target = attacks.Subject(subject.run, subject.model, subject.feed, ciphers.from_key("ffx", key, 2))
    tables = {cipher.values.tobytes() for cipher in islice(attacks.wrong_ciphers(target, seed=0), 5)}
    assert len(tables | {target.cipher.values.tobytes()}) == 6


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


def test_an_attack_that_was_killed_goes_on_and_ends_with_the_same_numbers(subject, tmp_path, monkeypatch):
    keep = tmp_path / "attack.partial.json"
    whole = attacks.correct_plain_incorrect(subject, wrong_keys=4)
    with pytest.raises(Killed):
        attacks.correct_plain_incorrect(subject, wrong_keys=4, keep=keep, progress=KilledAfter(4 * 6 + 3))
    assert len(json.loads(keep.read_text())["scores"]) == 4
    scored = []
    score = attacks.Subject.score
    monkeypatch.setattr(attacks.Subject, "score", lambda self, *a, **k: scored.append(1) or score(self, *a, **k))
    assert attacks.correct_plain_incorrect(subject, wrong_keys=4, keep=keep) == whole
    assert len(scored) == 2  # only what was missing
    assert not keep.exists()


def test_kept_scores_of_another_attack_are_not_mixed_in(subject, tmp_path):
    keep = tmp_path / "attack.partial.json"
    with pytest.raises(Killed):
        attacks.correct_plain_incorrect(subject, wrong_keys=2, seed=1, keep=keep, progress=KilledAfter(20))
    assert attacks.correct_plain_incorrect(subject, wrong_keys=2, seed=2, keep=keep) == attacks.correct_plain_incorrect(
        subject, wrong_keys=2, seed=2
    )
    keep.write_text("{ damaged")
    assert attacks.correct_plain_incorrect(subject, wrong_keys=1, keep=keep) == attacks.correct_plain_incorrect(
        subject, wrong_keys=1
    )


def test_a_model_without_protection_scores_the_same_with_every_key(tmp_path, scenes_source):
    plain = ciphers.from_key("none", None, 1)
    encryption.encrypt(encryption.plan_shards(scenes_source, tmp_path / "s", plain, size=(32, 32)), plain, workers=1)
    recipe = training.recipe("scratch", epochs=1, batch_size=4)
    run = training.train(
        open_splits([tmp_path / "s"]),
        tmp_path,
        recipe,
        shards=[tmp_path / "s"],
        device=CPU,
        backbone="resnet14",
    )
    target = attacks.Subject.create(run, testdata.open_test_split(run, None, None, None), plain, CPU)
    document = attacks.correct_plain_incorrect(target, wrong_keys=3)
    assert document["plain"] == document["correct"]
    assert document["incorrect"]["values"] == [document["correct"]["mean_iou"]] * 3
    assert document["key_space_bits"] == 0
