"""What is restored, and where to."""

from pathlib import Path

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


def test_files_of_one_result_do_not_cost_the_others(tmp_path):
    touch(*(tmp_path / name for name in ("a.png", "b.avi", "b.mkv", "c.mov", "c.mp4", "d.png")))
    found, problems = targets([tmp_path])
    names = [Path(name).name for name in found]
    assert names == [
        "a.deblurred.png",
        "b.deblurred.mkv",
        "c.deblurred.mov",
        "c.deblurred.mp4",
        "d.deblurred.png",
    ]
    (problem,) = problems
    assert problem.startswith(f"{tmp_path / 'b.mkv'}: its result ")
    found, problems = targets([tmp_path], frames=True)
    assert len(found) == 4
    assert [problem.partition(": ")[0] for problem in problems] == [
        str(tmp_path / "b.mkv"),
        str(tmp_path / "c.mp4"),
    ]


def test_a_result_that_is_a_hard_link_to_its_source_does_not_cost_the_others(tmp_path):
    touch(tmp_path / "in" / "a.png", tmp_path / "in" / "b.png", tmp_path / "out" / "z")
    (tmp_path / "out" / "a.png").hardlink_to(tmp_path / "in" / "a.png")
    found, problems = targets([tmp_path / "in"], tmp_path / "out")
    assert found == [str(tmp_path / "out" / "b.png")]
    assert problems == [
        f"{tmp_path / 'in' / 'a.png'}: the output would be the input; give another -o"
    ]


@pytest.mark.parametrize("length", [240, 255])
def test_a_name_that_leaves_no_room_for_the_results_is_told(tmp_path, length):
    longest = tmp_path / ("x" * (length - 4) + ".png")
    touch(longest, tmp_path / "a.png")
    found, problems = targets([tmp_path])
    fits = length + len(".deblurred") <= 255
    assert len(found) == 1 + fits
    assert len(problems) == 1 - fits
    if problems:
        assert problems[0].startswith(f"{longest}: ")
        assert "cannot be written (File name too long)" in problems[0]


def test_folders_that_cannot_be_read_or_entered_are_told(tmp_path, somebody_else):
    touch(*(tmp_path / "given" / name for name in ("a.png", "closed/b.png", "listed/c.png")))
    (tmp_path / "given" / "closed").chmod(0o000)
    (tmp_path / "given" / "listed").chmod(0o744)
    with somebody_else():
        found, problems = targets([tmp_path / "given"])
    assert found == [str(tmp_path / "given" / "a.deblurred.png")]
    assert sorted(problems) == [
        f"{tmp_path}/given/closed: cannot be read (Permission denied)",
        f"{tmp_path}/given/listed/c.png: cannot be read (Permission denied)",
    ]


def test_a_link_that_leads_nowhere_or_round_is_told(tmp_path):
    touch(tmp_path / "a.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "nowhere.png").symlink_to(tmp_path / "gone.png")
    found, problems = targets([tmp_path])
    assert found == [str(tmp_path / "a.deblurred.png")]
    assert [problem.partition(":")[0] for problem in problems] == [
        str(tmp_path / "loop.png"),
        str(tmp_path / "nowhere.png"),
    ]


def test_an_output_above_the_input_is_no_reason_to_leave_files_out(tmp_path):
    touch(tmp_path / "in" / "a.png", tmp_path / "in" / "b" / "c.png")
    found, problems = targets([tmp_path / "in"], tmp_path)
    assert found == [str(tmp_path / "a.png"), str(tmp_path / "b" / "c.png")]
    assert problems == []


def test_own_results_are_no_inputs_however_they_are_named(tmp_path):
    touch(tmp_path / "a.png", tmp_path / "a.deblurred.png", tmp_path / "a.png.comparison.png")
    touch(tmp_path / "clip.mp4", tmp_path / "clip.deblurred" / "00000000.png")
    expected = [str(tmp_path / name) for name in ("a.deblurred.png", "clip.deblurred.mp4")]
    assert targets([tmp_path]) == (expected, [])
    everything = sorted(path for path in tmp_path.iterdir())
    assert targets(everything) == (expected, [])
    again = targets([tmp_path / "a.deblurred.png"])[0]  # meant so
    assert again == [str(tmp_path / "a.deblurred.deblurred.png")]


def test_a_file_given_twice_is_restored_once(tmp_path):
    touch(tmp_path / "a.png")
    assert targets([tmp_path / "a.png", tmp_path]) == ([str(tmp_path / "a.deblurred.png")], [])


@pytest.mark.parametrize("kind", ["symlink_to", "hardlink_to"])
def test_an_original_is_no_target(tmp_path, kind):
    touch(tmp_path / "in" / "a.png", tmp_path / "in" / "b.png", tmp_path / "out" / "c.png")
    getattr(tmp_path / "out" / "a.png", kind)(tmp_path / "in" / "b.png")
    found, problems = targets([tmp_path / "in"], tmp_path / "out")
    assert found == [str(tmp_path / "out" / "b.png")]
    source, target, other = (tmp_path / x for x in ("in/a.png", "out/a.png", "in/b.png"))
    assert problems == [f"{source}: its result {target} would replace {other}; give another -o"]


def test_each_result_has_a_comparison_of_its_own(tmp_path):
    touch(tmp_path / "a.png", tmp_path / "a.jpg")
    jobs, _ = files.find([str(tmp_path)], None)
    names = [job.comparison.name for job in jobs]
    assert names == ["a.jpg.comparison.png", "a.png.comparison.png"]
