"""Creates, stores and reads CURVE key pairs, for `sinks/zeromq.py` and `subscriber.py`.

Files are ZeroMQ certificates: NAME.key holds the public key and may be shared; NAME.key_secret holds both keys and must
stay private.
"""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path

import zmq
import zmq.auth

from vlfau.models.errors import UserError
from vlfau.models.terminal import plain

KEY_CHARACTERS = 40  # a 32-byte key in Z85
NAME_BYTES = 244  # with .key_secret a file name of 255, the most that file systems take


def make_pair(folder: Path, name: str) -> tuple[Path, Path]:
    """Writes a new pair and returns its public and its secret file. Existing files are never replaced."""
    if not name or "/" in name or name.startswith(".") or not name.isprintable():
        raise UserError(f"{name!r} cannot be the name of a key. Use letters, digits, dots and dashes.")
    if len(os.fsencode(name)) > NAME_BYTES:
        raise UserError(f"The name of a key can have at most {NAME_BYTES} bytes, and '{name[:20]}...' is longer.")
    public, secret = zmq.curve_keypair()
    public_file, secret_file = folder / f"{name}.key", folder / f"{name}.key_secret"
    for file in (public_file, secret_file):
        if file.exists():
            raise UserError(f"{file} exists and will not be replaced. Choose another name or remove it.")
    folder.mkdir(parents=True, exist_ok=True)
    _write(secret_file, 0o600, "secret: keep it on this machine", public, secret)
    _write(public_file, 0o644, "public: give it to the other side", public, None)
    return public_file, secret_file


def read_pair(path: Path) -> tuple[bytes, bytes]:
    """(public, secret) from a secret key file."""
    public, secret = _load(path)
    if secret is None:
        raise UserError(f"{path} holds only a public key. Give the .key_secret file of the pair.")
    _warn_if_exposed(path)
    return public, secret


def read_public(key: str | Path) -> bytes:
    """A public key, from a key file or given as its 40 characters."""
    text = str(key)
    if len(text) == KEY_CHARACTERS and not Path(text).exists():
        try:
            zmq.utils.z85.decode(text.encode())
        except (ValueError, KeyError, UnicodeEncodeError):
            raise UserError(f"'{text}' is neither a key file nor a public key of 40 characters.") from None
        return text.encode()
    return _load(Path(text))[0]


def read_allowed(path: Path) -> set[bytes]:
    """The public keys of an allow-list: a folder of .key files, or one file."""
    files = sorted(path.glob("*.key")) if path.is_dir() else [path]
    if not files:
        raise UserError(
            f"The folder {path} holds no .key file, so no subscriber could join. Put their public keys there."
        )
    return {_load(file)[0] for file in files}


@functools.cache
def _warn_if_exposed(path: Path) -> None:
    if os.name == "posix" and path.stat().st_mode & 0o077:
        print(plain(f"Warning: other users can access the secret key {path}. Run: chmod 600 {path}"), file=sys.stderr)


def _load(path: Path) -> tuple[bytes, bytes | None]:
    try:
        return zmq.auth.load_certificate(path)
    except (OSError, ValueError, UnicodeDecodeError):
        raise UserError(f"{path} is not a readable key file. Create one with: vlfau-keys NAME") from None


def _write(path: Path, mode: int, note: str, public: bytes, secret: bytes | None) -> None:
    lines = [f"# VL-FAU Stream CURVE key, {note}", "metadata", "curve", f'    public-key = "{public.decode()}"']
    if secret is not None:
        lines.append(f'    secret-key = "{secret.decode()}"')
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w") as file:
        file.write("\n".join(lines) + "\n")
