import pytest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--data_dir nowhere --only cifar", "did you mean 'cifar10'"),
        ("", "give --data_dir DIR, or --page"),
        ("--data_dir nowhere", "'nowhere' has no folder 'tfds', which cifar10 needs"),
    ],
)
def test_wrong_arguments_are_one_line(arguments, message, run_script):
    result = run_script("tools/results.py", *arguments.split())
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
