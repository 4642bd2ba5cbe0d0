"""How commands end."""

from __future__ import annotations

import pytest

from vlfau.models.errors import UserError
from vlfau.models.terminal import FAILED, OK, STOPPED, USER_ERROR, clock, command, plain


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


def test_an_error_of_the_system_is_one_of_the_user(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("vlfau-test")(lambda: int(open("/nowhere/file").read()))() == USER_ERROR  # noqa: SIM115
    assert capsys.readouterr().err == "vlfau-test: [Errno 2] No such file or directory: '/nowhere/file'\n"


def test_no_line_of_an_error_begins_like_another_error(capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> None:
        raise UserError("Two lines:\nvlfau-test: \x1b[2Jforged\r")

    assert command("vlfau-test")(fails)() == USER_ERROR
    assert (
        capsys.readouterr().err
        == "vlfau-test: Two lines:\n  vlfau-test: \N{REPLACEMENT CHARACTER}[2Jforged\N{REPLACEMENT CHARACTER}\n"
    )


def test_plain_text_controls_nothing() -> None:
    controls = [*range(32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0xDC80]
    for code in controls:
        assert plain(f"a{chr(code)}b") == "a\N{REPLACEMENT CHARACTER}b"
    assert plain("a\nb\tc\r", lines=True) == "a\nb\tc\N{REPLACEMENT CHARACTER}"
    assert plain("Gesicht früh 顔 \N{GRINNING FACE} e\u0301") == "Gesicht früh 顔 \N{GRINNING FACE} e\u0301"
