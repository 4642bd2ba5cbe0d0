"""Draws the diagrams of the explanation pages as SVG:  python docs/diagrams.py

Each diagram is a function below that places boxes, arrows and text. A test compares the files with this script.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

FOLDER = Path(__file__).with_name("pictures")
INK, FAINT, LINE, PAPER = "#1f2937", "#6b7280", "#94a3b8", "#ffffff"
PLAIN, SEE, SAY, DECIDE = "#f1f5f9", "#ccfbf1", "#fef3c7", "#dbeafe"


class Drawing:
    def __init__(self, width: int, height: int, title: str) -> None:
        self._size, self._title = (width, height), title
        self._parts: list[str] = []

    def box(
        self, x: float, y: float, width: float, height: float, words: str, note: str = "", fill: str = PLAIN
    ) -> None:
        """Both texts may have several lines; the note is smaller and goes below the words."""
        shape = f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="8" fill="{fill}" stroke="{LINE}"/>'
        self._parts.append(shape)
        lines = [(line, 15, INK) for line in words.split("\n")] + [
            (line, 12, FAINT) for line in note.split("\n") if line
        ]
        top = y + height / 2 - 9.5 * (len(lines) - 1) + 5
        for place, (line, size, colour) in enumerate(lines):
            self.words(x + width / 2, top + 19 * place, line, size, colour, "middle")

    def words(self, x: float, y: float, text: str, size: int = 12, colour: str = FAINT, anchor: str = "start") -> None:
        attributes = f'x="{x}" y="{y}" font-size="{size}" fill="{colour}" text-anchor="{anchor}"'
        self._parts.append(f"<text {attributes}>{escape(text)}</text>")

    def arrow(self, *corners: tuple[float, float], dashed: bool = False) -> None:
        points = " ".join(f"{x},{y}" for x, y in corners)
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        style = f'fill="none" stroke="{FAINT}" stroke-width="1.6" marker-end="url(#tip)"'
        self._parts.append(f'<polyline points="{points}" {style}{dash}/>')

    def bar(self, x: float, y: float, width: float, height: float, fill: str) -> None:
        self._parts.append(f'<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="{fill}" stroke="{LINE}"/>')

    def panel(self, x: float, y: float, width: float, height: float, name: str, note: str) -> None:
        """A room with others in it."""
        size = f'width="{width}" height="{height}" rx="10" fill="none" stroke="{LINE}" stroke-width="1.6"'
        self._parts.append(f'<rect x="{x}" y="{y}" {size}/>')
        self.words(x + 20, y + 30, name, 15, INK)
        self.words(x + 20, y + 48, note, 12)

    def text(self) -> str:
        width, height = self._size
        tip = '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
            f'font-family="system-ui, Segoe UI, Helvetica, Arial, DejaVu Sans, sans-serif">'
        )
        return "\n".join(
            [
                head,
                f"<title>{escape(self._title)}</title>",
                f'<defs>{tip}<path d="M0,0 L8,4 L0,8 z" fill="{FAINT}"/></marker></defs>',
                f'<rect width="{width}" height="{height}" rx="10" fill="{PAPER}"/>',
                *self._parts,
                "</svg>\n",
            ]
        )


def network() -> Drawing:
    d = Drawing(1120, 520, "The network: stem, multi-scale combination, one attended feature per action unit, decoders")
    d.box(20, 200, 110, 80, "aligned\nface", "S × S pixels")
    d.arrow((75, 200), (75, 118), (160, 118))
    for stage, side in enumerate(("S/4", "S/8", "S/16", "S/32")):
        y = 86 + 84 * stage
        d.box(160, y, 100, 64, side, f"stage {stage + 1}", SEE)
        if stage < 3:
            d.arrow((210, y + 64), (210, y + 84))
        d.arrow((260, y + 32), (300, y + 32))
        d.box(300, y, 96, 64, "3 × 3", "to size S/32", SEE)
        d.arrow((396, y + 32), (430, y + 32), (430, 240), (452, 240))
    d.words(160, 68, "stem", 13, INK)
    d.words(300, 68, "multi-scale combination (eq. 1)", 13, INK)
    d.box(452, 205, 84, 70, "V", "d × L places", SEE)
    d.words(580, 68, "one branch per action unit (eq. 2, 3)", 13, INK)
    for unit, name in enumerate(("AU01", "AU02", "…", "AU43")):
        y = 96 + 80 * unit
        d.box(580, y, 190, 62, name, "which channels, which places" if name != "…" else "", SEE)
        d.arrow((536, 240), (558, 240), (558, y + 31), (580, y + 31))
        d.arrow((770, y + 31), (800, y + 31), (800, 136), (846, 136))
    d.words(586, 432, "all units computed together", 12)
    d.box(
        846, 96, 250, 80, "classifier", "two classes and softmax: probability p\nof every unit, in every frame", DECIDE
    )
    d.arrow((800, 240), (846, 240))
    d.box(846, 200, 250, 80, "local decoder", "attends to the places of one unit:\n“The lip corners rise …”", SAY)
    d.arrow((971, 176), (971, 200), dashed=True)
    d.words(980, 193, "decided state (ours)", 11)
    d.arrow((494, 275), (494, 468), (846, 468))
    d.box(846, 428, 250, 80, "global decoder", "attends to the places of V:\n“Raised cheeks and parted lips.”", SAY)
    d.arrow((971, 428), (971, 392))
    d.box(846, 312, 250, 80, "global head", "all units again, from what the\nsentence attended to", DECIDE)
    d.words(20, 40, "The VL-FAU network", 17, INK)
    for place, (fill, meaning) in enumerate(((SEE, "vision"), (DECIDE, "decision"), (SAY, "language"))):
        d.bar(20 + 100 * place, 484, 16, 16, fill)
        d.words(42 + 100 * place, 497, meaning, 13)
    return d


def pipeline() -> Drawing:
    d = Drawing(1120, 330, "The stages of the engine and what each part of the latency measures")
    stages = (
        ("decode", "one thread\nper source"),
        ("detect", "find new faces,\nfollow the others"),
        ("align", "turn and cut\nthe crops"),
        ("predict", "one batch for\nall streams"),
        ("explain", "only when\nstates change"),
        ("publish", "number, count,\nsend, write"),
    )
    for place, (name, note) in enumerate(stages):
        x = 30 + 182 * place
        d.box(x, 90, 132, 96, name, note, (PLAIN, SEE, SEE, DECIDE, SAY, PLAIN)[place])
        if place < len(stages) - 1:
            d.arrow((x + 132, 138), (x + 182, 138))
    d.words(30, 44, "Where the latency of a frame goes", 17, INK)
    d.words(164, 74, "a live source keeps only the newest frame", 12)
    d.words(164, 208, "a file waits, so no frame is lost", 12)
    d.words(546, 208, "whatever has queued up becomes one batch", 12)
    d.arrow((96, 186), (96, 240))
    d.words(30, 260, "frame decoded: captured_ns, the clock starts", 13, INK)
    d.arrow((1006, 186), (1006, 240))
    d.words(1090, 260, "published: the clock stops, latency_ms.total", 13, INK, "end")
    d.arrow((96, 290), (1006, 290))
    d.words(
        550, 312, "each part includes the wait before it, so the largest part is the bottleneck", 13, FAINT, "middle"
    )
    return d


FLOORS = (  # of models/; every folder uses only what is below it
    (
        ("compilation", "vlfau-compile"),
        ("export", "vlfau-export"),
        ("evaluation", "vlfau-evaluate"),
        ("face_training", "the face networks"),
    ),
    (("runtimes", "bundle in,\nnumbers out"), ("training", "vlfau-train"), ("synthesis", "vlfau-synthesize")),
    (("networks", "VL-FAU, ME-GraphAU"), ("data", "labelled pictures\nto training samples")),
    (("sentences", "the corpus, its words\nand their meaning"), ("faces", "detectors, landmarks,\nalignment")),
)
FILLS = {"runtimes": DECIDE, "networks": DECIDE, "sentences": SAY, "faces": SEE}
GROUND = "errors · settings · terminal · files · tensors · cache · metrics · bundle"


def code() -> Drawing:
    d = Drawing(1120, 660, "The packages and folders of the code, and which of them use which")
    d.words(20, 40, "Where the code is", 17, INK)
    d.box(20, 62, 400, 62, "bench", "one command per question")
    d.box(460, 62, 640, 62, "calibration", "INT8, thresholds and temperatures, fitted after training")
    d.panel(20, 160, 400, 480, "engine", "video in, reports out")
    d.panel(460, 160, 640, 480, "models", "the networks, and what trains, exports and runs them")
    d.arrow((220, 124), (220, 160))
    d.arrow((780, 124), (780, 160))
    d.arrow((420, 400), (460, 400))
    d.box(240, 222, 160, 76, "commands", "vlfau-stream, -watch,\n-keys", PLAIN)
    path = (
        ("sources", "files, cameras, addresses", PLAIN),
        ("tracking", "find, follow, align", SEE),
        ("prediction", "decisions and sentences", DECIDE),
        ("sinks", "ZeroMQ, tables, video", SAY),
    )
    for place, (name, note, fill) in enumerate(path):
        d.box(40, 222 + 90 * place, 180, 62, name, note, fill)
        if place:
            d.arrow((130, 194 + 90 * place), (130, 222 + 90 * place))
    d.words(240, 338, "app.py runs each stage", 12)
    d.words(240, 356, "on its own thread and", 12)
    d.words(240, 374, "joins them by channels", 12)
    d.box(40, 574, 360, 46, "packets · wire · settings · pipeline · …", "", PLAIN)
    for floor, rooms in enumerate(FLOORS):
        width = (600 - 16 * (len(rooms) - 1)) / len(rooms)
        for place, (name, note) in enumerate(rooms):
            d.box(480 + (width + 16) * place, 222 + 88 * floor, width, 72, name, note, FILLS.get(name, PLAIN))
    d.box(480, 574, 600, 46, GROUND, "", PLAIN)
    return d


DIAGRAMS = {"network.svg": network, "pipeline.svg": pipeline, "code.svg": code}


def main() -> None:
    for name, draw in DIAGRAMS.items():
        (FOLDER / name).write_text(draw().text(), encoding="utf-8")
        print(FOLDER / name)


if __name__ == "__main__":
    main()
