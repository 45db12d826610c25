"""Running text: names, words, and the questions that are put to models."""
