"""Pairs: what one is, where they come from, what is wrong with them."""
