"""`jaxdeblur convert file`: weights of others become a file of ours."""

import jax
import numpy as np
import pytest

from jaxdeblur import cli, convert, weights


@pytest.fixture
def convert_file(capsys):
    """Runs the command; returns its status, standard output and standard error."""

    def run(*arguments):
        status = 0
        try:
            cli.main(["convert", "file", *map(str, arguments)])
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()

    return run


@pytest.mark.parametrize(
    ("name", "network", "origin"),
    [("nafnet.pth", "NafNet", "NAFNet"), ("maxim.checkpoint.npz", "Maxim", "MAXIM")],
)
def test_official_weights_become_what_load_takes(
    convert_file, parity, tmp_path, name, network, origin
):
    output = tmp_path / "net.safetensors"
    status, out, err = convert_file(parity / name, output)
    module, params, _ = convert.read(parity / name)
    count = sum(array.size for array in jax.tree.leaves(params))
    assert (status, err) == (0, "")
    assert out == f"{output}: {network}, {count:,} parameters\n"
    loaded = weights.load(output)
    assert loaded.module == module
    assert (loaded.card["channels"], loaded.card["source"]) == (3, f"{origin}, {name}")
    jax.tree.map(np.testing.assert_array_equal, dict(loaded.params), params)

    before = output.read_bytes()
    status, out, err = convert_file(parity / name, output)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert "exists; give --overwrite or another name" in err
    assert output.read_bytes() == before
    assert convert_file(parity / name, output, "--overwrite")[0] == 0


@pytest.mark.parametrize("content", [b"", b"no weights", None])
def test_what_cannot_be_read_is_one_line_and_writes_nothing(convert_file, tmp_path, content):
    source = tmp_path / "odd.pth"
    if content is not None:
        source.write_bytes(content)
    status, out, err = convert_file(source, tmp_path / "net.safetensors")
    assert (status, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith("error: path = ")
    assert "odd.pth" in line
    assert not (tmp_path / "net.safetensors").exists()


@pytest.mark.parametrize("output", ["~nosuchuser/x.safetensors", "x" * 300, "a/" * 2100])
def test_outputs_that_cannot_be_are_told(small_weights, output, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["convert", "run", str(small_weights), output])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: OUT.safetensors = ")
