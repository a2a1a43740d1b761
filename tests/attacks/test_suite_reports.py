"""The suite's table and verdict say what was won, and the command line hands everything on."""

import io
import json
from pathlib import Path

import pytest
from making import segkey
from rich.console import Console

from segkey import attacks, reports
from segkey.model.results import read
from segkey.model.run_search import find
from segkey.model.runs import Run
from segkey.reports.page import html_page
from segkey.reports.verdicts import ACCESS


def shown(*things, width=110) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    for thing in things:
        console.print(thing, soft_wrap=isinstance(thing, str))
    return console.file.getvalue()


def line(name, mean_iou, steals="the model", queries=10, seconds=30.0):
    won = (mean_iou - 0.1) / 0.4
    return {
        "attack": name,
        "knows": f"what {name} knows",
        "steals": steals,
        "queries": queries,
        "images": 320,
        "seconds": seconds,
        "mean_iou": mean_iou,
        "won": won,
        "summary": f"how {name} did it",
        "details": {},
        "chosen_on_test": False,
    }


def document(*lines, correct=0.5, keyless=0.1, method="np", left_out=None):
    return {
        "run": "a-run",
        "method": method,
        "block_size": 2,
        "fixed_password": False,
        "key_space_bits": 9.9,
        "split": "test",
        "images": 60,
        "correct": {"mean_iou": correct},
        "keyless": {"mean_iou": keyless, "divided_by": 255},
        "constant": {"class": "road", "mean_iou": 0.05},
        "attacks": list(lines),
        "left_out": left_out or {},
    }


def suite(*lines, **how):
    return read("suite", document(*lines, **how))


def test_the_table_goes_by_required_access_and_then_by_strength():
    table = document(
        line("known-pair", 0.5, steals="a plain/encrypted pair"),
        line("search", 0.4, steals="the model and labelled images"),
        line("nearby", 0.45, steals=""),
        line("wrong-keys", 0.2),
        line("exhaustive", 0.5, steals="the model and labelled images", queries=924),
        left_out={"search": "for some reason"},
    )
    text = shown(reports.suite_table(read("suite", table)), width=200)
    order = (
        "with the model alone:",
        "wrong-keys",
        "with the model and labelled images:",
        "exhaustive",
        "search",
        "with a plain/encrypted pair:",
        "known-pair",
        "with part of the key:",
        "partial-key",
        "the correct key",
    )
    places = [text.index(name) for name in order]
    assert places == sorted(places)
    row = next(row for row in text.splitlines() if "exhaustive" in row)
    assert "924" in row
    assert "320" in row
    assert "30" in row
    assert "0.5000" in row
    assert "100 %" in row
    assert "what exhaustive knows" in text
    assert "search does not fit: for some reason" in text


@pytest.mark.parametrize(
    "expected, made",
    [
        ("the protection is gone", document(line("exhaustive", 0.5))),
        ("most of the protection is gone", document(line("search", 0.35))),
        ("25 % of what the key protects", document(line("search", 0.2))),
        ("next to nothing of what the key protects", document(line("wrong-keys", 0.12))),
        ("The key adds next to nothing: plain images reach 0.4800", document(keyless=0.48)),
        ("learned next to nothing", document(correct=0.06, keyless=0.05)),
        ("not protected", document(method="none")),
    ],
)
def test_the_verdict(expected, made):
    assert expected in reports.suite_verdict(read("suite", made))


def test_the_verdict_names_what_training_without_the_theft_reaches():
    tuned = line("fine-tune", 0.35, steals="the model and images") | {
        "details": {"without_the_model": 0.25}
    }
    assert "reaches 0.3500 (0.2500 without the stolen model): most of" in reports.suite_verdict(
        suite(tuned)
    )
    for odd in (None, "0.25", {}):
        assert "without" not in reports.suite_verdict(
            suite(tuned | {"details": {"without_the_model": odd}})
        )


def test_the_verdict_tells_those_who_hold_more_apart():
    text = reports.suite_verdict(
        suite(
            line("plain", 0.1),
            line("wrong-keys", 0.12),
            line("nearby", 0.3, steals=""),
            line("known-pair", 0.5, steals="one pair", queries=1, seconds=0.5),
        )
    )
    assert (
        "With the model alone, wrong-keys (10 tries, 30 s) reaches 0.1200: next to nothing" in text
    )
    assert "With one pair, known-pair (1 try, 0 s) reaches 0.5000: the protection is gone." in text
    assert "partial-key" not in text
    assert (
        "More than half of the key's worth falls to an attacker with one pair (known-pair)" in text
    )
    # What it is worth, the least access that suffices, and a line for each kind of attacker.
    assert len(text.splitlines()) == 4


def test_the_verdict_says_so_if_no_attack_recovers_half():
    text = reports.suite_verdict(suite(line("wrong-keys", 0.12), line("nearby", 0.5, steals="")))
    assert "No attack that was run recovers more than half of the key's worth." in text


def test_attackers_with_labelled_images_stand_under_their_own_heading():
    """Lines as this version writes them, and, without ``chosen_on_test``, as earlier ones did."""
    fresh = [
        line("plain", 0.1, attacks.ATTACKS["plain"].required_access),
        line("wrong-keys", 0.12, attacks.ATTACKS["wrong-keys"].required_access)
        | {"chosen_on_test": True},
        line("search", 0.2, attacks.ATTACKS["search"].required_access) | {"chosen_on_test": False},
        line("search-blind", 0.15, attacks.ATTACKS["search-unlabelled"].required_access)
        | {"chosen_on_test": True},
        line("exhaustive", 0.5, attacks.ATTACKS["exhaustive"].required_access)
        | {"chosen_on_test": False},
        line("known-pair", 0.5, attacks.ATTACKS["known-pair"].required_access)
        | {"chosen_on_test": False},
        line("nearby", 0.6, attacks.ATTACKS["partial-key"].required_access)
        | {"chosen_on_test": False},
    ]
    early = [
        {name: value for name, value in each.items() if name != "chosen_on_test"} for each in fresh
    ]
    for each in early:
        each["steals"] = {
            "known-pair": "one plain image with its encrypted twin",
            "nearby": "",
        }.get(each["attack"], "the model")
    told = reports.suite_verdict(suite(*fresh)).splitlines()
    assert (
        "the strongest attack, exhaustive, which needs the model and labelled images, reaches "
        "0.5000" in told[0]
    )
    assert told.pop(1) == (
        "More than half of the key's worth falls to an attacker with the model and labelled images "
        "(exhaustive)."
    )
    assert [words.split(",")[0] for words in told[1:]] == [
        "With the model alone",
        "With the model and unlabelled images",
        "With the model and labelled images",
        "With a plain/encrypted pair",
    ]
    assert "wrong-keys" in told[1]
    assert "chosen on the test images it is judged on" in told[1]
    assert "exhaustive" in told[3]
    assert "chosen on the test" not in told[3]
    earlier = reports.suite_verdict(suite(*early)).splitlines()
    del earlier[1]
    assert [words.split(",")[0] for words in earlier] == [words.split(",")[0] for words in told]
    assert "chosen on the test" in earlier[3]  # its finalists were, then
    table = shown(reports.suite_table(suite(*fresh)), width=300)
    assert "Requires the model and labelled images" in table
    assert "Chosen on the test images it is judged on" in table
    assert table.index("exhaustive") < table.index("partial-key") < table.index("the correct key")


def test_every_attack_names_a_class_of_access_that_the_verdict_knows():
    assert {each.required_access for each in attacks.ATTACKS.values()} <= set(ACCESS)
    labelled = {
        name
        for name, each in attacks.ATTACKS.items()
        if "labelled images" in each.attacker_knowledge or "masks" in each.attacker_knowledge
    }
    assert labelled == {
        name
        for name, each in attacks.ATTACKS.items()
        if each.required_access == "the model and labelled images"
    }


def test_the_better_way_to_feed_plain_images_is_said_in_table_and_verdict():
    both = {"mean_iou": 0.0969, "divided_by": 999, "by_divisor": {"255": 0.0694, "999": 0.0969}}
    wrong = {"keys": 1, "mean": 0.05, "std": 0.0, "min": 0.05, "max": 0.05, "values": [0.05]}
    made = {
        "run": "r",
        "method": "ffx",
        "block_size": 4,
        "images": 60,
        "correct": {"mean_iou": 0.4},
        "plain": both,
        "incorrect": wrong,
        "constant": {"class": "road", "mean_iou": 0.04},
        "key_space_bits": 256,
    }
    table = shown(reports.attack_table(read("attack", made)), width=300)
    assert "plain, divided by 999" in table
    assert "255 gives 0.0694, 999 gives 0.0969" in table
    assert "optimistic for the attacker" in reports.attack_sentence(read("attack", made))
    early = shown(
        reports.attack_table(read("attack", made | {"plain": {"mean_iou": 0.0694}})), width=300
    )
    assert "FFX: plain images were divided by 255 only (an earlier segkey)" in early
    assert "divided by 255 only" not in shown(
        reports.attack_table(read("attack", made | {"plain": {"mean_iou": 0.1}, "method": "np"})),
        width=300,
    )


@pytest.fixture
def ready(np_run, key, tmp_path, monkeypatch):
    """A copy of the run and its key, for the command line."""
    import shutil

    folder = Path(shutil.copytree(np_run.path, tmp_path / "a-run"))
    key.save(tmp_path / "keys/segkey.key")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    return folder


def test_attacks_by_name_are_kept_and_reported(ready):
    first = segkey("attack", ready, "--known-pair", "--plain")
    assert first.exit_code == 0, first.output
    assert "known-pair" in first.stdout
    assert "the protection is gone" in first.stdout
    assert not (ready / "attack.json").exists()  # nobody asked for wrong keys
    second = json.loads(segkey("attack", ready, "--nearby", "--per-level", 1, "--json").stdout)
    assert [each["attack"] for each in second["attacks"]] == ["plain", "known-pair", "partial-key"]
    assert not (ready / "attack.partial.jsonl").exists()
    reported = segkey("report", ready).stdout
    assert "attacks by what they need" in reported
    assert "With a plain/encrypted pair" in reported
    assert (
        json.loads(segkey("report", ready, "--json").stdout)[0]["suite"]["attacks"]
        == second["attacks"]
    )


def test_the_suite_on_the_page(ready):
    made = document(line("exhaustive", 0.5, queries=924), line("nearby", 0.45, steals=""))
    Run.open(ready).write_result("suite", made)
    html = html_page(find(ready))
    table = html[html.index('<table class="suite"') :]
    table = table[: table.index("</table>")]
    for text in (
        "exhaustive",
        "what exhaustive knows",
        "924",
        "320",
        "0.5000",
        "100 %",
        "partial-key",
        "0.4500",
    ):
        assert text in table
    assert "the protection is gone" in html


@pytest.mark.parametrize(
    "spoil",
    [
        lambda made: made | {"attacks": "none"},
        lambda made: made | {"attacks": [[]]},
        lambda made: made | {"attacks": [made["attacks"][0] | {"seconds": "long"}]},
        lambda made: made | {"keyless": {}},
        lambda made: made | {"constant": {"class": ["road"]}},
        lambda made: {},
    ],
)
def test_a_suite_from_anybody_is_refused_in_words(ready, spoil):
    Run.open(ready).write_result("suite", spoil(document(line("exhaustive", 0.5))))
    for command in (["report", ready], ["attack", ready, "--plain"]):
        result = segkey(*command)
        assert result.exit_code == 1
        assert "suite.json is not a result of segkey attack --suite" in result.stderr


def test_the_advice_to_run_the_suite_again_is_not_refused(ready, monkeypatch):
    """It replaces a suite.json that cannot be read, without reading it."""
    Run.open(ready).write_result("suite", {"attacks": "none"})
    refused = segkey("attack", ready, "--plain")
    assert "make it again: segkey attack --suite" in refused.stderr
    for name in set(attacks.ATTACKS) - {"plain", "wrong-keys"}:
        monkeypatch.delitem(attacks.ATTACKS, name)
    assert segkey("attack", ready, "--suite", "--wrong-keys", 1).exit_code == 0
    assert {each.attack for each in Run.open(ready).result("suite").attacks} == {
        "plain",
        "wrong-keys",
    }


def test_on_other_images_nothing_is_kept(ready):
    assert segkey("attack", ready, "--plain", "--limit", 4).exit_code == 0
    assert not (ready / "suite.json").exists()


def test_a_pair_from_files(ready, np_run, learnable):
    shards, items = Path(np_run.configuration.data.shards[0]), learnable.splits["test"]
    good = segkey("attack", ready, "--pair", items[0].image, shards / "test.h5", "--json")
    assert json.loads(good.stdout)["attacks"][0]["details"]["by_pairs"][0]["found"] is True
    other = ready.parent / items[0].image.name  # the name of one image, the pixels of another
    other.write_bytes(items[1].image.read_bytes())
    before = sorted(ready.rglob("*"))
    bad = segkey("attack", ready, "--pair", other, shards / "test.h5", "--limit", 5)
    assert bad.exit_code == 1
    assert "do not belong together: in the block in row 0, column" in bad.stderr
    missing = segkey("attack", ready, "--pair", ready / "nobody.png", shards / "test.h5")
    assert missing.exit_code == 1
    assert "no image called nobody" in missing.stderr
    assert f"names there: {items[0].name}" in missing.stderr
    assert sorted(ready.rglob("*")) == before  # nothing is written


def test_what_cannot_be(ready):
    assert segkey("attack", ready, "--suite", "--plain").exit_code == 2
    assert segkey("attack", ready, "--search", "--queries", 3).exit_code == 2
    assert "percentages of images" in segkey("attack", ready, "--fine-tune", 200).stderr
    Path("keys/segkey.key").unlink()
    missing = segkey("attack", ready, "--plain")
    assert missing.exit_code == 1
    assert "is needed" in missing.stderr
    assert not (ready / "suite.json").exists()


OWN = '''
from segkey.attacks import Result, attack

@attack("own-attack", "what its author says")
def own_attack(subject, budget, seed):
    """Feed plain images, and call it an attack."""
    return Result(subject.plain()[255].mean_iou, "plain images again", {"seed": seed})
'''


def test_an_attack_of_ones_own(ready, monkeypatch):
    file = ready.parent / "an_attack_of_my_own.py"
    file.write_text(OWN)
    monkeypatch.setenv("SEGKEY_METHODS", str(file))
    try:
        result = segkey("attack", ready, "--attack", "own-attack", "--seed", 5, "--json")
        (found,) = json.loads(result.stdout)["attacks"]
        assert (found["attack"], found["details"], found["queries"]) == (
            "own-attack",
            {"seed": 5},
            1,
        )
    finally:
        attacks.ATTACKS.pop("own-attack", None)
    assert "there is no attack 'prayer'" in segkey("attack", ready, "--attack", "prayer").stderr
    with pytest.raises(ValueError, match="already"):
        attacks.attack("plain", "nothing")(lambda target, budget, seed: None)


@pytest.mark.parametrize("sealed", [True, False])
def test_of_a_sealed_or_locked_run_the_verdict_tells_what_each_thief_gets(sealed):
    """Of the file, of the process, and of encrypted images."""
    found = suite(
        line("stem", 0.5, "the model alone"),
        line("wrong-keys", 0.12, "the model alone"),
        line("known-pair", 0.3, "a plain/encrypted pair"),
    )
    file, process, images = reports.suite_verdict(found, sealed, True).splitlines()[1:4]
    assert file.startswith("A thief of the file gets")
    assert ("nothing" in file) == sealed
    assert "with the model alone, 100 % of the key's worth (stem)" in process
    assert "with the model and unlabelled images, not measured" in process
    assert "with encrypted images, not measured" in images
    assert "with a plain/encrypted pair, 50 % of the key's worth (known-pair)" in images
    assert "thief" not in reports.suite_verdict(found)
