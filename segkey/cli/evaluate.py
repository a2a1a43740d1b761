"""Command ``segkey evaluate``: measure a run on test images with the correct key."""

from segkey.cli import app, console, given_inputs, options, paths


@app.command(
    epilog="Example: segkey evaluate\n\nExample: segkey evaluate runs/np-m4 --images photos/ "
    "--masks labels/",
    rich_help_panel="Model",
)
def evaluate(
    *,
    run: options.RunFolder = paths.LATEST,
    data: options.TestData,
    secret: options.RunKeyGiven,
    machine: options.Machine,
    as_json: options.AsJson = False,
) -> None:
    """Measure mean and per-class IoU of a run on test images with the correct key."""
    from segkey import reports
    from segkey.model import evaluation
    from segkey.system import devices

    where, opened = devices.choose(machine.device), given_inputs.open_run(run)
    loaded = given_inputs.unlock(opened, secret)
    tested, own = given_inputs.open_tested(opened, data)
    cipher = None
    # Images encrypted as the run was trained need no key; one that is given must be the right one
    # all the same.
    if opened.header.method != "none" and (tested.header.method == "none" or secret.key):
        loaded = loaded or given_inputs.load_key_for(opened.header, secret)
        cipher = opened.cipher(loaded, given_inputs.encode(secret.ffx_password))
    else:
        loaded = None
    result = evaluation.evaluate(
        opened,
        tested,
        cipher,
        where,
        data.limit,
        machine.batch_size or 32,
        machine.precise,
        console.TerminalProgress(),
    )
    if own:
        opened.keep(result, loaded)
    else:
        console.not_kept()
    if as_json:
        console.show_json(result.document)
    else:
        console.show(reports.evaluation_table(result))
