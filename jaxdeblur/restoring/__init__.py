"""Restoring pictures of any size with a network: in tiles, at several scales, if plausible."""
