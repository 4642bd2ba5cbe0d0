"""Checks a corpus file."""

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


MOST_WORDS = 20  # of a unit's sentence, commas not counted


_SENTENCE = re.compile(r"[a-z]+(?:-[a-z]+)*(?:,? [a-z]+(?:-[a-z]+)*)*")


_UNIT_KEYS = ("name", "muscle", "tag", "phrases", "active", "inactive")


def check(path: Path, vocabulary: Iterable[str] | None = None, length: int = LENGTH) -> list[str]:
    """Every fault of a corpus file as `file:line: unit: fault. remedy`; an empty list is a good file."""
    path = Path(path)
    return _Check(path, load_toml(path), None if vocabulary is None else set(vocabulary), length).run()


class _Check:
    def __init__(self, path: Path, table: dict[str, Any], vocabulary: set[str] | None, length: int) -> None:
        self.path, self.table, self.vocabulary, self.length = path, table, vocabulary, length
        self.lines = path.read_text(encoding="utf-8").splitlines()
        self.problems: list[str] = []
        self.rest = set(table.get("rest_words", ()))
        self.owner: dict[str, str] = {}  # sentence -> where it was seen first

    def run(self) -> list[str]:
        for key in ("version", "rest_words", "face", "units"):
            if not self.table.get(key):
                self.say("", "corpus", f"'{key}' is missing or empty", f"Add {key} as in the shipped corpus.toml")
        for code, entry in dict(self.table.get("units") or {}).items():
            self.unit(code, entry)
        self.phrases()
        self.templates()
        return self.problems

    def say(self, near: str, unit: str, fault: str, remedy: str) -> None:
        found = (number for number, line in enumerate(self.lines, 1) if near and near in line)
        self.problems.append(f"{self.path}:{next(found, 1)}: {unit}: {fault}. {remedy}.")

    def unit(self, code: str, entry: Any) -> None:
        header = f"[units.{code}]"
        if code not in FACS:
            self.say(header, code, "unknown action unit", f"Write a number that FACS gives, such as {FACS[0]}")
        for key in entry:
            if key not in _UNIT_KEYS:
                self.say(header, code, f"unknown key '{key}'", f"Choose one of {', '.join(_UNIT_KEYS)}")
        for key in ("name", "muscle", "tag"):
            if not isinstance(entry.get(key), str) or not entry[key]:
                self.say(header, code, f"'{key}' is missing", f'Add {key} = "..."')
        if len(str(entry.get("tag", "x")).split()) != 1:
            self.say(header, code, f"tag '{entry['tag']}' is not one word", "Join its words with hyphens")
        for state in ("active", "inactive"):
            sentences = entry.get(state) or []
            if not sentences:
                self.say(header, code, f"the {state} state is empty", f"Write at least {LEAST[state]} sentences")
            elif len(sentences) < LEAST[state]:
                fault = f"{len(sentences)} {state} sentences are too few"
                self.say(header, code, fault, f"Write at least {LEAST[state]}")
            for sentence in sentences:
                self.sentence(code, state, sentence)

    def sentence(self, code: str, state: str, sentence: str) -> None:
        self.spelling(code, sentence)
        found = tokens_of(sentence)
        words = sum(word != "," for word in found)
        if words > MOST_WORDS or len(found) >= self.length:
            fault = f"'{sentence}' is too long: {words} words, {len(found) + 1} tokens with its end"
            self.say(sentence, code, fault, f"Keep to {MOST_WORDS} words and {self.length} tokens")
        if (state == "inactive") == self.rest.isdisjoint(found):
            which = "holds no rest word" if state == "inactive" else "holds a rest word"
            fault = f"{state} sentence '{sentence}' {which}, so its state cannot be told by its words"
            self.say(sentence, code, fault, f"The rest words are: {', '.join(sorted(self.rest))}")
        here = f"{code} {state}"
        if sentence in self.owner:
            fault = f"'{sentence}' ({state}) already stands in {self.owner[sentence]}"
            self.say(sentence, code, fault, "Write a sentence that fits one unit and one state only")
        self.owner.setdefault(sentence, here)

    def spelling(self, where: str, text: str) -> None:
        if not _SENTENCE.fullmatch(text):
            fault = f"'{text}' is not lower case words with single spaces and commas"
            self.say(text, where, fault, "Remove capitals, figures and other marks")
        if self.vocabulary is None or where == "face.with_subject":  # subjects are off unless asked for
            return
        strange = [word for word in tokens_of(text) if word not in self.vocabulary]
        if strange:
            fault = f"'{text}' has words outside the stored vocabulary: {', '.join(strange)}"
            self.say(text, where, fault, "Use the network's words, or train it with this corpus")

    def phrases(self) -> None:
        said: list[tuple[str, list[str], str]] = []
        for code, entry in dict(self.table.get("units") or {}).items():
            phrases = entry.get("phrases") or []
            if len(phrases) < LEAST["phrases"] or not any(len(phrase.split()) == 2 for phrase in phrases):
                remedy = "Write at least two, one of them of exactly two words"
                self.say(f"[units.{code}]", code, "too few phrases", remedy)
            for phrase in [*phrases, *([entry["tag"]] if entry.get("tag") else [])]:
                self.spelling(code, phrase)
                words = phrase.split()
                if not (2 <= len(words) <= 5 or phrase == entry.get("tag")) or {",", "and"} & set(tokens_of(phrase)):
                    self.say(phrase, code, f"phrase '{phrase}'", "Write two to five words without comma and 'and'")
                for other, theirs, text in said:
                    if other != code and (_within(words, theirs) or _within(theirs, words)):
                        fault = f"phrase '{phrase}' and phrase '{text}' of {other} name two units"
                        self.say(phrase, code, fault, "Write phrases of which none is part of another unit's")
                said.append((code, words, phrase))
        self.said = said

    def templates(self) -> None:
        face = dict(self.table.get("face") or {})
        subject = dict(face.get("with_subject") or {})
        for table, where in ((face, "face"), (subject, "face.with_subject")):
            for count in COUNTS if table else ():
                least = LEAST[count] if where == "face" else 1
                if len(table.get(count) or ()) < least:
                    self.say(f"[{where}]", where, f"too few templates for '{count}'", f"Write at least {least}")
                for template in table.get(count) or ():
                    self.template(where, count, template)
        for text in subject.get("subjects", ()):
            self.spelling("face.with_subject", text)

    def template(self, where: str, count: str, template: str) -> None:
        slots = int(count != "neutral")
        if template.count(SLOT) != slots or template.count("{subject}") != int(where != "face"):
            self.say(template, where, f"'{template}' lacks a slot or has too many", f"Write {SLOT} {slots} times")
        words = tokens_of(template.replace(SLOT, " "))
        plain = " ".join(tokens_of(template.replace(SLOT, "x").replace("{subject}", "x"))).replace(" ,", ",")
        self.spelling(where, "the" if plain == "x" else re.sub(r"\bx\b", "the", plain))
        for code, phrase, text in self.said:
            if _within(phrase, words):
                self.say(template, where, f"'{template}' holds the phrase '{text}' of {code}", "Reword the template")


def _within(part: Sequence[str], whole: Sequence[str]) -> bool:
    return any(list(whole[i : i + len(part)]) == list(part) for i in range(len(whole) - len(part) + 1))
