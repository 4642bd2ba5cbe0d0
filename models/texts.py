"""Sentences of faces: composing them, reading them back, and their way to tokens and back. Knows no network.

The sentences themselves are data (`corpus.toml`, read by `corpus.py`). What a sentence says can be decided from its
words alone, so the faithfulness of a captioner is measured and not guessed: `state_of` for one unit, `active_units_of`
for a face.

    python -m vlfau.models.texts FILE [--bundle FOLDER]      checks an edited corpus
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .corpus import LENGTH, SLOT, Corpus, check, load, tokens_of
from .errors import UserError, unknown
from .vocabulary import END, PAD, SPECIAL, build, decode, encode, index_of

__all__ = [
    "LENGTH", "Corpus", "active_units_of", "build", "check", "compose", "decode", "encode", "load", "sample_tokens",
    "state_of", "tokens_of",
]  # fmt: skip


# ---- the face's sentence


def compose(
    active_units: Iterable[str],
    rng: np.random.Generator,
    *,
    corpus: Corpus | None = None,
    length: int = LENGTH,
    subject: str | None = None,
) -> str:
    """A sentence that names every active unit, once, from brow to chin, in at most `length - 1` tokens.

    Phrases are drawn at random while they fit. When they do not, the longest become two words each, then single words
    (from the last to the first), then the commas go: 18 units fit in 24 tokens.
    """
    corpus = corpus or load()
    asked = set(active_units)
    for unit in asked:
        if unit not in corpus.units:
            raise unknown("action unit (not in the corpus of sentences)", unit, corpus.units)
    units = [corpus.units[code] for code in sorted(asked)]
    if subject is not None and subject not in corpus.subjects:
        raise unknown("subject", subject, corpus.subjects)
    group = ("neutral", "one", "two")[len(units)] if len(units) < 3 else "many"
    templates = (corpus.face if subject is None else corpus.subject_face)[group]
    template = _draw(rng, templates).replace("{subject}", subject or "")
    phrases = [_draw(rng, unit.phrases) for unit in units]
    room = length - 1 - len(tokens_of(template.replace(SLOT, " "))) - max(0, len(units) - 1)  # tokens left for phrases
    if len(units) > 2 and sum(map(_size, phrases)) > room:
        # The shortest template, so that the words go to the actions.
        template = min(templates, key=lambda text: len(tokens_of(text))).replace("{subject}", subject or "")
        room = length - 1 - len(tokens_of(template.replace(SLOT, " "))) - (len(units) - 1)
    for shorter in ([min(unit.phrases, key=_size) for unit in units], [unit.tag for unit in units]):
        for i in sorted(range(len(units)), key=lambda i: (-_size(phrases[i]), -i)):
            if sum(map(_size, phrases)) > room:
                phrases[i] = shorter[i]
    fits = sum(map(_size, phrases)) <= room
    sentence = template.replace(SLOT, _join(phrases, ", " if fits else " "))
    if len(tokens_of(sentence)) >= length:
        if subject is not None:  # what the face does goes before whose it is
            return compose(asked, rng, corpus=corpus, length=length)
        raise UserError(f"{len(units)} active units do not fit in {length} tokens. Set a length of at least {LENGTH}.")
    return sentence


def active_units_of(sentence: str, corpus: Corpus | None = None) -> frozenset[str] | None:
    """The units that a face's sentence names, empty for a neutral face; None when it is no sentence of this corpus."""
    said, frames, neutral = _readings(corpus or load())
    words = tokens_of(sentence)
    if tuple(words) in neutral:
        return frozenset()
    units: set[str] = set()
    frame: list[str] = []  # the sentence with its list of phrases replaced by one slot
    i = 0
    while i < len(words):
        size = next((n for n in range(min(5, len(words) - i), 0, -1) if tuple(words[i : i + n]) in said), 0)
        if size:
            units.add(said[tuple(words[i : i + size])])
            joined = list(itertools.takewhile(lambda word: word in (",", "and"), reversed(frame)))
            if frame[len(frame) - len(joined) - 1 :][:1] == [SLOT] and len(joined) <= 1:
                frame = frame[: len(frame) - len(joined)]
            else:
                frame.append(SLOT)
        else:
            frame.append(words[i])
        i += size or 1
    return frozenset(units) if tuple(frame) in frames else None


@functools.lru_cache(maxsize=8)
def _readings(corpus: Corpus) -> tuple[dict[tuple[str, ...], str], set[tuple[str, ...]], set[tuple[str, ...]]]:
    """Phrases -> unit, sentences with a slot for the actions, and neutral sentences, all as tuples of words."""
    said = {tuple(text.split()): code for code, unit in corpus.units.items() for text in (*unit.phrases, unit.tag)}
    texts = {count: list(group) for count, group in corpus.face.items()}
    for count, group in corpus.subject_face.items():
        texts[count] += [text.replace("{subject}", who) for text in group for who in corpus.subjects]
    neutral = {tuple(tokens_of(text)) for text in texts.pop("neutral")}
    return said, {tuple(tokens_of(text)) for group in texts.values() for text in group}, neutral


def _size(phrase: str) -> int:
    return phrase.count(" ") + 1


def _join(phrases: Sequence[str], comma: str) -> str:
    if len(phrases) < 2 or comma == " ":
        return " ".join(phrases)
    return comma.join(phrases[:-1]) + " and " + phrases[-1]


def _draw(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.random() * len(options))]


# ---- one unit's sentence


def state_of(unit: str, sentence: str, corpus: Corpus | None = None) -> bool | None:
    """Whether a sentence says that the unit is active; None when it says neither, or speaks of another unit.

    A sentence of the corpus is looked up. Any other is read by a rule: it must be nearer to a sentence of this unit
    than to any other unit's (shared pairs of neighbouring words), and its rest words must agree with that sentence.
    """
    corpus = corpus or load()
    if unit not in corpus.units:
        raise unknown("action unit (not in the corpus of sentences)", unit, corpus.units)
    words = tokens_of(sentence)
    known, pairs = _meanings(corpus)
    found = known.get(" ".join(words))
    if found is None:
        found = _nearest(words, pairs)
        if found is None or found[1] != corpus.rest_words.isdisjoint(words):
            return None
    return found[1] if found[0] == unit else None


Meaning = tuple[str, bool]  # unit, active


@functools.lru_cache(maxsize=8)
def _meanings(corpus: Corpus) -> tuple[dict[str, Meaning], list[tuple[frozenset[tuple[str, str]], Meaning]]]:
    known: dict[str, Meaning] = {}
    for code, unit in corpus.units.items():
        for sentence in unit.active:
            known[" ".join(tokens_of(sentence))] = (code, True)
        for sentence in unit.inactive:
            known[" ".join(tokens_of(sentence))] = (code, False)
    return known, [(_pairs(text.split()), meaning) for text, meaning in known.items()]


def _pairs(words: Sequence[str]) -> frozenset[tuple[str, str]]:
    return frozenset(itertools.pairwise(["", *words, ""]))


def _nearest(words: Sequence[str], known: list[tuple[frozenset[tuple[str, str]], Meaning]]) -> Meaning | None:
    """The meaning of the sentence that shares most pairs (Jaccard); None when it shares little or two units tie."""
    mine = _pairs(words)
    scores = sorted(((len(mine & pairs) / len(mine | pairs), meaning) for pairs, meaning in known), reverse=True)
    if scores[0][0] < 0.3:  # fewer shared pairs are filler such as "the lip"
        return None
    best = {meaning for score, meaning in scores if score == scores[0][0]}
    return scores[0][1] if len(best) == 1 else None


# ---- targets of training


def sample_tokens(
    labels: NDArray[np.integer],
    corpus: Corpus,
    vocabulary: Sequence[str],
    length: int,
    rng: np.random.Generator,
    *,
    states: NDArray[np.integer] | None = None,
    people: Sequence[str] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Targets of a batch: labels (B, A) of -1, 0, 1 in the order of corpus.units -> local (B, A, T), global (B, T).

    An unknown label has no local sentence (all PAD, masked by the loss). A face with an unknown label has no global
    sentence either, since nobody knows which units it should name; unless `states` (B, A) of 0/1 says what the
    decoder is told: then the sentence names exactly those units, on every face with at least one known label.
    """
    table, counts = _table(corpus, tuple(vocabulary), length)
    labels = np.asarray(labels)
    state = labels.clip(0, 1).astype(np.int64)  # (B, A)
    unit = np.arange(labels.shape[1])
    drawn = (rng.random(labels.shape) * counts[unit, state]).astype(np.int64)
    local = np.where((labels >= 0)[..., None], table[unit, state, drawn], PAD)
    whole = np.zeros((len(labels), length), np.int64)
    index = index_of(tuple(vocabulary))
    codes = list(corpus.units)
    told = labels if states is None else np.asarray(states)
    spoken = (labels >= 0).all(1) if states is None else (labels >= 0).any(1)
    for row in np.flatnonzero(spoken):
        who = people[int(row)] or None if people is not None else None
        active = [codes[i] for i in np.flatnonzero(told[row] > 0)]
        words = tokens_of(compose(active, rng, corpus=corpus, length=length, subject=who))
        whole[row, : len(words) + 1] = [*(index[word] for word in words), END]
    return local, whole


@functools.lru_cache(maxsize=8)
def _table(corpus: Corpus, vocabulary: tuple[str, ...], length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All sentences of the units as tokens (A, 2, K, T), and how many there are (A, 2)."""
    sentences = [(unit.inactive, unit.active) for unit in corpus.units.values()]
    counts = np.array([[len(group) for group in pair] for pair in sentences])
    table = np.zeros((len(sentences), 2, int(counts.max()), length), np.int64)
    for i, pair in enumerate(sentences):
        for state, group in enumerate(pair):
            for k, sentence in enumerate(group):
                table[i, state, k] = encode(sentence, vocabulary, length)
    return table, counts


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m vlfau.models.texts", description="Check a corpus of sentences.")
    parser.add_argument("file", type=Path, help="the corpus, a TOML file")
    parser.add_argument("--bundle", type=Path, help="a bundle whose vocabulary must hold every word")
    parser.add_argument(
        "--length", type=int, default=LENGTH, help="tokens of a sentence with its end (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    try:
        stored = None
        if options.bundle is not None:
            stored = json.loads((options.bundle / "manifest.json").read_text(encoding="utf-8"))["vocabulary"]
        problems = check(options.file, stored, options.length)
        if not problems:
            corpus = load(path=options.file)
            sentences = sum(len(unit.active) + len(unit.inactive) for unit in corpus.units.values())
            words = len(build(corpus)) - len(SPECIAL)
            print(f"{options.file}: {len(corpus.units)} units, {sentences} sentences, {words} words, no fault.")
    except (OSError, KeyError, ValueError, UserError) as error:
        problems = [f"{options.file}: {error}"]
    print("\n".join(problems), end="\n" if problems else "", file=sys.stderr)
    return 2 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
