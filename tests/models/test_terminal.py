"""How commands end."""

from __future__ import annotations

import pytest

from vlfau.models.errors import UserError
from vlfau.models.terminal import FAILED, OK, STOPPED, USER_ERROR, clock, command


@pytest.mark.parametrize(("answer", "code"), [(None, OK), (0, OK), (FAILED, FAILED)])
def test_a_command_returns_its_exit_code(answer: int | None, code: int) -> None:
    assert command("vlfau-test")(lambda: answer)() == code


def test_errors_of_the_user_and_ctrl_c_become_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def fails(error: BaseException) -> None:
        raise error

    assert command("vlfau-test")(fails)(UserError("The file is missing.")) == USER_ERROR
    assert capsys.readouterr().err == "vlfau-test: The file is missing.\n"
    assert command("vlfau-test", stopped="Run it again.")(fails)(KeyboardInterrupt()) == STOPPED
    assert capsys.readouterr().err == "\nvlfau-test: Run it again.\n"
    assert command("vlfau-test", stopped="")(fails)(KeyboardInterrupt()) == STOPPED
    assert capsys.readouterr().err == ""
    with pytest.raises(ValueError, match="a fault of the program"):
        command("vlfau-test")(fails)(ValueError("a fault of the program"))


def test_times_are_shown_in_minutes_or_hours() -> None:
    assert [clock(seconds) for seconds in (5, 725, 11_220)] == ["0 min 05 s", "12 min 05 s", "3 h 07 min"]
