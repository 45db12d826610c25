"""What is wrong with a set of pairs that can be trained on all the same."""
