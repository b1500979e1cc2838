"""Models that read words, and words in the place of classes."""

# what other rooms may import; all else may change with this one
PUBLIC = ("prompts.TextEmbeddings", "prompts.prompt", "prompts.reads_words")
