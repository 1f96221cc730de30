"""The scan: from rasters to files of detections, resumable, in bounded memory."""
