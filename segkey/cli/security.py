"""``segkey attack``."""

from typing import Annotated

import typer

from segkey.cli import app, console, options


@app.command(
    epilog="Example: segkey attack --wrong-keys 100\n\nExample: segkey attack runs/np-m4 --wrong-keys 20 --limit 100",
    rich_help_panel="Security",
)
def attack(
    run: options.RunFolder = options.LATEST,
    wrong_keys: Annotated[int, typer.Option(min=1, help="How many random wrong keys to try.")] = 100,
    shards: options.TestShards = None,
    images: options.TestImages = None,
    masks: options.TestMasks = None,
    split: options.TestSplit = "test",
    key: options.KeyFile = None,
    passphrase_file: options.PassphraseFile = None,
    ffx_password: options.KnownFFXPassword = None,
    limit: options.Limit = None,
    seed: options.Seed = 0,
    batch_size: options.BatchSize = None,
    device: options.Device = "auto",
    precise: options.Precise = False,
    as_json: options.AsJson = False,
) -> None:
    """What the model is worth with the correct key, with plain images, and with wrong keys."""
    from segkey import attacks, devices, reports, testdata
    from segkey.files import sole_writer
    from segkey.runs import Run

    where, opened = devices.choose(device), Run.open(run)
    tested = testdata.open_test_split(opened, shards, images, masks, split)
    password = options.encode(ffx_password)
    loaded = None if opened.header.method == "none" else options.load_key(key, passphrase_file, opened.header.key_id)
    cipher = testdata.cipher_of(opened, loaded, password)
    console.left_out(getattr(tested, "problems", []))
    subject = attacks.Subject.create(
        opened, tested, cipher, where, limit, password=password, precise=precise, batch_size=batch_size or 32
    )
    with sole_writer(opened.path):
        document = attacks.correct_plain_incorrect(
            subject, wrong_keys, seed, opened.path / "attack.partial.json", console.TerminalProgress()
        )
        if own := testdata.is_own_test(split, shards, images, limit):
            opened.write_result("attack", document)
    if not own:
        console.note("This is not kept with the run: segkey report shows results on all of its own test split.")
    if as_json:
        console.show_json(document)
    else:
        console.show(reports.attack_table(document), reports.attack_sentence(document))
