"""dari: a container engine whose network you can see, prove and take apart."""

__version__ = "0.1.0"
