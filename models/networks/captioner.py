"""The sentence decoder (eq. 4-7): soft attention over the places, an LSTM cell, one word at a time.

Greedy decoding is a plain loop of small matrix products, which a tracer can unroll (see `export/tracing.py` for why not
an ONNX Loop). Axes: rows R, places L, words T, vocabulary Voc, channels d, hidden h.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..sentences.vocabulary import END, PAD, START


class SentenceDecoder(nn.Module):
    def __init__(
        self, vocabulary: int, width: int, *, hidden: int, attention: int, embedding: int, words: int, dropout: float
    ) -> None:
        super().__init__()
        self.words = words
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.key, self.query, self.score = (
            nn.Linear(width, attention),
            nn.Linear(hidden, attention),
            nn.Linear(attention, 1),
        )
        self.first_hidden, self.first_cell = nn.Linear(width, hidden), nn.Linear(width, hidden)
        self.word_gates = nn.Linear(embedding, 4 * hidden)
        self.place_gates = nn.Linear(width, 4 * hidden, bias=False)
        self.hidden_gates = nn.Linear(hidden, 4 * hidden, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden, vocabulary)

    def teach(self, places: Tensor, states: Tensor | None, targets: Tensor) -> tuple[Tensor, Tensor]:
        """places (R, L, d), states (R, h) or None, targets (R, T) -> logits (R, T, Voc), attended (R, d).

        Each word is predicted from the true words before it. `attended` is the attention's context, averaged over the
        words of the sentence.
        """
        before = F.pad(targets[:, :-1], (1, 0), value=START)
        words = self.word_gates(self.embedding(before)).unbind(1)  # T times (R, 4h), computed at once
        hidden, cell, keys = self.start(places, states)
        contexts, hiddens = [], []
        for word in words:
            hidden, cell, context = self.step(word, hidden, cell, keys, places)
            contexts.append(context)
            hiddens.append(hidden)
        logits = self.output(self.dropout(torch.stack(hiddens, 1)))
        return logits, _over_words(torch.stack(contexts, 1), targets)

    def speak(self, places: Tensor, states: Tensor | None) -> tuple[Tensor, Tensor]:
        """Greedy: tokens (R, T), END after the last word and PAD after that, and attended (R, d)."""
        hidden, cell, keys = self.start(places, states)
        token = torch.full_like(places[:, 0, 0], START, dtype=torch.int64)
        alive = torch.ones_like(token)
        spoken, contexts = [], []
        for _ in range(self.words):
            hidden, cell, context = self.step(self.word_gates(self.embedding(token)), hidden, cell, keys, places)
            token = self.output(hidden)[:, END:].argmax(1) + END  # PAD and START are no words
            spoken.append(token * alive)  # PAD is 0
            contexts.append(context)
            alive = alive * (token != END).to(torch.int64)
        tokens = torch.stack(spoken, 1)
        return tokens, _over_words(torch.stack(contexts, 1), tokens)

    def beam(self, places: Tensor, states: Tensor | None, width: int) -> tuple[Tensor, Tensor]:
        """The likeliest sentence of a beam of `width`, as `speak` returns it. For offline use and comparison."""
        rows = places.shape[0]
        wide = places.repeat_interleave(width, 0)
        hidden, cell, keys = self.start(wide, None if states is None else states.repeat_interleave(width, 0))
        token = torch.full((rows * width,), START, dtype=torch.int64, device=places.device)
        total = torch.full((rows, width), -torch.inf, device=places.device)
        total[:, 0] = 0.0  # all beams start alike: only one may branch
        spoken = torch.zeros((rows, width, 0), dtype=torch.int64, device=places.device)
        over = torch.zeros((rows, width), dtype=torch.bool, device=places.device)
        for _ in range(self.words):
            hidden, cell, _ = self.step(self.word_gates(self.embedding(token)), hidden, cell, keys, wide)
            chances = self.output(hidden).float().log_softmax(1).unflatten(0, (rows, width))  # (R, W, Voc)
            chances[..., :END] = -torch.inf  # PAD and START are no words
            ended = torch.full_like(chances, -torch.inf)
            ended[..., PAD] = 0.0  # a finished sentence is continued with PAD at no cost
            options = (total.unsqueeze(2) + torch.where(over.unsqueeze(2), ended, chances)).flatten(1)
            total, chosen = options.topk(width, 1)
            parent, word = chosen // chances.shape[2], chosen % chances.shape[2]
            spoken = torch.cat([spoken.gather(1, parent.unsqueeze(2).expand_as(spoken)), word.unsqueeze(2)], 2)
            over = over.gather(1, parent) | (word == END)
            flat = (parent + width * torch.arange(rows, device=places.device).unsqueeze(1)).flatten()
            hidden, cell, token = hidden[flat], cell[flat], word.flatten()
        best = spoken[:, 0]
        return best, self.teach(places, states, best)[1]

    def start(self, places: Tensor, states: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Hidden and cell state from the mean of the places, and the attention's keys W_v V (eq. 4)."""
        mean = places.mean(1)
        first = self.first_hidden(mean)
        hidden = torch.tanh(first if states is None else first + states)
        return hidden, torch.tanh(self.first_cell(mean)), self.key(places)

    def step(
        self, word: Tensor, hidden: Tensor, cell: Tensor, keys: Tensor, places: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One word: attention (eq. 4), LSTM cell on word, context and state (eq. 5)."""
        scores = self.score(F.relu(keys + self.query(hidden).unsqueeze(1))).squeeze(2)
        context = (scores.softmax(1).unsqueeze(1) @ places).squeeze(1)  # (R, d)
        gates = word + self.place_gates(context) + self.hidden_gates(hidden)
        enter, forget, new, leave = gates.chunk(4, 1)
        cell = torch.sigmoid(forget + 1.0) * cell + torch.sigmoid(enter) * torch.tanh(new)  # +1: remember at first
        return torch.sigmoid(leave) * torch.tanh(cell), cell, context


def _over_words(contexts: Tensor, tokens: Tensor) -> Tensor:
    """(R, T, d) averaged over the words that are not padding."""
    words = (tokens != PAD).to(contexts.dtype)
    return (contexts * words.unsqueeze(2)).sum(1) / words.sum(1, keepdim=True).clamp(min=1.0)
