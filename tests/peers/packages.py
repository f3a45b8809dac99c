"""Fetches pinned packages that no Python index has and unpacks them, for tests: no root, no package manager.

    packages.py PINS FOLDER

Each line of PINS is a SHA-256 and an address. Of a Debian package (.deb) the files are unpacked as they would be
installed, below FOLDER; of an npm package (.tgz) those of the zip files in it. Mirrors: `npm_config_registry` for npm,
`TRIAGED_TEST_DEBIAN` for https://deb.debian.org/debian. What Debian has replaced since is taken from its archive.
"""

import hashlib
import io
import os
import sys
import tarfile
import urllib.error
import urllib.request
import zipfile

DEBIAN = "https://deb.debian.org/debian/"
NPM = "https://registry.npmjs.org/"
# A day on which all pinned Debian packages were there.
ARCHIVE = "https://snapshot.debian.org/archive/debian/20261101T000000Z/"
TIMEOUT_SECONDS = 180


def main():
    pins, folder = sys.argv[1:]
    with open(pins, encoding="utf-8") as file:
        lines = [line.split() for line in file if line.strip() and not line.startswith("#")]
    for digest, address in lines:
        data = download(digest, address)
        unpack = unpack_deb if address.endswith(".deb") else unpack_npm
        unpack(data, folder)


def addresses(address):
    if address.startswith(DEBIAN):
        rest = address[len(DEBIAN):]
        mirror = os.environ.get("TRIAGED_TEST_DEBIAN", DEBIAN).rstrip("/") + "/"
        return [mirror + rest, ARCHIVE + rest]
    if address.startswith(NPM):
        registry = os.environ.get("npm_config_registry", NPM).rstrip("/") + "/"
        return [registry + address[len(NPM):]]
    return [address]


def download(digest, address):
    problems = []
    for place in addresses(address):
        try:
            with urllib.request.urlopen(place, timeout=TIMEOUT_SECONDS) as response:
                data = response.read()
        except (urllib.error.URLError, OSError) as error:
            problems.append(f"{place}: {error}")
            continue
        found = hashlib.sha256(data).hexdigest()
        if found == digest:
            return data
        problems.append(f"{place}: its SHA-256 is {found}, not {digest}")
    sys.exit("\n".join(problems))


def unpack_deb(data, folder):
    """An `ar` archive: a magic line, then members with a head of 60 bytes each, at even offsets."""
    at = 8
    while at < len(data):
        name, size = data[at : at + 16].decode().strip().rstrip("/"), int(data[at + 48 : at + 58])
        if name.startswith("data.tar"):
            with tarfile.open(fileobj=io.BytesIO(data[at + 60 : at + 60 + size])) as files:
                extract(files, folder)
            return
        at += 60 + size + size % 2
    sys.exit("a Debian package without files")


def extract(files, folder):
    if hasattr(tarfile, "tar_filter"):
        files.extractall(folder, filter="tar")
    else:
        # Older Pythons know no filters; what is unpacked is pinned by its hash.
        files.extractall(folder)


def unpack_npm(data, folder):
    with tarfile.open(fileobj=io.BytesIO(data)) as files:
        for member in files:
            if member.name.endswith(".zip"):
                unpack_zip(files.extractfile(member).read(), folder)


def unpack_zip(data, folder):
    with zipfile.ZipFile(io.BytesIO(data)) as files:
        for member in files.infolist():
            path = files.extract(member, folder)
            # zipfile drops the permissions that the archive holds.
            mode = member.external_attr >> 16 & 0o777
            if mode and not member.is_dir():
                os.chmod(path, mode)


if __name__ == "__main__":
    main()
