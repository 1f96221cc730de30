"""Pictures of detections: a map over the raster, and a sheet of cut-outs.

Pictures are drawn from the raster at display size and from a stream of detections, in memory that depends
only on the picture. They are for people: coordinates come from the files that `formats` writes.

`map`, `sheet`, `thumbnails` and `explanation` draw; `look` says how values become colours, `background` reads
the raster, `marks` draws objects, `frame` is what stands around a map, `choice` picks the objects of a sheet,
`lettering` is text, `colours` are the colours, `files` is how a picture becomes a file.
"""
