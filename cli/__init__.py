"""The command line: one file per command and no logic; `main` starts it, `ecodetect` does the work."""
