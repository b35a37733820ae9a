"""Durations and counts for tables of 80 columns."""


def duration(seconds: float | None) -> str:
    """A duration in at most two units: 0.42 s, 12 s, 3 min, 2 h 5 min, 3 d 4 h; - for None."""
    if seconds is None:
        return "-"
    seconds = max(seconds, 0.0)
    if seconds == 0:
        return "0 s"
    if seconds < 0.01:
        return "<0.01 s"
    if seconds < 9.95:
        return f"{seconds:.2f} s" if seconds < 0.995 else f"{seconds:.1f} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return _two(minutes // 60, "h", minutes % 60, "min")
    hours = round(seconds / 3600)
    return _two(hours // 24, "d", hours % 24, "h")


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large} {large_unit} {small} {small_unit}" if small else f"{large} {large_unit}"


def percent(share: float) -> str:
    """A percentage with at most two significant digits below 10: 89 %, 1.2 %, 0.05 %."""
    if share >= 9.95 or share == int(share):
        return f"{share:.0f} %"
    return f"{share:.2g} %" if share >= 0.01 else "<0.01 %"


def count(number: float | None) -> str:
    """A count with separators, from a million on with three digits: 999,999, 1.23M, 45.6M, 7.89B; - for None."""
    if number is None:
        return "-"
    if number < 999_999.5:
        return f"{number:,.0f}"
    scaled, unit = (number / 1e6, "M") if number < 999.5e6 else (number / 1e9, "B")
    return f"{scaled:.{2 if scaled < 9.995 else 1 if scaled < 99.95 else 0}f}{unit}"
