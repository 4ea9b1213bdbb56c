"""The published picture of attention over an image."""

import numpy as np
from image_networks import Golden

from capscope.report.heatmaps import published_blend


def test_the_published_picture_of_attention() -> None:
    golden = Golden("rnn_family/attention_visualizer.npz")
    expected = golden["output_notext"].numpy()
    image = golden["image_u8"].numpy().transpose(1, 2, 0)
    band = len(expected) - len(image)
    found = published_blend(image, golden["attn_weights"].numpy(), band)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found[band:], golden["output"].numpy()[band:], rtol=0, atol=1e-6)
