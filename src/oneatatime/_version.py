"""The version, in the one place that code and packaging read it from."""

__version__ = "0.1.0"
