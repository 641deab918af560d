"""Moments and days as people and programs read them, all in UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


def iso8601(seconds: float) -> str:
    """A moment, given in seconds since 1970, to the second: 2026-11-30T12:00:00+00:00."""
    return _utc(seconds).isoformat(timespec="seconds")


def rfc3339(seconds: float) -> str:
    """A moment, given in seconds since 1970, to the microsecond: 2026-11-30T12:00:00.123456Z."""
    return _utc(seconds).isoformat().replace("+00:00", "Z")


def day_of(seconds: float, days_before: int = 0) -> str:
    """The day of a moment, or one that many days before it: 2026-11-30."""
    return (_utc(seconds) - timedelta(days_before)).date().isoformat()


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
