"""One decoder for loader and stamper: the same pixels, or a refusal."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from bench.data import DataError, catalog
from bench.data import decode as decoding
from tests.fakes.datasets import picture, refused, saved, two

BLUE, RED, WHITE = (0, 0, 255), (255, 0, 0), (255, 255, 255)


def pixels_of(content: bytes) -> list:
    """Rows of RGB."""
    return decoding.read_picture(content).pixels.tolist()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize(
    ("orientation", "corners"),  # values at top left, top right, bottom left of dark, middle, light, grey corners
    [(1, (0, 100, 200)), (2, (100, 0, 250)), (3, (250, 200, 100)), (6, (200, 0, 250)), (8, (100, 250, 0))],
)
def test_pictures_are_turned_as_exif_says(kind, orientation, corners):
    """A landscape picture with the levels 0 100 over 200 250 in its quarters."""
    rows = np.kron(np.array([[0, 100], [200, 250]], np.uint8), np.ones((16, 24), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = saved(
        Image.fromarray(rows).convert("RGB"), kind, exif=exif, **({"quality": 100} if kind != "TIFF" else {})
    )
    picture = decoding.read_picture(content)
    assert picture.size == ((32, 48) if orientation < 5 else (48, 32))
    seen = [int(picture.pixels[y, x, 0]) for y, x in ((2, 2), (2, -3), (-3, 2))]
    assert np.abs(np.array(seen) - corners).max() <= 3
    assert ("turned as EXIF says" in picture.notes) == (orientation != 1)


def test_what_transparency_hides_is_white():
    palette = two("P", 0, 1)
    palette.putpalette([*BLUE, *RED])
    contents = {
        "palette": saved(palette, transparency=1),
        "palette of GIF": saved(palette, "GIF", transparency=1),
        "colour key": saved(two("RGB", BLUE, RED), transparency=RED),
        "alpha": saved(two("RGBA", (*BLUE, 255), (*RED, 0))),
        "half": saved(two("RGBA", (*BLUE, 255), (*RED, 127))),
        "grey key": saved(two("L", 90, 30), transparency=30),
        "grey alpha": saved(two("LA", (90, 255), (30, 0))),
        "16-bit grey key": saved(Image.fromarray(np.array([[90 << 8, 30 << 8]], np.uint16)), transparency=30 << 8),
    }
    found = {name: pixels_of(content)[0] for name, content in contents.items()}
    for name in ("palette", "palette of GIF", "colour key", "alpha"):
        assert found[name] == [list(BLUE), list(WHITE)], name
    assert found["half"] == [list(BLUE), [255, 128, 128]]
    for name in ("grey key", "grey alpha", "16-bit grey key"):
        assert found[name] == [[90] * 3, [255] * 3], name


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_a_transparent_colour_of_16_bits_is_refused():
    """Two colours that differ in their lower bits only: of eight bits they are one."""
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    row = b"\0" + struct.pack(">6H", 0x1234, 0, 0, 0x1235, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"tRNS", struct.pack(">3H", 0x1235, 0, 0))
    with pytest.raises(DataError, match="16 bits transparent"):
        decoding.read_picture(content + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b""))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_of_16_bits_the_upper_eight_are_kept(kind):
    values = np.array([[0, 255, 256, 0x8000, 0xFFFF]], np.uint16)
    assert [rgb[0] for rgb in pixels_of(saved(Image.fromarray(values), kind))[0]] == [0, 0, 1, 128, 255]


@pytest.mark.parametrize(
    ("mode", "value", "reason"), [("I", 70_000, "integers of 32 bits"), ("F", 0.5, "floating-point pixels")]
)
def test_pixels_without_a_known_range_are_refused_by_loader_and_stamper(root, mode, value, reason):
    for name in ("a", "b"):
        for n in range(20):
            picture(root / f"own/{name}/{n:02d}.png", n)
    path = root / "own/a/deep.tif"
    Image.new(mode, (8, 8), value).save(path)
    refused(root, f"Expected .*deep.tif to be a picture of own, but it has {reason}.*save it anew", "folder:own")
    with pytest.raises(DataError, match=reason):
        decoding.read_picture(path)


def test_signed_16_bits_are_refused(root):
    Image.fromarray(np.array([[5, 7]], np.uint16)).save(root / "a.tif", tiffinfo={339: 2})
    with Image.open(root / "a.tif") as opened:
        assert opened.mode == "I"
    with pytest.raises(DataError, match="integers of 16 bits, whose range no file tells"):
        decoding.read_picture(root / "a.tif")


def test_loader_and_stamper_see_the_same_pixels(root):
    """Of every kind that both take."""
    from bench.stamping.reading import read_at

    rng, exif = np.random.default_rng(0), Image.Exif()
    exif[0x0112] = 6
    alpha = Image.fromarray(rng.integers(0, 256, (32, 32, 4), dtype=np.uint8))
    for number, (mode, options) in enumerate({"RGBA": {}, "P": {}, "LA": {}, "RGB": {"exif": exif}, "1": {}}.items()):
        path = root / f"{number}.png"
        alpha.convert(mode).save(path, **options)
        (loaded,) = decoding.decode([(str(path), path)], 1, catalog.SPECS["cifar10"])
        assert np.array_equal(loaded.permute(1, 2, 0).numpy(), read_at(path)[0].pixels), mode


def test_formats_that_start_programs_are_not_opened():
    """PostScript is handed to Ghostscript by Pillow; nobody's data set needs it."""
    with pytest.raises(DataError, match="cannot be decoded"):
        decoding.read_picture(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n%%EOF\n")
