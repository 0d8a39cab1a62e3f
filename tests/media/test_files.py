"""What is restored, and where to."""

import pytest

from jaxdeblur.media import files


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def targets(inputs, output=None, **options):
    jobs, problems = files.find([str(x) for x in inputs], output and str(output), **options)
    return [str(job.target) for job in jobs], [str(problem) for problem in problems]


def test_results_lie_beside_their_sources(tmp_path):
    touch(tmp_path / "a.JPG", tmp_path / "clip.mov", tmp_path / "old.avi")
    inputs = [tmp_path / name for name in ("a.JPG", "clip.mov", "old.avi")]
    expected = ["a.deblurred.JPG", "clip.deblurred.mov", "old.deblurred.mkv"]
    assert targets(inputs) == ([str(tmp_path / name) for name in expected], [])
    expected[1:] = ["clip.deblurred", "old.deblurred"]
    assert targets(inputs, frames=True)[0] == [str(tmp_path / name) for name in expected]


def test_folders_are_searched_and_their_structure_kept(tmp_path):
    given = tmp_path / "given"
    touch(given / "b.png", given / "sub" / "deep" / "a.tiff", given / "sub" / "c.mp4")
    # Nothing to restore: other files, hidden ones, earlier results.
    touch(given / "notes.txt", given / ".hidden.png", given / ".cache" / "x.png")
    touch(given / "b.deblurred.png", given / "b.comparison.png")
    beside, problems = targets([given])
    assert [name.removeprefix(f"{given}/") for name in beside] == [
        "b.deblurred.png",
        "sub/c.deblurred.mp4",
        "sub/deep/a.deblurred.tiff",
    ]
    assert problems == []
    away = tmp_path / "away"
    assert targets([given], away)[0] == [
        str(away / name) for name in ("b.png", "sub/c.mp4", "sub/deep/a.tiff")
    ]


def test_results_inside_the_folder_are_not_restored_again(tmp_path):
    touch(tmp_path / "a.png", tmp_path / "out" / "a.png")
    jobs, problems = files.find([str(tmp_path)], str(tmp_path / "out"))
    assert [job.source for job in jobs] == [tmp_path / "a.png"]
    assert problems == []


def test_a_single_file_can_be_named(tmp_path):
    touch(tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.mp4")
    named = tmp_path / "restored.webp"
    assert targets([tmp_path / "a.png"], named)[0] == [str(named)]
    # Folders: one that exists, one that is to be made, and always for several files.
    (tmp_path / "out.d").mkdir()
    assert targets([tmp_path / "a.png"], tmp_path / "out.d")[0] == [str(tmp_path / "out.d/a.png")]
    assert targets([tmp_path / "a.png"], tmp_path / "new")[0] == [str(tmp_path / "new/a.png")]
    assert targets([tmp_path / "a.png", tmp_path / "b.png"], named)[0] == [
        str(named / "a.png"),
        str(named / "b.png"),
    ]
    assert targets([tmp_path / "c.mp4"], tmp_path / "frames", frames=True)[0] == [
        str(tmp_path / "frames")
    ]


def test_problems_name_the_input_and_leave_the_others(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    touch(tmp_path / "a.png", tmp_path / "one" / "x.png", tmp_path / "two" / "x.png")
    found, problems = targets([empty, tmp_path / "a.png"])
    assert found == [str(tmp_path / "a.deblurred.png")]
    assert problems[0].startswith(f"{empty}: holds no photographs")

    found, problems = targets([tmp_path / "one", tmp_path / "two"], tmp_path / "out")
    assert found == [str(tmp_path / "out" / "x.png")]
    assert "is that of" in problems[0]
    assert str(tmp_path / "two" / "x.png") in problems[0]


@pytest.mark.parametrize("output", ["a.png", "link.png", "."])
def test_the_output_is_never_the_input(tmp_path, output):
    touch(tmp_path / "a.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "a.png")
    found, problems = targets([tmp_path / "a.png"], tmp_path / output)
    assert found == []
    assert "the output would be the input" in problems[0]


def test_a_missing_file_is_left_to_its_reader(tmp_path):
    assert targets([tmp_path / "none.jpg"])[0] == [str(tmp_path / "none.deblurred.jpg")]
