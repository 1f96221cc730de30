"""The scan: rasters in, files of detections out, resumable, in bounded memory."""
