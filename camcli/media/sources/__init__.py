"""What the user named -> the files behind it."""

# what other rooms may import; all else may change with this one
PUBLIC = (
    "byte_stream.open_source",
    "listing.IMAGE_SUFFIXES",
    "listing.VIDEO_SUFFIXES",
    "listing.camera_source",
    "listing.find_sources",
    "listing.is_video",
)
