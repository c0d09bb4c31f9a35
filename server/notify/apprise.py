"""Apprise, the package that reaches people in a hundred ways: imported only where a target needs it."""

import logging
from typing import Any


def open_apprise(url: str) -> Any:
    """Return an `Apprise` that sends to a URL; `None` if there is no such service.

    Raises:
        ImportError: the package is not installed.
    """
    from apprise import Apprise, AppriseAsset

    logging.getLogger("apprise").disabled = True  # its messages hold URLs
    sender = Apprise(asset=AppriseAsset(app_id="Sisyphus", app_desc="Sisyphus"))
    return sender if sender.add(url) and len(sender) else None
