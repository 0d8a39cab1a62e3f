"""`jaxdeblur fetch`: the list, and downloads from a server of this process."""

import hashlib
import re

import jax
import numpy as np
import pytest
from file_server import FileServer

from jaxdeblur import catalogue, cli, convert, weights

DATA = np.random.default_rng(0).bytes(2_500_000)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The data folder."""
    monkeypatch.setenv(catalogue.SWITCH, str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def fetch(folder, capsys):
    """Runs the command; returns its status, standard output and standard error."""

    def run(*arguments):
        status = 0
        try:
            cli.main(["fetch", *map(str, arguments)])
        except SystemExit as end:
            status = end.code
        out, err = capsys.readouterr()
        return status, out, err

    return run


@pytest.fixture
def server(small_weights, monkeypatch):
    """A server of the one entry there is, `tiny`; what it is converted to does not matter here."""
    trained = weights.load(small_weights)
    monkeypatch.setattr(convert, "read", lambda path: (trained.module, trained.params, ""))
    monkeypatch.setattr(catalogue, "ENTRIES", {})
    with FileServer() as server:
        server.files["tiny.npz"] = DATA
        file = catalogue.File("tiny.npz", len(DATA), hashlib.sha256(DATA).hexdigest())
        catalogue.ENTRIES["tiny"] = catalogue.Entry(
            summary="tiny blur",
            network="TINY_NET",
            parameters=sum(array.size for array in jax.tree.leaves(trained.params)),
            licence="none",
            source="nobody",
            published=(catalogue.Figure("GoPro", 30.456, 0.9),),
            copies=(catalogue.Copy((file,), (server.url,)),),
            by_hand=file,
            where="from nowhere",
        )
        yield server


def only_error(err):
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    return line


def test_without_a_name_it_lists_what_can_be_had(fetch, folder):
    folder.mkdir()
    (folder / "maxim-reds.safetensors").touch()
    status, out, err = fetch()
    assert (status, err) == (0, "")
    rows = {line.split()[0]: re.split(" {2,}", line) for line in out.splitlines() if line}
    for name, *told in (
        ("maxim-gopro", "89 MB", "Apache-2.0", "download", "GoPro 32.86 dB"),
        ("maxim-reds", "89 MB", "Apache-2.0", "here", "REDS-val-300 28.93 dB"),
        ("nafnet-gopro-width32", "68 MB", "MIT", "by hand", "GoPro 32.87 dB"),
        ("nafnet-gopro-width64", "272 MB", "MIT", "by hand", "GoPro 33.71 dB"),
    ):
        assert rows[name] == [name, *told, catalogue.ENTRIES[name].summary]
    assert catalogue.ENTRIES.keys() < rows.keys()
    assert f" in {folder};" in out


def test_verbose_lists_all_that_is_known(fetch, folder):
    status, out, err = fetch("--verbose")
    assert (status, err) == (0, "")
    sections = dict(zip(catalogue.ENTRIES, re.split(r"^\S+$\n", out, flags=re.M)[1:], strict=True))
    for name, entry in catalogue.ENTRIES.items():
        for figure in entry.published:
            published = f"published: {figure.data}: {figure.psnr} dB, SSIM {figure.ssim}\n"
            assert published in sections[name]
        for copy in entry.copies:
            assert all(address in sections[name] for address in copy.addresses)
        for text in (entry.source, entry.licence, entry.by_hand.name, entry.where, "here: no"):
            assert text in sections[name]
        assert f"{entry.parameters:,} parameters" in sections[name]
    assert "117 MB, checked by sha256: https://cdn.jsdelivr" in sections["maxim-gopro"]
    assert "sha256 unknown" in sections["maxim-reds"]


def test_a_download_tells_its_progress_in_lines_and_how_to_use_it(fetch, server, folder):
    status, out, err = fetch("tiny")
    path = folder / "tiny.safetensors"
    assert status == 0
    assert out == f"{path}: use it with `jaxdeblur deblur photo.jpg --model tiny`\n"
    first, *progress, last = err.splitlines()
    assert first == f"tiny: downloading 2 MB from {server.url.split('/')[2]}"
    assert progress == [f"tiny: {n}0% of 2.5 MB" for n in range(1, 11)]
    assert last == "tiny: converting"
    assert weights.load(path).card["name"] == "tiny"
    assert fetch()[1].splitlines()[1].split()[:5] == ["tiny", "0", "MB", "none", "here"]


def test_a_terminal_has_a_bar_instead(fetch, server, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # takes standard error for a terminal
    status, _, err = fetch("tiny")
    assert status == 0
    assert "2.5/2.5 MB" in err
    assert "% of" not in err


def test_an_interrupted_download_goes_on(fetch, server):
    server.cuts["tiny.npz"] = [1_000_000, 0]
    status, out, err = fetch("tiny")
    assert (status, out) == (2, "")
    assert "broke off after 1,000,000 of 2,500,000 bytes" in err.splitlines()[-1]
    assert fetch("tiny")[0] == 0
    assert server.asked[-1] == ("tiny.npz", "bytes=1000000-")


def test_weights_at_hand_are_taken_and_replaced_when_asked(fetch, server, folder, tmp_path):
    (tmp_path / "tiny.npz").write_bytes(DATA)
    status, out, err = fetch("tiny", "--from", tmp_path / "tiny.npz")
    assert (status, err) == (0, "tiny: converting\n")
    assert out.startswith(f"{folder / 'tiny.safetensors'}: ")
    assert not server.asked
    status, out, err = fetch("tiny", "--from", tmp_path / "tiny.npz")
    assert (status, out) == (2, "")
    assert "exists; give --overwrite" in only_error(err)
    assert fetch("tiny", "--from", tmp_path / "tiny.npz", "--overwrite")[0] == 0
    (tmp_path / "tiny.npz").write_bytes(DATA[1:])
    status, out, err = fetch("tiny", "--from", tmp_path / "tiny.npz", "--overwrite")
    assert (status, out) == (2, "")
    assert "the sha256 of tiny.npz is" in only_error(err)


def test_errors_are_one_line(fetch, folder):
    status, out, err = fetch("maxim-gopo")
    assert (status, out) == (2, "")
    assert "did you mean 'maxim-gopro'?" in only_error(err)
    status, out, err = fetch("nafnet-gopro-width32")
    assert (status, out) == (2, "")
    assert "bring NAFNet-GoPro-width32.pth, from https://drive.google.com/" in only_error(err)
    assert "run `jaxdeblur fetch nafnet-gopro-width32 --from FILE`" in only_error(err)
    status, out, err = fetch("--from", "file")
    assert (status, out) == (2, "")
    assert "--from file: give the NAME" in only_error(err)
