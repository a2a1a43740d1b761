"""The front door: ``segkey``, and ``python -m segkey``, which is also how torchrun starts it."""

from segkey.system import ctrl_c


def main() -> None:
    """Run the command line."""
    ctrl_c.end_at_once()
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
