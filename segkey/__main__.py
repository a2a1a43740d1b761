"""``python -m segkey``, which is also how torchrun starts segkey."""

from segkey.cli import main

if __name__ == "__main__":
    main()
