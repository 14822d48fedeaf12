"""How values are read: for each codec and each tag that says what numbers mean, what is done. docs/formats.md shows this table.

A tag is heeded, or it concerns the display only and is passed over, or the file is refused: what decides over values and is not
understood is never guessed.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from segwright.core.errors import FormatError

_Done = Literal["heeded", "passed over", "refused"]


@dataclass(frozen=True)
class _Rule:
    """What is done with a tag; `how` says in which way it is heeded, why it is passed over, or what to do with the file."""

    codec: str
    tag: str
    done: _Done
    how: str


AS_RGB = "save the picture as RGB or grey, as any viewer exports it"
AS_ONE = (
    "save each as a file of its own, or all as one stack with named axes, as in "
    "tifffile.imwrite(path, stack, metadata={'axes': 'ZYX'})"
)
AS_TAGS = (
    "write it into a TIFF, as with gdal_translate --config GDAL_TIFF_INTERNAL_MASK YES NAME NEW.tif, "
    "or remove that file if all values count"
)
AS_PLAIN = "save it with integers of 8, 16 or 32 bits, or floats"

_ROWS: dict[str, tuple[tuple[str, _Done, str], ...]] = {
    "TIFF": (
        # How a number becomes a colour or a brightness
        (
            "262 Photometric = 0, white is zero",
            "heeded",
            "turned: the highest number of its bits minus the number, also in masks; this is said, but of fax packings",
        ),
        ("262 Photometric = 1, black is zero", "heeded", "as stored; also without tag 262 for one channel, RGB for three"),
        ("262 Photometric = 2, RGB", "heeded", "three channels"),
        (
            "262 Photometric = 3, palette (320)",
            "heeded",
            "images: RGB of 8 bits; masks: the numbers, or the greys where all colours are grey",
        ),
        ("262 Photometric = 5, inks (CMYK)", "heeded", "RGB = (1 - ink) * (1 - black), as viewers without profiles show it"),
        ("262 Photometric = 6, YCbCr", "heeded", "RGB by ITU-R BT.601; with coarser colours (530) only as JPEG packs them"),
        ("262 Photometric = 4, mask alone", "refused", "set tag 262 to 1 where its numbers are classes"),
        ("262 Photometric = 8, 9, 10, CIELab", "refused", AS_RGB),
        ("262 Photometric = 32803, 34892, raw camera", "refused", f"develop it first: {AS_RGB}"),
        ("262 Photometric = 32844, 32845, LogL, LogLuv", "refused", AS_RGB),
        ("262 Photometric, another number", "refused", AS_RGB),
        ("262 Photometric = 0 with signed numbers or floats", "refused", "set tag 262 to 1, or save the values turned"),
        ("262 Photometric = 5 or 6 with other bits", "refused", AS_RGB),
        ("332 InkSet, 334 NumberOfInks, other than CMYK", "refused", AS_RGB),
        ("336 DotRange, other than the whole", "refused", AS_RGB),
        ("346 Indexed", "refused", AS_RGB),
        ("433 Decode", "refused", AS_RGB),
        ("530 YCbCrSubSampling without JPEG", "refused", AS_RGB),
        ("529 YCbCrCoefficients, 532 ReferenceBlackWhite, unusual", "refused", AS_RGB),
        # How a number is stored
        ("258 BitsPerSample", "heeded", "1 to 64; below 8, images are spread over 0..255 and masks kept; 9 to 15 are kept"),
        ("339 SampleFormat", "heeded", "unsigned, signed and float"),
        ("258 BitsPerSample, 339 SampleFormat, differing or odd", "refused", AS_PLAIN),
        ("339 SampleFormat = 5, 6, complex numbers", "refused", "save real and imaginary part as two channels"),
        ("284 PlanarConfiguration", "heeded", "both ways give the same channels"),
        ("266 FillOrder", "heeded", "both ways give the same numbers"),
        ("317 Predictor", "heeded", "undone"),
        ("274 Orientation", "heeded", "turned upright"),
        # What is no channel, no value or no page
        ("338 ExtraSamples = 0, further samples", "heeded", "channels, such as the bands of a satellite"),
        (
            "338 ExtraSamples = 2, alpha",
            "heeded",
            "no channel, and inspect tells where it hides something; on a map, values are missing where it is 0",
        ),
        ("338 ExtraSamples = 1, associated alpha", "heeded", "the same, and the colours are divided by it, as viewers do"),
        (
            "42113 GDAL_NODATA",
            "heeded",
            "missing, each channel by itself, but integers of colours only all together; in masks void, but 0",
        ),
        ("42112 GDAL_METADATA, 42113 GDAL_NODATA, no number", "refused", "correct or remove it"),
        ("254 NewSubfileType = 4, page of a mask", "heeded", "missing where it is 0"),
        ("254 NewSubfileType = 4, of another size", "refused", "remove this page, or make it as large as the image"),
        ("254 NewSubfileType = 1, smaller copy", "heeded", "passed over; also further pictures in files of slide scanners"),
        ("further pages", "refused", AS_ONE),
        ("42112 GDAL_METADATA, scale and offset", "heeded", "stored * scale + offset, as slope and intercept elsewhere"),
        (
            "270 ImageDescription, calibration of ImageJ",
            "heeded",
            "c0 + c1 * stored, which is how ImageJ keeps negative numbers",
        ),
        ("270 ImageDescription, other calibrations of ImageJ", "refused", "apply it in ImageJ and save the image as 32-bit"),
        (
            "270 ImageDescription, OME planes elsewhere",
            "refused",
            "write all planes into one file, as bfconvert IN.ome.tif OUT.ome.tif does",
        ),
        ("34675 ICC, 301, 318, 319, colours of a screen", "passed over", "display only: how a screen shows the numbers"),
        (
            "280, 281, 340, 341, lowest and highest",
            "passed over",
            "display only: which numbers a viewer shows as black and white",
        ),
        ("290, 291 GrayResponseCurve", "passed over", "display only: how a printer inks the numbers"),
    ),
    "PNG": (
        ("PLTE, palette", "heeded", "images: RGB; masks: the numbers, or the greys where all colours are grey"),
        ("alpha, tRNS", "heeded", "no channel: the colours are read, also where nothing of them is seen, as inspect tells"),
        ("bit depth", "heeded", "16 bits are kept; below 8, grey images are spread over 0..255 and masks kept"),
        ("interlace", "heeded", "undone"),
        ("eXIf, orientation", "heeded", "turned upright; so in JPEG and WebP"),
        ("acTL, animation", "heeded", "the picture that programs without animation show"),
        ("gAMA, cHRM, iCCP, sRGB, cICP, sBIT", "passed over", "display only: how a screen shows the numbers"),
    ),
    "JPEG": (
        ("components", "heeded", "1 grey, 3 RGB or YCbCr, 4 inks: always RGB or grey"),
        ("Adobe, transform", "heeded", "CMYK and YCCK become RGB; inks are inverted, as Adobe writes them"),
        ("EXIF 274, orientation", "heeded", "turned upright"),
        ("precision other than 8 bits", "refused", "save it as PNG or TIFF of 16 bits"),
        ("ICC, profile of colours", "passed over", "display only"),
    ),
    "GIF": (
        ("frames", "heeded", "the first, with its own palette"),
        ("transparent colour", "heeded", "no channel: its colour is read"),
    ),
    "WebP": (
        ("alpha", "heeded", "no channel"),
        ("ANMF, frames", "heeded", "the first"),
        ("EXIF 274, orientation", "heeded", "turned upright"),
    ),
    "BMP": (("bits and masks, RLE", "heeded", "1 to 32 bits; palettes as in PNG; alpha is no channel"),),
    "PNM": (("maxval", "heeded", "shown as white: images are spread over 8 or 16 bits by it, masks are kept"),),
    "any": (("NAME.msk, NAME.aux.xml with NoDataValue", "refused", AS_TAGS),),
    "DICOM": (
        ("(0028,0004) MONOCHROME2", "heeded", "as stored"),
        ("(0028,0004) MONOCHROME1", "heeded", "turned after rescaling, within what may be stored: bright is high"),
        ("(2050,0020) INVERSE", "heeded", "as MONOCHROME1, which says the same"),
        ("(0028,0004) RGB", "heeded", "three channels"),
        ("(0028,0004) PALETTE COLOR", "heeded", "RGB of 8 bits"),
        ("(0028,0004) YBR_FULL, YBR_FULL_422, YBR_ICT, YBR_RCT", "heeded", "RGB"),
        ("(0028,0004), others", "refused", "save it as RGB or MONOCHROME2"),
        ("MONOCHROME1 of floats", "refused", "save it as MONOCHROME2"),
        ("(0028,0006) planar configuration", "heeded", "both ways give the same channels"),
        ("(0028,0101) bits stored, (0028,0102) high bit", "heeded", "bits above and below are no part of the value"),
        ("(0028,0103) pixel representation", "heeded", "signed or unsigned"),
        ("(0028,0120), (0028,0121) pixel padding", "heeded", "missing"),
        ("(0028,1053), (0028,1052) slope and intercept", "heeded", "stored * slope + intercept"),
        ("(0028,3000) modality LUT", "heeded", "what the table has for the stored number"),
        ("(0040,9096) real world values, alone", "heeded", "one straight line: stored * slope + intercept"),
        ("(0040,9096) real world values, beside a slope", "passed over", "the same values in another unit"),
        ("(0040,9096) real world values, others", "refused", "rewrite it with rescale slope and intercept"),
        ("(0028,1050), (0028,1051), (0028,3010) window and VOI LUT", "passed over", "display only"),
        ("(60xx,xxxx) overlays", "passed over", "drawings over the picture, not its values"),
        ("(0028,0008) frames", "refused", "single images are read: split it, for example with dcm2niix or emf2sf"),
    ),
    "NIfTI": (
        ("scl_slope, scl_inter", "heeded", "stored * slope + intercept; masks are made whole again"),
        ("scl_slope 0, NaN or infinite", "heeded", "nothing is scaled"),
        ("scl_inter NaN or infinite", "refused", "correct the header"),
        ("datatype 128, 2304, RGB and RGBA", "heeded", "three channels, never scaled; alpha is no channel"),
        ("datatype 32, 1792, 2048, complex", "refused", "save their magnitude"),
        ("datatype, others", "refused", AS_PLAIN),
        ("dim, a fourth axis", "heeded", "channels; a mask must be the same at each place of it"),
        ("intent_code 1007, vector", "heeded", "the fifth axis holds channels"),
        ("xyzt_units", "heeded", "metres and micrometres become millimetres"),
        ("qform_code, sform_code", "heeded", "the place in the world, chosen as SimpleITK does; RAS becomes LPS"),
        ("intent_code, others", "passed over", "what programs call the values"),
        ("cal_min, cal_max", "passed over", "display only"),
    ),
    "NRRD": (
        ("endian, type, encoding", "heeded", "integers and floats; raw, gzip and ascii"),
        ("kinds, directions none", "heeded", "the axis holds channels"),
        ("kinds, RGBA-color", "heeded", "alpha is no channel"),
        ("kinds, complex, HSV, XYZ, quaternion", "refused", "save plain numbers, as grey or RGB"),
        ("space", "heeded", "right and anterior are turned to LPS"),
        ("space units, units", "heeded", "nm, um, cm and m become mm"),
        ("space units, units, others", "refused", 'write one unit of length for all axes, such as "mm" or "um"'),
        ("axis mins without spacings", "refused", "write spacings into the header"),
        ("SegmentN_Name, _LabelValue, _Layer", "heeded", "in masks, names decide what numbers mean; layers overlap"),
        ("old min, old max, sample units", "passed over", "display only"),
        ("centerings, measurement frame", "passed over", "they concern no value of an image"),
    ),
    "MetaImage": (
        ("ElementByteOrderMSB, CompressedData", "heeded", "either order of bytes; packed or not"),
        ("ElementNumberOfChannels", "heeded", "channels"),
        ("TransformMatrix, Offset, ElementSpacing", "heeded", "the place in the world, LPS"),
        ("DistanceUnits", "heeded", "um, cm and m become mm"),
        ("DistanceUnits, others", "refused", "write mm, um or cm there"),
        ("ElementToIntensityFunctionSlope, Offset", "refused", "many programs ignore it: scale, write 1 and 0"),
        ("ElementMin, ElementMax", "passed over", "display only"),
        ("AnatomicalOrientation", "passed over", "TransformMatrix says it, and says more"),
    ),
}
TABLE = tuple(_Rule(codec, tag, done, how) for codec, rows in _ROWS.items() for tag, done, how in rows)


def refused(place: Path | str, codec: str, tag: str, found: str) -> FormatError:
    """The error for a file with a tag that the table says is refused; `found` is the tag by its name and what it says."""
    how = {(rule.codec, rule.tag): rule.how for rule in TABLE if rule.done == "refused"}
    return FormatError(f"{place}: {found}; this is not read: {how[codec, tag]}")


def markdown() -> list[str]:
    """The lines of the table for people."""
    return [
        "| codec | tag | what is done | how, why, or what to do |",
        "|---|---|---|---|",
        *(f"| {rule.codec} | {rule.tag} | {rule.done} | {rule.how} |" for rule in TABLE),
    ]
