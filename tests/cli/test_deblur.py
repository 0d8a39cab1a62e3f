"""The command, on small files, with a network whose result is known: every level plus ten."""

import io
import os
import re
import signal
import subprocess
import sys

import av
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

from jaxdeblur import cli, create_model, weights
from jaxdeblur.media import photo
from jaxdeblur.runtime import startup

PLUS = 10


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A weights file: brighter by ten grey levels, with limits on its card."""
    module = create_model("atrous_net", num_channels=4, num_blocks=1, zero_init=True)
    params = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]
    params["difference"]["bias"] = jnp.full(3, PLUS / 255)
    card = {"channels": 3, "limits": {"change": 0.2}}
    path = tmp_path_factory.mktemp("weights") / "plus.safetensors"
    weights.save(path, weights.Deblurrer(module, params, card))
    return path


@pytest.fixture
def deblur(model, monkeypatch, capsys):
    """Runs the command; returns its status, standard output and standard error."""
    monkeypatch.setattr(startup, "use_compilation_cache", lambda: None)

    def run(*arguments, model=model):
        status = 0
        try:
            cli.main(["deblur", *map(str, arguments), "--model", str(model)])
        except SystemExit as end:
            status = end.code
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return status, out, err

    return run


def picture(height=40, width=50, seed=0):
    return np.random.default_rng(seed).integers(0, 240, (height, width, 3), np.uint8)


def save(path, pixels=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture() if pixels is None else pixels).save(path, **options)
    return path


def load(path):
    with Image.open(path) as image:
        return np.asarray(image)


def leftovers(folder):
    return [path for path in folder.rglob("*") if path.name.startswith(".")]


def test_a_photo_becomes_a_better_one_beside_it(tmp_path, deblur):
    source = save(tmp_path / "photo.png")
    before = source.read_bytes()
    status, out, err = deblur(source)
    assert (status, err) == (0, "")
    assert out == f"{tmp_path / 'photo.deblurred.png'}\n"
    np.testing.assert_array_equal(load(tmp_path / "photo.deblurred.png"), picture() + PLUS)
    assert source.read_bytes() == before
    assert not leftovers(tmp_path)


def test_a_folder_keeps_its_structure(tmp_path, deblur):
    given = tmp_path / "given"
    for i, name in enumerate(["a.png", "sub/b.png", "sub/deep/c.png"]):
        save(given / name, picture(20 + i, 30, seed=i))
    status, out, _ = deblur(given, "-o", tmp_path / "out")
    assert status == 0
    assert len(out.splitlines()) == 3
    for i, name in enumerate(["a.png", "sub/b.png", "sub/deep/c.png"]):
        restored = load(tmp_path / "out" / name)
        np.testing.assert_array_equal(restored, picture(20 + i, 30, seed=i) + PLUS)


def test_what_is_lost_is_told_once_and_counted(tmp_path, deblur):
    for name, mode in (("a.png", "P"), ("b.png", "P"), ("c.gif", "P"), ("d.jpg", "CMYK")):
        Image.fromarray(picture()).convert(mode).save(tmp_path / name)
    status, out, err = deblur(tmp_path, tmp_path / "c.gif")  # in folders none is looked for
    assert status == 0
    assert [os.path.basename(line) for line in out.splitlines()] == [
        *("a.deblurred.png", "b.deblurred.png", "d.deblurred.jpg", "c.deblurred.png"),
    ]
    assert err.splitlines() == [
        f"{tmp_path}/a.png: has a palette; its result is RGB",
        f"{tmp_path}/d.jpg: is CMYK; its result is sRGB",
        f"{tmp_path}/c.gif: is GIF, which is not written; its result is PNG",
        "true of 3 files: has a palette; its result is RGB",
    ]


def test_running_again_goes_on(tmp_path, deblur):
    for name in ("a", "b"):
        save(tmp_path / f"{name}.png")
    save(tmp_path / "a.deblurred.png", picture(seed=5))
    status, out, err = deblur(tmp_path)
    assert status == 0
    assert out == f"{tmp_path / 'b.deblurred.png'}\n"
    assert "a.deblurred.png: exists, left as it is (--overwrite" in err
    np.testing.assert_array_equal(load(tmp_path / "a.deblurred.png"), picture(seed=5))
    assert deblur(tmp_path, "--overwrite")[0] == 0
    np.testing.assert_array_equal(load(tmp_path / "a.deblurred.png"), picture() + PLUS)


def test_bad_files_are_told_and_the_others_restored(tmp_path, deblur):
    save(tmp_path / "good.png")
    whole = save(tmp_path / "cut.jpg", picture(200, 200)).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.jpg").write_text("no picture")
    page = Image.fromarray(picture())
    page.save(tmp_path / "pages.tif", save_all=True, append_images=[page])
    (tmp_path / "film.mp4").write_bytes(b"\0" * 100)
    empty = tmp_path / "nothing"
    empty.mkdir()
    status, out, err = deblur(tmp_path, empty, tmp_path / "missing.jpg")
    assert status == 1
    assert out == f"{tmp_path / 'good.deblurred.png'}\n"
    lines = err.splitlines()
    bad = ["cut.jpg", "empty.png", "film.mp4", "pages.tif", "text.jpg"]
    for name, line in zip([*bad, "missing.jpg", "nothing"], lines, strict=True):
        assert line.startswith("error: ")
        assert name in line
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [*bad, "good.deblurred.png", "good.png", "nothing"]
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tile", "big"], "--tile 'big' must be auto, off or a number of pixels"),
        (["--tile", "0"], "tile = 0"),
        (["--strength", "2"], "strength = 2.0 must be between 0 and 1"),
        (["--quality", "99"], "--quality 99 must be between 0 and 51"),
        (["--compare", "nowhere"], "--compare 'nowhere' does not exist"),
        (["--dtype", "int8"], "--dtype: invalid choice: 'int8'"),
        (["-"], "- (standard input) must be the only input"),
    ],
)
def test_wrong_arguments_end_with_status_2(tmp_path, deblur, arguments, message):
    source = save(tmp_path / "photo.png")
    status, out, err = deblur(source, *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1
    assert message in err
    assert list(tmp_path.iterdir()) == [source]


def test_an_unknown_model_is_answered_by_the_nearest(tmp_path, deblur):
    status, out, err = deblur(save(tmp_path / "photo.png"), model="atrous-phot")
    assert (status, out) == (2, "")
    assert "did you mean 'atrous-photo'?" in err


def test_the_output_may_have_another_format(tmp_path, deblur):
    source = save(tmp_path / "photo.png")
    assert deblur(source, "-o", tmp_path / "new.bmp")[0] == 0
    np.testing.assert_array_equal(load(tmp_path / "new.bmp"), picture() + PLUS)
    status, _, err = deblur(source, "-o", tmp_path / "new.xyz")
    assert status == 1
    assert "xyz" in err
    assert not (tmp_path / "new.xyz").exists()


def test_16_bits_grey_and_alpha_are_kept(tmp_path, deblur):
    levels = np.random.default_rng(0).integers(0, 60_000, (30, 20)).astype(np.uint16)
    Image.fromarray(levels).save(tmp_path / "deep.png")
    alpha = np.random.default_rng(1).integers(0, 256, (30, 20, 1), np.uint8)
    save(tmp_path / "clear.png", np.concatenate([picture(30, 20), alpha], axis=-1))
    assert deblur(tmp_path)[0] == 0
    deep = load(tmp_path / "deep.deblurred.png")
    assert deep.shape == levels.shape
    np.testing.assert_allclose(deep, levels + PLUS * 257.0, atol=1)
    clear = load(tmp_path / "clear.deblurred.png")
    np.testing.assert_array_equal(clear[..., 3:], alpha)
    np.testing.assert_array_equal(clear[..., :3], picture(30, 20) + PLUS)


def test_options_reach_the_network(tmp_path, deblur):
    source = save(tmp_path / "photo.png")
    result = tmp_path / "photo.deblurred.png"
    assert deblur(source, "--strength", "0.5", "--self-ensemble", "--tile", "38")[0] == 0
    np.testing.assert_array_equal(load(result), picture() + PLUS // 2)
    assert deblur(source, "--dtype", "bfloat16", "--overwrite")[0] == 0
    np.testing.assert_allclose(load(result), picture() + float(PLUS), atol=1)


def test_an_effort_is_for_networks_in_stages(tmp_path, deblur):
    source = save(tmp_path / "photo.png")
    status, out, err = deblur(source, "--effort", "1")
    assert (status, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith(
        "error: effort = 1 is for networks in stages (maxim); AtrousNet has none"
    )
    status, out, err = deblur(source, "--effort", "much")
    assert (status, out) == (2, "")
    assert "--effort" in err
    assert list(tmp_path.iterdir()) == [source]


def test_the_effort_reaches_the_network(tmp_path, deblur, monkeypatch):
    load_weights, asked = weights.load, []

    def loaded(source, *, dtype, effort):
        asked.append(effort)
        return load_weights(source, dtype=dtype)

    monkeypatch.setattr(weights, "load", loaded)
    source = save(tmp_path / "photo.png")
    assert deblur(source)[0] == deblur(source, "--effort", "2", "--overwrite")[0] == 0
    assert asked == [None, 2]


def nafnet_plus(path, levels):
    """A weights file of a network that sees all of its input, and makes it brighter."""
    module = create_model("nafnet", width=4, encoder_blocks=(1,), decoder_blocks=(1,))
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    params = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes["params"])
    params["ending"]["bias"] += np.float32(levels / 255)
    weights.save(path, weights.Deblurrer(module, params, {"channels": 3}))
    return path


def test_a_photo_that_hardly_changes_is_told_with_what_may_do_more(tmp_path, deblur, small_weights):
    source = save(tmp_path / "photo.png")
    status, out, err = deblur(source, model=small_weights)
    assert (status, out) == (0, f"{tmp_path / 'photo.deblurred.png'}\n")
    assert err == (
        f"{source}: hardly changed, by 0.0 of 255 levels; it was sharp, or has another blur: for a "
        "shaken photograph `jaxdeblur fetch maxim-gopro` and --model maxim-gopro may do more\n"
    )
    # What was asked for is no surprise.
    assert deblur(source, "--strength", "0.5", "--overwrite", model=small_weights)[2] == ""


@pytest.mark.parametrize(("levels", "told"), [(2, True), (3, False)])
def test_of_a_network_that_knows_shake_the_other_blur_is_told(tmp_path, deblur, levels, told):
    model = nafnet_plus(tmp_path / "nafnet.safetensors", levels)
    deep = (picture().astype(np.uint16) * 257)[..., 0]
    for source, pixels in ((tmp_path / "photo.png", picture()), (tmp_path / "deep.png", deep)):
        status, _, err = deblur(save(source, pixels), model=model)
        assert status == 0
        assert ("hardly changed, by 2.0 of 255 levels" in err) == told
        assert ("for a photograph out of focus --model atrous-photo may do more" in err) == told
        assert "maxim-gopro" not in err


def test_blended_tiles_are_told_once_for_a_size(tmp_path, deblur):
    model = nafnet_plus(tmp_path / "nafnet.safetensors", PLUS)
    # Of 40 rows two tiles, of 60 three; of 50 columns two. They overlap by 8 pixels.
    sources = [
        save(tmp_path / "in" / name, picture(height, 50))
        for name, height in (("a.png", 40), ("b.png", 40), ("c.png", 60), ("d.png", 20))
    ]
    status, out, err = deblur(*sources, "--tile", "32", model=model)
    assert status == 0
    assert len(out.splitlines()) == 4
    assert err.splitlines() == [
        f"{sources[0]}: 4 tiles of 30x24 pixels, blended where they overlap",
        f"{sources[2]}: 6 tiles of 30x26 pixels, blended where they overlap",
        f"{sources[3]}: 2 tiles of 30x20 pixels, blended where they overlap",
    ]
    for source, height in zip(sources, (40, 40, 60, 20), strict=True):
        restored = load(source.with_suffix(".deblurred.png"))
        np.testing.assert_array_equal(restored, picture(height, 50) + PLUS)


def test_it_compares_with_the_sharp_photograph(tmp_path, deblur, reference_ssim):
    sharp, blurred = picture(), np.clip(picture().astype(int) - PLUS, 0, 255).astype(np.uint8)
    source = save(tmp_path / "in" / "x.png", blurred)
    save(tmp_path / "sharp" / "x.bmp", sharp)  # of any format
    restored = blurred + PLUS
    values = [
        f"{peak_signal_noise_ratio(sharp, blurred):.2f}",
        f"{peak_signal_noise_ratio(sharp, restored):.2f}",
        *(f"{reference_ssim(sharp / 255, other / 255):.4f}" for other in (blurred, restored)),
    ]
    expected = "x.png: PSNR {} -> {} dB, SSIM {} -> {}".format(*values)
    for original in (tmp_path / "sharp", tmp_path / "sharp" / "x.bmp"):
        status, _, err = deblur(source, "--compare", original, "--overwrite", "--side-by-side")
        assert status == 0
        assert expected in err
    sheet = load(tmp_path / "in" / "x.png.comparison.png")
    columns = np.split(sheet, [50, 58, 108, 116], axis=1)[::2]
    for column, image in zip(columns, (blurred, restored, sharp), strict=True):
        np.testing.assert_array_equal(column, image)

    save(tmp_path / "small.png", picture(20, 20))
    status, _, err = deblur(source, "--compare", tmp_path / "small.png", "--overwrite")
    assert status == 1
    assert "small.png is 20x20 pixels" in err


def test_an_upright_photograph_is_compared_with_one_on_its_side(tmp_path, deblur):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    upright = picture(30, 20)
    source = save(tmp_path / "x.png", np.ascontiguousarray(np.rot90(upright)), exif=exif)
    save(tmp_path / "sharp.png", upright + PLUS)
    status, _, err = deblur(source, "--compare", tmp_path / "sharp.png")
    assert status == 0
    assert "-> inf dB" in err


def test_implausible_results_leave_the_photograph_as_it_was(tmp_path, deblur, model):
    strict = weights.load(model)
    strict.card["limits"]["change"] = 0.01
    weights.save(tmp_path / "strict.safetensors", strict)
    source = save(tmp_path / "photo.png", picture(70, 80))
    status, _, err = deblur(source, model=tmp_path / "strict.safetensors")
    assert status == 0
    assert err.startswith(f"warning: {source}: rows 0 to 70, columns 0 to 80 left as they were")
    np.testing.assert_array_equal(load(tmp_path / "photo.deblurred.png"), picture(70, 80))


def test_standard_streams(tmp_path, model):
    file = io.BytesIO()
    Image.fromarray(picture()).save(file, "PNG")
    command = [sys.executable, "-m", "jaxdeblur", "deblur", "-", "--model", str(model)]
    done = subprocess.run(command, input=file.getvalue(), capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    np.testing.assert_array_equal(load(io.BytesIO(done.stdout)), picture() + PLUS)
    done = subprocess.run(command, input=b"", capture_output=True)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == b"error: standard input: is empty\n"


def write_clip(path, frames):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", 25, {"crf": "5"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv444p"
        for pixels in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def test_a_video_is_restored_frame_by_frame(tmp_path, deblur):
    source = tmp_path / "clip.mp4"
    # Not flat, as what is flat stays as it is.
    squares = 20 * (np.add.outer(np.arange(32) // 4, np.arange(48) // 4) % 2)[..., None]
    frames = np.stack([np.repeat(squares + 50 + 20 * i, 3, axis=-1) for i in range(5)])
    frames = frames.astype(np.uint8)
    write_clip(source, frames)
    status, out, _ = deblur(source, "--quality", 5)
    assert status == 0
    assert out == f"{tmp_path / 'clip.deblurred.mp4'}\n"
    with av.open(str(tmp_path / "clip.deblurred.mp4")) as container:
        restored = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(restored) == 5
    for frame, expected in zip(restored, frames, strict=True):
        np.testing.assert_allclose(frame.mean(), expected.mean() + PLUS, atol=2)

    assert deblur(source, "--frames")[0] == 0
    folder = tmp_path / "clip.deblurred"
    assert [path.name for path in sorted(folder.iterdir())] == [f"{i:08d}.png" for i in range(5)]
    (folder / "00000003.png").unlink()
    assert deblur(source, "--frames")[0] == 0  # goes on where it was
    np.testing.assert_allclose(load(folder / "00000003.png").mean(), 120 + PLUS, atol=2)


@pytest.mark.parametrize(
    ("number", "count"),
    [
        ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
        ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
        ("PMI_RANK", "PMI_SIZE"),
        ("JAX_PROCESS_ID", "JAX_NUM_PROCESSES"),
        ("JOB_COMPLETION_INDEX", "JAX_NUM_PROCESSES"),
    ],
)
def test_processes_divide_the_files(tmp_path, deblur, monkeypatch, number, count):
    names = [f"{i}.png" for i in range(5)]
    for name in names:
        save(tmp_path / "in" / name)
    monkeypatch.setenv(count, "2")
    made = []
    for process in range(2):
        monkeypatch.setenv(number, str(process))
        status, out, _ = deblur(tmp_path / "in", "-o", tmp_path / "out")
        assert status == 0
        made.append(out.splitlines())
    assert [len(lines) for lines in made] == [3, 2]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names


def test_a_batch_script_by_itself_does_all_the_work(tmp_path, deblur, monkeypatch):
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_NTASKS", "2")  # of which srun would start two
    for i in range(2):
        save(tmp_path / f"{i}.png")
    assert len(deblur(tmp_path)[1].splitlines()) == 2


def test_an_output_that_cannot_be_written(tmp_path, deblur, monkeypatch):
    from jaxdeblur.media import photo

    source = save(tmp_path / "photo.png")
    (tmp_path / "file").touch()
    status, _, err = deblur(source, "-o", tmp_path / "file" / "sub" / "x.png")
    assert status == 1
    assert err.startswith("error: ")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(photo.os, "fsync", full)
    status, _, err = deblur(source)
    assert status == 1
    assert "No space left on device" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "photo.png"]


def test_ctrl_c_leaves_nothing_behind(tmp_path, deblur, monkeypatch):
    from jaxdeblur.media import photo

    source = save(tmp_path / "photo.png")

    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(photo.os, "fsync", interrupted)
    status, _, err = deblur(source)
    assert (status, err) == (130, "error: interrupted\n")
    assert list(tmp_path.iterdir()) == [source]


def test_sigterm_leaves_nothing_behind(tmp_path, model):
    source = save(tmp_path / "photo.png")
    code = """
import os, signal
from jaxdeblur import cli
from jaxdeblur.runtime import atomic
atomic.os.fsync = lambda _: os.kill(os.getpid(), signal.SIGTERM)
cli.main()
"""
    command = [sys.executable, "-c", code, "deblur", str(source), "--model", str(model)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (128 + signal.SIGTERM, "")
    assert list(tmp_path.iterdir()) == [source]


def test_a_reader_that_has_had_enough_is_no_bug():
    command = [sys.executable, "-m", "jaxdeblur", "fetch"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 1


def test_names_that_are_no_text_and_a_full_disk_for_the_lines_cost_no_file(tmp_path, model):
    names = [b"a.png", b"caf\xe9.png", "\u96ea.png".encode(), b"z.png"]
    for name in names:
        save(tmp_path / os.fsdecode(name))
    command = [sys.executable, "-m", "jaxdeblur", "deblur", tmp_path, "--model", model]
    ascii_alone = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, env=ascii_alone, check=True)
    told = [os.path.basename(line) for line in done.stdout.splitlines()]
    assert told == [
        b"a.deblurred.png",
        b"caf\\udce9.deblurred.png",
        b"z.deblurred.png",
        b"\\u96ea.deblurred.png",
    ]
    for name in names:
        result = tmp_path / os.fsdecode(name.replace(b".png", b".deblurred.png"))
        np.testing.assert_array_equal(load(result), picture() + PLUS)
        result.unlink()
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    told = b"error: standard output cannot be written (No space left on device)"
    assert done.stderr.splitlines() == [told]
    assert len(list(tmp_path.glob("*.deblurred.png"))) == len(names)


def test_what_cannot_be_listed_is_told_and_the_rest_is_done(tmp_path, deblur):
    save(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "b.png")
    status, out, err = deblur(tmp_path)
    assert status == 1
    assert out == f"{tmp_path / 'a.deblurred.png'}\n"
    assert err.startswith(f"error: {tmp_path / 'b.png'}: cannot be read")


def test_a_folder_is_compared_with_partners_of_the_same_name_alone(tmp_path, deblur):
    darker = np.clip(picture().astype(int) - PLUS, 0, 255).astype(np.uint8)
    for name in ("a.png", "b.png", "c.png", "d.png"):
        save(tmp_path / "in" / name, darker)
    worse = np.clip(picture().astype(int) + 7, 0, 255).astype(np.uint8)
    save(tmp_path / "sharp" / "a.png")
    save(tmp_path / "sharp" / "b.bmp", worse)
    save(tmp_path / "sharp" / "c.old.png")  # of another photograph
    (tmp_path / "sharp" / "c.txt").touch()
    for suffix in ("bmp", "tif"):
        save(tmp_path / "sharp" / f"d.{suffix}")
    status, out, err = deblur(tmp_path / "in", "--compare", tmp_path / "sharp")
    assert status == 1
    assert [os.path.basename(line) for line in out.splitlines()] == [
        "a.deblurred.png",
        "b.deblurred.png",
    ]
    first, second, third, fourth, mean = err.splitlines()
    assert third == f"error: {tmp_path}/in/c.png: has no sharp partner {tmp_path}/sharp/c.png"
    partners = f"has several sharp partners in {tmp_path}/sharp: d.bmp and d.tif"
    assert fourth == f"error: {tmp_path}/in/d.png: {partners}"
    values = [
        [float(x) for x in re.findall(r"(\d+\.\d+)(?= ->| dB|, SSIM|$)", line)]
        for line in (first, second, mean)
    ]
    assert mean.startswith("mean of 2: PSNR ")
    np.testing.assert_allclose(values[2], np.mean(values[:2], axis=0), atol=0.01)


def test_a_result_may_be_read_by_whoever_may_read_its_source(tmp_path, deblur):
    source = save(tmp_path / "in" / "a.png")
    source.chmod(0o600)
    status, _, _ = deblur(source, "-o", tmp_path / "out", "--side-by-side")
    assert status == 0
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "out").iterdir()}
    assert modes == {"a.png": 0o600, "a.png.comparison.png": 0o600}


def test_a_comparison_is_made_of_a_result_that_has_none(tmp_path, deblur):
    source = save(tmp_path / "a.png")
    assert deblur(source)[0] == 0
    status, out, err = deblur(source, "--side-by-side")
    assert (status, out) == (0, "")
    assert "a.deblurred.png: exists, left as it is" in err
    sheet = load(tmp_path / "a.png.comparison.png")
    np.testing.assert_array_equal(sheet[:, :50], picture())
    np.testing.assert_array_equal(sheet[:, 58:], picture() + PLUS)


def test_leftovers_of_a_killed_run_are_removed(tmp_path, deblur):
    source = save(tmp_path / "a.png")
    (tmp_path / ".jaxdeblur-0123456789abcdef.part.png").write_bytes(b"half")
    assert deblur(source)[0] == 0
    assert not leftovers(tmp_path)


def test_a_result_that_another_process_made_meanwhile_is_no_failure(tmp_path, deblur, monkeypatch):
    source, target = save(tmp_path / "a.png"), tmp_path / "a.deblurred.png"
    encode = photo.encode

    def encode_slowly(*arguments):
        save(target, picture(seed=3))
        return encode(*arguments)

    monkeypatch.setattr(photo, "encode", encode_slowly)
    status, out, err = deblur(source)
    assert (status, out) == (0, "")
    assert err == f"{target}: exists, left as it is (--overwrite replaces it)\n"
    np.testing.assert_array_equal(load(target), picture(seed=3))


def test_an_old_comparison_stays_and_the_new_result_is_told(tmp_path, deblur):
    source = save(tmp_path / "a.png")
    old = save(tmp_path / "a.png.comparison.png", picture(9, 9)).read_bytes()
    status, out, err = deblur(source, "--side-by-side")
    assert (status, out, err) == (0, f"{tmp_path / 'a.deblurred.png'}\n", "")
    assert (tmp_path / "a.png.comparison.png").read_bytes() == old
