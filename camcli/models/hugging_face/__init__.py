"""Models of Hugging Face transformers: found, fetched, built, and given their pictures."""

# what other rooms may import; all else may change with this one
PUBLIC = (
    "networks.undo_patches",
    "repository.HUB",
    "repository.find_model_folder",
    "repository.is_model_folder",
    "repository.list_cached",
)
