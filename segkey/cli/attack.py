"""``segkey attack``."""

from pathlib import Path
from typing import Annotated

import typer

from segkey.cli import app, console, options

Queries = Annotated[int, typer.Option(min=10, help="How many keys a search may try.")]
Few = Annotated[
    int, typer.Option("--few", min=2, help="How many images an attacker has who needs a few.")
]
Epochs = Annotated[
    int, typer.Option(min=1, help="Epochs of fine-tuning, which makes --steps at least.")
]
Steps = Annotated[
    int, typer.Option(min=1, help="The least steps of fine-tuning, of 16 images each.")
]
PerLevel = Annotated[
    int, typer.Option(min=1, help="Wrong keys for each part of the key, with --nearby.")
]


@app.command(
    epilog="Example: segkey attack --wrong-keys 100\n\nExample: segkey attack runs/np-m4 "
    "--wrong-keys 20 --limit 100\n\n"
    "Example: segkey attack runs/np-m2 --suite\n\nExample: segkey attack --exhaustive --search "
    "--queries 1000\n\n"
    "Example: segkey attack --pair photo.jpg shards/test.h5",
    rich_help_panel="Security",
)
def attack(
    run: options.RunFolder = options.LATEST,
    wrong_keys: Annotated[
        int, typer.Option(min=1, help="How many random wrong keys to try.")
    ] = 100,
    suite: Annotated[
        bool, typer.Option("--suite", help="Run every attack that fits the run.")
    ] = False,
    plain: Annotated[
        bool, typer.Option("--plain", help="Plain images, divided in two ways.")
    ] = False,
    known_pair: Annotated[
        bool,
        typer.Option(
            "--known-pair", help="Solve for the key from plain images and their encrypted twins."
        ),
    ] = False,
    pair: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            help="The pair to solve: a plain image, and the shard that holds its encrypted twin."
        ),
    ] = None,
    ciphertext_only: Annotated[
        bool,
        typer.Option("--ciphertext-only", help="Estimate the key from encrypted images alone."),
    ] = False,
    exhaustive: Annotated[
        bool, typer.Option("--exhaustive", help="Try every key, where there are few.")
    ] = False,
    fine_tune: Annotated[
        list[float] | None,
        typer.Option(
            metavar="PERCENT", help="Train on with so many per cent of the plain training images."
        ),
    ] = None,
    search: Annotated[
        bool,
        typer.Option(
            "--search", help="Climb from wrong keys to better ones, with labels and without."
        ),
    ] = False,
    nearby: Annotated[
        bool, typer.Option("--nearby", help="Keys that share 0, 10, … 100 % of the right one.")
    ] = False,
    more: Annotated[
        list[str] | None,
        typer.Option(
            "--attack",
            metavar="NAME",
            help="An attack by its name, such as one of your own (SEGKEY_METHODS).",
        ),
    ] = None,
    queries: Queries = 500,
    few: Few = 32,
    epochs: Epochs = 10,
    steps: Steps = 100,
    per_level: PerLevel = 3,
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
    """What the model is worth with the correct key, with plain images, with wrong keys, and to
    those who try harder.

    Without one of the attacks' names: the correct key, plain images and random wrong keys. Each
    attack says what its attacker is assumed to know, what it cost, and how much of what the key
    protects it won.
    """
    from segkey import attacks, reports
    from segkey.model import test_splits
    from segkey.system import devices, distributed

    asked = {
        "plain": plain,
        "known-pair": known_pair or pair,
        "ciphertext-only": ciphertext_only,
        "exhaustive": exhaustive,
        "fine-tune": fine_tune,
        "search": search,
        "search-unlabelled": search,
        "partial-key": nearby,
    }
    names = [*dict.fromkeys([*(name for name, wanted in asked.items() if wanted), *(more or [])])]
    if suite and names:
        raise typer.BadParameter("--suite runs every attack; leave the others out")
    percents = tuple(fine_tune or attacks.Budget.percents)
    budget = attacks.Budget(
        keys=wrong_keys,
        queries=queries,
        images=few,
        epochs=epochs,
        steps=steps,
        percents=percents,
        per_level=per_level,
    )
    where, opened = devices.choose(device), options.open_run(run)
    tested = test_splits.open_test_split(opened, shards, images, masks, split)
    loaded = (
        None
        if opened.header.method == "none"
        else options.load_key(key, passphrase_file, opened.header.key_id)
    )
    cipher = test_splits.cipher_of(opened, loaded, options.encode(ffx_password))
    console.left_out(getattr(tested, "problems", []))
    console.on_interrupt("what was finished is kept; run the same command again to go on")
    own = test_splits.is_own_test(tested, split, shards, images, limit)
    plan = attacks.Plan(tuple(names), suite, budget, seed, keep=own)
    with distributed.sole_writer(opened.path):
        target = attacks.Target.create(
            opened,
            tested,
            cipher,
            where,
            limit,
            splits=test_splits.attackers_splits(opened, shards),
            precise=precise,
            batch_size=batch_size or 32,
            keep=opened.path / "attack.partial.jsonl",
            progress=console.TerminalProgress(),
            pair=test_splits.read_pair(opened, *pair) if pair else None,
            key=loaded,
        )
        result = attacks.attack_and_keep(target, plan)
    if not own:
        console.note(
            "This is not kept with the run: segkey report shows results on all of its own test "
            "split."
        )
    if as_json:
        console.show_json(result.document)
    elif suite or names:
        console.show(reports.suite_table(result), reports.suite_verdict(result))
    else:
        console.show(reports.attack_table(result), reports.attack_sentence(result))
