# `make check` runs exactly what .ci/run runs, in the environment that is active.
.PHONY: check lint types test slow

check: lint types test

lint:
	ruff check .
	ruff format --check .

types:
	mypy -p vlfau.engine -p vlfau.models -p vlfau.calibration
	MYPYPATH=bench:tests mypy bench tests

test:
	pytest -n 2 --dist loadfile -m "not slow and not gpu"

slow:
	pytest -m "slow and not gpu"
