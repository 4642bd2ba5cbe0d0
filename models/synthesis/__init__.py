"""Synthetic faces whose action units are known: 3-D heads, an own rasteriser, a virtual camera, training shards."""
