"""A method of your own: a class of 20 lines, then usable everywhere as ``--method add``.

Run it (``python examples/own_method.py``), step through its cells in an editor that knows ``# %%``,
or let the command line know the method::

    export SEGKEY_PLUGINS=examples/own_method.py
    segkey encrypt photos/ --method add -M 4

Every command that meets shards or a run of this method needs SEGKEY_PLUGINS: a file can name a
method, never code.
"""

# %% The method: to every value of a block, add a secret number, modulo 256

import numpy as np

from segkey.crypto import ciphers


@ciphers.register
class Add(ciphers.Cipher):
    method = "add"
    PARTS = ("numbers",)  # what the key decides

    def __init__(self, numbers: np.ndarray, block_size: int):
        super().__init__(block_size, channels=numbers.size // block_size**2)
        self.numbers = numbers

    @classmethod
    def from_key(cls, key, block_size, channels, password=None):
        label = (
            f"add/M={block_size}/c={channels}".encode()
        )  # a stream of the key's that nothing else uses
        return cls(np.frombuffer(key.stream(label, channels * block_size**2), np.uint8), block_size)

    def encrypt_images(self, images):  # NumPy arrays and tensors alike; uint8 wraps around
        return images + self.numbers_for(images)

    def decrypt_images(self, images):
        return images - self.numbers_for(images)

    def numbers_for(self, images):  # repeated over the image, once for each size and device
        return self.cached(images, "numbers", lambda h, w: self.tiled(self.numbers, h, w))

    # For tables and reports; may be left out.
    label = "Add"
    what = "To each of the {n} values of every block of {c}×{m}×{m} a number of the key is added."

    @classmethod
    def key_space(cls, block_size, channels=3, fixed_password=False):
        return min(8.0 * channels * block_size**2, 256.0)  # bits; a key has 256


# %% Does it come back? Does the key matter?

if __name__ == "__main__":
    import segkey

    images = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), dtype=np.uint8)
    key, other = segkey.Key.generate(), segkey.Key.generate()
    add = ciphers.from_key("add", key, block_size=4)
    assert np.array_equal(add.decrypt(add.encrypt(images)), images)
    assert not np.array_equal(
        ciphers.from_key("add", other, 4).decrypt(add.encrypt(images)), images
    )

# %% What is it worth? Train on built-in scenes, then try plain images and wrong keys

if __name__ == "__main__":
    import os
    import tempfile
    from pathlib import Path

    from segkey import attacks, reports
    from segkey.data import scenes, sources
    from segkey.model import evaluation_splits, recipes, training
    from segkey.shards import encryption, open_splits
    from segkey.system import devices

    counts = [int(count) for count in os.environ.get("SCENES", "200, 30, 60").split(",")]
    epochs, wrong_keys = int(os.environ.get("EPOCHS", 8)), int(os.environ.get("WRONG_KEYS", 20))
    folder, device = Path(tempfile.mkdtemp(prefix="segkey-own-method-")), devices.choose("auto")

    source = sources.find(scenes.write(folder / "scenes", *counts, size=96))
    plans = encryption.plan_shards(source, folder / "shards", add, size=(64, 64))
    encryption.encrypt(
        plans, add, workers=1
    )  # one process: a class of a notebook cannot be sent to another
    run = training.train(
        open_splits([folder / "shards"], ("train", "val")),
        folder / "runs",
        recipes.recipe("scratch", epochs=epochs),
        shards=[folder / "shards"],
        device=device,
        network="resnet14",
    )
    test = evaluation_splits.open_test_split(run)
    target = attacks.Target.create(run, test, run.cipher(key), device)
    result = attacks.correct_plain_incorrect(target, wrong_keys)
    print(
        f"{result.run}: {result.correct.mean_iou:.4f} with the key, "
        f"{result.plain.mean_iou:.4f} plain, {result.incorrect.mean:.4f} with wrong keys"
    )
    print(reports.attack_sentence(result))
