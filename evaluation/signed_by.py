"""The command line's options that name who must have signed a release: a key, or an identity."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from hub.identity import ExpectedIdentity, named_identity
from record.command_line import trust_config_option
from record.errors import UserError

OPTIONS = (
    click.option(
        "--verify-key",
        "key",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Public key (PEM) that must have signed it.",
    ),
    click.option("--verify-identity", "identity", metavar="WHO", help="E-mail or URI that must have signed it."),
    click.option("--verify-issuer", "issuer", metavar="URL", help="With --verify-identity: who says that it was them."),
    trust_config_option,
)


def signed_by_options(callback: Callable[..., None]) -> Callable[..., None]:
    """Adds the options to a command; its parameter `signed_by` is whom they name: a key's file, an identity or None."""

    @functools.wraps(callback)
    def call(
        *, key: Path | None, identity: str | None, issuer: str | None, trust_config: Path | None, **options: Any
    ) -> None:
        callback(signed_by=_named(key, identity, issuer, trust_config), **options)

    for option in reversed(OPTIONS):
        call = option(call)
    return call


def _named(
    key: Path | None, identity: str | None, issuer: str | None, trust_config: Path | None
) -> Path | ExpectedIdentity | None:
    """Who must have signed the release.

    Raises:
        `click.UsageError`: options that have no effect together, or an identity that is none.
    """
    if bool(identity) != bool(issuer):
        raise click.UsageError("--verify-identity and --verify-issuer go together: who, and who says that it was them.")
    if key and identity:
        raise click.UsageError("--verify-key and --verify-identity exclude each other: a release has one signature.")
    if trust_config and not identity:
        raise click.UsageError("--trust-config is for --verify-identity: add that.")
    if identity is None or issuer is None:
        return key
    try:
        return ExpectedIdentity(named_identity(identity, issuer), trust_config)
    except UserError as error:
        raise click.UsageError(f"{error}.") from None
