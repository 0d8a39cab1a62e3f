"""What processes set up and share: memory, caches, devices, clusters, files, progress.

Nothing here knows of images.
"""
