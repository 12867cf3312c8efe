"""Files on disk: atomic writes, checksums, numbered tars, fingerprints of source code."""
