from jaxdeblur.workdir import log


def test_lines_that_were_cut_off_or_are_none_of_ours_are_left_out(tmp_path):
    lines = ['{"step": 1, "loss": 0.5}\n', "\n", "[1]\n", "7\n", '{"loss": 2}\n', "\x00\x00\n"]
    (tmp_path / "metrics.jsonl").write_text(
        "".join(lines) + '{"step": 2, "loss": 0.25}\n' + '{"step": 3, "lo'
    )
    assert log.read_metrics(tmp_path) == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}]


def test_a_workdir_without_a_log_has_no_lines(tmp_path):
    assert log.read_metrics(tmp_path) == []
    assert log.validation_psnr(tmp_path) == {}
