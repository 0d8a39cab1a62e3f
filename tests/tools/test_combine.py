import jax
import jax.numpy as jnp
import numpy as np

from jaxdeblur import create_model, weights


def test_weights_are_combined_of_what_trainings_changed(tmp_path, run_script):
    rng = np.random.default_rng(0)

    def saved(name, **fields):
        module = create_model("atrous_net", **({"num_channels": 4, "num_blocks": 1} | fields))
        shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
        params = jax.tree.map(
            lambda x: rng.standard_normal(x.shape).astype(np.float32), shapes["params"]
        )
        weights.save(tmp_path / name, weights.Deblurrer(module, params, {"channels": 3}))
        return params

    base, first, second = (saved(name) for name in ("base", "first", "second"))
    saved("other", num_channels=8)
    out, begin = tmp_path / "out", ["--base", tmp_path / "base"]
    shares = ["--add", tmp_path / "first", 1, "--add", tmp_path / "second", 0.25]
    assert run_script("tools/combine.py", out, *begin, *shares).returncode == 0
    expected = jax.tree.map(lambda b, p, q: p + 0.25 * (q - b), base, first, second)
    for x, y in zip(
        jax.tree.leaves(weights.load(out).params), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(x, y, atol=1e-5)

    refused = run_script(
        "tools/combine.py", tmp_path / "none", *begin, "--add", tmp_path / "other", 1
    )
    assert refused.returncode == 2
    assert "--add" in refused.stderr
    assert "do not belong together" in refused.stderr
    module = create_model("atrous_net", num_channels=4, num_blocks=1, batch_norm=True)
    variables = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    normed = weights.Deblurrer(module, variables.pop("params"), {"channels": 3}, variables)
    weights.save(tmp_path / "normed", normed)
    refused = run_script(
        "tools/combine.py", tmp_path / "none", "--base", tmp_path / "normed", *shares
    )
    assert "has batch statistics" in refused.stderr
    for share in ("half", "nan"):
        refused = run_script(
            "tools/combine.py", tmp_path / "none", *begin, "--add", tmp_path / "first", share
        )
        assert refused.stderr == f"error: --add: SHARE = {share!r} must be a number, such as 0.5\n"
    assert not (tmp_path / "none").exists()
