"""Arrays of HDF5 files from elsewhere: what a file says of itself is not trusted.

A file of HDF5 can lead out of itself: to other files by links, by storage outside of it and by
datasets that are put together of others. It can tell of arrays of any size and write none of them,
and lead back into itself. Here a place is gone to name by name, no link is followed, and an array
is read once its size is known to be one that the file can hold.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from jaxdeblur.convert.archives import check_growth
from jaxdeblur.errors import InputError, naming_extra


class Weights:
    """The arrays of one file, open for reading.

    Args:
      path: of the file, for messages and for the size that it has.
      file: the `h5py.File`.
    """

    def __init__(self, path: Path, file: Any):
        self._path, self._file = path, file
        self._bytes = 0

    def names(self, place: str, attribute: str) -> list[str] | None:
        """The names that an attribute of a group lists; None where it has no such attribute.

        Raises:
          KeyError: no such group.
          ValueError: no list of names.
        """
        found = self._at(place).attrs.get(attribute)
        if found is None:
            return None
        # An empty list has no type of its own: Keras writes it as numbers.
        if np.ndim(found) != 1 or (np.size(found) and np.asarray(found).dtype.kind not in "SUO"):
            raise ValueError(f"{attribute} of {place or '/'} is no list of names")
        return [name.decode() if isinstance(name, bytes) else str(name) for name in found]

    def text(self, attribute: str) -> str | bytes | None:
        """The text in an attribute of the file; None where it has none."""
        found = self._file.attrs.get(attribute)
        return found if isinstance(found, (str, bytes)) else None

    def has_group(self, place: str) -> bool:
        """Whether there is a group of that name in the file itself."""
        return not place or place in self._file

    def members(self, place: str) -> list[str]:
        """The names of what a group holds.

        Raises:
          KeyError: no such group.
        """
        return list(self._at(place))

    def array(self, place: str) -> np.ndarray:
        """Reads an array of floats.

        Raises:
          KeyError: there is none.
          ValueError: it is of another type, or lies outside of the file.
          InputError: it is larger than the file can hold.
        """
        import h5py

        found = self._at(place)
        if not isinstance(found, h5py.Dataset):
            raise ValueError(f"{place} is no array")
        if found.external or found.is_virtual:
            raise ValueError(f"{place} lies in another file")
        if found.shape is None or found.dtype.kind != "f":
            raise ValueError(f"{place} is of type {found.dtype}, no float")
        self._bytes += math.prod(found.shape) * found.dtype.itemsize
        check_growth(self._path, self._bytes)
        return np.asarray(found[()])

    def _at(self, place: str) -> Any:
        import h5py

        found = self._file
        for name in place.split("/"):
            if not name:
                continue
            if not isinstance(found, h5py.Group):
                raise KeyError(f"{place}: there is no {name}")
            link = found.get(name, getlink=True)
            if link is None:
                raise KeyError(f"{place}: there is no {name}")
            if not isinstance(link, h5py.HardLink):
                raise ValueError(f"{place}: {name} is a link to another place")
            found = found[name]
        return found


@contextlib.contextmanager
def opened(path: Path, name: str, content: BinaryIO | None = None) -> Iterator[Weights]:
    """Opens a file of weights, for reading inside.

    Args:
      path: of the file.
      name: what to call it in messages.
      content: of the file of weights that lies inside `path`, where it is not that itself.

    Raises:
      InputError: it cannot be read, or what is read of it is damaged or not to be trusted.
    """
    with naming_extra():
        import h5py

    if content is None and os.path.exists(path) and not os.path.isfile(path):
        raise InputError(f"{name} = {str(path)!r} is no file; give one of weights")
    try:
        with h5py.File(path if content is None else content, "r") as file:
            yield Weights(path, file)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{name} = {str(path)!r} cannot be read ({error})") from error
    except KeyError as error:
        raise InputError(
            f"{name} = {str(path)!r} does not hold the layers of this model ({error.args[0]})"
        ) from error
    except Exception as error:  # a damaged file raises whatever the library does
        raise InputError(
            f"{name} = {str(path)!r} is no file of weights that can be read ({error})"
        ) from error
