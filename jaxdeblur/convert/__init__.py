"""Weights of other programs as networks of this package."""

from jaxdeblur.convert.keras import from_keras

__all__ = ["from_keras"]
