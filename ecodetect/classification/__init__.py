"""A class for each object of a layer or each picture of a folder, how good it is, and why."""
