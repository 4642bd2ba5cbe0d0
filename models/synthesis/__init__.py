"""Synthetic faces with known action units: 3-D heads, a rasteriser, a virtual camera, training shards."""
