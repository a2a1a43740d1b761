"""Measure how much of a key encrypted images alone reveal, by method and block size.

Run it: ``python examples/keys_from_encrypted_images.py [FOLDER] [SIZE]``. The images of
the folder (built-in scenes, if none is given) are encrypted with a new key, and `segkey.attacks`
estimates that key from them. For each part of the key, the fraction is printed that is correct in
the best of the few remaining estimates.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import segkey
from segkey.attacks.cipher_parts import agreement
from segkey.attacks.ciphertext_only import MOST_IMAGES, MOST_SHUFFLED, estimate
from segkey.crypto import ciphers
from segkey.data import scenes, sources
from segkey.data.preparation import Preparation

with tempfile.TemporaryDirectory() as folder:
    given = (
        Path(sys.argv[1])
        if len(sys.argv) > 1
        else scenes.write(Path(folder), train=0, val=0, test=64, size=64)
    )
    size = int(sys.argv[2]) if len(sys.argv) > 2 else 64
    splits = sources.find(given).splits
    items = splits.get("test") or [item for split in splits.values() for item in split]
    preparation = Preparation((size, size))
    images = np.stack([preparation.load(item)[0][0] for item in items[:MOST_IMAGES]])

print(f"{len(images)} encrypted images of {size}x{size}")
key = segkey.Key.generate()
for method in ("np", "shf", "ffx"):
    for block_size in ciphers.fitting_block_sizes(size, size):
        own = ciphers.from_key(method, key, block_size)
        if method == "shf" and own.channels * block_size**2 > MOST_SHUFFLED:
            continue  # beyond this estimate; that proves nothing
        began = time.perf_counter()
        found = [agreement(own, each) for each in estimate(own, own.encrypt(images))]
        best = max(found, key=lambda parts: sum(parts.values()))
        told = ", ".join(f"{100 * part:.0f} % of {name}" for name, part in best.items())
        print(f"{method} M={block_size}: {told} ({time.perf_counter() - began:.1f} s)", flush=True)
