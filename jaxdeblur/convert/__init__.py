"""Weights of other programs as networks of this package."""

from jaxdeblur.convert.files import read
from jaxdeblur.convert.keras import from_keras
from jaxdeblur.convert.maxim import from_maxim
from jaxdeblur.convert.nafnet import from_nafnet

__all__ = ["from_keras", "from_maxim", "from_nafnet", "read"]
