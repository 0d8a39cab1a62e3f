"""Image deblurring in JAX: published networks in Flax, trained and evaluated.

deblur = jaxdeblur.load("weights.safetensors")
restored = deblur(blurred)  # [H, W, 3], uint8 or float in [0, 1]

module = jaxdeblur.create_model("atrous_net", num_blocks=10)
variables = module.init(jax.random.key(0), blurred[None])
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxdeblur import convert, metrics, models
    from jaxdeblur.models import create_model
    from jaxdeblur.weights import load

__version__ = "0.1.0"

__all__ = ["convert", "create_model", "load", "metrics", "models"]

# Where each name lives; imported on first use, so that `import jaxdeblur` costs nothing.
_MODULES = {"create_model": "models", "load": "weights"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'jaxdeblur' has no attribute {name!r}")
    module = importlib.import_module(f"jaxdeblur.{_MODULES.get(name, name)}")
    return getattr(module, name) if name in _MODULES else module


def __dir__() -> list[str]:
    return [*globals(), *__all__]
