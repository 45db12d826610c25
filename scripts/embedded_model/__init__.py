"""Makes the embedded chat model from nothing: corpus, tokenizer, training, card, and the sets that ship."""
