"""Words and numbers as people read them, and words that a shell takes as they are."""

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segkey.system.shell_quoting import option, word
from segkey.system.wording import duration, in_bytes, per_cent, printable, visible


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 s"),
        (12.4, "12 s"),
        (89.4, "89 s"),
        (90, "2 min"),
        (60 * 89, "89 min"),
        (60 * 125, "2 h 5 min"),
        (3600 * 30, "30 h 0 min"),
    ],
)
def test_durations(seconds, shown):
    assert duration(seconds) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (2.5e9, "2.5 GB"), (3e15, "3000.0 TB")],
)
def test_sizes(count, shown):
    assert in_bytes(count) == shown


def test_shares():
    assert per_cent(0.125) == "12 %"
    assert per_cent(0.125, 1) == "12.5 %"
    assert per_cent(None) == "n/a"


@given(st.text())
def test_what_is_shown_moves_no_cursor_and_is_no_markup(text):
    assert visible(text).isprintable()
    assert printable(text).isprintable()
    assert "\n" not in visible(text)


def test_text_that_is_harmless_stays_as_it_is():
    assert visible("Straße 7, café") == "Straße 7, café"
    assert visible("a\nb", keep="\n") == "a\nb"
    assert printable("[red]x") == r"\[red]x"


@given(st.text(min_size=1))
def test_a_word_is_one_word_of_a_command_and_no_option(text):
    (one,) = shlex.split(word(text))
    assert not one.startswith("-")
    assert one.removeprefix("./") in (visible(text), visible(text).removeprefix("./"))


@given(st.text())
def test_the_value_of_an_option_stays_a_value(text):
    words = shlex.split(option("batch_size", text))
    assert words[0].startswith("--batch-size")
    assert len(words) == 2 or words[0].startswith("--batch-size=-")
