"""Catalogue: the atlases one explorer serves, by the key that addresses use."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from app.services import Services, open_services
from app.serving import DEFAULT, Serving
from app.subject_worker import workers_for
from backend.errors import ArtifactMissing
from backend.text_encoders import TextEncoder


class Catalogue:
    """Opened atlases in the order they were named; the first is the default."""

    def __init__(self, services: Sequence[Services]) -> None:
        if not services:
            raise ArtifactMissing("No atlas was named. Serve one: iconoscope serve ATLAS")
        self._by_key: dict[str, Services] = {}
        for one in services:
            self._by_key.setdefault(one.key, one)

    @property
    def default(self) -> Services:
        return next(iter(self._by_key.values()))

    def __iter__(self) -> Iterator[Services]:
        return iter(self._by_key.values())

    def __len__(self) -> int:
        return len(self._by_key)

    def __contains__(self, key: object) -> bool:
        return key in self._by_key

    def get(self, key: str | None) -> Services:
        """The atlas of a key; the default one for "" and for keys nobody knows."""
        return self._by_key.get(key or "", self.default)

    def by_version(self, version: str) -> Services:
        """The atlas whose data has this version. Raises KeyError."""
        for one in self:
            if one.version == version:
                return one
        raise KeyError(f"no atlas of version {version} is served here")


def open_catalogue(
    paths: Sequence[str | Path],
    *,
    verify: bool = True,
    encoder: TextEncoder | None = None,
    serving: Serving = DEFAULT,
) -> Catalogue:
    """Open atlases, one line before the models of all. Two of the same name get their version in the key.

    Raises the errors of :func:`app.services.open_services`.
    """
    workers = workers_for(serving)
    opened = [open_services(path, verify=verify, encoder=encoder, workers=workers, serving=serving) for path in paths]
    keys = [key_of(one.meta) for one in opened]
    unique = [
        key if keys.count(key) == 1 else f"{key}-{one.version[:6]}" for one, key in zip(opened, keys, strict=True)
    ]
    return Catalogue([replace(one, key=key) for one, key in zip(opened, unique, strict=True)])


def key_of(meta: Mapping[str, Any]) -> str:
    """A short name for addresses, of recipe and layer: ``world-4``."""
    hook = meta.get("hook_point") or {}
    words = f"{meta.get('recipe') or 'atlas'}-{hook.get('layer', '')}".lower()
    return re.sub(r"[^a-z0-9]+", "-", words).strip("-") or "atlas"
