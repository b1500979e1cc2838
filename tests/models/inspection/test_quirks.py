"""Some of what `python -m tests.tools.coverage --all` looks at: small models of many families."""

from __future__ import annotations

import pytest
import timm

from tests.slow import mark_slow
from tests.tools.coverage import check_coverage

TOKENS = "14x14 tokens behind 1 extra"
# cait, coat, sknet, tnt and volo take half a minute and more each: the sweep alone has them
# the last stage where stages are pooled, the norm in front of the last attention where a class
# token decides, the last norm or block where tokens are pooled
DEFAULTS = {
    # convolutions
    "test_byobnet": ("stages", "5x5 nchw"),
    "test_convnext": ("stages", "5x5 nchw"),
    "test_efficientnet": ("bn2", "5x5 nchw"),
    "cs3darknet_focus_s": ("stages", "8x8 nchw"),
    "dla46x_c": ("level5", "7x7 nchw"),
    "efficientvit_b0": ("head.in_conv", "7x7 nchw"),
    "fastvit_t8": ("final_conv", "8x8 nchw"),
    "ghostnet_050": ("blocks", "7x7 nchw"),
    "hgnetv2_b0": ("stages", "7x7 nchw"),
    "hrnet_w18_small": ("final_layer", "7x7 nchw"),
    "mobilenetv3_small_050": ("blocks", "7x7 nchw"),
    "torchvision/mobilenet_v3_small": ("features", "7x7 nchw"),
    "torchvision/squeezenet1_1": ("features", "13x13 nchw"),
    # a class token, with or without extra tokens, or two branches of them
    "test_vit": ("blocks.5.norm1", "10x10 tokens behind 1 extra"),
    "convit_tiny": ("blocks.11.norm1", TOKENS),
    "crossvit_tiny_240": ("blocks.2.fusion.1.norm1", "20x20 tokens behind 1 extra"),
    "deit_tiny_patch16_224": ("blocks.11.norm1", TOKENS),
    "pit_ti_224": ("transformers.2.blocks.3.norm1", "7x7 tokens behind 1 extra"),
    "xcit_nano_12_p8_224": ("cls_attn_blocks.1.norm1", "28x28 tokens behind 1 extra"),
    # pooled tokens
    "test_vit_relpos": ("blocks.8", "10x10 tokens"),
    "gmlp_ti16_224": ("norm", "14x14 tokens"),
    "hiera_tiny_224": ("blocks.11", "7x7 tokens"),
    "levit_128s": ("stages", "4x4 tokens"),
    "mvitv2_tiny": ("norm", "7x7 tokens"),
    "twins_svt_small": ("norm", "7x7 tokens"),
    # hierarchies with windows, mixers, states and convolutions
    "test_coatnet": ("norm", "5x5 nchw"),
    "test_mambaout": ("stages", "5x5 nhwc"),
    "davit_tiny": ("stages", "7x7 nchw"),
    "edgenext_xx_small": ("stages", "8x8 nchw"),
    "efficientformerv2_s0": ("norm", "7x7 nchw"),
    "efficientvim_m1": ("norm.3", "4x4 nchw"),
    "efficientvit_m0": ("stages", "4x4 nchw"),
    "gcvit_xxtiny": ("stages", "7x7 nchw"),
    "mobilevit_xxs": ("final_conv", "8x8 nchw"),
    "nest_tiny": ("norm", "14x14 nhwc"),
    "poolformerv2_s12": ("stages", "7x7 nchw"),
    "tiny_vit_5m_224": ("stages", "7x7 nchw"),
    "visformer_tiny": ("norm", "7x7 nchw"),
}


# nearly all of the time: the small ones that timm has for tests are of each kind
SLOW = (
    "convit_tiny",
    "crossvit_tiny_240",
    "cs3darknet_focus_s",
    "davit_tiny",
    "deit_tiny_patch16_224",
    "dla46x_c",
    "efficientformerv2_s0",
    "edgenext_xx_small",
    "efficientvim_m1",
    "efficientvit_b0",
    "efficientvit_m0",
    "fastvit_t8",
    "gcvit_xxtiny",
    "ghostnet_050",
    "gmlp_ti16_224",
    "hgnetv2_b0",
    "hiera_tiny_224",
    "hrnet_w18_small",
    "levit_128s",
    "mobilenetv3_small_050",
    "mobilevit_xxs",
    "mvitv2_tiny",
    "nest_tiny",
    "pit_ti_224",
    "poolformerv2_s12",
    "tiny_vit_5m_224",
    "twins_svt_small",
    "visformer_tiny",
    "xcit_nano_12_p8_224",
)
# the lowest version of timm has not all of them
KNOWN = [name for name in DEFAULTS if "/" in name or timm.is_model(name)]


@pytest.mark.parametrize("name", mark_slow(KNOWN, SLOW))
def test_a_family_is_explained_without_options(name: str) -> None:
    row = check_coverage(name, quickly=True)
    assert row.problems == ()
    assert (row.layer, row.layout) == DEFAULTS[name]
