"""Texts of options as values; what is none is told with the option's name."""

import typer


def parse_seed(text: str | int) -> int:
    """A seed that a shard can hold: a whole number of 64 bits."""
    try:
        seed = int(text)
    except ValueError:
        raise typer.BadParameter(f"'{text}' is not a whole number") from None
    if not -(2**63) <= seed < 2**63:
        raise typer.BadParameter(f"{seed} does not fit into 64 bits; give a smaller number")
    return seed


def parse_size(text: str, of: str = "--size") -> tuple[int, int]:
    """``256`` or ``240x320`` (height first) as (H, W), from the option that is named."""
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(
        side.isascii() and side.isdigit() and 0 < int(side) < 65536 for side in sides
    ):
        raise typer.BadParameter(
            f"'{text}' is not a size; give 256, or HEIGHTxWIDTH such as 240x320",
            param_hint=of,
        )
    return (int(sides[0]), int(sides[-1]))


def parse_methods(texts: list[str] | None) -> list[str]:
    """``shf,np``, or the option given twice, as names in that order, each once."""
    return list(
        dict.fromkeys(name.strip().lower() for text in texts or () for name in text.split(","))
    )


def parse_block_sizes(texts: list[str] | None) -> list[int]:
    """``2,4,8``, or the option given several times, in ascending order, each once."""
    try:
        numbers = sorted({int(number) for text in texts or () for number in text.split(",")})
        if numbers and numbers[0] < 1:
            raise ValueError
        return numbers
    except ValueError:
        raise typer.BadParameter(
            f"'{','.join(texts)}' are not block sizes; give numbers such as 2,4,8", param_hint="-M"
        ) from None
