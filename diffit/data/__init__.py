"""Data sources and images: downloading, listing, decoding and resizing."""
