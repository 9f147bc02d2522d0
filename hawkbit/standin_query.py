"""FIQL as hawkBit's target list reads it: comparisons without regard to case, `*` as wildcard.

Not here: entities that the stand-in has none of; comparing with a tag or distribution set finds nothing.
Source: https://eclipse.dev/hawkbit/rest-api/ ("q" parameter) and jirutka/rsql-parser for the grammar.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from hawkbit.standin_dialect import Dialect
from hawkbit.standin_state import StoredTarget

Predicate = Callable[[StoredTarget], bool]

_TOKEN = re.compile(
    r"""\s*(?:(?P<quoted>'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")
        |(?P<operator>=[a-z]+=|==|!=|<=|>=|<|>)
        |(?P<mark>[();,])
        |(?P<word>[^\s"'();,=!<>~]+))""",
    re.VERBOSE,
)
_READERS: dict[str, Callable[[StoredTarget], Any]] = {
    "id": lambda target: target.controller_id,
    "name": lambda target: target.name,
    "description": lambda target: target.description,
    "createdat": lambda target: target.created_at,
    "lastmodifiedat": lambda target: target.modified_at,
    "controllerid": lambda target: target.controller_id,
    "updatestatus": lambda target: target.update_status,
    "ipaddress": lambda target: target.address,
    "attribute": lambda target: target.attributes,
    "assignedds": lambda _: None,
    "installedds": lambda _: None,
    "tag": lambda _: None,
    "lastcontrollerrequestat": lambda target: target.last_request_at,
    "metadata": lambda target: target.metadata,
}
_MAPS = frozenset({"attribute", "metadata"})
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "=gt=": lambda left, right: left > right,
    ">": lambda left, right: left > right,
    "=ge=": lambda left, right: left >= right,
    ">=": lambda left, right: left >= right,
    "=lt=": lambda left, right: left < right,
    "<": lambda left, right: left < right,
    "=le=": lambda left, right: left <= right,
    "<=": lambda left, right: left <= right,
}
_DEPTH = 32


class BadQuery(ValueError):
    """The query does not parse, or (`problem`) names a field that hawkBit does not have."""

    def __init__(self, problem: str | None = None) -> None:
        super().__init__(problem or "syntax")
        self.problem = problem


def sort_key(field: str) -> Callable[[StoredTarget], Any] | None:
    """Return how to order by `field`, None if hawkBit cannot."""
    reader = _READERS.get(field.lower())
    if reader is None or field.lower() in _MAPS:
        return None
    return lambda target: ((value := reader(target)) is not None, value if value is not None else 0)


def parse_query(text: str, dialect: Dialect) -> Predicate:
    """Compile a query. Raises BadQuery."""
    return _Parser(text, dialect).parse()


class _Parser:
    """Recursive descent over: or = and {"," and}; and = term {";" term}; term = "(" or ")" | comparison."""

    def __init__(self, text: str, dialect: Dialect) -> None:
        self._tokens = list(_tokens(text))
        self._dialect = dialect
        self._depth = 0

    def parse(self) -> Predicate:
        predicate = self._any_of()
        if self._tokens:
            raise BadQuery
        return predicate

    def _any_of(self) -> Predicate:
        options = [self._all_of()]
        while self._take("mark", ",") or self._take("word", "or"):
            options.append(self._all_of())
        return lambda target: any(option(target) for option in options)

    def _all_of(self) -> Predicate:
        terms = [self._term()]
        while self._take("mark", ";") or self._take("word", "and"):
            terms.append(self._term())
        return lambda target: all(term(target) for term in terms)

    def _term(self) -> Predicate:
        if not self._take("mark", "("):
            return self._comparison()
        self._depth += 1
        if self._depth > _DEPTH:
            raise BadQuery
        inside = self._any_of()
        self._expect("mark", ")")
        self._depth -= 1
        return inside

    def _comparison(self) -> Predicate:
        field = self._expect("word")
        operator = self._expect("operator")
        read = self._reader(field)
        if operator in {"==", "!="}:
            return _matching(read, [self._argument()], wanted=operator == "==")
        if operator in {"=in=", "=out="}:
            self._expect("mark", "(")
            arguments = [self._argument()]
            while self._take("mark", ","):
                arguments.append(self._argument())
            self._expect("mark", ")")
            return _matching(read, arguments, wanted=operator == "=in=")
        if operator not in _COMPARISONS:
            raise BadQuery
        return _ordered(read, _COMPARISONS[operator], self._argument())

    def _reader(self, field: str) -> Callable[[StoredTarget], Any]:
        name, _, key = field.partition(".")
        folded = name.lower()
        if folded == "createdby" and self._dialect.query_created_by:
            return lambda target: target.created_by
        reader = _READERS.get(folded)
        if reader is None:
            fields = ", ".join(_READERS)
            raise BadQuery(
                f"The given search parameter field {{{field}}} does not exist, "
                f"must be one of the following fields {{[{fields}]}}"
            )
        if folded not in _MAPS:
            return reader
        if not key or ("." in key and not self._dialect.query_dotted_keys):
            raise BadQuery(
                f"The syntax of the given map search parameter field {{{field}}} is wrong. Syntax is: fieldname.keyname"
            )
        return lambda target: reader(target).get(key)

    def _argument(self) -> str:
        if self._tokens and self._tokens[0][0] == "quoted":
            return re.sub(r"\\(.)", r"\1", self._tokens.pop(0)[1][1:-1])
        return self._expect("word")

    def _take(self, kind: str, text: str) -> bool:
        if self._tokens and self._tokens[0] == (kind, text):
            del self._tokens[0]
            return True
        return False

    def _expect(self, kind: str, text: str | None = None) -> str:
        if not self._tokens or self._tokens[0][0] != kind or text not in {None, self._tokens[0][1]}:
            raise BadQuery
        return self._tokens.pop(0)[1]


def _tokens(text: str) -> Iterable[tuple[str, str]]:
    position = 0
    while position < len(text.rstrip()):
        found = _TOKEN.match(text, position)
        if found is None or found.lastgroup is None:
            raise BadQuery
        yield found.lastgroup, found[found.lastgroup]
        position = found.end()


def _matching(read: Callable[[StoredTarget], Any], patterns: list[str], *, wanted: bool) -> Predicate:
    compiled = [
        re.compile(".*".join(re.escape(part) for part in pattern.split("*")), re.IGNORECASE | re.DOTALL)
        for pattern in patterns
    ]

    def matches(target: StoredTarget) -> bool:
        value = read(target)
        found = value is not None and any(pattern.fullmatch(str(value)) for pattern in compiled)
        return found is wanted

    return matches


def _ordered(read: Callable[[StoredTarget], Any], compare: Callable[[Any, Any], bool], argument: str) -> Predicate:
    def holds(target: StoredTarget) -> bool:
        value = read(target)
        if value is None:
            return False
        if isinstance(value, int):
            return argument.lstrip("-").isdecimal() and compare(value, int(argument))
        return compare(str(value).lower(), argument.lower())

    return holds
