import pytest

from jaxdeblur.errors import InputError
from jaxdeblur.workdir import folders

# What Python takes for numbers, or nearly, and no step is written as.
NO_STEPS = [
    "0099",
    "00",
    "\u0663",
    "\u00b2",
    "9" * 25,
    "-1",
    "+3",
    "1e3",
    " 3",
    "3.orbax-checkpoint-tmp",
]


def test_a_step_has_one_name(tmp_path):
    for step in (0, 3, 99, 10**17):
        assert folders.step_of(str(step)) == step
    for name in NO_STEPS:
        assert folders.step_of(name) is None
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert folders.steps(tmp_path) == []
    for name in ("10", "9"):
        (tmp_path / "checkpoints" / name).mkdir()
    (tmp_path / "checkpoints" / "11").write_text("a file")
    assert folders.steps(tmp_path) == [9, 10]


@pytest.mark.parametrize("name", NO_STEPS[:5])
def test_a_checkpoint_of_another_name_is_told(tmp_path, name):
    (tmp_path / "checkpoints" / name).mkdir(parents=True)
    with pytest.raises(InputError, match=f"checkpoints/{name}' has no name .* rename it"):
        folders.check_names(tmp_path)


def test_a_file_where_the_checkpoints_should_be_is_told(tmp_path):
    assert folders.steps(tmp_path / "none") == []
    (tmp_path / "checkpoints").write_text("a file")
    with pytest.raises(InputError, match="checkpoints' should be the folder of the checkpoints"):
        folders.steps(tmp_path)
