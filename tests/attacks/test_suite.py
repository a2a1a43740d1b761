"""Each attack where its truth is known, and all of them together."""

import copy
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from segkey import attacks
from segkey.attacks import cipher_parts, fine_tune
from segkey.attacks.exhaustive import all_ciphers, number_of_ciphers, too_many_keys
from segkey.crypto import ciphers
from segkey.errors import SegkeyError, SegkeyWarning
from segkey.model import networks, results
from segkey.model.authenticity import authenticated
from segkey.system.seeds import seeded


def result_of(name, target, seed=0, **budget):
    return attacks.ATTACKS[name].function(target, attacks.Budget(**budget), seed)


# ------------------------------------------------------------------ parts of keys


@pytest.mark.parametrize(
    "method, password", [("shf", None), ("np", None), ("ffx", b"fixed"), ("ffx", None)]
)
def test_keys_that_share_a_part(key, method, password):
    own = ciphers.from_key(method, key, 8, 3, password)
    for share in (0, 0.3, 1):
        drawn = cipher_parts.sharing(own, share, seeded(share))
        agree = cipher_parts.agreement(own, drawn)
        assert ("values" in agree) == (method == "ffx" and password is None)
        for name, part in agree.items():
            by_chance = {"selected": 0.5, "permutation": 1 / 192, "values": 1 / 1000}[name]
            assert part == pytest.approx(share + (1 - share) * by_chance, abs=0.1)
        assert drawn.same_as(own) == (share == 1)
        if method != "shf":
            assert drawn.selected.sum() == own.selected.sum()
        images = np.random.default_rng(0).integers(0, 256, (2, 3, 16, 16), np.uint8)
        assert np.array_equal(drawn.decrypt(drawn.encrypt(images)), images)


@pytest.mark.parametrize(
    "method, password", [("shf", None), ("np", None), ("ffx", b"fixed"), ("ffx", None)]
)
def test_a_change_is_small_and_leaves_a_key(key, method, password):
    own = ciphers.from_key(method, key, 4, 3, password)
    for seed in range(20):
        other = cipher_parts.changed(own, 2, seeded(seed))
        differing = {
            name: round((1 - part) * getattr(own, name).size)
            for name, part in cipher_parts.agreement(own, other).items()
        }
        assert sum(differing.values()) == 4
        images = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8), np.uint8)
        assert np.array_equal(other.decrypt(other.encrypt(images)), images)


def test_a_method_of_ones_own_without_known_parts_is_said_not_to_fit(target, key):
    class Strange(ciphers.Plain):
        method, PARTS = "strange", ("angles",)

    changed_target = replace(target, cipher=Strange(1, 3))
    for name in ("partial-key", "search", "known-pair", "ciphertext-only", "exhaustive"):
        assert attacks.ATTACKS[name].obstacle(changed_target)


# ------------------------------------------------------------------ exhaustive


def test_all_ciphers_are_all_and_different(key):
    own = ciphers.from_key("np", key, 2)
    everything = list(all_ciphers(own))
    assert len(everything) == number_of_ciphers(own) == 924
    assert len({cipher.selected.tobytes() for cipher in everything}) == 924
    assert all(cipher.selected.sum() == 6 for cipher in everything)
    assert sum(cipher.same_as(own) for cipher in everything) == 1
    assert len(list(all_ciphers(ciphers.from_key("shf", key, 1)))) == 6
    assert number_of_ciphers(ciphers.from_key("ffx", key, 2)) == float(
        "inf"
    )  # the table is secret, too
    assert number_of_ciphers(ciphers.from_key("ffx", key, 2, 3, b"fixed")) == 924
    assert number_of_ciphers(ciphers.from_key("shf", key, 256)) == float("inf")


def test_exhaustive_finds_the_key(target):
    result = result_of("exhaustive", target, images=4)
    assert result.details["found"]
    assert result.details["rank_of_the_key"] == 1
    assert result.mean_iou == target.correct().mean_iou
    assert len(result.details["scores"]) == 924
    assert result.details["scores"] == sorted(
        result.details["scores"], reverse=True
    )  # in order, the best's place is the key


def test_exhaustive_does_not_fit_a_large_key_space(target, key):
    changed_target = replace(target, cipher=ciphers.from_key("np", key, 4))
    assert "2^45" in attacks.ATTACKS["exhaustive"].obstacle(changed_target)
    with pytest.raises(SegkeyError, match="does not fit"):
        attacks.run_attacks(changed_target, ["exhaustive"])


def test_choosing_on_validation_images_is_told_apart_from_choosing_on_test_images(target):
    """Where no validation images are at hand, an attack chooses on the images that it is judged
    on."""
    how = {
        "exhaustive": {"images": 4},
        "search": {"queries": 10, "images": 4},
        "search-unlabelled": {"queries": 10, "images": 4},
    }
    for name, budget in how.items():
        assert not result_of(name, target, **budget).chosen_on_test
        assert result_of(name, replace(target, splits={}), **budget).chosen_on_test
    assert result_of("wrong-keys", target, keys=2).chosen_on_test
    assert not result_of("wrong-keys", target, keys=1).chosen_on_test  # nothing to choose from
    assert not result_of("plain", target).chosen_on_test  # NP divides by 255 only
    (line,) = attacks.run_attacks(target, ["wrong-keys"], attacks.Budget(keys=2)).attacks
    assert line.chosen_on_test


def test_the_same_images_as_another_split_are_seen(target):
    val = target.images_of("val", 4)
    assert not target.is_judged_on(val)
    again = replace(target, loader=target.images_of("val", 2))
    assert again.is_judged_on(again.images_of("val", 4))
    assert not again.is_judged_on(target.loader)


@pytest.mark.parametrize(
    "method, block_size, password",
    [
        ("np", 2, None),
        ("np", 4, None),
        ("shf", 1, None),
        ("shf", 2, None),
        ("ffx", 2, None),
        ("ffx", 2, b"fixed"),
        ("none", 1, None),
    ],
)
def test_advice_asks_what_the_attack_itself_decides(target, key, method, block_size, password):
    own = ciphers.from_key(method, key, block_size, 3, password)
    refused = attacks.ATTACKS["exhaustive"].obstacle(replace(target, cipher=own))
    assert too_many_keys(method, block_size, 3, bool(password)) == refused


# ------------------------------------------------------------------ partial-key


def test_a_partial_key_begins_like_a_random_key_and_ends_at_the_right_one(target):
    curve = result_of("partial-key", target, per_level=4).details["curve"]
    assert [point["share"] for point in curve] == list(range(0, 101, 10))
    assert curve[-1]["mean"] == target.correct().mean_iou
    wrong = result_of("wrong-keys", target, keys=20).details
    assert abs(curve[0]["mean"] - wrong["mean"]) < 3 * wrong["std"] * (1 / 4 + 1 / 20) ** 0.5
    assert curve[-2]["mean"] > curve[0]["mean"]
    assert all(point["values"] == sorted(point["values"]) for point in curve)


# ------------------------------------------------------------------ search


def test_search_beats_random_keys_for_the_same_number_of_queries(target):
    found = result_of("search", target, queries=60, images=8)
    loader = target.images_of("val", 8)
    randoms = attacks.wrong_ciphers(target.cipher, seed=9)
    best = max(
        (next(randoms) for _ in range(60)), key=lambda cipher: target.score(cipher, loader).mean_iou
    )
    assert found.mean_iou > target.score(best).mean_iou
    scores = found.details[
        "accepted"
    ]  # no numbers of queries: with the seed, they would be the key that was found
    assert scores == sorted(scores)
    assert len(scores) > 1
    assert all(isinstance(score, float) for score in scores)


def test_search_without_labels_lowers_the_entropy(target):
    found = result_of("search-unlabelled", target, queries=30, images=8)
    happiness = found.details["accepted"]
    assert happiness == sorted(happiness)
    assert happiness[-1] > happiness[0]
    assert found.details["criterion"] == "entropy of the prediction"


def test_entropy_of_the_prediction(target):
    scores = target.score(target.cipher, entropy=True)
    ((images, _),) = target.loader.batches(100)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=False):
        logits = target.model(target.cipher.encrypt(images).float() / 255)[..., ::4, ::4]
    chance = logits.softmax(1)
    assert scores.entropy == pytest.approx(float(-(chance * chance.log()).sum(1).mean()), rel=0.05)
    assert target.score(target.cipher).entropy is None  # not asked for


def test_a_search_that_is_cut_goes_on(target, tmp_path, key):
    whole = result_of("search", target, queries=60, images=4)

    class Cut(Exception):
        pass

    kept = replace(target, keep=tmp_path / "kept.jsonl", key=key)
    done, score = [], kept.score
    kept.score = lambda *a, **k: (
        done.append(1) or (_ for _ in ()).throw(Cut)
        if len(done) > 40
        else (done.append(1), score(*a, **k))[1]
    )
    with pytest.raises(Cut):
        result_of("search", kept, queries=60, images=4)
    again = replace(target, keep=tmp_path / "kept.jsonl", key=key)
    assert result_of("search", again, queries=60, images=4) == whole
    text = (tmp_path / "kept.jsonl").read_text()
    assert "selected" not in text.replace(
        '"agreement": {"selected"', ""
    )  # numbers of queries, no key


# ------------------------------------------------------------------ fine-tune


def test_fine_tune_trains_on_plain_images(target):
    result = result_of("fine-tune", target, percents=(50,), epochs=1, steps=16)
    as_it_is, half = result.details["curve"]
    assert (half["images"], half["percent"]) == (30, 50)
    assert half["epochs"] == 8  # two steps each, for at least sixteen
    assert half["stolen"] > as_it_is["stolen"]
    assert half["anew"] > 0
    assert result.mean_iou == max(half["stolen"], as_it_is["stolen"])


def test_fine_tune_needs_images(target):
    with pytest.raises(SegkeyError, match="too few to fine-tune"):
        result_of("fine-tune", target, percents=(1,))
    changed_target = replace(target, splits={})
    assert "not at hand" in attacks.ATTACKS["fine-tune"].obstacle(changed_target)
    assert (
        changed_target.images_of("val", 4).split.header.split == "test"
    )  # an attacker who has test images


# ------------------------------------------------------------------ all together


BUDGET = attacks.Budget(
    keys=40, queries=20, images=4, epochs=1, steps=3, percents=(10,), per_level=1
)


@pytest.fixture(scope="module")
def open_document(open_run, attacked):
    return attacks.run_attacks(attacked(open_run), budget=BUDGET)


@pytest.mark.parametrize("name", list(attacks.ATTACKS))
def test_a_defence_that_ignores_the_key_is_worth_nothing_to_every_attack(open_document, name):
    if name in open_document.left_out:
        assert open_document.left_out[name] == "there is no key"
        return
    line = next(line for line in open_document.attacks if line.attack == name)
    assert line.recovered == 1.0
    assert line.mean_iou >= open_document.correct.mean_iou


def test_a_suite_is_decided_by_its_seed_and_leaves_out_what_does_not_fit(target, key):
    names = ["plain", "wrong-keys", "known-pair", "search"]
    document = attacks.run_attacks(target, names, BUDGET, seed=3)
    again = attacks.run_attacks(target, names, BUDGET, seed=3)
    for a, b in zip(document.attacks, again.attacks, strict=True):
        assert replace(a, seconds=0) == replace(b, seconds=0)
        assert a.queries > 0
        assert a.images > 0
        assert a.attacker_knowledge
    pair = next(line for line in document.attacks if line.attack == "known-pair")
    assert pair.recovered == 1.0
    partial = attacks.run_attacks(target, ["partial-key"], BUDGET, seed=3)
    kept = results.read("suite", authenticated("suite", document.document, key))
    merged = attacks.merge(kept, partial, key)
    assert [line.attack for line in merged.attacks] == [
        *[line.attack for line in document.attacks],
        "partial-key",
    ]
    other = attacks.run_attacks(replace(target, precise=True), ["plain"], BUDGET)
    with pytest.warns(SegkeyWarning, match="is replaced: .*the precision changed"):
        assert attacks.merge(kept, other, key) == other
    for earlier, own in ((document, key), (kept, None)):  # by whom nobody knows
        with pytest.warns(
            SegkeyWarning, match="it was not made with key|nobody can tell who made it"
        ):
            assert attacks.merge(earlier, partial, own) == partial


def test_won():
    assert attacks.recovered(0.3, no_key_baseline=0.2, correct=0.6) == pytest.approx(0.25)
    assert attacks.recovered(0.1, 0.2, 0.6) < 0
    assert attacks.recovered(0.2, no_key_baseline=0.6, correct=0.6) == 1.0  # the key adds nothing


@pytest.mark.parametrize(
    "bad",
    [
        {"keys": 0},
        {"queries": 1},
        {"images": 1},
        {"epochs": 0},
        {"steps": 0},
        {"percents": ()},
        {"percents": (0,)},
        {"pairs": ()},
        {"pairs": (0,)},
    ],
)
def test_too_small_a_budget(target, bad):
    with pytest.raises(SegkeyError):
        attacks.run_attacks(target, ["plain"], attacks.Budget(**bad))


@pytest.mark.parametrize(
    "method, block_size, password, fitting",
    [
        ("np", 2, None, ["--exhaustive", "--search"]),
        ("shf", 2, None, ["--search"]),
        ("ffx", 2, None, ["--search"]),
        ("ffx", 2, b"fixed", ["--exhaustive", "--search"]),
        ("shf", 1, None, ["--exhaustive", "--search"]),
        ("own", 2, None, []),
    ],
)
def test_searches_that_are_advised_are_not_refused(
    target, key, method, block_size, password, fitting
):
    assert attacks.searches_that_fit(method, block_size, 3, bool(password)) == fitting
    if fitting:
        changed_target = replace(
            target, cipher=ciphers.from_key(method, key, block_size, 3, password)
        )
        for option in ("--exhaustive", "--search"):
            refused = attacks.ATTACKS[option.removeprefix("--")].obstacle(changed_target)
            assert bool(refused) == (option not in fitting)


def test_fine_tuning_advises_a_share_that_it_accepts(target):
    for images in range(1, 60):
        try:
            fine_tune._numbers_of_images(images, (0.001,))
        except SegkeyError as error:
            share = re.search(r"--fine-tune (\d+) or more", error.hint)
            assert bool(share) == (images >= 2)
            if share:
                assert fine_tune._numbers_of_images(images, (float(share[1]),))


def test_unknown_attacks(target):
    with pytest.raises(SegkeyError, match="no attack 'prayer'"):
        attacks.run_attacks(target, ["prayer"])


def test_the_area_under_a_curve_of_fine_tuning_is_a_mean_over_budgets():
    curve = [
        {"percent": 0, "stolen": 0.2, "anew": None},
        {"percent": 5, "stolen": 0.3, "anew": 0.1},
        {"percent": 10, "stolen": 0.5, "anew": 0.3},
    ]
    found = fine_tune.areas(curve, ("stolen", "anew"), nothing=0.02)
    assert found["stolen"] == pytest.approx((0.25 + 0.4) / 2)
    assert found["anew"] == pytest.approx((0.06 + 0.2) / 2)


def test_fine_tuning_starts_from_public_weights_too(target):
    public = str(target.run.weights_file)
    result = result_of(
        "fine-tune", target, percents=(50,), epochs=1, steps=16, public_weights=public
    )
    (as_it_is, some), areas = result.details["curve"], result.details["slc_auc"]
    assert as_it_is["public"] is None
    assert some["public"] == some["stolen"]  # the same weights
    assert set(areas) == {"stolen", "anew", "public"}
    assert result.details["without_the_model"] == max(some["anew"], some["public"])


def test_results_name_the_file_of_public_weights_without_its_folder():
    budget = attacks.Budget(public_weights="/home/anna/public.safetensors")
    assert budget.document["public_weights"] == "public.safetensors"
    assert attacks.Budget().document["public_weights"] is None


def test_another_file_of_public_weights_is_measured_anew(target, tmp_path):
    """The journal of an attack that goes on must not take the scores of the file before."""
    file = tmp_path / "public.safetensors"
    names, watched = [], replace(target)

    def cached(name, work):
        names.append(name)
        return 0.1 if name.startswith("fine-tune/") else target.cached(name, work)

    watched.cached = cached
    for content in (b"one", b"two"):
        file.write_bytes(content)
        budget = attacks.Budget(percents=(10,), public_weights=str(file))
        fine_tune.fine_tune(watched, budget, 0)
    public = [name for name in names if "public" in name]
    assert len(public) == len(set(public)) == 2
    stolen = [name for name in names if name.endswith("/stolen")]
    assert len(set(stolen)) == 1


def test_training_anew_begins_with_the_encoder_weights_that_the_model_began_with(
    target, tmp_path, monkeypatch
):
    """Else the stolen model would be compared with an easier start than the owner had."""
    file = tmp_path / "encoder.safetensors"
    state = target.model.fcn.backbone.state_dict()
    save_file({name: value.contiguous() for name, value in state.items()}, file)
    made = target.run.configuration
    began = replace(made, recipe=replace(made.recipe, weights="none", encoder_weights=str(file)))
    run = copy.copy(target.run)
    monkeypatch.setattr(run, "configuration", began)
    watched, began_with = replace(target, run=run), []
    build = networks.build

    def remembered(network, classes, weights, channels, encoder_weights):
        began_with.append(encoder_weights)
        return build(network, classes, weights, channels, encoder_weights)

    monkeypatch.setattr(networks, "build", remembered)
    budget = attacks.Budget(percents=(10,), epochs=1, steps=1)
    fine_tune.fine_tune(watched, budget, 0)
    assert began_with == [str(file)]

    assert attacks.ATTACKS["fine-tune"].obstacle(watched) == ""
    file.unlink()
    assert "not at hand (encoder.safetensors)" in attacks.ATTACKS["fine-tune"].obstacle(watched)
    gone = replace(began, recipe=replace(made.recipe, weights=str(file), encoder_weights=None))
    monkeypatch.setattr(run, "configuration", gone)
    assert "not at hand (encoder.safetensors)" in attacks.ATTACKS["fine-tune"].obstacle(watched)
    monkeypatch.setattr(run, "configuration", began)
    with pytest.raises(SegkeyError, match="encoder.safetensors"):
        fine_tune.fine_tune(watched, budget, 0)
