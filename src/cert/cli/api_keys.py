"""``cert keys``: the API keys of the services."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from cert.core.errors import InputError

app = typer.Typer(
    name="keys", help="Make, list and revoke the API keys of the services.", no_args_is_help=True
)

File = Annotated[
    Path,
    typer.Option("--file", envvar="CERT_API_KEYS_FILE", help="File of the keys; it holds hashes alone."),
]


@app.command("new")
def new(
    file: File,
    tenant: Annotated[str, typer.Option(help="Whose key it is: analyses and jobs are shared by a tenant's.")],
    scope: Annotated[
        list[str] | None, typer.Option(help="read, write or admin; may be repeated [default: write].")
    ] = None,
    days: Annotated[float | None, typer.Option(min=0.0, help="Days until it ends [default: never].")] = None,
) -> None:
    """Make a key and show it this once. The service takes it without a restart."""
    from cert.services.common.keys import KeyFile, new_key

    ends = None if days is None else datetime.now(UTC) + timedelta(days=days)
    secret, key = new_key(tenant, tuple(scope or ["write"]), ends)  # type: ignore[arg-type]  # checked there
    keys = KeyFile(file)
    keys.write((*keys.read(), key))
    typer.echo(secret)
    typer.echo(f"{key.id} of {key.tenant}, kept in {file} as a hash: it is not shown again", err=True)


@app.command("list")
def list_keys(file: File) -> None:
    """List the keys in force and those that ended."""
    from cert.services.common.keys import KeyFile

    now = datetime.now(UTC)
    for key in KeyFile(file).read():
        state = "ended" if key.expired(now) else "in force"
        until = key.expires_at or "never ends"
        typer.echo(f"{key.id}  {key.tenant}  {','.join(key.scopes)}  {key.created_at}  {until}  {state}")


@app.command("revoke")
def revoke(
    file: File, key_id: Annotated[str, typer.Argument(metavar="ID", help="As `list` shows it.")]
) -> None:
    """Take a key out of force at once."""
    from cert.services.common.keys import KeyFile

    keys = KeyFile(file)
    found = keys.read()
    kept = tuple(key for key in found if key.id != key_id)
    if len(kept) == len(found):
        raise InputError(f"there is no key '{key_id}' in {file}", hint="cert keys list")
    keys.write(kept)
    typer.echo(f"{key_id} is out of force")
