"""Data sources and images: downloading, listing, decoding, resizing."""
