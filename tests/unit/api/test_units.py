"""Units keep their text and give base units; what is not the unit is refused with an example."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ValidationError

from tierserve.api.units import Amount, BitRate, Duration, Mass, Power, Quantity, Unit


class Holder(BaseModel):
    memory: Quantity | None = None
    wait: Duration | None = None


@pytest.mark.parametrize(
    ("unit", "base"),
    [
        (Quantity("16Gi"), 16 * 2**30),
        (Quantity("250Mi"), 250 * 2**20),
        (Quantity("1.5G"), 1.5e9),
        (Quantity("1e9"), 1e9),
        (Quantity(4096), 4096),
        (Quantity("2E"), 2e18),
        (Amount("13.1G"), 13.1e9),
        (Amount("312T"), 312e12),
        (Amount("1E3"), 1e3),
        (Duration("800ms"), 0.8),
        (Duration("1.5s"), 1.5),
        (Duration("2m30s"), 150),
        (Duration("1h1m1s1ms1us1ns"), 3661.001001001),
        (Duration("5µs"), 5e-6),
        (BitRate("10Gbit"), 10e9),
        (BitRate("160kbit"), 160e3),
        (BitRate("7bit"), 7),
        (Power("400W"), 400),
        (Power("1.2kW"), 1200),
        (Power("5mW"), 0.005),
        (Mass("3kg"), 3000),
        (Mass("230g"), 230),
        (Mass("1.2t"), 1.2e6),
        (Mass("4mg"), 0.004),
    ],
)
def test_a_text_gives_base_units(unit: Unit, base: float) -> None:
    assert unit.value == pytest.approx(base, rel=1e-15)
    assert float(unit) == unit.value


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Quantity, "16GB"),
        (Quantity, "-1Gi"),
        (Quantity, "1 Gi"),
        (Quantity, ".5Gi"),
        (Quantity, "Gi"),
        (Quantity, ""),
        (Quantity, "1Gi\n"),
        (Amount, "1Gi"),
        (Duration, "800"),
        (Duration, "1d"),
        (Duration, "s"),
        (Duration, "99999999h"),
        (BitRate, "10GB"),
        (BitRate, "10"),
        (Power, "80"),
        (Mass, "3lbs"),
    ],
)
def test_another_text_is_refused_with_an_example(kind: type[Unit], text: str) -> None:
    with pytest.raises(ValueError, match="such as"):
        kind(text)


def test_a_field_keeps_the_text_when_dumped() -> None:
    holder = Holder.model_validate({"memory": "16Gi", "wait": "1.50s"})
    assert holder.model_dump(mode="json") == {"memory": "16Gi", "wait": "1.50s"}
    assert Holder.model_validate(holder.model_dump()) == holder


@pytest.mark.parametrize("given", [1.5, True, [], "x"])
def test_a_field_refuses_what_is_no_quantity(given: object) -> None:
    with pytest.raises(ValidationError, match="16Gi"):
        Holder.model_validate({"memory": given})


def test_a_duration_needs_its_unit_even_when_it_is_a_number() -> None:
    with pytest.raises(ValidationError, match="800ms"):
        Holder.model_validate({"wait": 5})
