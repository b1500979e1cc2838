"""What a model's output means: its logits, values and rows."""
