"""How arrays lie on the devices: one mesh over all of them, parameters whole, batches divided."""

from __future__ import annotations

import jax


def shardings() -> tuple[jax.NamedSharding, jax.NamedSharding]:
    """Returns the shardings "whole on every device" and "divided along the first axis"."""
    mesh = jax.sharding.Mesh(jax.devices(), ("data",))
    return jax.NamedSharding(mesh, jax.P()), jax.NamedSharding(mesh, jax.P("data"))
