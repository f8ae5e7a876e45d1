"""Numbers with units: strings as users write them, with a float value in base units.

Kubernetes quantities (``16Gi`` -> bytes), SI numbers (``13.1G`` -> 1), Go durations (``800ms`` -> seconds), bit rates
(``10Gbit`` -> bits per second), power (``400W`` -> watts) and masses (``3kg`` -> grams).
"""

from __future__ import annotations

import re
from typing import Any, ClassVar, Self

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

_SI = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50, "Ei": 2.0**60}
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DECIMAL = r"[0-9]+(\.[0-9]+)?"


class Unit(str):
    """A string such as ``16Gi``; ``.value`` and ``float(...)`` return it in base units.

    Subclasses define their pattern (valid for Python and for RE2, which the API server uses), an example, the factor
    of each suffix, and whether a bare integer is allowed. Raises ValueError for a string that does not match.
    """

    __slots__ = ()
    pattern: ClassVar[str]
    example: ClassVar[str]
    base: ClassVar[str]
    factors: ClassVar[dict[str, float]]
    bare_integer: ClassVar[bool] = False
    max_length: ClassVar[int] = 32

    def __new__(cls, text: str | float) -> Self:
        """Check `text` against the pattern."""
        shown = cls._plain(text)
        if len(shown) > cls.max_length or not re.fullmatch(cls.pattern.removeprefix("^").removesuffix("$"), shown):
            raise ValueError(f"{shown!r} is not {cls.example}")
        return super().__new__(cls, shown)

    @staticmethod
    def _plain(text: str | float) -> str:
        whole = isinstance(text, float) and text.is_integer()
        return str(int(text)) if whole else str(text)

    @property
    def value(self) -> float:
        """The amount in base units."""
        number = re.match(_DECIMAL, self)
        assert number is not None
        suffix = str(self)[number.end() :]
        factor = self.factors.get(suffix)
        return float(number.group()) * factor if factor is not None else float(number.group() + suffix)

    def __float__(self) -> float:
        return self.value

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str.__repr__(self)})"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Accept a string (or an integer if the unit allows it); serialise to the string."""
        return core_schema.no_info_plain_validator_function(
            cls._validate, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Schema of the CRD: a string with a pattern, or int-or-string."""
        kind = {"x-kubernetes-int-or-string": True, "minimum": 0} if cls.bare_integer else {"type": "string"}
        return {**kind, "pattern": cls.pattern, "maxLength": cls.max_length}

    @classmethod
    def _validate(cls, given: object) -> Self:
        if isinstance(given, str) or (cls.bare_integer and _is_whole(given)):
            try:
                return cls(given)  # type: ignore[arg-type]
            except ValueError:
                pass
        raise PydanticCustomError("unit", "is not {example}", {"example": cls.example})


def _is_whole(given: object) -> bool:
    if isinstance(given, bool):
        return False
    return isinstance(given, int) or (isinstance(given, float) and given.is_integer())


class Quantity(Unit):
    """A Kubernetes quantity of bytes: ``16Gi``, ``250Mi``, ``1.5G``, ``1e9``, ``4096``."""

    __slots__ = ()
    pattern = rf"^{_DECIMAL}(Ki|Mi|Gi|Ti|Pi|Ei|k|M|G|T|P|E|[eE][0-9]{{1,2}})?$"
    example = "a quantity of bytes such as 16Gi, 250Mi or 1.5G"
    base = "bytes"
    bare_integer = True
    factors: ClassVar[dict[str, float]] = {**_SI, **_BINARY}


class Amount(Unit):
    """A plain number with an SI suffix: ``13.1G``, ``312T``, ``1e15``."""

    __slots__ = ()
    pattern = rf"^{_DECIMAL}(k|M|G|T|P|E|[eE][0-9]{{1,2}})?$"
    example = "a number such as 13.1G, 312T or 1e15"
    base = "1"
    bare_integer = True
    factors: ClassVar[dict[str, float]] = _SI


class Duration(Unit):
    """A Go duration: ``800ms``, ``1.5s``, ``2m30s``. The bounds on digits keep it within Go's 292 years."""

    __slots__ = ()
    pattern = r"^([0-9]{1,9}(\.[0-9]{1,9})?(ns|us|µs|ms)|[0-9]{1,8}(\.[0-9]{1,9})?s|[0-9]{1,6}(\.[0-9]{1,9})?(m|h))+$"
    example = "a duration such as 800ms, 1.5s or 2m30s"
    base = "seconds"
    max_length = 20
    factors: ClassVar[dict[str, float]] = _SECONDS

    @property
    def value(self) -> float:
        """Seconds."""
        parts = re.findall(rf"({_DECIMAL})(ns|us|µs|ms|s|m|h)", self)
        return sum(float(number) * _SECONDS[unit] for number, _, unit in parts)


class BitRate(Unit):
    """Bits per second: ``10Gbit``, ``160kbit``."""

    __slots__ = ()
    pattern = rf"^{_DECIMAL}(k|M|G|T)?bit$"
    example = "a bit rate such as 10Gbit or 160kbit (per second)"
    base = "bits per second"
    factors: ClassVar[dict[str, float]] = {f"{prefix}bit": _SI[prefix] for prefix in ("", "k", "M", "G", "T")}


class Power(Unit):
    """Watts: ``400W``, ``1.2kW``."""

    __slots__ = ()
    pattern = rf"^{_DECIMAL}(m|k|M)?W$"
    example = "a power such as 400W or 1.2kW"
    base = "watts"
    factors: ClassVar[dict[str, float]] = {"mW": 1e-3, "W": 1.0, "kW": 1e3, "MW": 1e6}


class Mass(Unit):
    """Grams: ``230g``, ``3kg``, ``1.2t``."""

    __slots__ = ()
    pattern = rf"^{_DECIMAL}(mg|g|kg|t)$"
    example = "a mass such as 230g, 3kg or 1.2t"
    base = "grams"
    factors: ClassVar[dict[str, float]] = {"mg": 1e-3, "g": 1.0, "kg": 1e3, "t": 1e6}
