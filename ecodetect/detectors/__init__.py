"""The detectors: each a file here and a line in `table`, behind the contract in `protocol`."""
