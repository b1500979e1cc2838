"""Compares LeGrad's own package with ours on a random CLIP of open_clip, in two environments.

The package (legrad_torch 1.1) wants an open_clip of its time:

    pip install legrad_torch 'open-clip-torch==2.23.0'
    python tests/tools/legrad_package.py maps FILE.pt       # there, without camviz
    python -m tests.tools.legrad_package compare FILE.pt    # here

`maps` saves random weights, a picture of noise, embeddings of texts and the package's maps;
`compare` loads the weights and prints the largest difference of maps from 0 to 1.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
VISION = {"image_size": 64, "layers": 3, "width": 32, "head_width": 16, "patch_size": 16}
EMBEDDED, TEXTS = 16, 2
# from which block on: all of them, and the last two, the package's default
DEPTHS = (0, -2)


def save_maps(path: str) -> None:
    """Saves the package's maps, and all that they were made of."""
    from legrad import LeWrapper
    from open_clip import model as library

    torch.manual_seed(0)
    vision, text = library.CLIPVisionCfg(**VISION), library.CLIPTextCfg(**TEXT)
    clip = library.CLIP(EMBEDDED, vision, text).eval()
    for parameter in clip.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, 0, parameter[0].numel() ** -0.5)
    weights = {name: weight.clone() for name, weight in clip.state_dict().items()}
    picture = torch.randn(1, 3, 64, 64)
    texts = F.normalize(torch.randn(TEXTS, EMBEDDED), dim=1)
    maps = {}
    for depth in DEPTHS:
        wrapper = LeWrapper(clip, layer_index=depth)
        for k in range(TEXTS):
            found = wrapper.compute_legrad(image=picture, text_embedding=texts[k : k + 1])
            maps[depth, k] = found.detach().squeeze()
    torch.save({"weights": weights, "picture": picture, "texts": texts, "maps": maps}, path)


class Cosines(nn.Module):
    """The cosines of pictures with texts.  [b 3 H W] -> [b k]"""

    def __init__(self, visual: nn.Module, texts: Tensor) -> None:
        super().__init__()
        self.visual, self.texts = visual, texts

    def forward(self, pixels: Tensor) -> Tensor:
        return F.normalize(self.visual(pixels), dim=1) @ self.texts.T


def average_all_tokens(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Pools as the package does at each block, in the place of the class token.  [b n c]"""
    return tokens.mean(1), tokens


def compare_maps(path: str) -> None:
    """Prints how far our maps are from the package's, by the pooling and the blocks."""
    import camcli

    saved = torch.load(path, weights_only=True)
    classifier = camcli.load_model(
        "open_clip:ViT-B-32",
        pretrained=False,
        model_kwargs={"embed_dim": EMBEDDED, "vision_cfg": VISION, "text_cfg": TEXT},
        device="cpu",
    )
    clip: Any = classifier.module
    clip.load_state_dict(saved["weights"])
    poolings: dict[str, Callable[..., Any] | None] = {
        "the class token, as CLIP was trained": None,
        "the mean of all tokens": average_all_tokens,
    }
    for name, pool in poolings.items():
        if pool:
            clip.visual.final_ln_after_pool, clip.visual._global_pool = True, pool
        for depth in DEPTHS:
            differences = [
                _measure_difference(Cosines(clip.visual, saved["texts"]), saved, depth, k)
                for k in range(TEXTS)
            ]
            print(f"{name}; the package's blocks from {depth}: {max(differences):.2g}")


def _measure_difference(
    module: nn.Module, saved: dict[str, Any], depth: int, category: int
) -> float:
    import camcli

    ours = camcli.heatmaps(module, saved["picture"], "legrad", targets=[category])
    large = F.interpolate(ours.view(1, 1, 4, 4), scale_factor=16, mode="bilinear")[0, 0]
    scaled = (large - large.min()) / (large.max() - large.min())
    return float((scaled - saved["maps"][depth, category]).abs().max())


if __name__ == "__main__":
    {"maps": save_maps, "compare": compare_maps}[sys.argv[1]](sys.argv[2])
