"""Vector formats: `gis/`, `labels/` of annotation tools, `tables/`; `files` reads and writes them all."""
