"""Taking JSON documents apart: from bytes to checked Python values, or an error that names the file.

Responsible for shape (object, list, text, whole number, time). What the fields mean is known by the
modules that call.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from wireguard.errors import ForeignFileError, InvalidValueError, MalformedFileError

Parsed = TypeVar("Parsed")


@dataclass(frozen=True, slots=True)
class Document:
    """A JSON object read from `path`. Fields that nobody asks for are left alone."""

    path: Path
    fields: dict[str, Any]

    @classmethod
    def parse(cls, path: Path, content: bytes) -> "Document":
        """Read the object that a whole file holds.

        Raises:
            MalformedFileError: cut off, or not JSON.
            ForeignFileError: JSON, but not an object.

        """
        try:
            value = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise MalformedFileError(
                f"{path} is cut off or not JSON; its writer replaces it as a whole with the next change.", path=path
            ) from error
        return cls(path, cls._object(path, value))

    @staticmethod
    def _object(path: Path, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise ForeignFileError(f"{path} holds something else than an object of ours.", path=path)
        return value

    def text(self, name: str) -> str:
        """Give a field that holds a string."""
        return self._typed(name, str)

    def optional_text(self, name: str) -> str | None:
        """Give a field that holds a string or null."""
        return None if self._present(name) is None else self.text(name)

    def whole(self, name: str) -> int:
        """Give a field that holds a whole number from 0."""
        value = self._typed(name, int)
        if value < 0:
            raise self.foreign(name)
        return value

    def texts(self, name: str) -> list[str]:
        """Give a field that holds a list of strings."""
        values = self._typed(name, list)
        if not all(isinstance(value, str) for value in values):
            raise self.foreign(name)
        return values

    def objects(self, name: str) -> list["Document"]:
        """Give a field that holds a list of objects."""
        return [Document(self.path, self._object(self.path, value)) for value in self._typed(name, list)]

    def time(self, name: str) -> datetime:
        """Give a field that holds an RFC 3339 time, as aware UTC."""
        try:
            moment = datetime.fromisoformat(self.text(name))
        except ValueError as error:
            raise self.foreign(name) from error
        if moment.tzinfo is None:
            raise self.foreign(name)
        return moment.astimezone(UTC)

    def parsed(self, name: str, parse: Callable[[str], Parsed]) -> Parsed:
        """Give a string field as the value that `parse` makes of it."""
        try:
            return parse(self.text(name))
        except InvalidValueError as error:
            raise self.foreign(name) from error

    def foreign(self, name: str) -> ForeignFileError:
        """Build the error for a field that is not ours."""
        return ForeignFileError(
            f"{self.path} is not a file of ours: {name!r} is missing or holds something else.", path=self.path
        )

    def _present(self, name: str) -> Any:
        if name not in self.fields:
            raise self.foreign(name)
        return self.fields[name]

    def _typed(self, name: str, kind: type[Parsed]) -> Parsed:
        value = self._present(name)
        if type(value) is not kind:
            raise self.foreign(name)
        return value


def rfc3339(moment: datetime) -> str:
    """Write an aware time in UTC, to the second or finer, ending in Z."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
