"""Command ``segkey attack``: measure a model's accuracy without its key."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from segkey.cli import app, console, given_inputs, options, paths
from segkey.cli.options import flag, option

_ATTACKS = "Attacks"


def _attack(name: str, help: str):
    """The option that asks for an attack."""
    return flag(name, help, _ATTACKS)


def _spend(name: str, metavar: str, help: str, **settings):
    """An option of the attacker's budget."""
    return option(name, metavar, help, "The attacker's budget", **settings)


@dataclass(frozen=True)
class Chosen:
    """The attacks that were asked for."""

    suite: Annotated[bool, _attack("--suite", "Run every attack that fits the run.")] = False
    plain: Annotated[bool, _attack("--plain", "Feed plain images, scaled in two ways.")] = False
    search: Annotated[
        bool, _attack("--search", "Improve wrong keys step by step, with labels and without.")
    ] = False
    exhaustive: Annotated[bool, _attack("--exhaustive", "Try every key, if they are few.")] = False
    fine_tune: Annotated[
        list[float] | None,
        option(
            "--fine-tune",
            "PERCENT",
            "Continue training with PERCENT of the plain training images.",
            _ATTACKS,
        ),
    ] = None
    statistics: Annotated[
        bool,
        _attack(
            "--statistics",
            "Compute the key from what batch normalisation stores and unlabelled images.",
        ),
    ] = False
    ciphertext_only: Annotated[
        bool, _attack("--ciphertext-only", "Estimate the key from encrypted images alone.")
    ] = False
    known_pair: Annotated[
        bool,
        _attack(
            "--known-pair", "Solve for the key from plain images and their encrypted versions."
        ),
    ] = False
    pair: Annotated[
        tuple[Path, Path] | None,
        option(
            "--pair",
            "IMAGE SHARD",
            "Solve for the key from this plain image and the shard that holds it encrypted.",
            _ATTACKS,
        ),
    ] = None
    partial_key: Annotated[
        bool, _attack("--partial-key", "Try keys that share 0, 10, … 100 % of the correct one.")
    ] = False
    more: Annotated[
        list[str] | None,
        option(
            "--attack",
            "NAME",
            "Run the attack of this name, such as one of your own (SEGKEY_PLUGINS).",
            _ATTACKS,
        ),
    ] = None

    def names(self) -> list[str]:
        """Names of the attacks in the registry, each once; empty if none was asked for."""
        asked = {
            "plain": self.plain,
            "statistics": self.statistics,
            "known-pair": self.known_pair or self.pair,
            "ciphertext-only": self.ciphertext_only,
            "exhaustive": self.exhaustive,
            "fine-tune": self.fine_tune,
            "search": self.search,
            "search-unlabelled": self.search,
            "partial-key": self.partial_key,
        }
        named = [name for name, wanted in asked.items() if wanted]
        if self.suite and (named or self.more):
            raise typer.BadParameter("--suite runs every attack; leave the others out")
        return [*dict.fromkeys([*named, *(self.more or [])])]


@dataclass(frozen=True)
class Spending:
    """What attackers may spend: `segkey.attacks.Budget` as options."""

    wrong_keys: Annotated[int, _spend("--wrong-keys", "N", "Try N random keys.", min=1)] = 100
    queries: Annotated[int, _spend("--queries", "N", "Try N keys per search.", min=10)] = 500
    attacker_images: Annotated[
        int, _spend("--attacker-images", "N", "Give the attacker N images.", min=2)
    ] = 32
    photographs: Annotated[
        Path | None,
        _spend(
            "--photographs",
            "PATH",
            "Give the attacker these images, of any kind and without masks, for --statistics.",
        ),
    ] = None
    epochs: Annotated[int, _spend("--epochs", "N", "Fine-tune for N epochs.", min=1)] = 10
    steps: Annotated[
        int, _spend("--steps", "N", "Fine-tune for at least N steps (batches of 16 images).", min=1)
    ] = 100
    public_weights: Annotated[
        Path | None,
        _spend("--public-weights", "FILE", "Fine-tune from these weights, too, for comparison."),
    ] = None
    per_level: Annotated[
        int,
        _spend(
            "--per-level",
            "N",
            "Try N keys per share of the correct key, with --partial-key.",
            min=1,
        ),
    ] = 3

    def photographs_for(self, run) -> dict:
        """The attacker's own images as a split, by its name, if there are any."""
        from segkey.model import evaluation_splits

        if not self.photographs:
            return {}
        split = evaluation_splits.photographs(run, self.photographs, self.attacker_images)
        console.left_out(split.problems)
        return {evaluation_splits.PHOTOGRAPHS: split}

    def budget(self, percents: list[float] | None):
        """The `segkey.attacks.Budget`; ``percents`` of the training images, if they were given."""
        from segkey import attacks

        return attacks.Budget(
            keys=self.wrong_keys,
            queries=self.queries,
            images=self.attacker_images,
            epochs=self.epochs,
            steps=self.steps,
            percents=tuple(percents or attacks.Budget.percents),
            per_level=self.per_level,
            public_weights=self.public_weights and str(self.public_weights),
        )


@app.command(
    epilog="Example: segkey attack --wrong-keys 100\n\n"
    "Example: segkey attack runs/np-m4 --wrong-keys 20 --limit 100\n\n"
    "Example: segkey attack runs/np-m2 --suite\n\n"
    "Example: segkey attack --exhaustive --search --queries 1000\n\n"
    "Example: segkey attack --pair photo.jpg shards/test.h5",
    rich_help_panel="Security",
    context_settings=options.renamed(few="attacker-images", nearby="partial-key"),
)
def attack(
    *,
    run: options.RunFolder = paths.LATEST,
    chosen: Chosen,
    spending: Spending,
    data: options.TestData,
    secret: options.RunKeyGiven,
    machine: options.Machine,
    seed: options.Seed = 0,
    as_json: options.AsJson = False,
) -> None:
    """Measure the model's accuracy without its key: plain images, wrong keys, stronger attacks.

    Without an attack's option, only the correct key, plain images and random wrong keys are
    scored. Each further attack prints the attacker's knowledge, the required access, the cost,
    and the share of the protected accuracy that it recovered.
    """
    from segkey import attacks
    from segkey.model import evaluation_splits
    from segkey.system import devices, distributed

    suite, names = chosen.suite, chosen.names()
    budget = spending.budget(chosen.fine_tune)
    where, opened = devices.choose(machine.device), given_inputs.open_run(run)
    loaded = given_inputs.unlock_and_load_key(opened, secret)
    tested, own = given_inputs.open_tested(opened, data)
    cipher = opened.cipher(loaded, given_inputs.encode(secret.ffx_password))
    kept = "what was finished is kept; run the same command again to go on"
    console.on_interrupt(
        kept if loaded else "nothing is kept of an attack on a model without a key"
    )
    plan = attacks.Plan(tuple(names), suite, budget, seed, keep=own)
    with distributed.sole_writer(opened.path):
        target = attacks.Target.create(
            opened,
            tested,
            cipher,
            where,
            data.limit,
            splits=evaluation_splits.attackers_splits(opened, data.shards)
            | spending.photographs_for(opened),
            precise=machine.precise,
            batch_size=machine.batch_size or 32,
            keep=opened.path / "attack.partial.jsonl",
            progress=console.TerminalProgress(),
            pair=evaluation_splits.read_pair(opened, *chosen.pair) if chosen.pair else None,
            key=loaded,
        )
        result = attacks.attack_and_keep(target, plan)
    if not own:
        console.not_kept()
    if as_json:
        console.show_json(result.document)
    else:
        _show(result, opened)


def _show(result, run) -> None:
    """The table of what was tried, and what it means."""
    from segkey import reports
    from segkey.model.results import Suite

    if isinstance(result, Suite):
        verdict = reports.suite_verdict(result, run.is_sealed, run.is_locked)
        console.show(reports.suite_table(result), verdict)
    else:
        console.show(reports.attack_table(result), reports.attack_sentence(result))
