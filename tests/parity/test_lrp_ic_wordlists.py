"""Stop words and object words against the original lists."""

import json

from image_networks import Golden

from capscope.data.wordlists import object_words, stop_words


def test_word_lists_are_those_of_the_original() -> None:
    golden = Golden("lrp_ic/text_metrics.npz")
    listed = json.loads(str(golden.arrays["stopwords"]))
    assert stop_words() == set(listed)
    objects = json.loads(str(golden.arrays["freq.lists"])).get("object_words")
    if objects is not None:
        assert object_words() == set(objects)
