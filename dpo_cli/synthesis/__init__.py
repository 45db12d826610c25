"""Pairs made with a model: it answers, and a better answer is set against its own."""
