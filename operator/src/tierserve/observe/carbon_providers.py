"""Providers of live carbon intensities (`tiers[].carbonSource.provider`).

Both hosts are fixed: whoever may write a resource cannot make the operator ask another one.
"""

from __future__ import annotations

import os
from typing import Any

import httpx

TIMEOUT_S = 5.0
VARIABLE = "ELECTRICITY_MAPS_TOKEN"


def electricity_maps(zone: str | None) -> float:
    """Latest gCO2e/kWh of a zone by Electricity Maps (life cycle, by flow), with the token of the environment.

    Raises:
        ValueError: no zone or no token; httpx.HTTPError, KeyError: the answer is none.
    """
    token = os.environ.get(VARIABLE)
    if not zone or not token:
        raise ValueError(f"electricity-maps needs a zone, and its token in {VARIABLE}")
    url = "https://api.electricitymaps.com/v3/carbon-intensity/latest"
    return float(_json(url, params={"zone": zone}, headers={"auth-token": token})["carbonIntensity"])


def uk(zone: str | None) -> float:
    """gCO2e/kWh of Great Britain in this half hour by National Grid ESO, measured or else forecast; needs no token.

    Raises:
        ValueError: a zone is given; httpx.HTTPError, LookupError: the answer is none.
    """
    if zone:
        raise ValueError(f"uk has no zones, got {zone}: remove zone")
    found = _json("https://api.carbonintensity.org.uk/intensity")["data"][0]["intensity"]
    return float(found["forecast"] if found.get("actual") is None else found["actual"])


def _json(url: str, **options: Any) -> Any:
    reply = httpx.get(url, timeout=TIMEOUT_S, **options)
    reply.raise_for_status()
    return reply.json()
