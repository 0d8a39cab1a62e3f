"""Random folders for `fuzz.py`, with what is known of every file in them."""

from __future__ import annotations

import dataclasses
import enum
import os
import random
from pathlib import Path

import fuzz_pictures

import jaxdeblur


class Fate(enum.Enum):
    """What has to become of a file that the command comes to."""

    RESULT = "it has a result"
    TOLD = "it is told, and has none"
    EITHER = "one or the other"


@dataclasses.dataclass
class Case:
    """A folder and a command.

    Attributes:
      place: where everything lies: `given`, `outside` that no command may touch, and results.
      arguments: of `jaxdeblur deblur`, less the model.
      inputs: those of the arguments that are files and folders.
      sources: what there is to restore, whether the command comes to it or not.
      results: files that an earlier run made.
      output: what `-o` names.
      rng: for whoever runs the command.
      nobody: whether the command may only what is allowed to all.
    """

    place: Path
    rng: random.Random
    arguments: list[str] = dataclasses.field(default_factory=list)
    inputs: list[Path] = dataclasses.field(default_factory=list)
    sources: dict[Path, Fate] = dataclasses.field(default_factory=dict)
    results: set[Path] = dataclasses.field(default_factory=set)
    output: Path | None = None
    nobody: bool = False

    @property
    def given(self) -> Path:
        return self.place / "given"

    def has(self, option: str) -> bool:
        return option in self.arguments


_WORDS = ("a", "photo", "IMG_1234", "snow \u96ea", "caf\u00e9", "cafe\u0301", "\U0001f600", "x.y.z")
_ODD = (
    *("-dash", "--overwrite", "~", "~root", "~nobodyhere", "new\nline", "tab\tbed", "\x1b[31mred"),
    *(" front", "back ", "two  spaces", "[red]x[bold]", ":smile:", "%s%d", "quo\"te's", "*?[a]"),
    *("\u202ertl", "a\\b", "#", "$HOME", "`x`", "CON", "\x7f", "...", "deblurred", "comparison"),
)
_OTHERS = (".txt", ".xmp", ".part", "", ".png~", ".json")


def make(seed: int, place: Path) -> Case:
    """Makes the folder of a seed, and chooses a command."""
    case = Case(place, random.Random(seed))
    place.mkdir()
    (place / "outside").mkdir()
    case.given.mkdir()
    (place / "outside" / "photo.png").write_bytes(fuzz_pictures.photo(case.rng, ".png"))
    folders = _make_folders(case)
    for _ in range(case.rng.randint(1, 6)):
        _make_file(case, case.rng.choice(folders))
    for _ in range(case.rng.choice((0, 0, 1, 2))):
        _make_link(case, case.rng.choice(folders))
    _choose_inputs(case)
    _choose_options(case)
    if case.rng.random() < 0.3 and _may_become_nobody():
        _close_some(case, folders)
    return case


def _may_become_nobody() -> bool:
    """Whether the command can run without root's permissions: others may read the package."""
    package = Path(jaxdeblur.__file__).parent
    return os.geteuid() == 0 and all(p.stat().st_mode & 0o001 for p in (package, *package.parents))


def _make_folders(case: Case) -> list[Path]:
    folders = [case.given]
    for _ in range(case.rng.choice((0, 0, 1, 2, 3))):
        folder = case.rng.choice(folders) / _name(case.rng, most=60)
        if not os.path.lexists(folder):
            folder.mkdir()
            folders.append(folder)
    return folders


def _name(rng: random.Random, suffix: str = "", most: int = 255) -> str:
    """The name of a file; most of the odd ones are odd in one way."""
    kind = rng.random()
    if kind < 0.5:
        stem = rng.choice(_WORDS) + str(rng.randint(0, 9))
    elif kind < 0.8:
        stem = rng.choice(_ODD)
    elif kind < 0.9:
        stem = os.fsdecode(bytes(rng.randint(0x80, 0xFF) for _ in range(3)))  # rarely UTF-8
    else:
        stem = rng.choice("xy") * (most - len(suffix) - rng.randint(0, 20))
    if stem in (".", "..", "") or len(os.fsencode(stem + suffix)) > most:
        stem = "short"
    return stem + suffix


def _make_file(case: Case, folder: Path) -> None:
    """Adds one file, and what belongs to it."""
    rng = case.rng
    suffix = rng.choice(fuzz_pictures.SUFFIXES)
    kind = rng.random()
    if kind < 0.55:
        content, fate = fuzz_pictures.photo(rng, suffix), Fate.RESULT
    elif kind < 0.75:
        content, fate = fuzz_pictures.damaged(rng, suffix), Fate.TOLD
    elif kind < 0.8:
        suffix = rng.choice((".mp4", ".mkv", ".MOV"))
        content, fate = fuzz_pictures.video(suffix), Fate.RESULT
    elif kind < 0.85:  # the suffix of another format
        content, fate = fuzz_pictures.photo(rng, rng.choice(fuzz_pictures.SUFFIXES)), Fate.EITHER
    else:
        suffix, content, fate = rng.choice(_OTHERS), rng.randbytes(20), None
    if rng.random() < 0.1:
        suffix = suffix.upper()
    path = folder / _name(rng, suffix)
    if os.path.lexists(path):
        return
    path.write_bytes(content)
    if fate is not None:
        case.sources[path] = fate
        if rng.random() < 0.15:
            _make_earlier_result(case, path, content)
    if rng.random() < 0.05:
        (folder / f".jaxdeblur-{rng.randbytes(8).hex()}.part{suffix}").write_bytes(b"half")


def _make_earlier_result(case: Case, path: Path, content: bytes) -> None:
    result = path.with_name(f"{path.stem}.deblurred{path.suffix}")
    if len(os.fsencode(result.name)) <= 255 and not os.path.lexists(result):
        result.write_bytes(content)
        case.results.add(result)


def _make_link(case: Case, folder: Path) -> None:
    """Adds a hard link or a symbolic one: to a file, a folder, nowhere, or to itself."""
    rng = case.rng
    path = folder / f"link{rng.randint(0, 99)}.png"
    if os.path.lexists(path):
        return
    sound = [path for path, fate in case.sources.items() if fate is Fate.RESULT]
    kind = rng.choice(("hard", "soft", "folder", "nowhere", "loop", "outside"))
    if kind in ("hard", "soft"):
        if not sound:
            return
        target = rng.choice(sound)
        (path.hardlink_to if kind == "hard" else path.symlink_to)(target)
        # Under another suffix it is another format's, and a video's is none of a photograph.
        case.sources[path] = Fate.RESULT if target.suffix == ".png" else Fate.EITHER
    elif kind == "folder":
        path.symlink_to(rng.choice((case.given, case.place / "outside")))
    elif kind == "outside":
        path.symlink_to(case.place / "outside" / "photo.png")
        case.sources[path] = Fate.RESULT
    else:
        path.symlink_to(path if kind == "loop" else folder / "nowhere")
        case.sources[path] = Fate.TOLD


def _choose_inputs(case: Case) -> None:
    rng = case.rng
    files = list(case.sources) or [case.given / "missing.png"]
    kind = rng.random()
    if kind < 0.5:
        case.inputs = [case.given]
    elif kind < 0.7:
        case.inputs = [rng.choice(files)]
    elif kind < 0.8:
        case.inputs = [rng.choice(files)] * 2
    elif kind < 0.9:
        case.inputs = rng.sample(files, rng.randint(1, len(files)))
    else:
        case.inputs = [case.given, rng.choice(files), case.given / "missing.png"]
        case.sources[case.given / "missing.png"] = Fate.TOLD
    case.arguments = ["--", *map(str, case.inputs)]


def _choose_options(case: Case) -> None:
    rng, options = case.rng, []
    kind = rng.random()
    if kind < 0.5:
        place = rng.choice((case.place / "out", case.given / "out", case.place, case.given))
        if rng.random() < 0.3:
            (case.place / "out").mkdir(exist_ok=True)
        case.output = place
    elif kind < 0.6 and len(case.inputs) == 1 and case.inputs[0] != case.given:
        case.output = case.place / f"result{rng.choice(('.png', '.jpg', '.tif', '.xyz'))}"
    if case.output:
        options += ["-o", str(case.output)]
    for option, share in (("--overwrite", 0.25), ("--frames", 0.15), ("--side-by-side", 0.15)):
        options += [option] if rng.random() < share else []
    if case.inputs == [case.given] and rng.random() < 0.1:
        options += ["--compare", str(case.given)]
    case.arguments = [*options, *case.arguments]


def _close_some(case: Case, folders: list[Path]) -> None:
    """Takes permissions away, and leaves the command without those of root."""
    rng = case.rng
    case.nobody = True
    for folder in (case.place, *folders):
        folder.chmod(0o777)
    for path in case.sources:
        if path.is_symlink() or not path.exists():
            continue
        path.chmod(rng.choice((0o644, 0o644, 0o444, 0o000)))
    for path in case.sources:  # now, since some are the same file
        if path.exists() and path.stat().st_mode & 0o004 == 0:
            case.sources[path] = Fate.TOLD
    if rng.random() < 0.3 and len(folders) > 1:
        folder = rng.choice(folders[1:])
        folder.chmod(rng.choice((0o000, 0o444, 0o555)))
        for source in case.sources:
            if folder in (*source.parents, *Path(os.path.realpath(source)).parents):
                case.sources[source] = Fate.EITHER
