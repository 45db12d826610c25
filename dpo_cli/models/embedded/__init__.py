"""The tiny chat model that ships with the package and its card; `scripts/embedded_model` makes it."""
