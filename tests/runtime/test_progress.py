import pytest

from jaxdeblur.runtime import progress


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0, "00:00:00"),
        (59.9, "00:00:59"),
        (86_399, "23:59:59"),
        (86_400, "1 day 00:00:00"),
        (2 * 86_400 + 3 * 3600 + 12 * 60 + 44.5, "2 days 03:12:44"),
        (40 * 86_400, "40 days 00:00:00"),
    ],
)
def test_a_time_of_days_has_them(seconds, told):
    assert progress.duration(seconds) == told


def test_the_line_of_a_long_run_tells_days(capsys, monkeypatch):
    clock = iter([1000.0, 1000.0 + 2 * 86_400])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock, 1e6))
    line = progress.ProgressLine("training", 4)
    line.update(2, "l1 0.1")
    assert "training 2/4  l1 0.1  2 days 00:00:00 left" in capsys.readouterr().err
