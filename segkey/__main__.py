"""``python -m segkey``, which is also how torchrun starts segkey."""

from segkey import distributed
from segkey.cli import main

if __name__ == "__main__":
    try:
        main()
    except SystemExit as ended:
        if distributed.alone():
            raise
        distributed.leave(ended.code)
