"""edgeslim: from a pretrained remote-sensing encoder to class maps on a flying computer."""

__version__ = "0.1.0"
