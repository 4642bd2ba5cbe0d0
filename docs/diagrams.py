"""Draws the diagrams of the explanation pages as SVG:  python docs/diagrams.py

Boxes, arrows and words, nothing else: a diagram is a list of calls below. A test holds the files against this script.
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
        """Words may have several lines; the note is smaller and below them."""
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
        d.box(300, y, 96, 64, "3 × 3", "to the last size", SEE)
        d.arrow((396, y + 32), (430, y + 32), (430, 240), (452, 240))
    d.words(160, 68, "stem", 13, INK)
    d.words(300, 68, "multi-scale combination (eq. 1)", 13, INK)
    d.box(452, 205, 84, 70, "V", "d × L places", SEE)
    d.words(580, 68, "one branch per action unit (eq. 2, 3)", 13, INK)
    for unit, name in enumerate(("AU01", "AU02", "…", "AU43")):
        y = 96 + 80 * unit
        d.box(580, y, 190, 62, name, "which channels · which places" if name != "…" else "", SEE)
        d.arrow((536, 240), (558, 240), (558, y + 31), (580, y + 31))
        d.arrow((770, y + 31), (800, y + 31), (800, 136), (846, 136))
    d.words(586, 432, "computed together, never in a loop", 12)
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
    d.box(846, 312, 250, 80, "global head", "all units once more, from what the\nsentence looked at", DECIDE)
    d.words(20, 40, "VL-FAU: what is seen", 17, INK)
    for place, (fill, meaning) in enumerate(((SEE, "looks"), (DECIDE, "decides"), (SAY, "says"))):
        d.bar(20 + 90 * place, 484, 16, 16, fill)
        d.words(42 + 90 * place, 497, meaning, 13)
    return d


def pipeline() -> Drawing:
    d = Drawing(1120, 330, "The stages of the engine and what each part of the latency measures")
    stages = (
        ("decode", "one thread\nper source"),
        ("detect", "find new faces,\nfollow known ones"),
        ("align", "cut and turn\nthe crops"),
        ("predict", "one batch for\nall streams"),
        ("explain", "only where\nstates changed"),
        ("publish", "number, count,\nsend, write"),
    )
    for place, (name, note) in enumerate(stages):
        x = 30 + 182 * place
        d.box(x, 90, 132, 96, name, note, (PLAIN, SEE, SEE, DECIDE, SAY, PLAIN)[place])
        if place < len(stages) - 1:
            d.arrow((x + 132, 138), (x + 182, 138))
    d.words(30, 44, "Where the latency of a frame goes", 17, INK)
    d.words(164, 74, "a live source keeps the newest frame", 12)
    d.words(164, 208, "a file waits: nothing is lost", 12)
    d.words(546, 208, "what queued meanwhile becomes one batch", 12)
    d.arrow((96, 186), (96, 240))
    d.words(30, 260, "handed over: captured_ns, the clock starts", 13, INK)
    d.arrow((1006, 186), (1006, 240))
    d.words(1006, 260, "latency_ms.total: it stops", 13, INK, "middle")
    d.arrow((96, 290), (1006, 290))
    d.words(
        550, 312, "every part counts the waiting before it, so that the parts name the bottleneck", 13, FAINT, "middle"
    )
    return d


DIAGRAMS = {"network.svg": network, "pipeline.svg": pipeline}


def main() -> None:
    for name, draw in DIAGRAMS.items():
        (FOLDER / name).write_text(draw().text(), encoding="utf-8")
        print(FOLDER / name)


if __name__ == "__main__":
    main()
