"""Models of the user's own: code that builds them, and modules that a person has at hand."""

# what other rooms may import; all else may change with this one
PUBLIC = (
    "from_module",
    "user_code.find_own_line",
    "user_code.is_code",
)
