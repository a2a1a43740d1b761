"""What is kept of a cell: its result, whether that counts, and whether its run can be used."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from segkey.errors import SegkeyError
from segkey.model import comparability
from segkey.model.results import Incorrect, MajorityClass, Plain, Score
from segkey.paper.claims import Finding
from segkey.paper.experiment_settings import FORMAT
from segkey.paper.grid import Cell
from segkey.system import json_records
from segkey.system.json_files import read_json
from segkey.system.json_records import Maybe, Misfit, Several, stated
from segkey.system.validators import (
    HEX_64,
    NAME,
    OBJECT,
    YES_OR_NO,
    many,
    named,
    number,
    or_none,
    text,
    whole,
)

_OBJECT = or_none(OBJECT)


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """All that is known of a finished cell: ``cell.json``.

    Attributes:
        method, block_size, seed: of the cell.
        locked: it is the baseline, locked after its training.
        run: the name of its run.
        device: that it was trained, and tested, on.
        versions: of packages, at its training.
        created: when its training began.
        seconds: of ``train`` and ``attack``; None for an attack that was measured in parts.
        epochs: that were trained.
        best: the epoch whose weights were kept, and its validation loss.
        weights_sha256: checksum of the weights.
        trained_on: fingerprint of the training images and masks.
        tested: what it was tested on, as results tell it.
        images: test images.
        conditions: of training and test, see `segkey.model.comparability`.
        correct: with the correct key.
        plain, incorrect: plain images, wrong keys; None for the baseline.
        majority_class: the baseline that needs no model.
        key_space_bits: of the method and block size.
        source: the JSON it was read from.
    """

    method: str = stated(NAME)
    block_size: int = stated(whole(1))
    seed: int = stated(whole(-(2**63)))
    locked: bool = stated(YES_OR_NO, default=False)
    run: str = stated(NAME)
    device: str = stated(text(2000))
    versions: dict[str, str] | None = stated(or_none(named(text(100), 50)), default=None)
    created: str | None = stated(or_none(text(100)), default=None)
    seconds: dict[str, float | None] = stated(named(or_none(number(0)), 10))
    epochs: int | None = stated(or_none(whole()), default=None)
    best: dict | None = stated(_OBJECT, default=None)
    weights_sha256: str | None = stated(or_none(HEX_64), default=None)
    trained_on: str | None = stated(or_none(text(1000)), default=None)
    tested: dict = stated(OBJECT, factory=dict)
    images: int = stated(whole(), default=0)
    conditions: dict = stated(OBJECT, factory=dict)
    correct: Score = stated(Score)
    plain: Plain | None = stated(Maybe(Plain), default=None)
    incorrect: Incorrect | None = stated(Maybe(Incorrect), default=None)
    majority_class: MajorityClass = stated(MajorityClass, "majority_class", "constant")
    key_space_bits: float | None = stated(or_none(number(0)), default=None)
    unknown: dict = json_records.unknown_fields()
    source: dict | None = field(default=None, repr=False, compare=False)

    @property
    def cell(self) -> Cell:
        """The place in the grid."""
        return Cell(self.method, self.block_size, self.seed, self.locked)

    @property
    def has_score(self) -> bool:
        """Whether anything could be measured on its test images."""
        return self.correct.mean_iou is not None

    @property
    def made_under(self) -> dict[str, object]:
        """Conditions of its training and test; cells of earlier versions tell a few of them."""
        versions = self.versions or {}
        early = {
            "epochs done": self.epochs,
            "test images": self.images or None,
            **{name: comparability.significant(versions.get(name)) for name in ("segkey", "torch")},
        }
        known = {name: value for name, value in early.items() if value is not None}
        return {"trained on": comparability.device_kind(self.device)} | known | self.conditions


@dataclass(frozen=True, kw_only=True)
class Results:
    """What an experiment measured: ``results.json``.

    Attributes:
        written: when.
        versions: of packages, then.
        settings: how cells were made.
        full_voc: whether the images are the paper's.
        diverged: cells whose training did.
        left_out: cells that cannot be used, and why.
        cells: all finished ones, by method, block size and seed.
        findings: the paper's, see `segkey.paper.findings.examine`.
    """

    settings: dict = stated(OBJECT)
    full_voc: bool = stated(YES_OR_NO)
    cells: tuple[CellResult, ...] = stated(Several(CellResult, "a cell"))
    findings: tuple[Finding, ...] = stated(Several(Finding, "a finding"), default=())
    diverged: tuple[str, ...] = stated(many(NAME, 10_000), default=())
    left_out: dict[str, str] = stated(named(text(10_000), 10_000), factory=dict)
    written: str = stated(text(100), default="")
    versions: dict[str, str] = stated(named(text(100), 50), factory=dict)

    @property
    def document(self) -> dict:
        """The JSON."""
        return {
            "format": FORMAT,
            "written": self.written,
            "versions": self.versions,
            "settings": self.settings,
            "full_voc": self.full_voc,
            "devices": list(dict.fromkeys(cell.device for cell in self.cells)),
            "seconds": sum(sum(filter(None, cell.seconds.values())) for cell in self.cells),
            "diverged": list(self.diverged),
            "left_out": self.left_out,
            "cells": [json_records.as_json(cell) for cell in self.cells],
            "findings": [finding.document for finding in self.findings],
        }


def read_cell(file: Path) -> CellResult:
    """The result of a cell.

    Raises:
        SegkeyError: it is damaged; the message names the field.
    """
    document = read_json(file, "the result of a cell")
    told = {name: value for name, value in document.items() if name != "hmac"}
    try:
        return replace(json_records.read(CellResult, told), source=document)
    except Misfit as misfit:
        raise SegkeyError(
            f"{file} is damaged: {misfit}",
            "restore it from a backup, or remove it to measure the cell again",
        ) from None


def read_results(file: Path) -> Results:
    """What an experiment wrote to its ``results.json``; unauthenticated.

    Raises:
        SegkeyError: it is damaged; the message names the field.
    """
    try:
        return json_records.read(Results, read_json(file, "the results of an experiment"))
    except Misfit as misfit:
        raise SegkeyError(
            f"{file} is damaged: {misfit}", "run 'segkey reproduce' again: it writes it anew"
        ) from None
