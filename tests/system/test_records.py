"""Records from JSON of any origin: a damaged field is named with what was expected."""

import json
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segkey.system import json_records, validators
from segkey.system.json_records import Misfit, Several, stated


@dataclass(frozen=True)
class Inner:
    score: float = stated(validators.number(0, 1))


@dataclass(frozen=True)
class Outer:
    name: str = stated(validators.text(10, 1))
    count: int = stated(validators.whole(1), "images", "count")
    inner: Inner = stated(Inner)
    several: tuple[Inner, ...] = stated(Several(Inner, "an attack", most=2), default=())
    note: str | None = stated(validators.text(), default=None, omitted=True)


DOCUMENT = {"name": "a", "images": 3, "inner": {"score": 0.5}, "several": [{"score": 1.0}]}


def test_what_was_written_is_read_again():
    record = json_records.read(Outer, DOCUMENT)
    assert record == Outer("a", 3, Inner(0.5), (Inner(1.0),))
    assert json_records.read(Outer, json.loads(json.dumps(json_records.as_json(record)))) == record


def test_names_of_earlier_versions_are_read_and_stand_beside_the_present_one():
    earlier = {name: value for name, value in DOCUMENT.items() if name != "images"} | {"count": 7}
    record = json_records.read(Outer, earlier)
    assert record.count == 7
    written = json_records.as_json(record)
    assert written["images"] == written["count"] == 7


def test_unknown_fields_are_ignored_and_empty_ones_left_out():
    record = json_records.read(Outer, DOCUMENT | {"of a later version": [1, 2]})
    assert record == json_records.read(Outer, DOCUMENT)
    assert "note" not in json_records.as_json(record)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": ""}, "'name' is ''; expected printable text of 1 to 10 characters"),
        ({"name": "\x1b[31m"}, "expected printable text"),
        ({"images": 0}, "'images' is 0; expected a whole number from 1 on"),
        ({"images": True}, "'images' is True; expected a whole number"),
        ({"images": 10**400}, "something very large|'images' is 1000"),
        ({"inner": 5}, "'inner' is 5; expected an object"),
        ({"inner": {}}, "'inner.score' is missing; expected a number from 0 to 1"),
        ({"inner": {"score": 2}}, "'inner.score' is 2; expected a number from 0 to 1"),
        ({"several": {}}, "'several' is {}; expected a list of at most 2 objects"),
        ({"several": [{"score": 1}] * 3}, "expected a list of at most 2 objects"),
        ({"several": [{"score": "x"}]}, "of an attack, 'score' is 'x'"),
    ],
)
def test_a_damaged_field_is_named_with_what_was_expected(change, says):
    with pytest.raises(Misfit, match=says) as caught:
        json_records.read(Outer, DOCUMENT | change)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("document", [None, [], "text", 5, True])
def test_what_is_no_object_is_no_record(document):
    with pytest.raises(Misfit, match="expected an object"):
        json_records.read(Outer, document, "place")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)


@given(JSON, st.sampled_from(sorted(DOCUMENT)))
def test_any_value_is_read_or_refused_in_words(value, name):
    try:
        json_records.read(Outer, DOCUMENT | {name: value})
    except Misfit as misfit:
        assert name in str(misfit) or "an attack" in str(misfit)
        assert "expected" in str(misfit)


def test_a_record_that_was_not_read_is_complained_of_in_the_same_words():
    assert json_records.complaint(Inner(0.5)) == ""
    assert json_records.complaint(Inner(2.0)) == "'score' is 2.0; expected a number from 0 to 1"
    with pytest.raises(Misfit, match="'score' is 2.0; expected a number from 0 to 1"):
        json_records.read(Inner, {"score": 2.0})
