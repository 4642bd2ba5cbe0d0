# `make check` runs what .ci/run runs but the soak, in the environment that is active.
.PHONY: check lint types test slow bench

check: lint types test

lint:
	ruff check .
	ruff format --check .

types:
	mypy -p vlfau.engine -p vlfau.models -p vlfau.calibration
	MYPYPATH=bench:tests/helpers mypy bench tests

test:
	pytest -n 2 --dist loadfile -m "not slow and not gpu"

slow:
	pytest -m "slow and not gpu"

# Figures, a quarter of an hour on a machine that does nothing else. $VLFAU_SHARDS names a folder of renders.
bench:
	python bench/results.py
