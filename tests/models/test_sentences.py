"""The corpus of sentences: complete, unambiguous, and readable by rule."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vlfau.models.errors import UserError
from vlfau.models.sentences import __main__, composing, loading, reading, targets, validation
from vlfau.models.sentences.corpus import tokens_of
from vlfau.models.sentences.targets import Texts
from vlfau.models.sentences.vocabulary import build, decode, encode

REQUIRED = tuple(f"AU{n:02d}" for n in (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 24, 25, 26, 43))
SHIPPED = tuple(unit for unit in REQUIRED if unit != "AU05")  # the units of the shipped network


def named(sentence: str) -> set[str] | None:
    units = reading.active_units_of(sentence)
    return None if units is None else set(units)


def test_corpus_has_every_required_unit_in_both_states() -> None:
    corpus = loading.load()
    assert tuple(corpus.units) == REQUIRED
    for unit in corpus.units.values():
        assert len(unit.active) >= 6
        assert len(unit.inactive) >= 4
        assert unit.name
        assert unit.muscle
    assert validation.check(loading.SHIPPED, build(corpus)) == []


def test_the_state_of_every_sentence_is_read_by_lookup_and_by_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = loading.load()
    meanings = [(unit.code, s, True) for unit in corpus.units.values() for s in unit.active]
    meanings += [(unit.code, s, False) for unit in corpus.units.values() for s in unit.inactive]
    for code, sentence, active in meanings:
        assert reading.state_of(code, sentence) is active
        assert reading.state_of(code, sentence[:1].upper() + sentence[1:] + ".") is active
        other = "AU12" if code != "AU12" else "AU04"
        assert reading.state_of(other, sentence) is None
    # Without lookup the rule alone must agree, although the last word of the sentence is missing.
    _, pairs = reading._meanings(corpus)
    monkeypatch.setattr(reading, "_meanings", lambda _: ({}, pairs))
    cut = [(code, s.rsplit(" ", 1)[0], active) for code, s, active in meanings if len(s.split()) > 6]
    right = [reading.state_of(code, sentence) is active for code, sentence, active in cut]
    wrong = [reading.state_of(code, sentence) is (not active) for code, sentence, active in cut]
    assert np.mean(right) > 0.9  # the cut may remove the only rest word: then the rule abstains
    assert not any(wrong)


def test_rule_abstains_on_nonsense_and_on_contradiction() -> None:
    assert reading.state_of("AU12", "the the the") is None
    assert reading.state_of("AU12", "") is None
    assert reading.state_of("AU12", "the lip corners are pulled up and back without the cheeks") is None
    with pytest.raises(UserError, match="AU99"):
        reading.state_of("AU99", "a smile")


@pytest.mark.parametrize("length", [24, 32])
def test_composed_sentence_names_exactly_its_units(length: int) -> None:
    corpus = loading.load()
    rng = np.random.default_rng(1)
    for count in range(len(corpus.units) + 1):
        for _ in range(40):
            active = set(rng.choice(list(corpus.units), count, replace=False).tolist())
            sentence = composing.compose(active, rng, length=length)
            assert len(tokens_of(sentence)) < length
            assert named(sentence) == active
            if count <= 8:
                assert "-" not in sentence, "tags are only for faces with more than eight actions"


def test_composing_depends_only_on_its_generator() -> None:
    active = ["AU12", "AU06", "AU25"]
    first = [composing.compose(active, np.random.default_rng(seed)) for seed in range(20)]
    second = [composing.compose(reversed(active), np.random.default_rng(seed)) for seed in range(20)]
    assert first == second
    assert len(set(first)) > 5


def test_reading_refuses_sentences_that_were_not_composed() -> None:
    assert named("the face is at rest") == set()
    assert named("The face shows raised cheeks, parted lips and closed eyes.") == {
        "AU06",
        "AU25",
        "AU43",
    }
    assert named("the face shows raised cheeks and inner lips") is None
    assert named("the face shows") is None
    assert named("raised cheeks shows face") is None
    assert named("") is None


def test_subjects_are_optional_and_read_back() -> None:
    corpus, rng = loading.load(), np.random.default_rng(0)
    plain = set(build(corpus))
    assert not plain & {"man", "woman", "person"}
    sentence = composing.compose(["AU04", "AU09", "AU10"], rng, subject="a young woman", length=32)
    assert "a young woman" in sentence
    assert named(sentence) == {"AU04", "AU09", "AU10"}
    assert {"man", "woman"} <= set(build(corpus, subjects=True))
    with pytest.raises(UserError, match="a robot"):
        composing.compose([], rng, subject="a robot")


def test_encoding_and_decoding_are_inverse() -> None:
    corpus = loading.load(SHIPPED)
    vocabulary = build(corpus)
    assert vocabulary[:3] == ("<pad>", "<start>", "<end>")
    assert len(set(vocabulary)) == len(vocabulary)
    sentence = corpus.units["AU01"].active[0]
    tokens = encode(sentence, vocabulary, 24)
    assert tokens.shape == (24,)
    assert decode(tokens, vocabulary) == sentence[:1].upper() + sentence[1:] + "."
    with pytest.raises(UserError, match="elephant"):
        encode("the elephant smiles", vocabulary)
    with pytest.raises(UserError, match="24 tokens"):
        encode("the " * 24, vocabulary, 24)


def test_sampled_targets_match_the_labels() -> None:
    corpus = loading.load(SHIPPED)
    vocabulary = build(corpus)
    rng = np.random.default_rng(0)
    labels = (rng.random((32, len(SHIPPED))) < 0.3).astype(np.int8)
    labels[3, 5] = -1
    labels[4] = -1
    local, whole = targets.sample_tokens(labels, corpus, vocabulary, 24, np.random.default_rng(7))
    assert local.shape == (32, len(SHIPPED), 24)
    for b, row in enumerate(labels):
        for a, unit in enumerate(SHIPPED):
            if row[a] < 0:
                assert not local[b, a].any()
            else:
                assert reading.state_of(unit, decode(local[b, a], vocabulary)) is bool(row[a])
        units = named(decode(whole[b], vocabulary))
        if (row < 0).any():
            assert not whole[b].any()
        else:
            assert units == {unit for unit, label in zip(SHIPPED, row) if label}
    again = targets.sample_tokens(labels, corpus, vocabulary, 24, np.random.default_rng(7))
    np.testing.assert_array_equal(again[0], local)
    np.testing.assert_array_equal(again[1], whole)
    other = targets.sample_tokens(labels, corpus, vocabulary, 24, np.random.default_rng(8))
    assert (other[0] != local).any()
    states = np.maximum(labels, 0)
    described = targets.sample_tokens(labels, corpus, vocabulary, 24, np.random.default_rng(7), states=states)[1]
    assert named(decode(described[3], vocabulary)) == {u for u, s in zip(SHIPPED, states[3]) if s}
    assert not described[4].any()  # an image without a face


def test_targets_name_the_subject_if_known_and_if_it_fits() -> None:
    corpus = loading.load(SHIPPED)
    vocabulary = build(corpus, subjects=True)
    rng = np.random.default_rng(0)
    labels = (rng.random((60, len(SHIPPED))) < 0.25).astype(np.int8)
    words, labels[0] = 20, 1  # so many that nothing else fits
    subjects = ["a woman"] * 20 + ["a man"] * 20 + [""] * 20
    whole = targets.sample_tokens(labels, corpus, vocabulary, words, np.random.default_rng(7), descriptions=subjects)[1]
    sentences = [decode(tokens, vocabulary) for tokens in whole]
    for row, (sentence, subject) in enumerate(zip(sentences, subjects)):
        assert named(sentence) == {u for u, label in zip(SHIPPED, labels[row]) if label}
        assert sentence.lower().count("man") == 0 or subject
    assert "woman" not in sentences[0]
    assert sum("woman" in sentence for sentence in sentences[1:20]) >= 15
    assert sum(" man " in f" {sentence.lower()} " for sentence in sentences[20:40]) >= 15
    off = Texts(corpus, build(corpus), words).targets(labels, np.random.default_rng(7), subjects)["global_tokens"]
    assert not any("man" in decode(tokens, build(corpus)) for tokens in off.numpy())
    on = Texts(corpus, vocabulary, words, subjects=True).targets(labels, np.random.default_rng(7), subjects)
    np.testing.assert_array_equal(on["global_tokens"].numpy(), whole)


SENTENCE = '"no lift shows at the inner brows"'


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[units.AU43]", "[units.AU99]", "AU99: unknown action unit"),
        (SENTENCE, '"no lift shows at the inner brows ' + "and so on " * 6 + '"', "too long"),
        (SENTENCE, '"the inner brows hang low"', "no rest word"),
        (SENTENCE, '"No lift shows!"', "lower case"),
        (SENTENCE + ",\n", "", "3 inactive sentences are too few"),
        (SENTENCE, '"no furrow stands between the brows"', "is already in"),
        ('"the inner brow corners are lifted, so', '"no corners are lifted, so', "holds a rest word"),
        ('"knitted brows"', '"slanted brows"', "name two units"),
        ('tag = "scowl"', 'tag = "two words"', "not one word"),
        ('muscle = "buccinator"', 'muscles = "buccinator"', "unknown key 'muscles'"),
        ('["the face shows {actions}", "only', '["the face shows", "only', "lacks a slot"),
    ],
)
def test_checker_names_file_line_unit_and_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, message: str
) -> None:
    good = loading.SHIPPED.read_text(encoding="utf-8")
    assert good.count(old) >= 1
    path = tmp_path / "mine.toml"
    path.write_text(good.replace(old, new, 1), encoding="utf-8")
    assert __main__.main([str(path)]) == 2
    output = capsys.readouterr().err
    assert message in output
    assert f"{path}:" in output
    with pytest.raises(UserError):
        loading.load(path=path)


def test_checker_refuses_empty_states_and_strange_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.toml"
    good = loading.SHIPPED.read_text(encoding="utf-8")
    cut = good[: good.rindex("inactive = [")] + "inactive = []\n"
    path.write_text(cut, encoding="utf-8")
    assert any("AU43: the inactive state is empty" in line for line in validation.check(path))
    vocabulary = [word for word in build(loading.load()) if word != "smile"]
    problems = validation.check(loading.SHIPPED, vocabulary)
    assert problems
    assert all("outside the stored vocabulary: smile" in line and "AU12" in line for line in problems)
    assert __main__.main([str(tmp_path / "absent.toml")]) == 2
    assert "absent.toml" in capsys.readouterr().err
    assert __main__.main([str(loading.SHIPPED)]) == 0


def test_input_states_are_flipped_rarely_in_some_faces_and_often_in_others() -> None:
    """Decisions can be combinations that no data holds, of ten units and more; sentences must describe them, too."""
    corpus = loading.load()
    labels = np.zeros((400, len(corpus.units)), np.int8)
    texts = Texts(corpus, build(corpus), 24, conditioned=True, noise=0.25)
    wrong = texts.targets(labels, np.random.default_rng(3))["active"].numpy().mean(1)
    assert wrong.mean() == pytest.approx(0.25, abs=0.03)
    assert (wrong < 0.06).mean() > 0.1
    assert (wrong > 0.45).mean() > 0.1
    same = Texts(corpus, build(corpus), 24, conditioned=True).targets(labels, np.random.default_rng(3))["active"]
    assert not same.any()
