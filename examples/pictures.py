"""Draw ``overlay.png`` from a finished demo: scenes segmented with the key, without it, and with a
wrong key.

Run it: ``segkey demo``, then ``python examples/pictures.py [DEMO [RUN [PICTURE]]]``. The demo draws
the same picture of its first run. The wrong key is 256 zero bits.
"""

import sys
from pathlib import Path

from segkey import Key
from segkey.model.runs import Run
from segkey.paper import demo_picture

demo, run, picture, *_ = *sys.argv[1:], *("demo", "ffx-m4", "overlay.png")[len(sys.argv) - 1 :]
folder = Path(demo)
key = Key.load(folder / "keys" / "demo.key")
demo_picture.write(Path(picture), Run.open(folder / "runs" / run), key, folder / "scenes")
print(picture)
