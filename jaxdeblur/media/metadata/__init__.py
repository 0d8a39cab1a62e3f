"""What formats of photographs share beside pixels: EXIF, XMP, profiles, and limits."""
