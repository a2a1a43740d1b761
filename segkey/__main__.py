"""The front door: ``segkey``, and ``python -m segkey``, which is also how torchrun starts it."""

from segkey.system import interrupts_at_start


def main() -> None:
    """Run the command line."""
    interrupts_at_start.end_at_once()
    from segkey.cli import main
    from segkey.system import distributed, torchrun

    try:
        main()
    except SystemExit as ended:
        if distributed.is_single():
            raise
        torchrun.leave(ended.code)


if __name__ == "__main__":
    main()
