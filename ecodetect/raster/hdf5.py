"""Whether an HDF5 or netCDF-4 file holds all of its pixels itself, in a form that has an end.

HDF5 can name other files in many places: external storage, external links, links of drivers, virtual datasets
and references; any file of the system would come back as pixels. And its links may lead round in a circle.
Here a file is walked object by object, by address, without reading pixels. It is called in `guard`'s child:
the library may hang or crash at a damaged file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ecodetect.errors import RasterError

SIGNATURE = b"\x89HDF\r\n\x1a\n"
MOST_OBJECTS = 100_000  # a year of daily variables in groups has some thousands
_MOST_DEPTH = 64  # of groups
_MOST_PATHS = 100_000  # that lead to groups: GDAL walks each
_MOST_ATTRIBUTE = 2**24  # bytes of an attribute; GDAL keeps them all
_MOST_REFERENCES = 1_000_000


def begins_at(file: Path) -> int | None:
    """Where the HDF5 in a file begins, 0 or behind a block of the user's; None: it is none.

    The places are those where the library looks: 0, 512, 1024, 2048 and so on.
    """
    size = file.stat().st_size
    place = 0
    with file.open("rb") as stream:
        while place < size:
            stream.seek(place)
            if stream.read(len(SIGNATURE)) == SIGNATURE:
                return place
            place = 2 * place or 512
    return None


def check(path: str, shown: str) -> None:
    """Raise RasterError unless all objects of the file are in the file, and their links come to an end."""
    import h5py  # 0.2 s, for HDF5 only

    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_file_locking(False, True)  # others may be reading it, and it may lie where nothing is locked
    try:
        handle = h5py.h5f.open(path.encode(), h5py.h5f.ACC_RDONLY, access)
        try:
            walk = _Walk(handle, shown)
            walk.follow_links()
            walk.follow_soft_links()
            walk.check_ends()
            walk.follow_references()
        finally:
            handle.close()
    except RasterError:
        raise
    except RecursionError as error:
        raise RasterError(f"{shown} is nested too deeply to be a raster.") from error
    # h5py raises nearly any of them for damaged files.
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split()).strip("'\"")
        raise RasterError(
            f"{shown} is a damaged or truncated HDF5 or netCDF file ({reason[:200]}); copy it again."
        ) from error


@dataclass
class _Walk:
    """What was found on a walk through a file.

    handle, shown : the open file, and its name for messages.
    objects : opened, by address.
    groups : address of a group -> addresses of the groups that its links lead to.
    soft : for each soft link, the address of its group and its name.
    root : address of the outermost group.
    """

    handle: Any
    shown: str
    objects: dict[int, Any] = field(default_factory=dict)
    groups: dict[int, list[int]] = field(default_factory=dict)
    soft: list[tuple[int, bytes]] = field(default_factory=list)
    root: int = 0

    def follow_links(self) -> None:
        """All objects that hard links lead to, each once; raises for links that leave the file."""
        import h5py

        first = h5py.h5o.open(self.handle, b"/")
        self.root = self._address(first)
        self._add(self.root, first)
        waiting = [self.root]
        while waiting:
            above = waiting.pop()
            group = self.objects[above]
            for name in _names(group):
                kind = group.links.get_info(name).type
                if kind == h5py.h5l.TYPE_SOFT:
                    self.soft.append((above, name))
                    continue
                if kind != h5py.h5l.TYPE_HARD:
                    raise self._elsewhere(f"has a link ({_text(name)}) that leads to another file")
                found = h5py.h5o.open(group, name)
                address = self._address(found)
                is_group = isinstance(found, h5py.h5g.GroupID)
                if is_group:
                    self.groups[above].append(address)
                if address not in self.objects:
                    self._add(address, found)
                    if is_group:
                        waiting.append(address)

    def follow_soft_links(self) -> None:
        """Groups that soft links lead to; by now none can leave the file."""
        import h5py

        for above, name in self.soft:
            try:
                found = h5py.h5o.open(self.objects[above], name)
            except (KeyError, ValueError, RuntimeError, OSError):
                continue  # it leads nowhere, or to itself
            address = self._address(found)
            if address not in self.objects:
                raise self._elsewhere(f"has a link ({_text(name)}) to an object that isn't among its own")
            if isinstance(found, h5py.h5g.GroupID):
                self.groups[above].append(address)

    def check_ends(self) -> None:
        """Raise RasterError where groups lead back to themselves, or by too many ways to each other."""
        paths: dict[int, int] = {}
        above: list[int] = []
        waiting: list[tuple[int, Iterator[int]]] = []

        def enter(address: int) -> None:
            if address in above:
                raise RasterError(
                    f"{self.shown} has a group that contains itself, so reading it would never end; write it "
                    "again without that link."
                )
            if len(above) >= _MOST_DEPTH:
                raise RasterError(f"{self.shown} is nested too deeply to be a raster.")
            above.append(address)
            waiting.append((address, iter(self.groups[address])))

        enter(self.root)
        while waiting:
            address, below = waiting[-1]
            following = next((one for one in below if one not in paths), None)
            if following is not None:
                enter(following)
                continue
            waiting.pop()
            above.pop()
            paths[address] = 1 + sum(paths[one] for one in self.groups[address])
            if paths[address] > _MOST_PATHS:
                raise RasterError(f"{self.shown} has more than {_MOST_PATHS:,} ways to its groups.")

    def follow_references(self) -> None:
        """Raise RasterError for a reference to anything that isn't among the objects walked."""
        import h5py

        budget = _MOST_REFERENCES
        for found in list(self.objects.values()):
            for index in range(h5py.h5a.get_num_attrs(found)):
                attribute = h5py.h5a.open(found, index=index)
                name = _text(attribute.name)
                if attribute.get_storage_size() > _MOST_ATTRIBUTE:
                    size = attribute.get_storage_size() / 2**20
                    raise RasterError(f"{self.shown} has an attribute ({name}) of {size:.0f} MB.")
                if self._refers(attribute.get_type()):
                    budget -= self._check_references(attribute, found, budget)
            if isinstance(found, h5py.h5d.DatasetID) and self._refers(found.get_type()):
                budget -= self._check_references(found, found, budget)

    def _check_references(self, values: Any, owner: Any, budget: int) -> int:
        """Look at the references in an attribute or a dataset; returns how many there are."""
        import h5py

        shape = values.shape
        if int(np.prod(shape, dtype=object)) > budget:
            raise RasterError(f"{self.shown} has more than {_MOST_REFERENCES:,} references.")
        array = np.empty(shape, values.dtype)
        if array.size:
            if isinstance(values, h5py.h5a.AttrID):
                values.read(array)
            else:
                values.read(h5py.h5s.ALL, h5py.h5s.ALL, array)
        count = 0
        for reference in _references(array):
            count += 1
            if count > budget:
                raise RasterError(f"{self.shown} has more than {_MOST_REFERENCES:,} references.")
            if not reference:
                continue
            try:
                found = h5py.h5r.dereference(reference, owner)
            except (ValueError, RuntimeError, OSError, KeyError):
                continue  # to what was deleted: nobody can read it
            if found is not None and self._address(found) not in self.objects:
                raise self._elsewhere("has a reference to an object that isn't among its own")
        return count

    def _add(self, address: int, found: Any) -> None:
        import h5py

        if len(self.objects) >= MOST_OBJECTS:
            raise RasterError(f"{self.shown} has more than {MOST_OBJECTS:,} groups and datasets.")
        self.objects[address] = found
        if isinstance(found, h5py.h5g.GroupID):
            self.groups[address] = []
        elif isinstance(found, h5py.h5d.DatasetID):
            stated = found.get_create_plist()
            if stated.get_layout() == h5py.h5d.VIRTUAL:
                raise self._elsewhere("has a virtual dataset, made of other files")
            if stated.get_external_count():
                name = stated.get_external(0)[0]
                raise self._elsewhere(f"takes pixels from another file ('{_text(name)}')")

    def _refers(self, kind: Any) -> bool:
        """Whether a type holds references, also within others; raises for those that may name files."""
        import h5py

        if isinstance(kind, h5py.h5t.TypeReferenceID):
            if not (kind.equal(h5py.h5t.STD_REF_OBJ) or kind.equal(h5py.h5t.STD_REF_DSETREG)):
                raise self._elsewhere("has references of a kind that may lead to another file")
            return True
        if isinstance(kind, h5py.h5t.TypeCompoundID):
            members = [self._refers(kind.get_member_type(index)) for index in range(kind.get_nmembers())]
            return any(members)
        if isinstance(kind, h5py.h5t.TypeArrayID | h5py.h5t.TypeVlenID):
            return self._refers(kind.get_super())
        return False

    def _elsewhere(self, what: str) -> RasterError:
        return RasterError(
            f"{self.shown} {what}, which is not followed; write it again as one file that holds its pixels."
        )

    def _address(self, found: Any) -> int:
        import h5py

        info = h5py.h5o.get_info(found)
        if info.fileno != h5py.h5o.get_info(self.handle).fileno:
            raise self._elsewhere("has a link that leads to another file")
        return int(info.addr)


def _names(group: Any) -> Iterator[bytes]:
    for count, name in enumerate(list(group), start=1):
        if count > MOST_OBJECTS:
            return
        yield name


def _references(values: Any) -> Iterator[Any]:
    """The references in an array, also within compounds and lists."""
    import h5py

    if isinstance(values, h5py.h5r.Reference):
        yield values
    elif isinstance(values, np.void) and values.dtype.names:
        for name in values.dtype.names:
            yield from _references(values[name])
    elif isinstance(values, np.ndarray):
        if values.dtype.names:
            for name in values.dtype.names:
                yield from _references(values[name])
        elif values.dtype.kind == "O":
            for value in values.flat:
                yield from _references(value)


def _text(name: bytes) -> str:
    text = name.decode("utf-8", "replace")
    return text if len(text) <= 80 else text[:77] + "…"
