"""Bytes and arrays: one file per way in which pixels are stored, image files, volume files, run lengths, polygons."""
