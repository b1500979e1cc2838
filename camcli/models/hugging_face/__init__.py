"""Models of Hugging Face transformers: found, fetched, built, and given their pictures."""

# what other rooms may import; all else may change with this one
PUBLIC = (
    "image_resizing.resize_as_torchvision",
    "repository.HUB",
    "repository.is_model_folder",
    "repository.list_cached",
)
