"""The lists of words that come with the package."""

from capscope.data.wordlists import object_words, stop_words


def test_lists_are_lower_case_words_without_comments():
    for words in (stop_words(), object_words()):
        assert all(word == word.lower().strip() and " " not in word for word in words)
        assert not any(word.startswith("#") for word in words)


def test_a_word_is_not_both():
    assert not stop_words() & object_words()
    assert {"the", "a", "on"} <= stop_words()
    assert {"dog", "people", "tv"} <= object_words()
