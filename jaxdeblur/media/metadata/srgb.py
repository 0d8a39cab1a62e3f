"""Pictures in inks (CMYK) and in LAB as sRGB, by ICC profiles."""

from __future__ import annotations

import numpy as np
from PIL import ImageCms


def of_inks(inks: np.ndarray, profile: bytes) -> np.ndarray:
    """Turns CMYK into sRGB.

    Args:
      inks: uint8 or uint16 `[H, W, 4]`; zero is no ink.
      profile: the ICC profile of the inks. Without one, and with one that is damaged or of other
        channels, every ink takes away its complement.

    Returns:
      pixels `[H, W, 3]` of the same type.
    """
    import imagecodecs

    if profile:
        try:
            return imagecodecs.cms_transform(
                inks, profile, _profile("sRGB"), colorspace="cmyk", outcolorspace="rgb"
            )
        except (imagecodecs.CmsError, ValueError):
            pass
    top = np.iinfo(inks.dtype).max
    light = top - inks[..., 3]
    wide = light.astype(np.uint32)  # holds the product of two
    taken = [(inks[..., i] * wide + top // 2) // top for i in range(3)]
    return np.stack([light - each.astype(inks.dtype) for each in taken], axis=-1)


def of_lab(lab: np.ndarray, signed: bool) -> np.ndarray:
    """Turns LAB, as TIFF files store it, into sRGB.

    Args:
      lab: uint8 or uint16 `[H, W, 3]`.
      signed: whether a and b are two's complements (CIELAB), not counted from the middle (ICCLAB).

    Returns:
      pixels `[H, W, 3]` of the same type.
    """
    import imagecodecs

    deep = lab.dtype == np.uint16
    middle = 128 * 256 if deep else 128
    white = 0xFF00 if deep and not signed else np.iinfo(lab.dtype).max
    values = lab.astype(np.float32)
    values[..., 0] *= 100 / white
    if signed:
        values[..., 1:] = (lab[..., 1:] ^ lab.dtype.type(middle)).astype(np.float32)
    values[..., 1:] = (values[..., 1:] - middle) / (256 if deep else 1)
    return imagecodecs.cms_transform(
        values,
        _profile("LAB"),
        _profile("sRGB"),
        colorspace="lab",
        outcolorspace="rgb",
        outdtype=lab.dtype,
    )


def _profile(name: str) -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(name)).tobytes()  # pyright: ignore[reportArgumentType]
