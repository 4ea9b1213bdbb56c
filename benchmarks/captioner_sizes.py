"""Parameters and floating-point operations of all captioners, as a table.

At the published sizes (H = 512, 10,201 words, 49 cells of 2048 numbers, 133 classes of segments),
one image and a caption of 10 words, teacher forcing, as torch's counter has it: multiplications and
additions of matrix products, each counted as one, so twice the "multiply-adds" of fvcore.

    python benchmarks/captioner_sizes.py
"""

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from capscope.features.visual import Features
from capscope.models import CAPTIONERS, build

TRANSFORMERS = ("base", "difnet", "object_relation", "spatial")
ATTENDING = ("adaptive", "gridtd", "show_attend_tell")


def sizes(name: str) -> dict[str, Any]:
    """Return the constructor arguments that have no default."""
    config: dict[str, Any] = {"hidden": 512}
    if name not in TRANSFORMERS:
        config["embedding"] = 512
    if name in ATTENDING:
        config["attention"] = 512
    return config


def main() -> None:
    features = Features(
        torch.rand(1, 49, 2048), torch.rand(1, 49, 4).sort(-1).values, None, torch.rand(1, 49, 133)
    )
    word_ids = torch.randint(4, 10_000, (1, 10))
    print(f"{'captioner':18} {'parameters':>12} {'operations':>12}")
    for name in CAPTIONERS:
        model = build(name, vocabulary_size=10_201, feature_size=2048, **sizes(name)).eval()
        count = sum(parameter.numel() for parameter in model.parameters())
        plain = torch.backends.mkldnn.flags(enabled=False)  # whose products are not counted
        with torch.no_grad(), plain, FlopCounterMode(display=False) as counter:
            model.readout(model.hidden(features, word_ids).values)
        print(f"{name:18} {count / 1e6:10.2f} M {counter.get_total_flops() / 1e9:10.3f} G")


if __name__ == "__main__":
    main()
