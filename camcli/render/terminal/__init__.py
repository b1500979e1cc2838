"""Pictures in terminals: what a terminal can draw, and how it is told."""

# what other rooms may import; all else may change with this one
PUBLIC = ("capabilities.Terminal", "capabilities.find_terminal", "encodings.encode_picture")
