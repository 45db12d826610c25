"""Models: loading, devices and precision, adapters, batched generation."""
