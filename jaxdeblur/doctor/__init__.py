"""The sections of `jaxdeblur doctor`, a file each; `lines` of each tells what it finds."""
