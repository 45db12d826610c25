"""What the model sees of a pair: chat template, token ids, truncation."""
