"""The same model, faster."""

# what other rooms may import; all else may change with this one
PUBLIC = (
    "accelerate.accelerate",
    "compile_targets.find_compile_targets",
    "conv_bn_folding.ConvBnFolding",
    "conv_bn_folding.find_foldable",
    "fused_attention.can_fuse",
    "fused_attention.switch_on_fused_attention",
    "lasting_folding.WatchedPass",
    "lasting_folding.run_folded",
    "memory_format.accepts_channels_last",
    "memory_format.convert_weights_format",
    "memory_format.convert_weights_format_if_safe",
    "memory_format.copy_to_model_format",
    "memory_format.trust_channels_last",
    "prepack_cache.PrepackCache",
)
