"""Keys for signatures, made as the commands in docs/ make them."""

import subprocess


def openssl(*arguments):
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def key_pair(folder, name, *algorithm):
    """A private and a public key as README's commands make them."""
    private, public = folder / f"{name}.pem", folder / f"{name}-public.pem"
    openssl(*(algorithm or ("ecparam", "-name", "prime256v1", "-genkey", "-noout")), "-out", str(private))
    openssl("pkey", "-in", str(private), "-pubout", "-out", str(public))
    return private, public
