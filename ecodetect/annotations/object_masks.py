"""Folders with a mask for each object."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ecodetect.annotations.found import Found
from ecodetect.formats import files as formats
from ecodetect.formats.image_matching import (
    meant,
)
from ecodetect.grid import Grid
from ecodetect.notes import Note


class ObjectMasks:
    """Folders with a mask for each object, as in the Data Science Bowl 2018: `X/images/X.png`, `X/masks/…`.

    path : the folder of one image, or of such folders.
    names : of the images.  images : their paths.
    """

    has_crs = False
    is_empty = False
    lists_images = True

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metadata: dict[str, Any] = {}
        self.rasters: list[dict[str, Any]] = []
        self._masks = {image.as_posix(): folder / "masks" for folder, image in self._pairs(path)}
        self.images = list(self._masks)
        self.names = tuple(self.images)

    @classmethod
    def are_in(cls, path: Path) -> bool:
        """Whether a folder has this layout."""
        return next(cls._pairs(path), None) is not None

    @staticmethod
    def _pairs(path: Path) -> Iterator[tuple[Path, Path]]:
        """Each folder of one image, and the image."""
        one = path.parent if path.name == "masks" else path
        inner = [each for each in sorted(path.iterdir()) if each.is_dir()] if one == path else []
        for folder in (one, *inner):
            images, masks = (_shown(folder / name) for name in ("images", "masks"))
            # One mask beside one image can be a label image of all objects.
            is_one_each = len(images) == 1 and len(masks) >= (2 if folder == one else 1)
            if is_one_each and formats.is_folder_of("labels.object_masks", folder / "masks"):
                yield folder, images[0]

    def meant(self, image: str) -> frozenset[str]:
        """Those of `names` that are this image."""
        return frozenset([image]) & self._masks.keys() or meant(self.names, image, self.path)

    def of(self, image: str | None, grid: Grid | None, *, is_one: bool) -> Found | None:
        """The objects of an image; None where there are no masks for it."""
        wanted = frozenset(self.names[:1]) if image is None else self.meant(image)
        if not wanted:
            return None
        folder = self._masks[min(wanted)]
        return Found(formats.read(folder, grid=grid, image=image), f"{folder.parent.name}/masks")

    def notes(self, images: Sequence[str]) -> Iterator[Note]:
        """None: their reader's notes come with the objects."""
        yield from ()


def _shown(folder: Path) -> list[Path]:
    """The visible contents of a folder; empty where there is no folder."""
    return [file for file in folder.iterdir() if not file.name.startswith(".")] if folder.is_dir() else []
