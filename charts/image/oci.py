"""An image as an OCI archive, which `ctr images import` and `skopeo copy oci-archive:FILE` take: made without an engine.

The same contents make the same bytes: times are fixed, names sorted, and nothing is compressed, so that no version of a
compressor shows.
"""
import hashlib
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

OCI = "application/vnd.oci.image"


@dataclass(frozen=True)
class Link:
    """A symbolic link in an archive."""

    target: str


def archive(files: dict[str, tuple[int, bytes | Link | None]]) -> bytes:
    """A tar of these files (mode, and contents, a link, or None for a folder) and the folders above them, the same whoever
    makes it."""
    folders = {str(parent) for name in files for parent in Path(name).parents if str(parent) != "."}
    entries = {name: (0o755, None) for name in folders} | files
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, (mode, contents) in sorted(entries.items()):
            info = tarfile.TarInfo(name)
            info.mode = mode
            if contents is None:
                info.type = tarfile.DIRTYPE
            elif isinstance(contents, Link):
                info.type, info.linkname = tarfile.SYMTYPE, contents.target
            else:
                info.size = len(contents)
            tar.addfile(info, io.BytesIO(contents) if isinstance(contents, bytes) else None)
    return buffer.getvalue()


def digest(blob: bytes) -> str:
    return "sha256:" + hashlib.sha256(blob).hexdigest()


class Blobs(dict):
    """The files of an OCI layout that are named by what is in them."""

    def add(self, kind: str, contents: bytes | dict) -> dict:
        blob = contents if isinstance(contents, bytes) else json.dumps(contents, sort_keys=True).encode()
        self[f"blobs/sha256/{digest(blob).removeprefix('sha256:')}"] = (0o644, blob)
        return {"mediaType": kind, "digest": digest(blob), "size": len(blob)}


def image(architecture: str, layer: bytes, config: dict, names: list[str], made_by: str, created: str | None = None) -> bytes:
    """An image of one layer (a tar) with this configuration, under all these names (`registry/name:tag`)."""
    blobs, labels = Blobs(), config.get("Labels", {})
    document = {
        "architecture": architecture,
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [digest(layer)]},
        "history": [{"created_by": made_by}],
    }
    if created:
        document["created"] = created
    manifest = blobs.add(f"{OCI}.manifest.v1+json", {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.manifest.v1+json",
        "config": blobs.add(f"{OCI}.config.v1+json", document),
        "layers": [blobs.add(f"{OCI}.layer.v1.tar", layer)],
        "annotations": labels,
    })
    manifest["platform"] = {"architecture": architecture, "os": "linux"}
    index = {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.index.v1+json",
        # The first annotation is containerd's, the second the specification's.
        "manifests": [manifest | {"annotations": {
            "io.containerd.image.name": name,
            "org.opencontainers.image.ref.name": name.rsplit(":", 1)[1],
        }} for name in names],
    }
    return archive({
        "oci-layout": (0o644, b'{"imageLayoutVersion": "1.0.0"}'),
        "index.json": (0o644, json.dumps(index, sort_keys=True).encode()),
        **blobs,
    })
