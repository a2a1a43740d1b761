"""Words and numbers as people read them: durations, sizes, shares, harmless names.

Imports nothing heavy.
"""


def visible(text: object, keep: str = "") -> str:
    """Untrusted text with control characters made visible, so no terminal obeys them."""
    return "".join(c if c.isprintable() or c in keep else repr(c)[1:-1] for c in str(text))


def printable(text: object, keep: str = "") -> str:
    """`visible`, and nothing in it is taken for Rich's markup."""
    from rich.markup import escape  # only what writes to a terminal needs Rich

    return escape(visible(text, keep))


def per_cent(part: float | None, digits: int = 0) -> str:
    """A part of 1 as per cent; n/a for None."""
    return "n/a" if part is None else f"{100 * part:.{digits}f} %"


def duration(seconds: float) -> str:
    """A duration for people: 12 s, 3 min, 2 h 5 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def in_bytes(count: float) -> str:
    """With the unit that makes it short."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        shown = f"{count:.0f}" if unit == "bytes" else f"{count:.1f}"
        if float(shown) < 1000 or unit == "TB":
            return f"{shown} {unit if shown != '1' else 'byte'}"
        count /= 1000


def counted(count: int, one: str, several: str = "") -> str:
    """A number and what it counts: ``1 image``, ``2 images``; ``several`` if not with an ``s``."""
    return f"{count} {one if count == 1 else several or one + 's'}"
