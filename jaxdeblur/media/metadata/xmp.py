"""XMP packets without the properties that a result would make false.

A packet is cut, not written anew: what stays keeps its bytes, whatever program wrote them.
"""

from __future__ import annotations

import codecs
import dataclasses
import re
from xml.parsers import expat

_ADOBE, _GOOGLE = "http://ns.adobe.com/", "http://ns.google.com/photos/"

# Namespaces that speak of nothing else, by what is lost with them.
_NAMESPACES = {
    _ADOBE + "hdr-gain-map/1.0/": "gain_map",
    "http://ns.apple.com/HDRGainMap/1.0/": "gain_map",
    "http://ns.apple.com/pixeldatainfo/1.0/": "gain_map",
    _GOOGLE + "1.0/container/": "",  # lists what lies behind the picture; each has its own marks
    _GOOGLE + "1.0/container/item/": "",
    _GOOGLE + "1.0/image/": "previews",
}
_DYNAMIC_DEPTH = _GOOGLE + "dd/"  # begins several of them

# Properties, by their namespaces; those of motion photos are in one of each maker.
_PROPERTIES = {
    (_ADOBE + "xap/1.0/", "Thumbnails"): "previews",
    ("http://purl.org/dc/terms/", "provenance"): "c2pa",
    ("http://ns.xiaomi.com/photos/1.0/camera/", "XMPMeta"): "depth_map",
    ("http://ns.oplus.com/photos/1.0/camera/", "OLivePhotoVersion"): "motion_photo",
    ("http://ns.oplus.com/photos/1.0/camera/", "VideoLength"): "motion_photo",
}
_VIDEO = ("MotionPhoto", "MicroVideo")
# Whose data are in the extended packet, where there is one.
_IN_EXTENSION = {_GOOGLE + "1.0/depthmap/": "depth_map", _GOOGLE + "1.0/audio/": "segments"}
_EXTENSION = (_ADOBE + "xmp/note/", "HasExtendedXMP")

# What each item of Google's directory holds, by its Semantic.
_ITEMS = {"GainMap": "gain_map", "MotionPhoto": "motion_photo", "Original": "previews"}
_ITEMS |= dict.fromkeys(("Depth", "DepthMap", "ConfidenceMap", "SegmentationMask"), "depth_map")

# Their marks in a packet that cannot be parsed.
_MARKS = ("hdrgm:", "hdr-gain-map", "HDRGainMap", "Container:Directory", "container/item/")
_MARKS += (*_VIDEO, "dcterms:provenance", "xmp:Thumbnails", "GImage:", "dd/1.0/")

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_SYNTAX = {_RDF, "adobe:ns:meta/", "http://www.w3.org/XML/1998/namespace", "xmlns", ""}
_ATTRIBUTE = re.compile(rb"\s+([^\s=/>]+)\s*=\s*(\"[^\"]*\"|'[^']*')")
_BOMS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


@dataclasses.dataclass(frozen=True)
class Cleaned:
    """A packet that holds for other pixels.

    Attributes:
      packet: its bytes; none, if nothing is left or nothing could be told apart.
      lost: names in `LOST` of what it spoke of.
      empty: whether no property is left.
    """

    packet: bytes
    lost: frozenset[str]
    empty: bool


def cleaned(packet: bytes, *, extended: bool = True) -> Cleaned:
    """Takes out what a result does not have: gain maps, videos, credentials, other pictures.

    Args:
      packet: the packet, in any of XMP's encodings; may be damaged.
      extended: whether the result has the extended packet that this one names.
    """
    if not packet.strip(b"\0 \t\r\n"):
        return Cleaned(packet, frozenset(), empty=True)
    encoding = _encoding(packet)
    try:
        text = packet if encoding == "utf-8" else packet.decode(encoding).encode()
        cutter = _Cutter(text.rstrip(b"\0"), keep_extension=extended)
        cutter.run()
    except (expat.ExpatError, ValueError, LookupError):
        found = any(mark.encode() in packet.replace(b"\0", b"") for mark in _MARKS)
        lost = frozenset({"damaged_xmp"} if found else ())
        return Cleaned(b"" if found else packet, lost, empty=found)
    empty = not cutter.properties
    if not cutter.cuts:
        return Cleaned(packet, frozenset(), empty)
    left = cutter.result() + text[len(text.rstrip(b"\0")) :]
    if encoding != "utf-8":
        left = left.decode().encode(encoding)
    return Cleaned(left, frozenset(cutter.lost), empty)


def _encoding(packet: bytes) -> str:
    for bom, encoding in _BOMS.items():
        if packet.startswith(bom):
            return encoding
    return {b"<\0": "utf-16-le", b"\0<": "utf-16-be"}.get(packet[:2], "utf-8")


class _Cutter:
    """Finds the bytes to cut out of a packet in UTF-8."""

    def __init__(self, text: bytes, *, keep_extension: bool) -> None:
        self.text, self.keep_extension = text, keep_extension
        self._without_extension = not keep_extension and _EXTENSION[1].encode() in text
        self.cuts: list[tuple[int, int]] = []
        self.lost: set[str] = set()
        self.properties = 0  # that stay
        self._scopes: list[dict[str, str]] = [{"xml": "http://www.w3.org/XML/1998/namespace"}]
        self._depth = 0
        self._cut_from: tuple[int, int] | None = None  # depth and start of an element that goes
        self._parser = expat.ParserCreate()
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._text
        self._parser.StartDoctypeDeclHandler = self._refuse

    def run(self) -> None:
        # libexpat counts from the start of what it was given; a packet may begin with white space.
        self._skipped = len(self.text) - len(self.text.lstrip())
        self._parser.Parse(self.text.lstrip(), True)

    def result(self) -> bytes:
        pieces, position = [], 0
        for start, end in sorted(self.cuts):
            pieces.append(self.text[position:start])
            position = max(position, end)
        return b"".join([*pieces, self.text[position:]])

    def _refuse(self, *_args: object) -> None:
        raise ValueError("XMP has no document type")

    def _at(self) -> int:
        return self._parser.CurrentByteIndex + self._skipped

    def _name(self, name: str, *, attribute: bool = False) -> tuple[str, str]:
        """Namespace and local name."""
        prefix, colon, local = name.rpartition(":")
        if attribute and not colon:
            return "", name
        return self._scopes[-1].get(prefix, ""), local

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        scope = self._scopes[-1]
        own = {k.partition(":")[2]: v for k, v in attributes.items() if k.split(":")[0] == "xmlns"}
        self._scopes.append({**scope, **own} if own else scope)
        named = {key: self._name(key, attribute=True) for key in attributes}
        if self._cut_from is not None:
            for key in (self._name(name), *named.values()):
                self._is_stale(key)  # notes what is lost with it
            self.lost |= {_ITEMS[value] for value in attributes.values() if value in _ITEMS}
            return
        if self._is_stale(self._name(name)):
            self._cut_from = self._depth, self._at()
            return
        self.properties += self._name(name)[0] not in _SYNTAX
        tag, at = self._tag(), self._at()
        for match in _ATTRIBUTE.finditer(tag):
            key = match[1].decode()
            stale_prefix = key.startswith("xmlns:") and _of_namespace(attributes[key]) is not None
            if stale_prefix or self._is_stale(named[key], attributes[key]):
                self.cuts.append((at + match.start(), at + match.end()))
            else:
                self.properties += named[key][0] not in _SYNTAX

    def _end(self, _name: str) -> None:
        if self._cut_from is not None and self._cut_from[0] == self._depth:
            start, at = self._cut_from[1], self._at()
            end = at + len(self._tag()) if at == start else self.text.index(b">", at) + 1
            if self.text[start:at].endswith(b"/>"):  # told at the end of an empty element
                end = at
            while self.text[start - 1 : start].isspace():
                start -= 1
            self.cuts.append((start, end))
            self._cut_from = None
        self._scopes.pop()
        self._depth -= 1

    def _text(self, text: str) -> None:
        if self._cut_from is not None and text.strip() in _ITEMS:
            self.lost.add(_ITEMS[text.strip()])

    def _tag(self) -> bytes:
        """The start tag at the parser's place."""
        at = self._at()
        match = re.compile(rb"<(?:[^>\"']|\"[^\"]*\"|'[^']*')*>").match(self.text, at)
        return match[0] if match else b""

    def _is_stale(self, name: tuple[str, str], value: str = "") -> bool:
        namespace, local = name
        if namespace in _SYNTAX:
            return False
        if name == _EXTENSION:
            return not self.keep_extension
        lost = _of_namespace(namespace)
        if lost is None:
            lost = _PROPERTIES.get(name)
        if lost is None and local.startswith(_VIDEO):
            lost = "motion_photo"
        if lost is None and self._without_extension:
            lost = _IN_EXTENSION.get(namespace)
        if lost and value != "0":  # which says that there is none
            self.lost.add(lost)
        return lost is not None


def _of_namespace(namespace: str) -> str | None:
    if namespace.startswith(_DYNAMIC_DEPTH):
        return "depth_map"
    return _NAMESPACES.get(namespace)
