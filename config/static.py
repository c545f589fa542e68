"""Names of static files: hashed and compressed where ``collectstatic`` has run, as they are where it has not."""

from __future__ import annotations

from whitenoise.storage import CompressedManifestStaticFilesStorage


class CollectedStorage(CompressedManifestStaticFilesStorage):  # type: ignore[misc]
    """Browsers keep a file under its hashed name for ever. A checkout that was never collected serves its sources."""

    # The demo and the tests run without collecting: a file that is in no manifest goes by its own name.
    manifest_strict = False

    def stored_name(self, name: str) -> str:
        """The hashed name of a collected file, else the name itself."""
        hashed: str | None = self.hashed_files.get(self.hash_key(self.clean_name(name)))
        return hashed or name
