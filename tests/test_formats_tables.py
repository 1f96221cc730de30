"""Tables of points and boxes: every dialect people send, and our own read back exactly."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import shapely
from pyproj import CRS

from ecodetect.annotations.laying import labels_of
from ecodetect.errors import LayerError
from ecodetect.formats import files as formats
from ecodetect.grid import Grid
from ecodetect.layer import Layer, Stream

UTM = CRS.from_epsg(32617)
GRID = Grid(400, 300, (0.1, 0.0, 404_000.0, 0.0, -0.1, 3_285_000.0), UTM)
BOX_HEADER = "image_path,xmin,ymin,xmax,ymax,label\n"


def read(
    tmp_path: Path,
    text: str | bytes,
    *,
    name: str = "t.csv",
    grid: Grid | None = GRID,
    image: str | None = "plot.tif",
) -> Layer:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return formats.read(path, grid=grid, image=image)


def xy(layer: Layer) -> list[list[float]]:
    return np.round(shapely.get_coordinates(layer.geometry), 6).tolist()


def boxes(layer: Layer) -> list[list[float]]:
    return shapely.bounds(layer.geometry).tolist()


WANTED = [[10.5, 20.25], [30.0, 40.75]]
LONLAT = GRID.to_lonlat(WANTED)
WORLD = GRID.to_world(WANTED)


@pytest.mark.parametrize(
    "text",
    [
        "x,y\n10.5,20.25\n30,40.75\n",
        "X,Y,label\n10.5,20.25,a\n30,40.75,b\n",
        "y,x\n20.25,10.5\n40.75,30\n",
        "\ufeffx,y\r\n10.5,20.25\r\n30,40.75\r\n",
        "x,y\r10.5,20.25\r30,40.75",
        "x;y\n10,5;20,25\n30,0;40,75\n",
        'x,y\n"10,5","20,25"\n"30","40,75"\n',
        "sep=;\nx;y\n10,5;20,25\n30;40,75\n",
        "x\ty\n10.5\t20.25\n30\t40.75\n",
        "x|y\n10.5|20.25\n30|40.75\n",
        ' "x" ,"y"\n10.5,20.25\n30,40.75\n',
        "x_px,y_px\n10.5,20.25\n30,40.75\n",
        "X (px);Y (px)\n10,5;20,25\n30;40,75\n",
        "\n\nx,y\n\n10.5,20.25\n,\n30,40.75\n\n",
        "id,x_center,y_center\n1,10.5,20.25\n2,30,40.75\n",
        "row,column\n20.25,10.5\n40.75,30\n",
        "Survey of 2018;;\n# by hand\nNr;x;y\n1;10,5;20,25\n2;30;40,75\n",
        "x,y,source\n10.5,20.25,drone survey\n30,40.75,drone survey\n",
        "wkt_geom\tname\nPoint (10.5 20.25)\ta\nPoint (30 40.75)\tb\n",
        "label,geometry\na,POINT Z (10.5 20.25 3)\nb,MULTIPOINT ((30 40.75))\n",
    ],
)
def test_points_in_pixels(tmp_path: Path, text: str) -> None:
    layer = read(tmp_path, text)
    assert xy(layer) == WANTED
    assert layer.grid == GRID


@pytest.mark.parametrize(
    "header",
    ["lon,lat", "Long,Lat", "LONGITUDE,LATITUDE", "decimalLongitude,decimalLatitude", "lng,lat", "X,Y"],
)
def test_points_in_degrees(tmp_path: Path, header: str) -> None:
    rows = "".join(f"{lon:.12f},{lat:.12f}\n" for lon, lat in LONLAT)
    assert np.allclose(xy(read(tmp_path, f"{header}\n{rows}")), WANTED, atol=1e-4)


@pytest.mark.parametrize(
    "header", ["x,y", "Easting,Northing", "E;N", "Easting (m);Northing (m)", "POINT_X,POINT_Y"]
)
def test_points_on_the_map(tmp_path: Path, header: str) -> None:
    separator = ";" if ";" in header else ","
    rows = "".join(f"{e:.6f}{separator}{n:.6f}\n" for e, n in WORLD)
    layer = read(tmp_path, f"{header}\n{rows}")
    assert np.allclose(xy(layer), WANTED, atol=1e-4)


def test_thousands_in_continental_writing(tmp_path: Path) -> None:
    assert np.allclose(xy(read(tmp_path, "x;y\n404.001,05;3.284.997,975\n")), [[10.5, 20.25]], atol=1e-3)


def test_boxes_and_shapes_on_the_map(tmp_path: Path) -> None:
    (x0, y0), (x1, y1) = GRID.to_world([(10, 40), (30, 20)])
    for text in (
        f"xmin,ymin,xmax,ymax\n{x0},{y0},{x1},{y1}\n",
        f'wkt\n"POLYGON (({x0} {y0}, {x1} {y0}, {x1} {y1}, {x0} {y1}, {x0} {y0}))"\n',
        f'wkt\n"SRID=32617;POLYGON (({x0} {y0}, {x1} {y0}, {x1} {y1}, {x0} {y1}, {x0} {y0}))"\n',
    ):
        layer = read(tmp_path, text)
        assert np.allclose(boxes(layer), [[10, 20, 30, 40]], atol=1e-4)
        assert any("map coordinates" in str(note) for note in layer.notes)


def test_where_the_names_leave_a_choice_pixels_come_first(tmp_path: Path) -> None:
    small = Grid(400, 300, (1.0, 0.0, 0.0, 0.0, -1.0, 300.0), UTM)  # its ground is numbered like its pixels
    assert xy(read(tmp_path, "x,y\n10.5,20.25\n", grid=small)) == [[10.5, 20.25]]


def test_neither_pixels_nor_ground_names_both(tmp_path: Path) -> None:
    with pytest.raises(LayerError, match=r"400 x 300 pixels.*404000 to 404040.*3284970 to 3285000.*UTM"):
        read(tmp_path, "x,y\n900000.5,20\n900001,21\n")


def test_degrees_need_a_crs(tmp_path: Path) -> None:
    with pytest.raises(LayerError, match="no CRS"):
        read(tmp_path, "lon,lat\n-81,29\n", grid=Grid(400, 300))


def test_without_a_raster(tmp_path: Path) -> None:
    pixels = read(tmp_path, "x,y\n10.5,20.25\n", grid=None)
    assert (pixels.grid, pixels.crs, xy(pixels)) == (None, None, [[10.5, 20.25]])
    assert any(note.parameter == "image" for note in pixels.notes)
    degrees = read(tmp_path, "x,y,lon,lat\n10.5,20.25,-81.5,29.5\n", grid=None)
    assert degrees.crs is not None
    assert xy(degrees) == [[-81.5, 29.5]]
    with pytest.raises(LayerError, match="too large for pixels"):
        read(tmp_path, "x,y\n404001,3284997\n", grid=None)
    with pytest.raises(LayerError, match="without a CRS"):
        read(tmp_path, "easting,northing\n404001,3284997\n", grid=None)


def test_whole_numbers_count_pixels_and_that_is_said(tmp_path: Path) -> None:
    layer = read(tmp_path, "x,y\n10,20\n30,40\n")
    assert xy(layer) == [[10.5, 20.5], [30.5, 40.5]]
    assert sum("whole numbers" in str(note) for note in layer.notes) == 1
    assert xy(read(tmp_path, "x,y\n10,20\n30,40.0\n")) == [[10, 20], [30, 40]]
    assert boxes(read(tmp_path, "xmin,ymin,xmax,ymax\n1,2,3,4\n")) == [[1, 2, 3, 4]]


@pytest.mark.parametrize(
    "text",
    [
        BOX_HEADER + "plot.tif,1,2,3,4,Tree\n",
        "plot.tif,1,2,3,4,Tree\n",
        "plot.tif,1,2,3,4,Tree\nempty.tif,,,,,\n",
        "empty.tif,,,,,\nplot.tif,1,2,3,4,Tree\n",
        "1,2,3,4,Tree,0.9,plot.tif\n",
        "1,2,3,4,Tree,plot.tif\n",
        "plot.tif;1,0;2,0;3,0;4,0;Tree\n",
        "xmin\txmax\tymin\tymax\tlabel\n1\t3\t2\t4\tTree\n",
        "left,top,right,bottom,class\n1,2,3,4,Tree\n",
        "label_name,bbox_x,bbox_y,bbox_width,bbox_height,image_name\nTree,1,2,2,2,plot.tif\n",
        "left,top,width,height,label\n1,2,2,2,Tree\n",
        "xmin,ymin,w,h,label\n1,2,2,2,Tree\n",
        'xmin,ymin,xmax,ymax,label,geometry\n1,2,3,4,Tree,"POLYGON ((1 2, 3 2, 3 4, 1 4, 1 2))"\n',
        BOX_HEADER + "plot.tif,1,2,3,4,Tree\nplot.tif,0,0,0,0,Tree\n",
    ],
)
def test_boxes(tmp_path: Path, text: str) -> None:
    layer = read(tmp_path, text)
    assert boxes(layer) == [[1, 2, 3, 4]]
    assert labels_of(layer, "a").tolist() == ["Tree"]


def test_points_with_a_width_and_a_height_may_be_boxes_and_that_is_said(tmp_path: Path) -> None:
    layer = read(tmp_path, "x,y,Width,Height (m)\n1.5,2,2,2\n")
    assert xy(layer) == [[1.5, 2]]
    assert "left, top, width, height" in str(layer.notes[0])
    assert read(tmp_path, "x,y,height\n1.5,2,2\n").notes == ()  # of a tree


def test_boxes_in_shares_of_the_image(tmp_path: Path) -> None:
    text = "ImageID,XMin,XMax,YMin,YMax,label\nplot,0.1,0.2,0.5,1,Tree\n"
    layer = read(tmp_path, text)
    assert boxes(layer) == [[40, 150, 80, 300]]
    assert any("shares" in str(note) for note in layer.notes)
    with pytest.raises(LayerError, match=r"name the (image|raster)"):
        read(tmp_path, text, grid=None)


def test_rows_without_an_image_among_rows_with_one_are_counted(tmp_path: Path) -> None:
    layer = read(tmp_path, BOX_HEADER + "plot.tif,1,2,3,4,t\n,5,6,7,8,t\n")
    assert tuple(map(str, layer.notes)) == ("t.csv: 1 row left out: no image named (line 3).",)


def test_a_row_added_by_hand_to_a_table_of_ours_about_one_image_is_of_that_image(tmp_path: Path) -> None:
    header, row = "source,x,y,label,score,id\n", "plot.tif,1.5,2.5,shrub,0.9,8486d778-2c4-80\n"
    layer = read(tmp_path, f"{header}{row},10.5,12.5,,,\n")
    assert len(layer) == 2
    assert not layer.notes
    other = row.replace("plot.tif", "other.tif")
    layer = read(tmp_path, f"{header}{row}{other},10.5,12.5,,,\n")
    assert len(layer) == 1
    assert any("no image named (line 4)" in str(note) for note in layer.notes)


def test_an_image_without_objects_is_no_bad_row(tmp_path: Path) -> None:
    layer = read(tmp_path, BOX_HEADER + "plot.tif,0,0,0,0,Tree\nplot.tif,,,,,\n")
    assert len(layer) == 0
    assert layer.notes == ()


def test_bad_rows_are_named_by_their_line_and_the_others_kept(tmp_path: Path) -> None:
    rows = [
        "1,2,3,4,a",
        "5,5,4,6,a",
        "1,ten,3,4,a",
        "1,2,3",
        "nan,2,3,4,a",
        "1,2,3,4,a,b,c",
        "1,2,1,4,a",
        "2,2,3,4,b",
    ]
    layer = read(tmp_path, BOX_HEADER + "".join(f"plot.tif,{row}\n" for row in rows))
    assert boxes(layer) == [[1, 2, 3, 4], [2, 2, 3, 4]]
    (note,) = layer.notes
    for place in ("6 rows", "line 3", "line 4", "line 5", "line 6", "line 7", "'ten'", "xmin 5 is more"):
        assert place in note.text


def test_only_bad_rows_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(LayerError, match=r"nothing usable.*line 2"):
        read(tmp_path, "x,y\na,b\nc,d\n")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("\n \n", "empty"),
        ("name,height\na,3\n", "no columns that say where"),
        ("10.5,20.25\n30,40\n", "no columns that say where"),
        (b"x,y\n1\0,2\n", "NUL"),
        ('x,y,note\n1.5,2.5,"never closed\n', "can't be read at line"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, text: str | bytes, says: str) -> None:
    with pytest.raises(LayerError, match=says):
        read(tmp_path, text)


def test_a_header_alone_is_an_empty_layer(tmp_path: Path) -> None:
    assert len(read(tmp_path, BOX_HEADER)) == 0
    assert len(read(tmp_path, "x,y")) == 0


def test_positions_left_blank_are_counted(tmp_path: Path) -> None:
    layer = read(tmp_path, "id,x,y\n1,1.5,2.5\n2,,\n3,3.5,\n")
    assert len(layer) == 1
    assert "no position (line 3)" in str(layer.notes[0])
    assert "line 4" in str(layer.notes[0])


@pytest.mark.parametrize(
    ("named", "image"),
    [
        ("plot.tif", "plot.tif"),
        (r"D:\flights\plot.tif", "plot.tif"),
        ("flights/2018/PLOT.TIF", "plot.tif"),
        ("plot.png", "plot.tif"),
        ("plot", "/data/plot.tif"),
        ("Föhre.tif", "Fo\u0308hre.tif"),  # macOS decomposes umlauts
    ],
)
def test_images_are_matched_by_base_name_then_stem(tmp_path: Path, named: str, image: str) -> None:
    layer = read(tmp_path, f"{BOX_HEADER}{named},1,2,3,4,a\nother.tif,5,6,7,8,b\n", image=image)
    assert boxes(layer) == [[1, 2, 3, 4]]
    assert tuple(map(str, layer.notes)) == ("t.csv: 1 row of other images left out (other.tif).",)
    assert layer.columns["source"].tolist() == [image.split("/")[-1]]


def test_folders_tell_images_of_one_name_apart(tmp_path: Path) -> None:
    text = BOX_HEADER + "a/plot.tif,1,2,3,4,t\nb/plot.tif,5,6,7,8,t\n"
    assert boxes(read(tmp_path, text, image="/data/b/plot.tif")) == [[5, 6, 7, 8]]
    with pytest.raises(LayerError, match=r"2 images that could be plot\.tif: a/plot\.tif, b/plot\.tif"):
        read(tmp_path, text, image="plot.tif")
    mixed = BOX_HEADER + "a/plot.tif,1,2,3,4,t\nplot.tif,5,6,7,8,t\nPlot.tif,1,1,9,9,t\n"
    assert boxes(read(tmp_path, mixed, image="/data/a/plot.tif")) == [[1, 2, 3, 4], [5, 6, 7, 8]]


def test_a_table_of_other_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LayerError, match=r"nothing about plot.tif.*a.tif"):
        read(tmp_path, BOX_HEADER + "a.tif,1,2,3,4,t\n")


def test_all_images_are_read_where_none_is_named(tmp_path: Path) -> None:
    layer = read(tmp_path, BOX_HEADER + "a.tif,1,2,3,4,t\nb.tif,5,6,7,8,t\n", image=None, grid=None)
    assert layer.columns["source"].tolist() == ["a.tif", "b.tif"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_umlauts_in_any_encoding(tmp_path: Path, encoding: str) -> None:
    layer = read(tmp_path, "x;y;Art\n1,5;2,5;Föhre\n".encode(encoding))
    assert layer.columns["Art"].tolist() == ["Föhre"]


def test_columns_are_kept_with_their_types(tmp_path: Path) -> None:
    layer = read(tmp_path, "x,y,tree,dbh,code,accuracy_m,note\n1.5,2.5,7,3.5,007,0.5,ok\n2.5,3.5,8,,008,,\n")
    assert layer.columns["tree"].tolist() == [7, 8]
    assert layer.columns["tree"].dtype == np.int64
    assert layer.columns["dbh"][0] == 3.5
    assert math.isnan(layer.columns["dbh"][1])
    assert layer.columns["code"].tolist() == ["007", "008"]
    assert layer.columns["accuracy_m"].dtype == np.float64
    assert layer.columns["note"].tolist() == ["ok", ""]


GRIDS = {
    "north-up": GRID,
    "rotated": Grid(400, 300, (0.0940, 0.0342, 404_000.0, 0.0342, -0.0940, 3_285_000.0), UTM),
    "lat/lon": Grid(400, 300, (1e-6, 0.0, -81.98, 0.0, -1e-6, 29.69), CRS.from_epsg(4326)),
    "pixel": Grid(400, 300),
}


def stream_of(geometry: list[object], grid: Grid | None, **columns: list[object]) -> Stream:
    shapes = np.empty(len(geometry), dtype=object)
    shapes[:] = geometry
    kinds = {
        name: "int" if isinstance(v[0], int) else "float" if isinstance(v[0], float) else "str"
        for name, v in columns.items()
    }
    arrays = {
        name: np.array(v, dtype=object if kinds[name] == "str" else None) for name, v in columns.items()
    }
    layer = Layer(shapes, arrays, grid=grid)
    kind = "Point" if geometry and all(shape.geom_type == "Point" for shape in geometry) else "Polygon"  # type: ignore[attr-defined]
    return Stream([layer[i : i + 2] for i in range(0, len(layer), 2)], kind, kinds, grid=grid)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_what_is_written_comes_back_within_a_millionth_of_a_pixel(
    tmp_path: Path, grid: Grid, suffix: str
) -> None:
    rng = np.random.default_rng(5)
    points = rng.uniform(0, 300, (50, 2))
    points[0] = (7, 9)  # whole pixels must stay what they are
    path = tmp_path / f"out{suffix}"
    ids = [f"a{i}" for i in range(50)]
    formats.write(
        path, stream_of(list(shapely.points(points)), grid, id=ids, label=["t,\"\n'"] * 50, n=list(range(50)))
    )
    back = formats.read(path, grid=grid, image="plot.tif")
    assert np.abs(shapely.get_coordinates(back.geometry) - points).max() < 1e-6
    assert back.columns["id"].tolist() == ids
    assert back.columns["label"].tolist() == ["t,\"\n'"] * 50
    assert back.columns["n"].tolist() == list(range(50))
    assert back.notes == ()
    shapes = list(shapely.box(*points.T, *(points + rng.uniform(0.1, 9, (50, 2))).T))
    formats.write(path, stream_of(shapes, grid, id=ids), overwrite=True)
    back = formats.read(path, grid=grid, image="plot.tif")
    assert np.abs(shapely.bounds(back.geometry) - shapely.bounds(shapes)).max() < 1e-6


def test_only_whole_pixels_are_read_back_as_they_were(tmp_path: Path) -> None:
    formats.write(tmp_path / "out.csv", stream_of([shapely.Point(7, 9)], GRID))
    assert xy(formats.read(tmp_path / "out.csv", grid=GRID, image="a.tif")) == [[7, 9]]


def test_columns_of_a_table_of_ours(tmp_path: Path) -> None:
    columns = {
        "area_m2": [1.5],
        "source": ["plot.tif"],
        "id": ["q"],
        "score": [0.5],
        "label": ["t"],
        "dbh": [3.0],
    }
    formats.write(tmp_path / "p.csv", stream_of([shapely.Point(10, 20)], GRID, **columns))
    header, row, end = (tmp_path / "p.csv").read_text(encoding="utf-8").split("\n")
    assert header == "source,x,y,label,score,id,lon,lat,dbh,area_m2"
    lon, lat = GRID.to_lonlat([(10, 20)])[0]
    assert row == f"plot.tif,10.000000,20.000000,t,0.5,q,{lon:.9f},{lat:.9f},3.0,1.5"
    assert end == ""
    formats.write(tmp_path / "b.csv", stream_of([shapely.box(1, 2, 3, 4)], Grid(9, 9), label=["t"]))
    assert (tmp_path / "b.csv").read_text(encoding="utf-8") == (
        "source,xmin,ymin,xmax,ymax,label\n,1.000000,2.000000,3.000000,4.000000,t\n"
    )


def test_shapes_become_boxes_and_that_is_said(tmp_path: Path) -> None:
    triangle = shapely.Polygon([(0, 0), (4, 0), (0, 4)])
    written = formats.write(tmp_path / "t.csv", stream_of([triangle, shapely.box(0, 0, 1, 1)], GRID))
    assert [note.text for note in written.notes] == [
        "1 shape written as the box around: a table holds points or boxes."
    ]


def test_what_a_table_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LayerError, match="points or boxes"):
        formats.write(tmp_path / "t.csv", stream_of([shapely.box(0, 0, 1, 1), shapely.Point(1, 1)], GRID))
    layer = Layer(shapely.points([[404_000.0, 3_285_000.0]]), crs=UTM)
    with pytest.raises(LayerError, match=r"name the (image|raster)"):
        formats.write(tmp_path / "t.csv", Stream([layer], "Point", {}, crs=UTM))
    assert list(tmp_path.iterdir()) == []


def test_no_features_leave_a_header(tmp_path: Path) -> None:
    formats.write(tmp_path / "t.csv", Stream([], "Point", {"label": "str"}, grid=GRID))
    assert (tmp_path / "t.csv").read_text(encoding="utf-8") == "source,x,y,label,lon,lat\n"


# -- numbers and headings as people write them ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "x", "y"),
    [
        ("Latitud;Longitud", "{lat}", "{lon}"),
        ("lat;long", "{lat}", "{lon}"),
        ("Längengrad;Breitengrad", "{lon}", "{lat}"),
        ("Longitudine;Latitudine", "{lon}", "{lat}"),
        ("Este (m);Norte (m)", "{east}", "{north}"),
        ("Norte;Este", "{north}", "{east}"),
        ("X_UTM;Y_UTM", "{east}", "{north}"),
        ("Rechtswert;Hochwert", "{east}", "{north}"),
        ("Coordenada X;Coordenada Y", "{east}", "{north}"),
    ],
)
@pytest.mark.parametrize("comma", [".", ","])
def test_headings_in_other_languages(tmp_path: Path, header: str, x: str, y: str, comma: str) -> None:
    (east, north), (lon, lat) = GRID.to_world([(10.0, 20.0)])[0], GRID.to_lonlat([(10.0, 20.0)])[0]
    values = {"east": f"{east:.4f}", "north": f"{north:.4f}", "lon": f"{lon:.9f}", "lat": f"{lat:.9f}"}
    row = f"{x};{y}".format(**values).replace(".", comma)
    layer = read(tmp_path, f"{header}\n{row}\n")
    assert np.abs(np.array(xy(layer)) - [10, 20]).max() < 0.01


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("404.005,0;3.284.990,0", "404.005;3284990"),
        ("404.005;3.284.990", "404.005;3.284.990"),
        ("404,005;3,284,990", "404,005;3,284,990"),
        ("404,005.0;3,284,990.00", "404,005;3284990.0"),
        ("404 005,0;3 284 990,0", "404005;3284990,00"),
        ("404'005.0;3'284'990.0", "404\u2019005;3\u2019284\u2019990"),
    ],
)
def test_grouped_thousands(tmp_path: Path, first: str, second: str) -> None:
    layer = read(tmp_path, f"este;norte\n{first}\n{second}\n")
    assert xy(layer) == [[50, 100], [50, 100]]


def test_degrees_minutes_and_seconds(tmp_path: Path) -> None:
    grid = Grid(100, 100, (0.0001, 0, -3.6, 0, -0.0001, 37.21), CRS.from_epsg(4326))
    rows = [
        "37°12'30\"N;3°35'48\"W",
        "37° 12.5' N;3° 35.8' O",
        "N 37 12 30;W 3 35 48",
        "37:12:30;-3:35:48",
        "37.2083333333 N;3.5966666667 W",
        "37º12′30,0″N;−3,5966666667",
    ]
    layer = read(tmp_path, "latitud;longitud\n" + "\n".join(rows) + "\n", grid=grid)
    assert np.abs(np.array(xy(layer)) - [33.333, 16.667]).max() < 0.01
    assert len(layer) == len(rows)
    assert [note.code for note in layer.notes] == ["letter-o"]


def test_letter_of_the_other_axis_is_no_position(tmp_path: Path) -> None:
    with pytest.raises(LayerError, match=r"a latitude \(N\) in the column of longitudes: they may be exch"):
        read(tmp_path, "lat,lon\n3.5 W,37.2 N\n")


@pytest.mark.parametrize("header", ["lat,lon", "x,y", "este,norte"])
def test_exchanged_coordinates_are_said_and_taken(tmp_path: Path, header: str) -> None:
    place = GRID.to_world([(10.0, 20.0)]) if header == "este,norte" else GRID.to_lonlat([(10.0, 20.0)])
    first, second = (place[0][::-1] if header != "lat,lon" else place[0]).tolist()
    layer = read(tmp_path, f"{header}\n{first:.9f},{second:.9f}\n")
    assert np.abs(np.array(xy(layer)) - [10, 20]).max() < 0.01
    assert any(note.code == "coordinates-exchanged" and note.kind == "doubt" for note in layer.notes)


def test_latitudes_beyond_90_degrees_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LayerError, match="seem to be exchanged"):
        read(tmp_path, "lat,lon\n-120.5,37.2\n", grid=None, image=None)


def test_herdnet_and_dotdotgoose_tables(tmp_path: Path) -> None:
    layer = read(tmp_path, "images,x,y,labels\nplot.jpg,152,63,1\nb.jpg,1,2,2\n", grid=None, image=None)
    assert layer.metadata["images"] == ("plot.jpg", "b.jpg")
    assert labels_of(layer, "a").tolist() == ["1", "2"]
    layer = read(tmp_path, "survey id,image,class,x,y\ns,plot.jpg,goose,1.5,2.5\n", grid=None, image=None)
    assert (xy(layer), labels_of(layer, "a").tolist()) == ([[1.5, 2.5]], ["goose"])
    with pytest.raises(LayerError, match="export DotDotGoose's points"):
        read(tmp_path, "survey id,image,goose,duck,x,y\ns,plot.jpg,3,1,,\n", grid=None, image=None)
