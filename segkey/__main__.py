"""``python -m segkey``, which is also how torchrun starts segkey."""

from segkey.cli import main
from segkey.system import distributed

if __name__ == "__main__":
    try:
        main()
    except SystemExit as ended:
        if distributed.is_single():
            raise
        distributed.leave(ended.code)
