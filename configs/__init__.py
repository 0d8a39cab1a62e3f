"""One file per experiment; `default.py` documents every key."""
