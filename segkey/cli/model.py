"""``segkey train``, ``segkey evaluate`` and ``segkey predict``."""

from pathlib import Path
from typing import Annotated

import typer

from segkey.cli import app, console, options
from segkey.system.shell import word


@app.command(
    epilog="Example: segkey train                                     (the paper's recipe, from "
    "COCO weights)\n\n"
    "Example: segkey train --recipe scratch --backbone resnet14 --epochs 30\n\n"
    "Example: segkey train plain/ --key keys/segkey.key --method np -M 4\n\n"
    "Example: segkey train --resume",
    rich_help_panel="Model",
)
def train(
    shards: Annotated[
        list[Path] | None,
        typer.Argument(help="Folders of shards, or shard files; shards/ if not given."),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="paper (the default, from COCO weights) or scratch (from random weights)."
        ),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="Where to start: coco, imagenet, none, or a file.")
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="resnet50 (the default), resnet101, or resnet14 for laptops.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Times every image is seen.")] = None,
    batch_size: options.BatchSize = None,
    lr: Annotated[float | None, typer.Option(help="The highest learning rate.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="sgd or adamw.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Weight decay.")] = None,
    momentum: Annotated[float | None, typer.Option(help="Momentum of SGD.")] = None,
    lr_min: Annotated[float | None, typer.Option(help="The lowest learning rate.")] = None,
    restart: Annotated[
        int | None,
        typer.Option(
            min=0, help="Epochs of each cosine of the learning rate; 0 for one over all epochs."
        ),
    ] = None,
    crop_scale: Annotated[
        float | None,
        typer.Option(
            help="Smallest area of a random crop, where plain shards are augmented on the device."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the run; from method and block size, if not given.")
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder of runs.")] = options.DEFAULT_RUNS,
    key: Annotated[
        Path | None,
        typer.Option(
            "--key",
            "-k",
            help="Encrypt plain shards on the device with this key, with --method and -M.",
            autocompletion=options.complete_keys,
        ),
    ] = None,
    passphrase_file: options.PassphraseFile = None,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            "-m",
            help="With --key: shf, np or ffx.",
            autocompletion=options.complete_methods,
        ),
    ] = None,
    block_size: Annotated[
        int | None,
        typer.Option("--block-size", "-M", min=1, max=4096, help="With --key: side of a block."),
    ] = None,
    ffx_password: options.FFXPassword = None,
    seed: options.SeedIfGiven = None,
    device: options.Device = "auto",
    precise: options.Precise = False,
    compiled: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Compile the network first: a minute that long trainings on a GPU may earn back.",
        ),
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with a run that was cut off (--name, or the newest), as it was begun.",
        ),
    ] = False,
) -> None:
    """Train a segmentation network on shards, and keep it as a run.

    Plain shards are augmented on the device, anew in every epoch, with --key and without it. Shards
    made with --views (as encrypted ones are) hold fixed augmented views, and are trained on as they
    are; the paper draws new crops.
    """
    from segkey import reports
    from segkey import shards as shard_files
    from segkey.crypto import ciphers
    from segkey.model import recipes, test_splits, training
    from segkey.model.runs import Run
    from segkey.system import devices

    progress, where = console.TerminalProgress(), devices.choose(device)
    where_to = (f" --name {word(name)}" if name else "") + (
        f" --runs {word(runs)}" if runs != options.DEFAULT_RUNS else ""
    )
    console.on_interrupt(f"go on with: segkey train --resume{where_to}")
    values = {
        "weights": weights,
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "lr_min": lr_min,
        "restart": restart,
        "optimizer": optimizer,
        "momentum": momentum,
        "weight_decay": weight_decay,
        "crop_scale": crop_scale,
    }
    if resume:
        begun_with = (recipe, *values.values(), backbone, method, block_size, seed)
        if precise or compiled or any(value is not None for value in begun_with):
            raise typer.BadParameter(
                "--resume goes on as the run was begun; leave out the other training options"
            )
        run = Run.open(runs / (name or "latest"))
        cipher = key_id = None
        if run.config["data"]["on_the_fly"] and run.header.method != "none":
            loaded = options.load_key(key, passphrase_file, run.config["data"]["key_id"])
            cipher, key_id = (
                test_splits.cipher_of(run, loaded, options.encode(ffx_password)),
                loaded.id,
            )
        splits = shard_files.open_splits(shards or test_splits.own_shards(run), ("train", "val"))
        run = training.resume(
            run, splits, device=where, cipher=cipher, key_id=key_id or "", progress=progress
        )
    else:
        chosen = recipes.recipe(recipe or "paper", **values)
        loaded = cipher = None
        if key:
            if method is None or block_size is None:
                raise typer.BadParameter("--key also needs --method and -M")
            loaded = options.load_key(key, passphrase_file)
            cipher = ciphers.from_key(
                method, loaded, block_size, password=options.encode(ffx_password)
            )
        elif method is not None or block_size is not None:
            raise typer.BadParameter(
                "--method and -M belong to --key; encrypted shards need none of them"
            )
        paths = shards or [options.DEFAULT_SHARDS]
        splits = shard_files.open_splits(paths, ("train", "val"))
        if crop_scale is not None and not training.on_the_fly(splits, cipher):
            console.warn(
                "--crop-scale has no effect: the crops of these shards were made with them"
            )
        run = training.train(
            splits,
            runs,
            chosen,
            shards=paths,
            device=where,
            name=name,
            backbone=backbone or "resnet50",
            cipher=cipher,
            key_id=loaded.id if loaded else "",
            precise=precise,
            compiled=compiled,
            seed=seed or 0,
            progress=progress,
        )
    console.show(reports.describe_training(run))


@app.command(
    epilog="Example: segkey evaluate\n\nExample: segkey evaluate runs/np-m4 --images photos/ "
    "--masks labels/",
    rich_help_panel="Model",
)
def evaluate(
    run: options.RunFolder = options.LATEST,
    shards: options.TestShards = None,
    images: options.TestImages = None,
    masks: options.TestMasks = None,
    split: options.TestSplit = "test",
    key: options.KeyFile = None,
    passphrase_file: options.PassphraseFile = None,
    ffx_password: options.KnownFFXPassword = None,
    limit: options.Limit = None,
    batch_size: options.BatchSize = None,
    device: options.Device = "auto",
    precise: options.Precise = False,
    as_json: options.AsJson = False,
) -> None:
    """Mean and per-class IoU of a run on test images, with the correct key."""
    from segkey import reports
    from segkey.model import evaluation, test_splits
    from segkey.system import devices

    where, opened = devices.choose(device), options.open_run(run)
    tested = test_splits.open_test_split(opened, shards, images, masks, split)
    loaded = cipher = None
    # Images encrypted as the run was trained need no key; one that is given must be the right one
    # all the same.
    if opened.header.method != "none" and (tested.header.method == "none" or key):
        loaded = options.load_key(key, passphrase_file, opened.header.key_id)
        cipher = test_splits.cipher_of(opened, loaded, options.encode(ffx_password))
    console.left_out(getattr(tested, "problems", []))
    result = evaluation.evaluate(
        opened, tested, cipher, where, limit, batch_size or 32, precise, console.TerminalProgress()
    )
    if test_splits.is_own_test(tested, split, shards, images, limit):
        opened.keep(result, loaded)
    else:
        console.note(
            "This is not kept with the run: segkey report shows results on all of its own test "
            "split."
        )
    if as_json:
        console.show_json(result.document)
    else:
        console.show(reports.evaluation_table(result))


@app.command(
    epilog="Example: segkey predict runs/latest photos/\n\n"
    "Example: segkey predict runs/np-m4 photos/ --key keys/customer.key --overlay --out masks/",
    rich_help_panel="Model",
)
def predict(
    run: options.RunFolder,
    images: Annotated[
        Path,
        typer.Argument(
            help="An image, a folder of images, or a text file that names an image a line."
        ),
    ],
    key: options.KeyFile = None,
    passphrase_file: options.PassphraseFile = None,
    ffx_password: options.KnownFFXPassword = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the masks.")] = Path(
        "predicted"
    ),
    overlay: Annotated[
        bool,
        typer.Option(
            "--overlay", help="Also write each image under its classes' colours, with a legend."
        ),
    ] = False,
    batch_size: options.BatchSize = None,
    device: options.Device = "auto",
    precise: options.Precise = False,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, help="Threads that read and write; as many as there are cores, if not given."
        ),
    ] = None,
    strict: options.Strict = False,
    force: options.Force = False,
    as_json: options.AsJson = False,
) -> None:
    """Which class each pixel of some images belongs to, for whoever has the model and its key:
    palette PNG masks."""
    from segkey import reports
    from segkey.data import sources
    from segkey.data.items import ALL
    from segkey.model import prediction

    source = sources.find_pictures(images)
    for line in source.notes:
        console.note(line)
    model = prediction.load(options.open_run(run).path, device, precise)
    header = model.run.header
    loaded = (
        None if header.method == "none" else options.load_key(key, passphrase_file, header.key_id)
    )
    cipher = model.cipher(loaded, options.encode(ffx_password))
    result = prediction.predict_files(
        model,
        cipher,
        source.splits[ALL],
        out,
        overlay,
        strict,
        force,
        batch_size or 32,
        workers,
        console.TerminalProgress(),
    )
    console.left_out(result.problems)
    if result.animated:
        console.warn(
            f"{len(result.animated)} animated, only the first picture used: "
            f"{', '.join(result.animated[:5])}"
        )
    if as_json:
        console.show_json(result.summary(model.run.name))
    else:
        console.show(
            reports.prediction_table(result), reports.describe_prediction(result, out, overlay)
        )
