"""Files on disk: atomic writes, checksums, shards and manifests, fingerprints of source code."""
