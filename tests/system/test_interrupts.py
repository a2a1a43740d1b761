"""Signals: the first stops the work, later ones wait, and everything is as it was afterwards."""

import os
import signal
import threading

import pytest

from segkey.system.interrupts import Stopped, raised_once

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")


@pytest.fixture(autouse=True)
def as_they_were():
    """Signals as Python sets them, whatever runs the tests; what a test leaves is undone."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in numbers[1:]:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_is_raised_with_its_number(number):
    with pytest.raises(Stopped) as stopped, raised_once():
        send(number)
        pytest.fail("the work went on")
    assert stopped.value.number == number
    assert isinstance(stopped.value, KeyboardInterrupt)  # what commands answer in words


@pytest.mark.parametrize("later", [signal.SIGINT, signal.SIGTERM])
def test_later_signals_do_not_interrupt_what_the_first_one_saves(later):
    saved = []
    with pytest.raises(Stopped), raised_once() as stops:
        try:
            send(signal.SIGINT)
        finally:
            send(later)
            saved.append("all")
    assert saved == ["all"]
    assert (stops.first, stops.late) == (signal.SIGINT, [later])


def test_signals_that_are_held_are_remembered_and_not_raised():
    with raised_once([signal.SIGINT]) as stops:
        stops.held = True
        send(signal.SIGINT)
        send(signal.SIGINT)
        assert stops.late == [signal.SIGINT] * 2
        assert stops.first is None


@pytest.mark.parametrize(
    ("number", "ends"), [(signal.SIGTERM, True), (signal.SIGINT, False)], ids=["TERM", "INT"]
)
def test_an_order_to_end_that_came_while_an_error_was_saved_is_obeyed_afterwards(number, ends):
    """Ctrl-C is none: what it would stop has failed already."""
    child = os.fork()
    if not child:
        try:
            with raised_once() as stops:
                stops.held = True
                send(number)
                raise RuntimeError("an error")
        except RuntimeError:
            os._exit(3)
        finally:
            os._exit(4)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code == (-signal.SIGTERM if ends else 3)


def test_handlers_are_as_they_were_afterwards():
    with raised_once():
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    with pytest.raises(KeyboardInterrupt) as raised:
        send(signal.SIGINT)
    assert not isinstance(raised.value, Stopped)


def test_a_handler_of_the_users_and_an_ignored_signal_stay():
    heard = []
    signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    with raised_once() as stops:
        send(signal.SIGTERM)
        send(signal.SIGHUP)
        assert heard == [signal.SIGTERM]
        assert stops.first is None
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_the_inner_of_two_hears_signals_and_gives_them_back():
    with pytest.raises(Stopped), raised_once() as outer:
        with pytest.raises(Stopped), raised_once() as inner:
            send(signal.SIGINT)
        assert (outer.first, inner.first) == (None, signal.SIGINT)
        send(signal.SIGTERM)
    assert outer.first == signal.SIGTERM


def test_another_thread_changes_no_handler():
    seen = []

    def work():
        with raised_once() as stops:
            seen.append((signal.getsignal(signal.SIGINT), stops.first))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(signal.default_int_handler, None)]
