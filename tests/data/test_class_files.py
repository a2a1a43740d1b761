"""Files of classes as people and tools write them: understood, or refused with the reason."""

import pytest

from segkey.data.labels import read_labels
from segkey.errors import SegkeyError


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfbg\r\ncat\r\ndog\r\n",
        b'"bg"\n"cat"\n"dog"\n',
        b"'bg',\n'cat',\n'dog'\n",
        b"bg=0\ncat=1\ndog=2\n",
        b"bg: 0\ncat: 1\ndog: 2\n",
        b"bg,0\ncat,1\ndog,2\n",
        b"bg 0\ncat 1\ndog 2\n",
        b"cat,1\nbg,0\ndog,2\n",
        b"class_name,class_color\nbg,0\ncat,1\ndog,2\n",
    ],
)
def test_names_are_names_without_what_stands_around_them(tmp_path, content):
    (tmp_path / "classes.txt").write_bytes(content)
    assert read_labels(tmp_path / "classes.txt").names == ("bg", "cat", "dog")


@pytest.mark.parametrize("names", ["lane 1\nlane 2\n", "type 1\ntype 2\nother 3\n", "T 5\nT 7\n"])
def test_numbers_at_the_end_of_names_may_be_part_of_them(tmp_path, names):
    (tmp_path / "classes.txt").write_text(names)
    assert read_labels(tmp_path / "classes.txt").names == tuple(names.split("\n")[:-1])


def test_a_list_in_yaml_is_refused(tmp_path):
    (tmp_path / "classes.txt").write_text("- bg\n- cat\n")
    with pytest.raises(SegkeyError, match="it is YAML"):
        read_labels(tmp_path / "classes.txt")


@pytest.mark.parametrize(
    "content, why",
    [
        ("bg\ncat\n".encode("utf-16"), "it is not UTF-8 text"),
        ("bg\nchèvre\n".encode("latin-1"), "it is not UTF-8 text"),
        (b"bg\ncat\ncat\n", "'cat' stands there twice"),
        (b"bg\n\ncat\n", "line 2 is empty"),
        (b"3\nbg\ncat\ndog\n", "its first line, 3, counts the others"),
    ],
)
def test_what_would_shift_classes_is_refused_with_the_reason(tmp_path, content, why):
    (tmp_path / "classes.txt").write_bytes(content)
    with pytest.raises(SegkeyError, match=why) as caught:
        read_labels(tmp_path / "classes.txt")
    assert caught.value.hint


@pytest.mark.parametrize("cell", ["250 50 83", '"250,50,83"', "#fa3253"])
def test_darwins_class_mapping_gives_colours(tmp_path, cell):
    file = tmp_path / "class_mapping.csv"
    file.write_text(f"class_name,class_color\n__background__,0 0 0\ncat,{cell}\n")
    labels = read_labels(file)
    assert labels.names == ("__background__", "cat")
    assert labels.colours == ((0, 0, 0, 0), (250, 50, 83, 1))


def test_a_name_without_a_colour_is_refused(tmp_path):
    (tmp_path / "class_mapping.csv").write_text("class_name,class_color\na,0 0 0\nb,1 2\n")
    with pytest.raises(SegkeyError, match="'b' has no colour of red, green and blue"):
        read_labels(tmp_path / "class_mapping.csv")
