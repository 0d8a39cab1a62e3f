"""The formats of photographs: from bytes to pixels and metadata, and back."""
