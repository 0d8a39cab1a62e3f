import datetime
import subprocess
import sys

import pytest

from jaxdeblur.errors import InputError
from jaxdeblur.evaluation import tables


def row(**changes):
    values = {
        "weights": "small",
        "model": "atrous_net",
        "params": 792_675,
        "data": "CIFAR-10 test",
        "protocol": "whole, once; RGB",
        "part": None,
        "min_sigma": 0.0,
        "max_sigma": 3.0,
        "num_images": 4000,
        "unchanged": 0.095,
        "psnr": 33.5609,
        "ssim": 0.917656,
        "mse": 0.00164824,
        "least_gain": -0.25,
        "blurred_psnr": 24.7549,
        "blurred_ssim": 0.714949,
        "blurred_mse": 0.00627577,
        "date": datetime.date(2026, 11, 24),
    }
    return tables.Row(**{**values, **changes})


def test_what_is_written_is_read_again(tmp_path):
    nothing = dict.fromkeys(
        ["params", "min_sigma", "max_sigma", "psnr", "ssim", "mse", "least_gain"]
    )
    rows = [
        row(),
        row(part=8, weights='kaist_net (von, "Zürich"\nneu)'),
        row(weights="", model="", blurred_psnr=float("inf"), **nothing),
    ]
    tables.write(tmp_path / "table.csv", rows)
    assert tables.read(tmp_path / "table.csv") == rows
    assert tables.read(tmp_path / "none.csv") == []


def test_the_columns_and_six_digits(tmp_path):
    tables.write(tmp_path / "table.csv", [row(psnr=33.56094321)])
    header, line = (tmp_path / "table.csv").read_text().splitlines()
    assert header == (
        "weights,model,params,data,protocol,part,min_sigma,max_sigma,num_images,unchanged,"
        "psnr,ssim,mse,least_gain,blurred_psnr,blurred_ssim,blurred_mse,date"
    )
    assert line == (
        'small,atrous_net,792675,CIFAR-10 test,"whole, once; RGB",,0,3,4000,0.095,'
        "33.5609,0.917656,0.00164824,-0.25,24.7549,0.714949,0.00627577,2026-11-24"
    )


def test_an_evaluation_takes_the_place_of_the_earlier_one(tmp_path):
    path = tmp_path / "table.csv"
    first = [row(), row(part=1), row(part=2)]
    others = [row(weights="other"), row(protocol="in parts; RGB"), row(data="CIFAR-10 val")]
    tables.add(path, [others[0]])
    tables.add(path, first)
    for other in others[1:]:
        tables.add(path, [other])
    assert tables.read(path) == [others[0], *first, *others[1:]]
    again = [row(psnr=34.0, part=part) for part in (None, 1, 2, 3)]
    tables.add(path, again)
    assert tables.read(path) == [others[0], *again, *others[1:]]


HEADER = ",".join(tables._COLUMNS) + "\n"
LINE = "a,b,1,c,d,,0,3,8,0,30,0.9,0.001,-1,25,0.8,0.002,2026-11-24\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no table of results"),
        (b"image,psnr\na.png,30\n", "its first line is 'image,psnr'"),
        (b"# Results\n", "is no table of results"),
        (b"\x89PNG\r\n\xff\xfe", "cannot be read as CSV"),
        (HEADER + LINE + LINE[:20], "is damaged in line 3"),
        (HEADER + LINE[:-2], "is damaged in line 2"),  # the date is cut
        (HEADER + LINE.replace("2026-11-24", "today"), "'today'"),
        (HEADER + LINE.replace("30,", "thirty,"), "'thirty'"),
        (HEADER + LINE.replace(",8,", ",,"), "is damaged in line 2"),  # no number of images
        (HEADER + LINE.replace("a,b", 'a,"b'), "is damaged in line 2"),
    ],
)
def test_what_is_no_whole_table_is_refused_and_kept(tmp_path, content, message):
    path = tmp_path / "table.csv"
    content = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        tables.add(path, [row()])
    assert str(path) in str(error.value)
    assert path.read_bytes() == content
    assert [file.name for file in tmp_path.iterdir()] == ["table.csv"]


def test_a_table_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(InputError, match=r"missing/table\.csv"):
        tables.write(tmp_path / "missing" / "table.csv", [row()])
    with pytest.raises(InputError, match="directory"):
        tables.read(tmp_path)


ADDING = """
import sys, dataclasses
from jaxdeblur.evaluation import tables
path, number = sys.argv[1:]
row, = tables.read(sys.argv[1].replace("table", "first"))
print("ready", flush=True)
sys.stdin.readline()
for i in range(12):
    tables.add(path, [dataclasses.replace(row, weights=f"{number}/{i}")])
"""


@pytest.mark.slow
def test_no_row_is_lost_when_several_processes_add_to_one_table(tmp_path):
    tables.write(tmp_path / "first.csv", [row()])
    (tmp_path / "link.csv").symlink_to(tmp_path / "table.csv")  # another name of the same table
    command = [sys.executable, "-c", ADDING]
    processes = [
        subprocess.Popen(
            [*command, str(tmp_path / "table.csv"), str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    tables.add(tmp_path / "link.csv", [row(weights="through a link")])
    assert [process.wait() for process in processes] == [0] * 4
    for process in processes:
        process.communicate()
    lines = (tmp_path / "table.csv").read_text().splitlines()  # not our own reader
    assert len(lines) == 1 + 4 * 12 + 1
    assert len({line.partition(",")[0] for line in lines}) == len(lines)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["first.csv", "link.csv", "table.csv"]


def test_a_table_of_the_longest_name_is_added_to(tmp_path):
    path = tmp_path / ("t" * 251 + ".csv")
    tables.add(path, [row()])
    tables.add(path, [row(weights="other")])
    assert len(tables.read(path)) == 2


@pytest.mark.parametrize("name", ["~nosuchuser/t.csv", "n" * 300, "a/" * 2100 + "t.csv"])
def test_names_that_no_file_can_have_are_told(tmp_path, name):
    for call in (tables.read, lambda path: tables.add(path, [row()])):
        with pytest.raises(InputError, match="table = "):
            call(name if name.startswith("~") else tmp_path / name)


def test_a_name_that_is_no_text_is_written_with_escapes(tmp_path):
    tables.add(tmp_path / "table.csv", [row(weights="net (\udcff.pth)")])
    assert b"net (\\udcff.pth)" in (tmp_path / "table.csv").read_bytes()
