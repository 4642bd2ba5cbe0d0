"""The public files that the renderer needs, with their authors and licences. No part of them is shipped."""

from __future__ import annotations

SOURCES = """\
The folder --assets holds (no part of it is shipped with this package):
  makehuman.npz        MakeHuman base mesh and targets, makehumancommunity/makehuman, CC0 1.0;
                       its "facs" action units from montybot/FACSHuman, LGPL-3.0
  makehuman_parts.npz  eyes, teeth, tongue, brows, lashes and hair from makehuman-assets, CC0 1.0
  textures/            skins, irises, brows, lashes, hair, teeth, tongue from makehuman-assets, CC0 1.0
  ict.npz              ICT-FaceKit light, ICT-VGL/ICT-FaceKit, MIT, (c) 2020 USC Institute for Creative Technologies
  ict_fit.npz          skin coordinates, brows and hair fitted to the ICT head, made for this project
  au_stats.json        frequencies of action units and their combinations in public label lists (aggregates only)
"""

FILES = ("makehuman.npz", "makehuman_parts.npz", "ict.npz", "ict_fit.npz", "au_stats.json", "textures")
