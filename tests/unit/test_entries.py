"""Entries that are read one at a time are those of the whole file, and so are its mistakes."""

import json
import random

import pytest

from capscope.data.entries import read_entries
from capscope.errors import CapscopeError


def some_value(generator, depth=0):
    kind = generator.randrange(8 if depth < 3 else 6)
    if kind == 6:
        return [some_value(generator, depth + 1) for _ in range(generator.randrange(4))]
    if kind == 7:
        return {f"k{n}": some_value(generator, depth + 1) for n in range(generator.randrange(4))}
    return [None, True, -3, 0.5e-3, "", 'a "b" \\ {[,]} \u2028 \U0001f600'][kind]


@pytest.mark.parametrize("indent", [None, 1])
def test_the_members_are_those_of_the_whole_file(tmp_path, indent):
    generator, path = random.Random(0), tmp_path / "x.json"
    for _ in range(200):
        members = [some_value(generator) for _ in range(generator.randrange(5))]
        content = {"before": some_value(generator), "images": members}
        if generator.random() < 0.5:
            content["after"] = some_value(generator)
        ascii_only = generator.random() < 0.5
        path.write_text(json.dumps(content, indent=indent, ensure_ascii=ascii_only), "utf-8")
        assert list(read_entries(path, "images")) == members


VALID = '{"a": [1, 2], "images": [{"b": 1}, {"b": "x"}], "c": null} '


def test_every_cut_of_a_file_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "x.json"
    for length in range(len(VALID) - 1):
        path.write_text(VALID[:length])
        with pytest.raises(CapscopeError, match=r"x\.json is not valid JSON"):
            list(read_entries(path, "images"))


def test_every_changed_character_is_read_as_json_reads_it(tmp_path):
    path = tmp_path / "x.json"
    for place in range(len(VALID)):
        for character in '{}[],:"0 x':
            text = VALID[:place] + character + VALID[place + 1 :]
            path.write_text(text)
            try:
                expected = json.loads(text)["images"]
                assert isinstance(expected, list)
            except (ValueError, KeyError, TypeError, AssertionError):
                with pytest.raises(CapscopeError):
                    list(read_entries(path, "images"))
            else:
                assert list(read_entries(path, "images")) == expected


@pytest.mark.parametrize("text", ["[]", "{}", "3", '{"images": {}}', '{"image": []}'])
def test_a_file_without_the_list_is_an_error(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(CapscopeError, match="no list 'images'"):
        list(read_entries(tmp_path / "x.json", "images"))
