"""Records: frozen dataclasses that are read from JSON, field by field, and written as JSON.

Each field states what it may hold (`segkey.system.validators`) and the names it has in JSON: the
present one, and those of earlier versions. Reading takes any of them, writing gives all. Unknown
fields are ignored, unless the record keeps them (`unknown_fields`).
"""

from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import Any, TypeVar

from segkey.system.validators import Kind, shown

T = TypeVar("T")


class Misfit(ValueError):
    """A field that is missing or cannot be; the message names it and says what was expected."""


@dataclass(frozen=True)
class Several:
    """A list of records; ``one`` is what messages call each of them."""

    record: type
    one: str
    most: int = 10_000


@dataclass(frozen=True)
class Maybe:
    """A record, or null."""

    record: type


def stated(
    kind: Kind | Several | Maybe | type,
    *names: str,
    default: Any = MISSING,
    factory: Any = MISSING,
    omitted: bool = False,
) -> Any:
    """A field of a record.

    Args:
        kind: what it may hold: a kind of value, another record, or several.
        names: in JSON, the present one first; the field's own name, if not given.
        default, factory: make the field optional, as in `dataclasses.field`.
        omitted: not written if None.
    """
    metadata = {"kind": kind, "names": names, "omitted": omitted}
    return field(default=default, default_factory=factory, metadata=metadata)


def unknown_fields() -> Any:
    """A field that keeps what JSON holds under other names, and is written with the record.

    So a file of a later version loses nothing when it is written again.
    """
    return field(default_factory=dict, metadata={"kind": None, "unknown": True})


def read(record: type[T], document: object, place: str = "") -> T:
    """Make a record from what JSON holds.

    Args:
        record: the dataclass.
        document: as JSON gives it; untrusted.
        place: where it stands in a larger document, for messages.

    Raises:
        Misfit: a field is missing or is not of its kind.
    """
    if not isinstance(document, dict):
        raise Misfit(f"'{place}' is {shown(document)}; expected an object")
    values, rest, keeper = {}, dict(document), None
    for each in fields(record):
        if each.metadata.get("unknown"):
            keeper = each.name
        if not each.metadata.get("kind"):
            continue
        names = each.metadata["names"] or (each.name,)
        rest = {name: value for name, value in rest.items() if name not in names}
        name = next((name for name in names if name in document), None)
        where = f"{place}.{name or names[0]}" if place else name or names[0]
        if name:
            values[each.name] = _value(each.metadata["kind"], document[name], where)
        elif each.default is MISSING and each.default_factory is MISSING:
            raise Misfit(f"'{where}' is missing; expected {_words(each.metadata['kind'])}")
    return record(**values | ({keeper: rest} if keeper else {}))


def complaint(record: Any) -> str:
    """The first field of a record that is not of its kind, in words, or nothing."""
    for each in fields(record):
        kind, value = each.metadata["kind"], getattr(record, each.name)
        if not kind.fits(value):
            return _not(kind, value, each.name)
    return ""


def _not(kind: "Kind | Several | Maybe | type", value: object, place: str) -> str:
    return f"'{place}' is {shown(value)}; expected {_words(kind)}"


def _value(kind: Kind | Several | Maybe | type, value: object, place: str) -> Any:
    if isinstance(kind, Maybe):
        return None if value is None else read(kind.record, value, place)
    if isinstance(kind, type):
        return read(kind, value, place)
    if isinstance(kind, Kind):
        if not kind.fits(value):
            raise Misfit(_not(kind, value, place))
        return tuple(value) if isinstance(value, list) else value
    if not isinstance(value, list) or len(value) > kind.most:
        raise Misfit(_not(kind, value, place))
    try:
        return tuple(read(kind.record, each) for each in value)
    except Misfit as misfit:
        raise Misfit(f"of {kind.one}, {misfit}") from None


def _words(kind: Kind | Several | Maybe | type) -> str:
    if isinstance(kind, Several):
        return f"a list of at most {kind.most} objects"
    return kind.words if isinstance(kind, Kind) else "an object"


def as_json(record: Any) -> dict:
    """What JSON holds of a record, under all names of its fields."""
    document, rest = {}, {}
    for each in fields(record):
        value = getattr(record, each.name)
        if each.metadata.get("unknown"):
            rest = value
        if not each.metadata.get("kind") or (value is None and each.metadata["omitted"]):
            continue
        for name in each.metadata["names"] or (each.name,):
            document[name] = _written(value)
    return document | rest


def _written(value: Any) -> Any:
    if is_dataclass(value):
        return as_json(value)
    return [_written(each) for each in value] if isinstance(value, tuple) else value
