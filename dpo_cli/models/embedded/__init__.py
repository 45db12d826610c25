"""The tiny chat model that ships with the package, its card, and the script that makes it."""
