"""What a result of a JPEG file must not promise: raw bytes are read by hand, XMP by ElementTree."""

import base64
import hashlib
import io
import logging
import struct
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from jaxdeblur.media import photo as photos
from jaxdeblur.media.lost import LOST
from jaxdeblur.media.metadata import xmp

HEIGHT, WIDTH = 48, 64
RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
XMP_LABEL = b"http://ns.adobe.com/xap/1.0/\0"
EXTENSION_LABEL = b"http://ns.adobe.com/xmp/extension/\0"
NAMESPACES = {
    "Container": "http://ns.google.com/photos/1.0/container/",
    "Item": "http://ns.google.com/photos/1.0/container/item/",
    "GCamera": "http://ns.google.com/photos/1.0/camera/",
    "GImage": "http://ns.google.com/photos/1.0/image/",
    "hdrgm": "http://ns.adobe.com/hdr-gain-map/1.0/",
    "HDRGainMap": "http://ns.apple.com/HDRGainMap/1.0/",
    "dcterms": "http://purl.org/dc/terms/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "xmpNote": "http://ns.adobe.com/xmp/note/",
    "dc": "http://purl.org/dc/elements/1.1/",
}
GAIN_MAP, VIDEO, C2PA = LOST["gain_map"], LOST["motion_photo"], LOST["c2pa"]
PREVIEWS, PICTURES = LOST["previews"], LOST["pictures"]
MP4 = b"\0\0\0\x20ftypisom" + bytes(20) + b"\0\0\0\x08mdat"


def pixels(seed=0):
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([x * 3 + seed, y * 4, (x + y) * 2], -1).astype(np.uint8)


def jpeg(*segments, behind=b"", **options):
    """A JPEG file with segments, given as marker and body, behind its first one."""
    buffer = io.BytesIO()
    Image.fromarray(pixels()).save(buffer, "JPEG", **options)
    data = buffer.getvalue()
    written = b"".join(
        bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body for marker, body in segments
    )
    return data[:20] + written + data[20:] + behind


def segments_of(data):
    """Marker and body of all segments before the scan."""
    found, at = [], 2
    while data[at + 1] != 0xDA:
        size = int.from_bytes(data[at + 2 : at + 4])
        found.append((data[at + 1], data[at + 4 : at + 2 + size]))
        at += 2 + size
    return found


def packet(attributes="", elements="", wrapped=True):
    names = " ".join(f'xmlns:{prefix}="{name}"' for prefix, name in NAMESPACES.items())
    inner = (
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/">\n <rdf:RDF xmlns:rdf="{RDF[1:-1]}">\n'
        f'  <rdf:Description rdf:about="" {names} {attributes}>\n   {elements}\n'
        "  </rdf:Description>\n </rdf:RDF>\n</x:xmpmeta>"
    )
    if not wrapped:
        return inner.encode()
    start = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
    return (start + inner + "\n" + " " * 200 + '\n<?xpacket end="w"?>').encode()


def directory(*items):
    lis = "".join(
        f'<rdf:li rdf:parseType="Resource"><Container:Item Item:Semantic="{semantic}" '
        f'Item:Mime="image/jpeg" Item:Length="{length}"/></rdf:li>'
        for semantic, length in items
    )
    return f"<Container:Directory><rdf:Seq>{lis}</rdf:Seq></Container:Directory>"


def properties(data):
    """Names and values of all properties of a packet, wherever they stand."""
    start, end = data.index(b"<x:xmpmeta"), data.index(b"</x:xmpmeta>") + 12
    found = {}
    for element in ET.fromstring(data[start:end]).iter():
        found |= {key: value for key, value in element.attrib.items() if RDF not in key}
        if RDF not in element.tag and "adobe:ns:meta" not in element.tag:
            found[element.tag] = (element.text or "").strip()
    return found


def result(data, caplog):
    """The result's bytes, with other pixels, and what was told."""
    with caplog.at_level(logging.INFO, "jaxdeblur"):
        photo = photos.read(data)
        encoded = photos.encode(photo, 255 - photo.rgb)
    with Image.open(io.BytesIO(encoded)) as image:
        assert np.abs(np.asarray(image, float) - (255 - photo.rgb)).mean() < 3
    return encoded, [record.message for record in caplog.records]


KEPT = 'xmp:Rating="4" dc:format="image/jpeg"'
STALE_XMP = {
    "gain-map-attributes": ('hdrgm:Version="1.0" hdrgm:GainMapMax="2"', "", [GAIN_MAP]),
    "gain-map-elements": (
        "",
        "<hdrgm:Version>1.0</hdrgm:Version><hdrgm:GainMapMax><rdf:Seq><rdf:li>1</rdf:li>"
        "</rdf:Seq></hdrgm:GainMapMax><hdrgm:BaseRenditionIsHDR/>",
        [GAIN_MAP],
    ),
    "directory": ("", directory(("Primary", 0), ("GainMap", 900)), [GAIN_MAP]),
    "directory-in-elements": (
        "",
        '<Container:Directory><rdf:Seq><rdf:li rdf:parseType="Resource"><Container:Item '
        'rdf:parseType="Resource"><Item:Semantic>MotionPhoto</Item:Semantic></Container:Item>'
        "</rdf:li></rdf:Seq></Container:Directory>",
        [VIDEO],
    ),
    "apple": ('HDRGainMap:HDRGainMapVersion="65536"', "", [GAIN_MAP]),
    "micro-video": ('GCamera:MicroVideo="1"  GCamera:MicroVideoOffset="9"', "", [VIDEO]),
    "motion-photo": (
        "GCamera:MotionPhoto='1'",
        "<GCamera:MotionPhotoVersion>1</GCamera:MotionPhotoVersion>",
        [VIDEO],
    ),
    "credentials": ('dcterms:provenance="self#jumbf=c2pa/urn:uuid:1"', "", [C2PA]),
    "thumbnails": (
        "",
        '<xmp:Thumbnails><rdf:Alt><rdf:li rdf:parseType="Resource"/></rdf:Alt></xmp:Thumbnails>',
        [PREVIEWS],
    ),
    "everything": (
        'hdrgm:Version="1.0" GCamera:MotionPhoto="1"',
        directory(("Primary", 0), ("GainMap", 900), ("MotionPhoto", 7000)),
        [GAIN_MAP, VIDEO],
    ),
}


@pytest.mark.parametrize("case", STALE_XMP)
def test_stale_properties_go_and_the_packet_stays(case, caplog):
    attributes, elements, told = STALE_XMP[case]
    kept = "<dc:creator><rdf:Seq><rdf:li>\u00c5sa &lt;x></rdf:li></rdf:Seq></dc:creator>"
    old = packet(f"{attributes} {KEPT}", f"{kept}\n   {elements}\n   <xmp:Label>b</xmp:Label>")
    data = jpeg((0xE1, XMP_LABEL + old))
    assert len(properties(old)) > 4
    encoded, remarks = result(data, caplog)
    assert remarks == told
    (new,) = [body for _, body in segments_of(encoded) if body.startswith(XMP_LABEL)]
    assert properties(new) == {
        f"{{{NAMESPACES['xmp']}}}Rating": "4",
        f"{{{NAMESPACES['dc']}}}format": "image/jpeg",
        f"{{{NAMESPACES['dc']}}}creator": "",
        f"{{{NAMESPACES['xmp']}}}Label": "b",
    }
    new = new[len(XMP_LABEL) :]
    assert kept.encode() in new
    assert new.startswith(old[:60])
    assert new.endswith(old[-200:])
    for mark in (b"hdrgm", b"GainMap", b"MotionPhoto", b"MicroVideo", b"provenance", b"Semantic"):
        assert mark not in encoded


@pytest.mark.parametrize("case", STALE_XMP)
@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", ".heic", ".avif"])
def test_stale_properties_do_not_go_to_other_formats(case, suffix):
    attributes, elements, _ = STALE_XMP[case]
    photo = photos.read(jpeg((0xE1, XMP_LABEL + packet(f"{attributes} {KEPT}", elements))))
    encoded = photos.encode(photo, photo.rgb, suffix)
    assert b"xmp:Rating" in encoded
    for mark in (b"hdrgm", b"GainMap", b"MotionPhoto", b"MicroVideo", b"provenance", b"Semantic"):
        assert mark not in encoded


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_packets_in_other_encodings(encoding):
    text = packet('hdrgm:Version="1.0" xmp:Rating="4"', wrapped=False).decode()
    cleaned = xmp.cleaned(text.encode(encoding))
    assert cleaned.lost == {"gain_map"}
    again = cleaned.packet.decode(encoding)
    assert "hdrgm" not in again
    assert 'xmp:Rating="4"' in again
    whole = packet(KEPT, wrapped=False).decode().encode(encoding)
    assert xmp.cleaned(whole.replace(b"hdrgm", b"other")).packet.decode(encoding)


def test_packets_without_anything_stale_keep_their_bytes(caplog):
    plain = packet(KEPT).replace(b"hdrgm", b"other")
    for prefix in ("GCamera", "Container", "Item", "GImage", "HDRGainMap"):
        plain = plain.replace(f'xmlns:{prefix}="{NAMESPACES[prefix]}" '.encode(), b"")
    plain = plain.replace(NAMESPACES["hdrgm"].encode(), b"http://example.com/")
    encoded, remarks = result(jpeg((0xE1, XMP_LABEL + plain)), caplog)
    assert (0xE1, XMP_LABEL + plain) in segments_of(encoded)
    assert not remarks


@pytest.mark.parametrize(
    "damaged",
    [
        b"<x:xmpmeta><unclosed>",
        b"<!DOCTYPE x [<!ENTITY a 'b'>]><x>&a;</x>",
        b"\xff\xfe<\0",
        b"no XML at all",
        bytes(40),
        b"",
    ],
)
def test_damaged_packets_stay_unless_they_speak_of_more(damaged):
    assert xmp.cleaned(damaged).packet == damaged
    for mark in (b" hdrgm:Version='1'", b" GCamera:MotionPhoto='1'", b"<Container:Directory>"):
        found = xmp.cleaned(damaged + mark)
        assert found.packet == b""
        assert found.lost == {"damaged_xmp"}


def extended(packet, size=1000):
    """The segments of an extended packet, and the name of it."""
    guid = hashlib.md5(packet).hexdigest().upper().encode()
    return [
        (
            0xE1,
            EXTENSION_LABEL + guid + struct.pack(">II", len(packet), at) + packet[at : at + size],
        )
        for at in range(0, len(packet), size)
    ], guid.decode()


def test_extended_packets_without_their_stale_part_have_a_new_name(caplog):
    picture = base64.b64encode(np.random.default_rng(0).bytes(90_000)).decode()
    note = "n" * 100_000
    old = packet(f'GImage:Data="{picture}" xmp:Nickname="{note}"', wrapped=False)
    parts, guid = extended(old, 60_000)
    main = packet(f'{KEPT} xmpNote:HasExtendedXMP="{guid}"')
    encoded, remarks = result(jpeg((0xE1, XMP_LABEL + main), *reversed(parts)), caplog)
    assert remarks == [PREVIEWS]
    found = segments_of(encoded)
    (main,) = [body for _, body in found if body.startswith(XMP_LABEL)]
    pieces = [body[len(EXTENSION_LABEL) :] for _, body in found if body.startswith(EXTENSION_LABEL)]
    whole = b"".join(piece[40:] for piece in pieces)
    guid = hashlib.md5(whole).hexdigest().upper()
    at = 0
    for piece in pieces:
        assert piece[:32] == guid.encode()
        assert struct.unpack(">II", piece[32:40]) == (len(whole), at)
        at += len(piece) - 40
    assert at == len(whole) > 100_000
    assert properties(whole) == {f"{{{NAMESPACES['xmp']}}}Nickname": note}
    assert properties(main)[f"{{{NAMESPACES['xmpNote']}}}HasExtendedXMP"] == guid


def test_an_extended_packet_of_nothing_else_goes_whole(caplog):
    parts, guid = extended(packet('GImage:Data="abcd" GImage:Mime="image/jpeg"', wrapped=False), 70)
    main = packet(f'{KEPT} xmpNote:HasExtendedXMP="{guid}"')
    for order in ((main, *parts), (*parts, main)):
        segments = [part if isinstance(part, tuple) else (0xE1, XMP_LABEL + part) for part in order]
        encoded, _ = result(jpeg(*segments), caplog)
        assert EXTENSION_LABEL not in encoded
        assert b"HasExtendedXMP" not in encoded
        assert b'xmp:Rating="4"' in encoded


def test_an_extended_packet_stays_and_goes_to_no_other_format(caplog):
    parts, guid = extended(packet('xmp:Nickname="x"', wrapped=False).replace(b"GImage", b"Other"))
    main = packet(f'{KEPT} xmpNote:HasExtendedXMP="{guid}"')
    data = jpeg((0xE1, XMP_LABEL + main), *parts)
    photo = photos.read(data)
    with caplog.at_level(logging.INFO, "jaxdeblur"):
        encoded = photos.encode(photo, photo.rgb, ".png")
    assert b"HasExtendedXMP" not in encoded
    assert b'xmp:Rating="4"' in encoded
    assert [record.message for record in caplog.records] == [LOST["segments"]]


def test_what_has_its_data_in_the_extended_packet_does_not_go_without_them(caplog):
    names = "xmlns:GDepth='http://ns.google.com/photos/1.0/depthmap/' GDepth:Format='RangeLinear'"
    parts, guid = extended(packet(f"{names} GDepth:Data='abcd'", wrapped=False))
    main = packet(f'{KEPT} {names} xmpNote:HasExtendedXMP="{guid}"')
    data = jpeg((0xE1, XMP_LABEL + main), *parts)
    encoded, remarks = result(data, caplog)
    assert encoded.count(b"GDepth:Format") == 2
    assert b"GDepth:Data" in encoded
    assert not remarks
    photo = photos.read(data)
    assert b"GDepth:" not in photos.encode(photo, photo.rgb, ".webp")
    inline = xmp.cleaned(packet(f"{names} GDepth:Data='abcd'"), extended=False)
    assert b"GDepth:Data" in inline.packet


def test_a_photo_that_says_that_it_has_no_video_is_not_told_to_have_one(caplog):
    data = jpeg((0xE1, XMP_LABEL + packet(f'{KEPT} GCamera:MotionPhoto="0"')))
    encoded, remarks = result(data, caplog)
    assert b"MotionPhoto" not in encoded
    assert not remarks


def jumbf(kind, number=1):
    description = struct.pack(">I4s", 8 + 16 + 1 + 5, b"jumd") + kind + bytes(12) + b"\3abcd\0"
    box = struct.pack(">I4s", 8 + len(description) + 40, b"jumb") + description + bytes(40)
    start = b"JP" + struct.pack(">HI", number, 1)
    following = b"JP" + struct.pack(">HI", number, 2) + box[:8]
    return [(0xEB, start + box[:50]), (0xEB, following + box[50:])]


JFXX = b"JFXX\0\x10" + b"\xff\xd8\xff\xd9"
PHOTOSHOP = b"Photoshop 3.0\0"
CAPTION = b"8BIM\x04\x04\0\0\0\0\0\x05abcde\0"
THUMBNAIL = b"8BIM\x04\x0c\x03abc\0\0\0\x07picture\0"
STALE_SEGMENTS = {
    "gain-map": ([(0xE2, b"urn:iso:std:iso:ts:21496:-1\0" + bytes(4))], [GAIN_MAP]),
    "credentials": (jumbf(b"c2pa"), [C2PA]),
    "box-of-a-picture": (jumbf(b"\x65\x79\xd6\xfb"), [PREVIEWS]),
    "jpeg-xt": ([(0xEB, b"JP\0\1\0\0\0\1\0\0\0\x20RESI" + bytes(24))], [GAIN_MAP]),
    "jpeg-hdr": ([(0xEB, b"HDR_RI ver=11")], [GAIN_MAP]),
    "jfxx": ([(0xE0, JFXX)], [PREVIEWS]),
    "preview": ([(0xE3, b"\xff\xd8\xff\xdb abc")], [PREVIEWS]),
    "photoshop": ([(0xED, PHOTOSHOP + THUMBNAIL)], [PREVIEWS]),
}


@pytest.mark.parametrize("case", STALE_SEGMENTS)
def test_segments_of_other_pixels_go(case, caplog):
    stale, told = STALE_SEGMENTS[case]
    others = [(0xFE, b"a comment"), (0xE5, b"own"), *jumbf(b"json", 7), (0xED, PHOTOSHOP + CAPTION)]
    encoded, remarks = result(jpeg(*stale, *others), caplog)
    assert remarks == told
    found = [part for part in segments_of(encoded) if part[0] >= 0xE0][1:]
    if case == "photoshop":
        assert sorted(found) == sorted(others)
    else:
        assert found == others


def test_a_preview_in_several_segments_goes_whole(caplog):
    own = [(0xE3, b"own"), (0xE4, b"other")]
    long = [(0xE3, b"\xff\xd8\xff\xdb" + bytes(65_000)), (0xE3, bytes(65_000)), (0xE3, bytes(99))]
    encoded, remarks = result(jpeg(own[0], *long, *own), caplog)
    found = [part for part in segments_of(encoded) if part[0] in (0xE3, 0xE4)]
    assert found == [own[0], *own]
    assert remarks == [PREVIEWS]


def test_long_photoshop_resources_lose_their_thumbnail_alone(caplog):
    long = b"8BIM\x04\x0f\0\0" + struct.pack(">I", 90_000) + np.random.default_rng(0).bytes(90_000)
    whole = CAPTION + THUMBNAIL + long
    parts = [(0xED, PHOTOSHOP + whole[at : at + 60_000]) for at in range(0, len(whole), 60_000)]
    encoded, remarks = result(jpeg(*parts), caplog)
    bodies = [body for marker, body in segments_of(encoded) if marker == 0xED]
    assert all(body.startswith(PHOTOSHOP) for body in bodies)
    assert b"".join(body[len(PHOTOSHOP) :] for body in bodies) == CAPTION + long
    assert remarks == [PREVIEWS]


def test_the_thumbnail_in_the_first_segment_goes(caplog):
    data = jpeg()
    thumbnail = b"\2\1" + bytes(6)
    data = data[:4] + struct.pack(">H", 16 + 6) + data[6:18] + thumbnail + data[20:]
    encoded, remarks = result(data, caplog)
    assert segments_of(encoded)[0] == (0xE0, data[6:18] + b"\0\0")
    assert remarks == [PREVIEWS]


def multi_picture(*kinds):
    """The index of CIPA DC-007; sizes and places are those of nothing."""
    entries = b"".join(struct.pack("<III4x", kind, 9, 9) for kind in kinds)
    tags = struct.pack("<HHI4s", 0xB000, 7, 4, b"0100")
    tags += struct.pack("<HHII", 0xB001, 4, 1, len(kinds))
    tags += struct.pack("<HHII", 0xB002, 7, len(entries), 50)
    return 0xE2, b"MPF\0II*\0\x08\0\0\0\3\0" + tags + bytes(4) + entries


GAIN_MAPS_XMP = (0xE1, XMP_LABEL + b"<x xmlns:hdrgm='http://ns.adobe.com/hdr-gain-map/1.0/'/>")
BEHIND = {
    "nothing": ([], b"", []),
    "zeros": ([], bytes(3000), []),
    "garbage": ([], b"\x12garbage" * 30, []),
    "google": ([], jpeg(GAIN_MAPS_XMP), [GAIN_MAP]),
    "indexed": ([multi_picture(0x030000, 0)], jpeg(GAIN_MAPS_XMP), [GAIN_MAP]),
    "iso": ([], jpeg((0xE2, b"urn:iso:std:iso:ts:21496:-1\0" + bytes(80))), [GAIN_MAP]),
    "apple": ([multi_picture(0x030000, 0)], b"urn:com:apple:photo:2020:aux:hdrgainmap", [GAIN_MAP]),
    "video": ([], MP4, [VIDEO]),
    "samsung": ([], b"MotionPhoto_Data" + MP4 + b"SEFHabcSEFT", [VIDEO]),
    "both": ([], jpeg(GAIN_MAPS_XMP) + MP4, [GAIN_MAP, VIDEO]),
    "stereo": ([multi_picture(0x030000, 0x020002)], jpeg(), [PICTURES]),
    "panorama": ([multi_picture(0x020001, 0x020001)], jpeg(), [PICTURES]),
    "of-no-type": ([multi_picture(0x030000, 0)], jpeg(), [PICTURES]),
    "large-thumbnail": ([multi_picture(0x030000, 0x010001)], jpeg(), [PREVIEWS]),
    "unindexed": ([], jpeg(), [PREVIEWS]),
}


@pytest.mark.parametrize("case", BEHIND)
def test_what_lies_behind_a_picture_is_told_if_it_is_known(case, caplog):
    segments, behind, told = BEHIND[case]
    encoded, remarks = result(jpeg(*segments, behind=behind), caplog)
    assert remarks == told
    assert encoded.endswith(b"\xff\xd9")
    assert encoded.count(b"\xff\xd8\xff") == 1
    assert b"MPF\0" not in encoded
    assert b"ftyp" not in encoded


@pytest.mark.parametrize("options", [{"progressive": True}, {"restart_marker_rows": 1}])
def test_the_end_of_the_picture_is_found_behind_its_scans(options, caplog):
    data = jpeg(**options, quality=95)
    with_thumbnail = data[:20] + b"\xff\xec\0\x08\xff\xd9\xff\xd8\xff\xd9"[:10] + data[20:]
    _, remarks = result(with_thumbnail + MP4, caplog)
    assert remarks == [VIDEO] + [LOST["progressive"]] * ("progressive" in options)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("ultrahdr", [GAIN_MAP]),
        ("motion", [VIDEO]),
        ("samsung", [VIDEO]),
        ("both", [GAIN_MAP, VIDEO]),
        ("c2pa", [C2PA]),
    ],
)
def test_files_of_phones(name, told, shared_data, caplog):
    data = (shared_data / "cases" / f"{name}.jpg").read_bytes()
    encoded, remarks = result(data, caplog)
    assert remarks == told
    marks = (b"hdrgm", b"GainMap", b"21496", b"Container:", b"MotionPhoto", b"MicroVideo", b"MPF\0")
    for mark in (*marks, b"c2pa", b"jumb", b"ftyp"):
        assert mark not in encoded
    if b"XMP" in data or XMP_LABEL in data:
        assert b'dc:format="image/jpeg"' in encoded
    with Image.open(io.BytesIO(encoded)) as image:
        assert image.getexif().get(271) == Image.open(io.BytesIO(data)).getexif().get(271)
