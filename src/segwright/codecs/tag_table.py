"""How values are read: for each codec and each tag that says what numbers mean, what is done. docs/formats.md shows this table.

A tag is heeded, or it concerns the display only and is passed over, or the file is refused: what decides over values and is not
understood is never guessed.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from segwright.core.errors import FormatError


@dataclass(frozen=True)
class _Rule:
    """What is done with a tag; `how` says in which way it is heeded, why it is passed over, or what to do with the file."""

    codec: str
    tag: str
    done: Literal["heeded", "passed over", "refused"]
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

TABLE = (
    # TIFF: how a number becomes a colour or a brightness
    _Rule("TIFF", "262 = 0, white is zero", "heeded", "turned: the highest number of its bits minus the number, also in masks"),
    _Rule("TIFF", "262 = 1, black is zero", "heeded", "as stored; also without tag 262 for one channel, RGB for three"),
    _Rule("TIFF", "262 = 2, RGB", "heeded", "three channels"),
    _Rule("TIFF", "262 = 3, palette (320)", "heeded", "images: RGB of 8 bits; masks: the numbers"),
    _Rule("TIFF", "262 = 5, inks (CMYK)", "heeded", "RGB = (1 - ink) * (1 - black), as viewers without profiles show it"),
    _Rule("TIFF", "262 = 6, YCbCr", "heeded", "RGB by ITU-R BT.601; with coarser colours (530) only as JPEG packs them"),
    _Rule("TIFF", "262 = 4, mask alone", "refused", "set tag 262 to 1 where its numbers are classes"),
    _Rule("TIFF", "262 = 8, 9, 10, CIELab", "refused", AS_RGB),
    _Rule("TIFF", "262 = 32803, 34892, raw camera", "refused", f"develop it first: {AS_RGB}"),
    _Rule("TIFF", "262 = 32844, 32845, LogL, LogLuv", "refused", AS_RGB),
    _Rule("TIFF", "262, another number", "refused", AS_RGB),
    _Rule("TIFF", "262 = 0 with signed numbers or floats", "refused", "set tag 262 to 1, or save the values turned"),
    _Rule("TIFF", "262 = 5 or 6 with other bits", "refused", AS_RGB),
    _Rule("TIFF", "332, 334, inks other than CMYK", "refused", AS_RGB),
    _Rule("TIFF", "336, range of inks", "refused", AS_RGB),
    _Rule("TIFF", "346, indexed colours", "refused", AS_RGB),
    _Rule("TIFF", "433, decode array", "refused", AS_RGB),
    _Rule("TIFF", "530, coarser colours without JPEG", "refused", AS_RGB),
    _Rule("TIFF", "529, 532, other coefficients of YCbCr", "refused", AS_RGB),
    # TIFF: how a number is stored
    _Rule("TIFF", "258, bits", "heeded", "1 to 64; below 8, images are spread over 0..255 and masks kept; 9 to 15 are kept"),
    _Rule("TIFF", "339, sample format", "heeded", "unsigned, signed and float"),
    _Rule("TIFF", "258, 339, bits or formats that differ", "refused", AS_PLAIN),
    _Rule("TIFF", "339 = 5, 6, complex numbers", "refused", "save real and imaginary part as two channels"),
    _Rule("TIFF", "284, planes", "heeded", "both ways give the same channels"),
    _Rule("TIFF", "266, order of bits", "heeded", "both ways give the same numbers"),
    _Rule("TIFF", "317, predictor", "heeded", "undone"),
    _Rule("TIFF", "274, orientation", "heeded", "turned upright"),
    # TIFF: what is no channel, no value or no page
    _Rule("TIFF", "338 = 0, further samples", "heeded", "channels, such as the bands of a satellite"),
    _Rule("TIFF", "338 = 2, alpha", "heeded", "no channel; where the image lies on a map, values are missing where it is 0"),
    _Rule("TIFF", "338 = 1, associated alpha", "heeded", "the same, and the colours are divided by it, as viewers do"),
    _Rule("TIFF", "42113, GDAL_NODATA", "heeded", "missing, each channel by itself, but integers of colours only all together"),
    _Rule("TIFF", "42112, 42113, no number", "refused", "correct or remove it"),
    _Rule("TIFF", "254 = 4, page of a mask", "heeded", "missing where it is 0"),
    _Rule("TIFF", "254 = 4, of another size", "refused", "remove this page, or make it as large as the image"),
    _Rule("TIFF", "254 = 1, smaller copy", "heeded", "passed over; also further pictures in files of slide scanners"),
    _Rule("TIFF", "further pages", "refused", AS_ONE),
    _Rule("TIFF", "42112, scale and offset of GDAL", "heeded", "stored * scale + offset, as slope and intercept elsewhere"),
    _Rule("TIFF", "270, calibration of ImageJ", "heeded", "c0 + c1 * stored, which is how ImageJ keeps negative numbers"),
    _Rule("TIFF", "270, other calibrations of ImageJ", "refused", "apply it in ImageJ and save the image as 32-bit"),
    _Rule("TIFF", "34675, 301, 318, 319, profile of colours", "passed over", "display only: how a screen shows the numbers"),
    _Rule("TIFF", "280, 281, 340, 341, range", "passed over", "display only: which numbers a viewer shows as black and white"),
    _Rule("TIFF", "290, 291, grey curve", "passed over", "display only: how a printer inks the numbers"),
    # Files that Pillow decodes
    _Rule("PNG", "PLTE, palette", "heeded", "images: RGB; masks: the numbers"),
    _Rule("PNG", "alpha, tRNS", "heeded", "no channel: the colours are read, also where nothing of them is seen"),
    _Rule("PNG", "bit depth", "heeded", "16 bits are kept; below 8, grey images are spread over 0..255 and masks kept"),
    _Rule("PNG", "interlace", "heeded", "undone"),
    _Rule("PNG", "eXIf, orientation", "heeded", "turned upright; so in JPEG and WebP"),
    _Rule("PNG", "acTL, animation", "heeded", "the picture that programs without animation show"),
    _Rule("PNG", "gAMA, cHRM, iCCP, sRGB, cICP, sBIT", "passed over", "display only: how a screen shows the numbers"),
    _Rule("JPEG", "components", "heeded", "1 grey, 3 RGB or YCbCr, 4 inks: always RGB or grey"),
    _Rule("JPEG", "Adobe, transform", "heeded", "CMYK and YCCK become RGB; inks are inverted, as Adobe writes them"),
    _Rule("JPEG", "EXIF 274, orientation", "heeded", "turned upright"),
    _Rule("JPEG", "precision other than 8 bits", "refused", "save it as PNG or TIFF of 16 bits"),
    _Rule("JPEG", "ICC, profile of colours", "passed over", "display only"),
    _Rule("GIF", "frames", "heeded", "the first, with its own palette"),
    _Rule("GIF", "transparent colour", "heeded", "no channel: its colour is read"),
    _Rule("WebP", "alpha", "heeded", "no channel"),
    _Rule("WebP", "ANMF, frames", "heeded", "the first"),
    _Rule("WebP", "EXIF 274, orientation", "heeded", "turned upright"),
    _Rule("BMP", "bits and masks, RLE", "heeded", "1 to 32 bits; palettes as in PNG; alpha is no channel"),
    _Rule("PNM", "maxval", "heeded", "shown as white: images are spread over 8 or 16 bits by it, masks are kept"),
    _Rule("any", "NAME.msk, NAME.aux.xml with NoDataValue", "refused", AS_TAGS),
    # DICOM
    _Rule("DICOM", "(0028,0004) MONOCHROME2", "heeded", "as stored"),
    _Rule("DICOM", "(0028,0004) MONOCHROME1", "heeded", "turned after rescaling, within what may be stored: bright is high"),
    _Rule("DICOM", "(2050,0020) INVERSE", "heeded", "as MONOCHROME1, which says the same"),
    _Rule("DICOM", "(0028,0004) RGB", "heeded", "three channels"),
    _Rule("DICOM", "(0028,0004) PALETTE COLOR", "heeded", "RGB of 8 bits"),
    _Rule("DICOM", "(0028,0004) YBR_FULL, YBR_FULL_422, YBR_ICT, YBR_RCT", "heeded", "RGB"),
    _Rule("DICOM", "(0028,0004), others", "refused", "save it as RGB or MONOCHROME2"),
    _Rule("DICOM", "MONOCHROME1 of floats", "refused", "save it as MONOCHROME2"),
    _Rule("DICOM", "(0028,0006) planar configuration", "heeded", "both ways give the same channels"),
    _Rule("DICOM", "(0028,0101) bits stored, (0028,0102) high bit", "heeded", "bits above and below are no part of the value"),
    _Rule("DICOM", "(0028,0103) pixel representation", "heeded", "signed or unsigned"),
    _Rule("DICOM", "(0028,0120), (0028,0121) pixel padding", "heeded", "missing"),
    _Rule("DICOM", "(0028,1053), (0028,1052) slope and intercept", "heeded", "stored * slope + intercept"),
    _Rule("DICOM", "(0028,3000) modality LUT", "heeded", "what the table has for the stored number"),
    _Rule("DICOM", "(0040,9096) real world values, alone", "heeded", "one straight line: stored * slope + intercept"),
    _Rule("DICOM", "(0040,9096) real world values, beside a slope", "passed over", "the same values in another unit"),
    _Rule("DICOM", "(0040,9096) real world values, others", "refused", "rewrite it with rescale slope and intercept"),
    _Rule("DICOM", "(0028,1050), (0028,1051), (0028,3010) window and VOI LUT", "passed over", "display only"),
    _Rule("DICOM", "(60xx,xxxx) overlays", "passed over", "drawings over the picture, not its values"),
    _Rule("DICOM", "(0028,0008) frames", "refused", "single images are read: split it, for example with dcm2niix or emf2sf"),
    # Volumes
    _Rule("NIfTI", "scl_slope, scl_inter", "heeded", "stored * slope + intercept; masks are made whole again"),
    _Rule("NIfTI", "scl_slope 0, NaN or infinite", "heeded", "nothing is scaled"),
    _Rule("NIfTI", "scl_inter NaN or infinite", "refused", "correct the header"),
    _Rule("NIfTI", "datatype 128, 2304, RGB and RGBA", "heeded", "three channels, never scaled; alpha is no channel"),
    _Rule("NIfTI", "datatype 32, 1792, 2048, complex", "refused", "save their magnitude"),
    _Rule("NIfTI", "datatype, others", "refused", AS_PLAIN),
    _Rule("NIfTI", "dim, a fourth axis", "heeded", "channels; a mask must be the same at each place of it"),
    _Rule("NIfTI", "intent_code 1007, vector", "heeded", "the fifth axis holds channels"),
    _Rule("NIfTI", "xyzt_units", "heeded", "metres and micrometres become millimetres"),
    _Rule("NIfTI", "qform_code, sform_code", "heeded", "the place in the world, chosen as SimpleITK does; RAS becomes LPS"),
    _Rule("NIfTI", "intent_code, others", "passed over", "what programs call the values"),
    _Rule("NIfTI", "cal_min, cal_max", "passed over", "display only"),
    _Rule("NRRD", "endian, type, encoding", "heeded", "integers and floats; raw, gzip and ascii"),
    _Rule("NRRD", "kinds, directions none", "heeded", "the axis holds channels"),
    _Rule("NRRD", "kinds, RGBA-color", "heeded", "alpha is no channel"),
    _Rule("NRRD", "kinds, complex, HSV, XYZ, quaternion", "refused", "save plain numbers, as grey or RGB"),
    _Rule("NRRD", "space", "heeded", "right and anterior are turned to LPS"),
    _Rule("NRRD", "space units, units", "heeded", "nm, um, cm and m become mm"),
    _Rule("NRRD", "space units, units, others", "refused", 'write one unit of length for all axes, such as "mm" or "um"'),
    _Rule("NRRD", "axis mins without spacings", "refused", "write spacings into the header"),
    _Rule("NRRD", "SegmentN_Name, _LabelValue, _Layer", "heeded", "in masks, names decide what numbers mean; layers overlap"),
    _Rule("NRRD", "old min, old max, sample units", "passed over", "display only"),
    _Rule("NRRD", "centerings, measurement frame", "passed over", "they concern no value of an image"),
    _Rule("MetaImage", "ElementByteOrderMSB, CompressedData", "heeded", "either order of bytes; packed or not"),
    _Rule("MetaImage", "ElementNumberOfChannels", "heeded", "channels"),
    _Rule("MetaImage", "TransformMatrix, Offset, ElementSpacing", "heeded", "the place in the world, LPS"),
    _Rule("MetaImage", "DistanceUnits", "heeded", "um, cm and m become mm"),
    _Rule("MetaImage", "DistanceUnits, others", "refused", "write mm, um or cm there"),
    _Rule("MetaImage", "ElementToIntensityFunctionSlope, Offset", "refused", "many programs ignore it: scale, write 1 and 0"),
    _Rule("MetaImage", "ElementMin, ElementMax", "passed over", "display only"),
    _Rule("MetaImage", "AnatomicalOrientation", "passed over", "TransformMatrix says it, and says more"),
)  # fmt: skip


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
