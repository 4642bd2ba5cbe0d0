"""Key pairs and their command."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from vlfau.engine.commands.keys import main
from vlfau.engine.keys import make_pair, read_allowed, read_pair, read_public
from vlfau.models.errors import UserError


def test_a_pair_is_stored_and_read(tmp_path: Path) -> None:
    public_file, secret_file = make_pair(tmp_path / "new", "alice")
    public, secret = read_pair(secret_file)
    assert read_public(public_file) == public != secret
    assert read_public(public.decode()) == public, "the forty characters are enough"
    assert secret.decode() not in public_file.read_text(encoding="utf-8")
    assert stat.S_IMODE(secret_file.stat().st_mode) == 0o600


def test_keys_are_never_replaced(tmp_path: Path) -> None:
    _, secret_file = make_pair(tmp_path, "alice")
    before = secret_file.read_bytes()
    with pytest.raises(UserError, match="will not be replaced"):
        make_pair(tmp_path, "alice")
    assert secret_file.read_bytes() == before


def test_an_allow_list_is_a_folder_or_a_file(tmp_path: Path) -> None:
    files = [make_pair(tmp_path, name)[0] for name in ("a", "b")]
    assert read_allowed(tmp_path) == {read_public(file) for file in files}
    assert read_allowed(files[0]) == {read_public(files[0])}


def test_wrong_files_are_named(tmp_path: Path) -> None:
    public_file, _ = make_pair(tmp_path, "a")
    with pytest.raises(UserError, match="only a public key"):
        read_pair(public_file)
    (tmp_path / "noise.key").write_bytes(b"\xff\x00")
    for path in (tmp_path / "absent.key", tmp_path / "noise.key"):
        with pytest.raises(UserError, match="not a readable key file"):
            read_pair(path)
    with pytest.raises(UserError, match="neither a key file nor"):
        read_public("~" * 40)
    for name in ("", "../x", ".x", "a\nb", "a\x1b[2J", "a\x9b", "a\u202eb", "a\udce9"):
        with pytest.raises(UserError, match="cannot be the name") as error:
            make_pair(tmp_path, name)
        assert str(error.value).isprintable()
    with pytest.raises(UserError, match="at most 244 bytes"):
        make_pair(tmp_path, "é" * 123)
    make_pair(tmp_path, "é" * 122)


def test_a_secret_key_that_others_can_read_is_reported_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    read_pair(make_pair(tmp_path, "control")[1])
    assert capsys.readouterr().err == ""
    _, secret_file = make_pair(tmp_path, "a")
    secret_file.chmod(0o640)
    read_pair(secret_file)
    read_pair(secret_file)
    (warning,) = capsys.readouterr().err.splitlines()
    assert f"chmod 600 {secret_file}" in warning


def test_the_command_creates_pairs_and_prints_which_file_is_which(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["engine", "alice", "--folder", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "alice.key",
        "alice.key_secret",
        "engine.key",
        "engine.key_secret",
    ]
    assert read_public(tmp_path / "engine.key").decode() in output
    assert read_pair(tmp_path / "engine.key_secret")[1].decode() not in output, "a secret is never printed"
    assert main(["engine", "--folder", str(tmp_path)]) == 2
    assert "will not be replaced" in capsys.readouterr().err
