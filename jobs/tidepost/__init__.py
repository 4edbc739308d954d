"""tidepost: scheduled batch uploads of model inferences. Every row arrives once, and you can see that it did."""

__version__ = "0.1.0"
