"""Photographs and videos in and out."""
