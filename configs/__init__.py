"""The experiments, one file each; `default` documents every key.

  from jaxdeblur.configs import quickstart
  config = quickstart.get_config()

The files lie in `configs/` at the top of the repository. The package has them too, so that whoever
installed it can use them without a checkout, and start files of their own from them.
"""

from jaxdeblur.errors import naming_extra

with naming_extra():
    import ml_collections  # noqa: F401 (every file needs it, and would say less)
