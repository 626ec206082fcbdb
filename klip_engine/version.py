"""The version of the engine, written into every result."""

__version__ = "0.1.0"
