"""Quoting of commands that a user may copy into a shell."""

import shlex

from segkey.system.wording import visible


def word(text: object) -> str:
    """A path or a name as one word of a command, whatever it holds.

    It is quoted where the shell would read anything into it, control characters are shown instead
    of passed on, and one that begins with ``-`` is not taken for an option.

        >>> word("runs/np-m4"), word("$(date)"), word("-rf")
        ('runs/np-m4', "'$(date)'", './-rf')
    """
    shown = visible(text)
    return shlex.quote(f"./{shown}" if shown.startswith("-") else shown)


def option(name: str, value: object) -> str:
    """``--name value`` of a field such as ``batch_size``; the value may begin with ``-``."""
    shown = visible(value)
    return f"--{name.replace('_', '-')}{'=' if shown.startswith('-') else ' '}{shlex.quote(shown)}"
