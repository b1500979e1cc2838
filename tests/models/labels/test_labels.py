from pathlib import Path

import pytest

from camcli.errors import ConfigError, UnknownName, UsageError
from camcli.models.labels import choose_labels, find_category, find_timm_labels, label_name
from camcli.models.labels.class_maps import read_class_map

ANIMALS = ("tabby, tabby cat", "lionfish", "lion, king of beasts", "crane", "ox", "crane", "")


def class_map(folder: Path, text: str) -> Path:
    file = folder / "classes.txt"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("4", 4),
        (" 0 ", 0),
        ("tabby", 0),
        ("Tabby_Cat", 0),
        ("tabby, tabby cat", 0),
        ("TAB", 0),
        ("lion", 2),
        ("lionf", 1),
        ("king of", 2),
        ("ox", 4),
    ],
)
def test_a_category_is_found_by_index_name_synonym_or_prefix(text: str, index: int) -> None:
    assert find_category(text, ANIMALS, len(ANIMALS)) == index


def test_a_single_logit_is_named_no_and_yes(tmp_path: Path) -> None:
    assert choose_labels(None, 1, None) == (("no", "yes"), ())
    assert choose_labels(None, 1, class_map(tmp_path, "dog\ncat\n"))[0] == ("dog", "cat")
    with pytest.raises(ConfigError, match="names 1 classes, and the model has 2"):
        choose_labels(None, 1, class_map(tmp_path, "cat\n"))


def test_a_word_of_a_name_comes_before_the_beginning_of_a_longer_word() -> None:
    labels = ("catamaran", "tabby, tabby cat", "tiger cat", "espresso maker")
    with pytest.raises(UsageError, match="1 'tabby, tabby cat', 2 'tiger cat': give the index"):
        find_category("cat", labels, 4)
    assert find_category("maker", labels, 4) == 3
    assert find_category("catam", labels, 4) == 0


def test_an_unknown_category_offers_the_closest() -> None:
    with pytest.raises(UnknownName, match="'lionfish'"):
        find_category("lyonfish", ANIMALS, len(ANIMALS))


def test_a_word_with_several_meanings_lists_them() -> None:
    with pytest.raises(UsageError, match=r"3 'crane', 5 'crane': give the index"):
        find_category("crane", ANIMALS, len(ANIMALS))


@pytest.mark.parametrize("index", ["7", "-1", "1000"])
def test_an_index_out_of_range_says_the_range(index: str) -> None:
    with pytest.raises(UsageError, match=rf"no category {index}: .* 0 to 6"):
        find_category(index, ANIMALS, len(ANIMALS))


def test_without_names_only_an_index_means_anything() -> None:
    assert find_category("2", None, 3) == 2
    with pytest.raises(UnknownName, match=r"0 to 2.*--class-map"):
        find_category("cat", None, 3)


def test_an_empty_word_is_no_prefix_of_everything() -> None:
    with pytest.raises(UnknownName):
        find_category(" ", ("only",), 1)


def test_classes_without_a_name_are_counted() -> None:
    assert label_name(ANIMALS, 2) == "lion, king of beasts"
    assert label_name(ANIMALS, 6) == "class 6"
    assert label_name(None, 3) == "class 3"


def test_own_labels_are_left_out_where_their_number_does_not_fit() -> None:
    assert choose_labels(ANIMALS, len(ANIMALS), None)[0] == ANIMALS
    assert choose_labels(ANIMALS, 3, None)[0] is None


def test_a_class_map_of_lines(tmp_path: Path) -> None:
    file = class_map(tmp_path, "\ufeffcat, tabby\n dog \r\nox\n\n")
    assert read_class_map(file, 3)[0] == ("cat, tabby", "dog", "ox")
    assert choose_labels(("a", "b", "c"), 3, file)[0] == ("cat, tabby", "dog", "ox")


def test_line_ends_in_a_name_are_spaces(tmp_path: Path) -> None:
    lines = class_map(tmp_path, "a\u2028b\nc\x85d\r\n")
    assert choose_labels(None, 2, lines)[0] == ("a b", "c d")
    names = tmp_path / "names.json"
    names.write_text('["tabby\\ncat", "dog"]')
    assert choose_labels(None, 2, names)[0] == ("tabby cat", "dog")
    assert choose_labels(("a\nb", "c"), 2, None)[0] == ("a b", "c")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('0,"tabby\ncat"\n1,dog\n2,fox\n', 1),
        ('index,name\r\n0,"tabby"\r\n1,"a ""dog""\r\nor two"\r\n2,fox\r\n', 3),
        ('"tabby\ncat";0\ndog;1\nfox;2\n', 1),
        ('dog\n"tabby\ncat"\n', 2),
    ],
)
def test_a_quoted_name_that_goes_on_in_the_next_line(tmp_path: Path, text: str, line: int) -> None:
    with pytest.raises(ConfigError, match=f", line {line} begins a name in double quotes"):
        read_class_map(class_map(tmp_path, text), 3)


def test_a_quote_that_is_no_fields_ends_no_line(tmp_path: Path) -> None:
    file = class_map(tmp_path, '3" disk\n5" disk\nthe "old" one\n"new" ones\n')
    assert read_class_map(file, 4)[0] == ('3" disk', '5" disk', 'the "old" one', '"new" ones')


def test_a_class_map_with_indices_may_have_gaps(tmp_path: Path) -> None:
    file = class_map(tmp_path, '2,"cat, tabby"\n\n0, dog,hound\n')
    assert read_class_map(file, 4)[0] == ("dog, hound", "", "cat, tabby", "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("a\n\nb\n", "line 2 is empty"),
        ("a\nb\n", "names 2 classes, and the model has 3"),
        ("0,a\nb\n", "line 2 is not `index,name`: 'b'"),
        ("0,a\n1,\n", "line 2 is not"),
        ("0,a\n3,b\n", r"line 2: .* 0 to 2, not 3"),
        ("0,a\n0,b\n", "line 2 names class 0 a second time"),
    ],
)
def test_mistakes_in_a_class_map_are_named_by_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_class_map(class_map(tmp_path, text), 3)


def test_a_class_map_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.txt"):
        read_class_map(tmp_path / "gone.txt", 3)
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(ConfigError, match="no UTF-8"):
        read_class_map(tmp_path / "bytes.txt", 3)


def test_timm_labels_come_from_the_configuration_or_the_imagenet_set() -> None:
    named = {"label_names": ["n1", "n2"], "label_descriptions": {"n2": "dog"}}
    assert find_timm_labels(named, 2) == ("n1", "dog")
    assert find_timm_labels({"label_names": {"1": "dog"}}, 2) == ("", "dog")
    imagenet = find_timm_labels({}, 1000)
    assert imagenet is not None
    assert (imagenet[0], imagenet[281], len(imagenet)) == (
        "tench, Tinca tinca",
        "tabby, tabby cat",
        1000,
    )
    assert find_timm_labels({}, 512) is None


def test_absurd_class_maps_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    for text, words in {
        "0,a\n" + "9" * 5000 + ",b": "line 2 is not",
        "0,a\n1," + "x" * 200_000: "is no CSV: field larger",
    }.items():
        file.write_text(text)
        with pytest.raises(ConfigError, match=words):
            read_class_map(file, 2)


def test_an_index_of_thousands_of_digits_is_no_class() -> None:
    with pytest.raises(UnknownName):
        find_category("9" * 5000, ("a", "b"), 2)
