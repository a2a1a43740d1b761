"""Draw built-in scenes as a folder of images and masks: ``python examples/scenes.py FOLDER [TRAIN
VAL TEST [SIZE]]``."""

import sys
from pathlib import Path

from segkey.data import scenes

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    folder, *numbers = sys.argv[1:]
    train, val, test, size = (*map(int, numbers), *(200, 30, 60, 64)[len(numbers) :])
    print(scenes.write(Path(folder), train, val, test, size=size))
