"""ICC profiles of colours that are told by code points, as in video, or by gamma and primaries.

Code points are those of ITU-T H.273, as in PNG's cICP chunk and the nclx boxes of AVIF and HEIC.
"""

from __future__ import annotations

import struct

import numpy as np

from jaxdeblur.media.metadata.common import Metadata

SRGB_PRIMARIES, SRGB_TRANSFER = 1, 13
_UNSPECIFIED = 2
_HDR = (16, 18)  # PQ and HLG

Chromaticities = tuple[float, ...]
"""x and y of white, red, green and blue, as in PNG's cHRM chunk."""

_D65, _C = (0.3127, 0.3290), (0.310, 0.316)
SRGB: Chromaticities = (*_D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_PRIMARIES: dict[int, Chromaticities] = {
    1: SRGB,
    4: (*_C, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (*_D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    7: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    8: (*_C, 0.681, 0.319, 0.243, 0.692, 0.145, 0.049),
    9: (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    22: (*_D65, 0.630, 0.340, 0.295, 0.605, 0.155, 0.077),
}

# Parameters of ICC's parametric curves: g alone, or g, a, b, c and d of
# (a x + b)^g from d on and c x below it.
_BT709 = (1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081)
_TRANSFERS: dict[int, tuple[float, ...]] = {
    1: _BT709,
    4: (2.2,),
    5: (2.8,),
    6: _BT709,
    7: (1 / 0.45, 1 / 1.1115, 0.1115 / 1.1115, 1 / 4, 0.0912),
    8: (1.0,),
    11: _BT709,
    13: (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045),
    14: _BT709,
    15: _BT709,
    17: (2.6,),
}

_D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)


def is_srgb(code_points: tuple[int, int]) -> bool:
    """Whether primaries and transfer characteristics are sRGB's, or not told."""
    primaries, transfer = code_points
    return primaries in (SRGB_PRIMARIES, _UNSPECIFIED) and transfer in (SRGB_TRANSFER, _UNSPECIFIED)


def describes_srgb(icc: bytes) -> bool:
    """Whether a profile calls itself sRGB."""
    return b"sRGB" in icc or "sRGB".encode("utf-16-be") in icc


def is_hdr(code_points: tuple[int, int]) -> bool:
    """Whether the transfer characteristics are PQ or HLG, which matrices and curves cannot tell."""
    return code_points[1] in _HDR


def of(metadata: Metadata, *, grey: bool) -> bytes:
    """The profile for a format that tells colours in no other way: its own, or one made for it."""
    if metadata.icc or not metadata.colours:
        return metadata.icc
    return of_code_points(metadata.colours, grey=grey)


def of_code_points(code_points: tuple[int, int], *, grey: bool) -> bytes:
    """The profile of primaries and transfer characteristics.

    Returns:
      The profile; none for sRGB, HDR and codes without a meaning here.
    """
    primaries, transfer = (
        srgb if code == _UNSPECIFIED else code
        for code, srgb in zip(code_points, (SRGB_PRIMARIES, SRGB_TRANSFER), strict=True)
    )
    if (primaries, transfer) == (SRGB_PRIMARIES, SRGB_TRANSFER):
        return b""
    if primaries not in _PRIMARIES or transfer not in _TRANSFERS:
        return b""
    return profile(_PRIMARIES[primaries], _TRANSFERS[transfer], grey=grey)


def of_gamma(gamma: float | None, chromaticities: Chromaticities | None, *, grey: bool) -> bytes:
    """The profile of what PNG's chunks gAMA and cHRM say.

    Args:
      gamma: exponent of the encoding, such as 0.45455; None is sRGB's curve.
      chromaticities: None is sRGB's.
      grey: whether the picture is grey.

    Returns:
      The profile; none for sRGB, which most files with a gamma of 1 / 2.2 are meant to be, and for
      colours that no device has.
    """
    usual = gamma is None or abs(gamma - 1 / 2.2) < 1e-3
    if chromaticities is None or np.abs(np.subtract(chromaticities, SRGB)).max() < 2e-3:
        if usual:
            return b""
        chromaticities = SRGB
    if gamma is not None and not 0.05 < gamma < 20:
        return b""
    curve = _TRANSFERS[SRGB_TRANSFER] if gamma is None else (1 / gamma,)
    try:
        return profile(chromaticities, curve, grey=grey)
    except (np.linalg.LinAlgError, struct.error):
        return b""


def for_rgb(icc: bytes) -> bytes:
    """A profile with which a grey picture written as RGB looks as before.

    Returns:
      Of a profile of grey, one of the same curve, or none if it has none; others as they are.
    """
    if icc[16:20] != b"GRAY":
        return icc
    count = min(int.from_bytes(icc[128:132]), (len(icc) - 132) // 12)
    places = struct.iter_unpack(">4sII", icc[132 : 132 + 12 * max(0, count)])
    curve = next(
        (icc[start : start + size] for name, start, size in places if name == b"kTRC"), b""
    )
    return _profile(SRGB, curve, grey=False) if curve else b""


def profile(chromaticities: Chromaticities, curve: tuple[float, ...], *, grey: bool) -> bytes:
    """An ICC profile, version 4.3, of one matrix and one curve.

    Args:
      chromaticities: see `Chromaticities`.
      curve: parameters of ICC's parametric curve, 1 or 5 of them.
      grey: whether it has only white and the curve.

    Raises:
      numpy.linalg.LinAlgError: the primaries lie on a line.
      struct.error: a value is larger than the format holds.
    """
    kind = 0 if len(curve) == 1 else 3
    parametric = struct.pack(">4sIHH", b"para", 0, kind, 0) + _fixed(curve)
    return _profile(chromaticities, parametric, grey=grey)


def _profile(chromaticities: Chromaticities, curve: bytes, *, grey: bool) -> bytes:
    adaptation, matrix = _matrices(np.reshape(chromaticities, (4, 2)))
    tags: list[tuple[bytes, bytes]] = [
        (b"desc", _text("Colours of the source file")),
        (b"cprt", _text("No copyright")),
        (b"wtpt", _xyz(_D50)),
        (b"chad", struct.pack(">4sI", b"sf32", 0) + _fixed(adaptation.ravel())),
    ]
    if grey:
        tags.append((b"kTRC", curve))
    else:
        tags += [(f"{c}XYZ".encode(), _xyz(matrix[:, i])) for i, c in enumerate("rgb")]
        tags += [(f"{c}TRC".encode(), curve) for c in "rgb"]
    return _assembled(tags, b"GRAY" if grey else b"RGB ")


def _matrices(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bradford's adaptation of the white to D50, and from RGB to adapted XYZ; both `[3, 3]`."""
    white, *primaries = [np.array([x / y, 1, (1 - x - y) / y]) for x, y in np.maximum(points, 1e-6)]
    columns = np.stack(primaries, axis=1)
    cones = _BRADFORD @ _D50 / (_BRADFORD @ white)
    adaptation = np.linalg.inv(_BRADFORD) @ np.diag(cones) @ _BRADFORD
    return adaptation, adaptation @ columns * np.linalg.solve(columns, white)


def _fixed(values: np.ndarray | tuple[float, ...]) -> bytes:
    """Numbers with 16 bits behind the point."""
    return b"".join(struct.pack(">i", round(float(value) * 65536)) for value in values)


def _xyz(values: np.ndarray) -> bytes:
    return struct.pack(">4sI", b"XYZ ", 0) + _fixed(values)


def _text(text: str) -> bytes:
    encoded = text.encode("utf-16-be")
    return struct.pack(">4sIII2s2sII", b"mluc", 0, 1, 12, b"en", b"US", len(encoded), 28) + encoded


def _assembled(tags: list[tuple[bytes, bytes]], space: bytes) -> bytes:
    place = 128 + 4 + 12 * len(tags)
    table, blocks, places = [struct.pack(">I", len(tags))], b"", {}
    for name, block in tags:
        if block not in places:  # the three curves are one
            places[block] = place + len(blocks)
            blocks += block + bytes(-len(block) % 4)
        table.append(struct.pack(">4sII", name, places[block], len(block)))
    header = struct.pack(
        ">I4sI4s4s4s6H4s4sIIIQI",
        *(place + len(blocks), b"", 0x04300000, b"mntr", space, b"XYZ "),
        *(2024, 1, 1, 0, 0, 0),
        *(b"acsp", b"", 0, 0, 0, 0, 0),
    )
    return header + _fixed(_D50) + bytes(48) + b"".join(table) + blocks
