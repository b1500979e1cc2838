import csv
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from camcli.errors import ConfigError
from camcli.models.labels.class_maps import read_class_map

PETS = ("cat", "dog", "fish")


def read(folder: Path, text: str, classes: int = 3, name: str = "classes.txt") -> tuple[str, ...]:
    return read_both(folder, text, classes, name)[0]


def read_both(
    folder: Path, text: str, classes: int = 3, name: str = "classes.txt"
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    file = folder / name
    file.write_bytes(text.encode())
    return read_class_map(file, classes)


@pytest.mark.parametrize(
    "text",
    [
        "dog,1\ncat,0\nfish,2\n",
        "1,dog\n0,cat\n2,fish\n",
        "1 dog\n0 cat\n2 fish\n",
        "dog 1\ncat 0\nfish 2\n",
        "dog\t1\ncat\t0\nfish\t2\n",
        "1;dog\r\n0;cat\r\n2;fish\r\n",
        "1: dog\n0: cat\n2: fish\n",
        "1. dog\n0. cat\n2. fish\n",
        "1) dog\n0) cat\n2) fish\n",
        "1 -> dog\n0 -> cat\n2 -> fish\n",
        "dog - 1\ncat - 0\nfish - 2\n",
        "'1','dog'\n'0','cat'\n'2','fish'\n",
        "names:\n  1: dog\n  0: cat\n  2: fish\n",
        "dog = 1\ncat = 0\nfish = 2\n",
        "\ufeffindex,name\n1,dog\n0,cat\n2,fish\n",
        "Class,Index\ndog,1\ncat,0\nfish,2\n",
        "index name\n1 dog\n0 cat\n2 fish\n",
        "Klasse,Nummer\ndog,1\ncat,0\nfish,2\n",
        "class id,class name,count\n1,dog,7\n0,cat,8\n2,fish,9\n",
        "wnid,index,name\nn02,1,dog\nn01,0,cat\nn03,2,fish\n",
        "n00000002,1,dog\nn00000001,0,cat\nn00000003,2,fish\n",
        "n00000002 1 dog\nn00000001 0 cat\nn00000003 2 fish\n",
        "1,n00000002,dog\n0,n00000001,cat\n2,n00000003,fish\n",
        "\n1,dog\n\n0,cat\n2,fish\n\n",
        '{"dog": 1, "cat": 0, "fish": 2}',
        '{"1": "dog", "0": "cat", "2": "fish"}',
        "{1: 'dog',\n 0: 'cat',\n 2: 'fish'}",
        '{"1": ["n02", "dog"], "0": ["n01", "cat"], "2": ["n03", "fish"]}',
        '[[1, "dog"], [0, "cat"], [2, "fish"]]',
        '[["dog", 1], ["cat", 0], ["fish", 2]]',
        '[{"id": 1, "name": "dog"}, {"id": 0, "name": "cat"}, {"id": 2, "name": "fish"}]',
        '{"config": {"id2label": {"1": "dog", "0": "cat", "2": "fish"}}, "lr": 1}',
        '{"label2id": {"dog": 1, "cat": 0, "fish": 2}, "id2label": null}',
        '{"info": {}, "categories": [{"id": 1, "name": "dog"}, {"id": 0, "name": "cat"},'
        ' {"id": 2, "name": "fish"}]}',
    ],
)
def test_indices_count_whatever_the_form_and_the_order_of_the_lines(
    tmp_path: Path, text: str
) -> None:
    labels, notes = read_both(tmp_path, text)
    assert labels == PETS
    assert ["indices count" in note for note in notes] == [True]


@pytest.mark.parametrize(
    "text",
    [
        "cat\ndog\nfish\n",
        "\ufeffcat\r\ndog\r\nfish\r\n",
        "name\ncat\ndog\nfish\n",
        "- cat\n- dog\n- fish\n",
        '"cat"\n"dog"\n"fish"\n',
        "0,cat\n1,dog\n2,fish\n",
        "0 cat\n1 dog\n2 fish",
        '["cat", "dog", "fish"]',
        '{"names": ["cat", "dog", "fish"]}',
        "n00000001 cat\nn00000002 dog\nn00000003 fish\n",
        '{"label_names": ["n1", "n2", "n3"],'
        ' "label_descriptions": {"n1": "cat", "n2": "dog", "n3": "fish"}}',
    ],
)
def test_what_is_in_order_is_read_without_a_word(tmp_path: Path, text: str) -> None:
    assert read_both(tmp_path, text) == (PETS, ())


@pytest.mark.parametrize(
    "names",
    [
        ("7up", "3 wheeler", "cola"),
        ("cat 1", "cat 2", "cat 3"),
        ("zone 1", "site 2", "room 3"),
        ("0", "1", "2"),
        ("2", "0", "1"),
        ("5 euro", "10 euro", "20 euro"),
        ("0 cats", "1 cats", "2 cats"),
        ("Audi TT 2012", "Boeing 737", "Tornado 4"),
        ("tench, Tinca tinca", "crane", "size 5, blue"),
        ("a: b", "c; d", "e = f"),
        ("class", "name", "label"),
    ],
)
def test_names_with_numbers_and_signs_in_them_stay_names(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    assert read(tmp_path, "\n".join(names)) == names


@pytest.mark.parametrize(
    ("text", "classes", "said"),
    [
        ("nc: 2\nnames: ['cat', 'dog']\n", 2, "the line 'nc: 2'"),
        ("path: ../pets\nnames: [cat, dog]\n", 2, "the line 'names: "),
        ("names: [cat]\n", 1, "the line 'names: "),
        ("names:\n- cat\n- dog\n", 3, "the line 'names:'"),
        ("---\n- cat\n- dog\n", 3, "the line '---'"),
        ("# pets\ncat\ndog\n", 3, "the line '# pets'"),
        ("name\ncat\ndog\n", 3, "begins with 'name': is that a heading"),
        ("2\ncat\ndog\n", 3, "begins with '2': is that a heading"),
        ("Class name\ncat\ndog\n", 3, "begins with 'Class name': is that a heading"),
        ('["1 dog", "0 cat", "2 fish"]', 3, "another order than they stand in"),
        ('{"labels": ["1: dog", "0: cat", "2: fish"]}', 3, "another order than they stand in"),
    ],
)
def test_lines_that_are_no_names_never_name_a_class(
    tmp_path: Path, text: str, classes: int, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        read(tmp_path, text, classes)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('{"names": ["dog", "cat", "fish"], "ids": [1, 0, 2]}', PETS),
        ('{"class_ids": [2, 0, 1], "classes": ["fish", "cat", "dog"]}', PETS),
        ("n00000002,dog, a pet\nn00000001,cat\nn00000003,fish\n", ("dog, a pet", "cat", "fish")),
        ("n00000002 1\nn00000001 0\nn00000003 2\n", ("n00000001", "n00000002", "n00000003")),
        ("'cat',\n'dog',\n'fish'\n", PETS),
        ("text\ntitle\nlist\n", ("text", "title", "list")),
    ],
)
def test_indices_beside_a_list_and_marks_around_names_are_read(
    tmp_path: Path, text: str, names: tuple[str, ...]
) -> None:
    assert read(tmp_path, text) == names


def test_names_of_digits_are_distinguished_from_indices_by_their_type_or_by_what_can_be(
    tmp_path: Path,
) -> None:
    # ImageFolder sorts the folders 0 to 10 as texts: class 2 is called 10
    folders = sorted(map(str, range(11)))
    by_name = json.dumps({name: index for index, name in enumerate(folders)})
    labels, notes = read_both(tmp_path, by_name, 11)
    assert list(labels) == folders and "read as name: index" in notes[-1]
    by_index = json.dumps(dict(enumerate(folders)))
    assert list(read(tmp_path, by_index, 11)) == folders
    assert read(tmp_path, "3,0\n7,1\n", 2) == ("3", "7")
    with pytest.raises(ConfigError, match="several columns of numbers"):
        read(tmp_path, "0,1\n1,0\n", 2)
    assert read(tmp_path, "name,index\n0,1\n1,0\n", 2) == ("1", "0")
    assert read(tmp_path, "index,name\n0,1\n1,0\n", 2) == ("1", "0")


def test_names_hold_commas_with_quotes_and_without(tmp_path: Path) -> None:
    expected = ("tench, Tinca tinca", "", "cat")
    for text in (
        '2,cat\n0,"tench, Tinca tinca"\n',
        "2,cat\n0,tench, Tinca tinca\n",
        "cat,2\ntench, Tinca tinca,0\n",
        "2\tcat\n0\ttench, Tinca tinca\n",
        "{0: 'tench, Tinca tinca', 2: 'cat'}",
    ):
        assert read(tmp_path, text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,cat\n2,dog\n3,fish\n", "counts from 1 to 3.*count from 0"),
        ("1 cat\n2 dog\n3 fish\n", "number in each line.*write `index,name`"),
        ("3 fish\n1 cat\n2 dog\n", "number in each line"),
        ("fish 3\ncat 1\ndog 2\n", "number in each line"),
        ("3 wheeler\n7 seater\n2 door\n", "number in each line"),
        ('{"1": "cat", "2": "dog", "3": "fish"}', "counts from 1"),
        ("001.dog\n000.cat\n002.fish\n", "count them in another order"),
        ("class 1: dog\nclass 0: cat\nclass 2: fish\n", "count them in another order"),
        ("1.0,dog\n0.0,cat\n2.0,fish\n", "count them in another order"),
        ("0:cat,1:dog,2:fish\n", "names 1 classes"),
        ("dog,1\ncat,0\nfish\n", "line 3 is not `name,index`: 'fish'"),
        ("dog,1\ncat,0\nfish,1\n", "line 3 names class 1 a second time"),
        ("dog,1\ncat,0\nfish,12\n", "line 3: the model has the classes 0 to 2, not 12"),
        ('{"cat": 0, "dog": 1, "fish": 1}', "'fish' names class 1 a second time"),
        ('{"cat": 0, "cat": 1}', "has the key 'cat' twice"),
        ('{"cat": 0, "dog": 1, "fish": 7}', "'fish': the model has the classes 0 to 2, not 7"),
        ('{"cat": "kitten", "dog": "puppy"}', "JSON of another kind"),
        ('{"cat": true}', "JSON of another kind"),
        ('["cat", "dog"]', "names 2 classes, and the model has 3"),
        ('["cat", 1]', "list of other things"),
        ("[]", "list of other things"),
        ('{"cat": 0', "is no JSON"),
        ('{"id2label": {"0": "cat"}, "names": ["dog", "cat", "fish"]}', "names that differ"),
        ("class name\tno\ncat\t9\n", "line 2: the model has the classes 0 to 2, not 9"),
    ],
)
def test_what_cannot_be_known_or_used_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, text)


def test_json_is_known_by_its_suffix_or_its_first_sign(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no JSON"):
        read(tmp_path, "cat\ndog\nfish\n", name="classes.json")
    assert read(tmp_path, '\n{"cat": 0}', name="classes.csv") == ("cat", "", "")


def test_an_imagenet_model_keeps_both_cranes(tmp_path: Path) -> None:
    config = {
        "id2label": {"0": "crane", "1": "dog", "2": "crane"},
        "label2id": {"crane": 2, "dog": 1},
    }
    assert read(tmp_path, json.dumps(config)) == ("crane", "dog", "crane")


def as_csv(pairs: Mapping[int, str], delimiter: str, by_name: bool, header: bool) -> str:
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter)
    if header:
        writer.writerow(("name", "index") if by_name else ("index", "name"))
    writer.writerows((name, i) if by_name else (i, name) for i, name in pairs.items())
    return file.getvalue()


def as_words(pairs: Mapping[int, str], by_name: bool) -> str:
    return "\n".join(f"{name} {i}" if by_name else f"{i} {name}" for i, name in pairs.items())


FORMS: dict[str, Callable[[Mapping[int, str]], str]] = {
    **{
        f"{delimiter!r} {by_name} {header}": (
            lambda pairs, d=delimiter, n=by_name, h=header: as_csv(pairs, d, n, h)  # type: ignore[misc]
        )
        for delimiter in ",;\t"
        for by_name in (False, True)
        for header in (False, True)
    },
    "index name": lambda pairs: as_words(pairs, False),
    "name index": lambda pairs: as_words(pairs, True),
    "index to name": lambda pairs: json.dumps(pairs),
    "name to index": lambda pairs: json.dumps({name: i for i, name in pairs.items()}),
    "id2label": lambda pairs: json.dumps({"id2label": pairs}),
    "pairs": lambda pairs: json.dumps(list(pairs.items())),
    "printed": lambda pairs: repr(dict(pairs)),
}

# words, digits and the signs that separate
NAME = st.text("ab01 ,;:=.-\"'", min_size=1, max_size=8).filter(lambda name: name == name.strip())
NAMES = st.lists(NAME, min_size=2, max_size=6, unique=True)


@pytest.mark.parametrize("form", FORMS)
# so many of each form; how long drawing them takes is no matter of ours
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(names=NAMES, shuffle=st.randoms(use_true_random=False))
def test_no_class_ever_has_anothers_name(
    tmp_path_factory: pytest.TempPathFactory, form: str, names: list[str], shuffle: object
) -> None:
    order = list(range(len(names)))
    shuffle.shuffle(order)  # type: ignore[attr-defined]
    text = FORMS[form]({index: names[index] for index in order})
    folder = tmp_path_factory.getbasetemp()
    try:
        labels = read(folder, text, len(names))
    except ConfigError:
        return
    # in "1 0 1" any of the three may be the index of the same class
    plain = [[sorted(filter(str.isalnum, n)) for n in some] for some in (labels, names)]
    assert plain[0] == plain[1]
