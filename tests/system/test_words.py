"""Words and numbers as people read them, and words that a shell takes as they are."""

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segkey.system.shell_quoting import option, word
from segkey.system.wording import counted, duration, in_bytes, per_cent, printable, visible


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
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (999.6, "1.0 kB"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),  # and not 1000.0 kB
        (999_999_999, "1.0 GB"),
        (2.5e9, "2.5 GB"),
        (3e15, "3000.0 TB"),
    ],
)
def test_sizes(count, shown):
    assert in_bytes(count) == shown


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ((0, "image"), "0 images"),
        ((1, "image"), "1 image"),
        ((1234567, "key"), "1234567 keys"),
        ((1, "try", "tries"), "1 try"),
        ((2, "try", "tries"), "2 tries"),
    ],
)
def test_counts(given, shown):
    assert counted(*given) == shown


@given(st.floats(0, 1e18))
def test_a_size_has_at_most_three_digits_before_its_point_below_thousands_of_terabytes(count):
    amount, unit = in_bytes(count).split(" ")
    assert float(amount) < 1000 or unit == "TB"
    factor = 1000 ** ["bytes", "kB", "MB", "GB", "TB"].index("bytes" if unit == "byte" else unit)
    assert abs(float(amount) * factor - count) <= 0.0501 * factor if factor > 1 else 0.5


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
