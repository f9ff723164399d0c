"""Which of two ways to the same numbers is the cheaper one here."""

ROUTES = ("auto", "host", "device")


def check_route(device: str) -> None:
    """Raise `ValueError` unless `device` names a route."""
    if device not in ROUTES:
        raise ValueError(
            "`device` says who computes spectra: 'host', 'device' for the one "
            "that holds the weights, or 'auto' for the cheaper of the two. "
            f"Received: device={device!r}."
        )


class CheaperRoute:
    """Tries the host and the device, and stays with the cheaper one.

    The first measurement is the host's, the second and third the device's, of
    which only the later counts, since the earlier compiles. Then it is
    decided, by what they took on this machine for these matrices.

    Args:
        accelerated: Boolean, whether the weights are on an accelerator. On a
            CPU there is nothing to try: both would run on the same cores, and
            the backends keep them busy longer (measured).

    Example:

    >>> route = CheaperRoute(accelerated=True)
    >>> for seconds in (0.5, 9.0, 0.1):  # host, device compiling, device
    ...     route.took(seconds)
    >>> route.choice
    'device'
    """

    def __init__(self, accelerated: bool):
        self.accelerated = accelerated
        self.seconds: list[float] = []

    @property
    def choice(self) -> str:
        """`"host"` or `"device"`, for the next measurement."""
        if not self.accelerated or not self.seconds:
            return "host"
        if len(self.seconds) < 3:
            return "device"
        return "device" if self.seconds[2] < self.seconds[0] else "host"

    def took(self, seconds: float) -> None:
        """Say what the measurement by `choice` took."""
        if len(self.seconds) < 3:
            self.seconds.append(seconds)
