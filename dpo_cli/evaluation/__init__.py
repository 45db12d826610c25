"""Evidence: ask models, score answers, compare two models; plain dataclasses out."""
