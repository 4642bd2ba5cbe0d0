"""Checks a corpus file for errors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..settings import load_toml
from .corpus import COUNTS, LENGTH, SLOT, tokens_of

# Facial actions that FACS numbers; movements of head and eyes (51 and up) are not on the face.
FACS = tuple(f"AU{number:02d}" for number in (1, 2, 4, 5, 6, 7, *range(8, 29), 43, 45, 46))
LEAST = {"active": 6, "inactive": 4, "neutral": 4, "one": 3, "two": 3, "many": 3, "phrases": 2}
MOST_WORDS = 20  # of a unit's sentence, not counting commas
_SENTENCE = re.compile(r"[a-z]+(?:-[a-z]+)*(?:,? [a-z]+(?:-[a-z]+)*)*")
_UNIT_KEYS = ("name", "muscle", "tag", "phrases", "active", "inactive")


def check(path: Path, vocabulary: Iterable[str] | None = None, length: int = LENGTH) -> list[str]:
    """All errors of a corpus file as `file:line: unit: error. remedy`."""
    path = Path(path)
    return _Check(path, load_toml(path), None if vocabulary is None else set(vocabulary), length).run()


class _Check:
    def __init__(self, path: Path, table: dict[str, Any], vocabulary: set[str] | None, length: int) -> None:
        self.path, self.table, self.vocabulary, self.length = path, table, vocabulary, length
        self.lines = path.read_text(encoding="utf-8").splitlines()
        self.problems: list[str] = []
        self.rest = set(table.get("rest_words", ()))
        self.owner: dict[str, str] = {}  # sentence -> where it came first
        self.all_phrases: list[tuple[str, list[str], str]] = []  # unit, words, phrase

    def run(self) -> list[str]:
        for key in ("version", "rest_words", "face", "units"):
            if not self.table.get(key):
                self.report("", "corpus", f"'{key}' is missing or empty", f"Add {key} as in the shipped corpus.toml")
        for code, entry in dict(self.table.get("units") or {}).items():
            self.unit(code, entry)
        self.phrases()
        self.templates()
        return self.problems

    def report(self, near: str, unit: str, fault: str, remedy: str) -> None:
        numbers = (number for number, line in enumerate(self.lines, 1) if near and near in line)
        self.problems.append(f"{self.path}:{next(numbers, 1)}: {unit}: {fault}. {remedy}.")

    def unit(self, code: str, entry: Any) -> None:
        header = f"[units.{code}]"
        if code not in FACS:
            self.report(header, code, "unknown action unit", f"Use a number of FACS, such as {FACS[0]}")
        for key in entry:
            if key not in _UNIT_KEYS:
                self.report(header, code, f"unknown key '{key}'", f"Choose one of {', '.join(_UNIT_KEYS)}")
        for key in ("name", "muscle", "tag"):
            if not isinstance(entry.get(key), str) or not entry[key]:
                self.report(header, code, f"'{key}' is missing", f'Add {key} = "..."')
        if len(str(entry.get("tag", "x")).split()) != 1:
            self.report(header, code, f"tag '{entry['tag']}' is not one word", "Join its words with hyphens")
        for state in ("active", "inactive"):
            sentences = entry.get(state) or []
            if not sentences:
                self.report(header, code, f"the {state} state is empty", f"Write at least {LEAST[state]} sentences")
            elif len(sentences) < LEAST[state]:
                fault = f"{len(sentences)} {state} sentences are too few"
                self.report(header, code, fault, f"Write at least {LEAST[state]}")
            for sentence in sentences:
                self.sentence(code, state, sentence)

    def sentence(self, code: str, state: str, sentence: str) -> None:
        self.spelling(code, sentence)
        tokens = tokens_of(sentence)
        words = sum(word != "," for word in tokens)
        if words > MOST_WORDS or len(tokens) >= self.length:
            fault = f"'{sentence}' is too long: {words} words, {len(tokens) + 1} tokens with its end"
            self.report(sentence, code, fault, f"Keep to {MOST_WORDS} words and {self.length} tokens")
        if (state == "inactive") == self.rest.isdisjoint(tokens):
            which = "holds no rest word" if state == "inactive" else "holds a rest word"
            fault = f"{state} sentence '{sentence}' {which}, so its words do not show its state"
            self.report(sentence, code, fault, f"The rest words are: {', '.join(sorted(self.rest))}")
        here = f"{code} {state}"
        if sentence in self.owner:
            fault = f"'{sentence}' ({state}) is already in {self.owner[sentence]}"
            self.report(sentence, code, fault, "Write a sentence that fits only one unit and one state")
        self.owner.setdefault(sentence, here)

    def spelling(self, where: str, text: str) -> None:
        if not _SENTENCE.fullmatch(text):
            fault = f"'{text}' is not lower case words with single spaces and commas"
            self.report(text, where, fault, "Remove capitals, digits and other characters")
        if self.vocabulary is None or where == "face.with_subject":  # subjects are optional
            return
        strange = [word for word in tokens_of(text) if word not in self.vocabulary]
        if strange:
            fault = f"'{text}' has words outside the stored vocabulary: {', '.join(strange)}"
            self.report(text, where, fault, "Use the network's words, or train it with this corpus")

    def phrases(self) -> None:
        for code, entry in dict(self.table.get("units") or {}).items():
            phrases = entry.get("phrases") or []
            if len(phrases) < LEAST["phrases"] or not any(len(phrase.split()) == 2 for phrase in phrases):
                remedy = "Write at least two, one of them of exactly two words"
                self.report(f"[units.{code}]", code, "too few phrases", remedy)
            for phrase in [*phrases, *([entry["tag"]] if entry.get("tag") else [])]:
                self.spelling(code, phrase)
                words = phrase.split()
                if not (2 <= len(words) <= 5 or phrase == entry.get("tag")) or {",", "and"} & set(tokens_of(phrase)):
                    fault = f"phrase '{phrase}' has the wrong form"
                    self.report(phrase, code, fault, "Write two to five words without comma and 'and'")
                for other, theirs, text in self.all_phrases:
                    if other != code and (_within(words, theirs) or _within(theirs, words)):
                        fault = f"phrase '{phrase}' and phrase '{text}' of {other} name two units"
                        self.report(phrase, code, fault, "Write phrases that are not part of another unit's")
                self.all_phrases.append((code, words, phrase))

    def templates(self) -> None:
        face = dict(self.table.get("face") or {})
        subject = dict(face.get("with_subject") or {})
        for table, where in ((face, "face"), (subject, "face.with_subject")):
            for count in COUNTS if table else ():
                least = LEAST[count] if where == "face" else 1
                if len(table.get(count) or ()) < least:
                    self.report(f"[{where}]", where, f"too few templates for '{count}'", f"Write at least {least}")
                for template in table.get(count) or ():
                    self.template(where, count, template)
        for text in subject.get("subjects", ()):
            self.spelling("face.with_subject", text)

    def template(self, where: str, count: str, template: str) -> None:
        slots = int(count != "neutral")
        if template.count(SLOT) != slots or template.count("{subject}") != int(where != "face"):
            self.report(template, where, f"'{template}' lacks a slot or has too many", f"Write {SLOT} {slots} times")
        words = tokens_of(template.replace(SLOT, " "))
        plain = " ".join(tokens_of(template.replace(SLOT, "x").replace("{subject}", "x"))).replace(" ,", ",")
        self.spelling(where, "the" if plain == "x" else re.sub(r"\bx\b", "the", plain))
        for code, phrase, text in self.all_phrases:
            if _within(phrase, words):
                self.report(template, where, f"'{template}' holds the phrase '{text}' of {code}", "Reword the template")


def _within(part: Sequence[str], whole: Sequence[str]) -> bool:
    return any(list(whole[i : i + len(part)]) == list(part) for i in range(len(whole) - len(part) + 1))
