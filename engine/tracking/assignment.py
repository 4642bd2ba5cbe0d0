"""The cheapest way to pair rows with columns: the Hungarian method, by shortest augmenting paths."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def assign(costs: ArrayLike, unassigned: float) -> NDArray[np.intp]:
    """costs (R, C) -> the column of each row; -1 where leaving it alone, at `unassigned`, is cheaper. inf forbids."""
    table = np.asarray(costs, np.float64)
    rows, columns = table.shape
    # each row also gets a private column, which stands for leaving it alone
    alone = np.full((rows, rows), np.inf)
    np.fill_diagonal(alone, unassigned)
    full = np.concatenate([table, alone], 1)
    row_price, column_price = np.zeros(rows), np.zeros(columns + rows)
    owner = np.full(columns + rows, -1)  # row of each column
    for row in range(rows):
        distance = np.full(columns + rows, np.inf)
        came_from = np.full(columns + rows, -1)
        done = np.zeros(columns + rows, bool)
        current, column, reached = row, -1, 0.0
        while True:
            reduced = reached + full[current] - row_price[current] - column_price
            better = ~done & (reduced < distance)
            distance[better], came_from[better] = reduced[better], column
            column = int(np.where(done, np.inf, distance).argmin())
            reached, done[column] = distance[column], True
            if owner[column] < 0:
                break
            current = owner[column]
        passed = done.copy()
        passed[column] = False
        row_price[row] += reached
        row_price[owner[passed]] += reached - distance[passed]
        column_price[passed] -= reached - distance[passed]
        while column >= 0:  # flip the path
            before = int(came_from[column])
            owner[column] = owner[before] if before >= 0 else row
            column = before
    answer = np.full(rows, -1, np.intp)
    for column in range(columns):
        if owner[column] >= 0:
            answer[owner[column]] = column
    return answer
