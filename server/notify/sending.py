"""One message to one target, by a webhook or by Apprise."""

import contextlib
import hmac
import time
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import requests

from app.config import VERSION
from server.notify.apprise import open_apprise
from server.notify.targets import EVENTS, Target
from server.storage.notices import Bundle
from server.storage.tables import to_text

SIGNATURE = "X-Sisyphus-Signature"
"""`t=SECONDS,v1=HEX`: HMAC-SHA256 of `SECONDS.BODY`. The time is that of sending, so that old messages can be told."""

TIMEOUT = (3.0, 5.0)
"""Seconds to connect to a webhook, and for its answer."""

MAX_LINES = 10
"""Events that a message to people tells one by one."""

MAX_TEXT = 300
"""Characters of a line."""


def send(target: Target, bundle: Bundle) -> str:
    """Send a message. Returns why that failed, in words that show nothing of the URL; empty if it did not."""
    return _send_to_webhook(target, bundle) if target.webhook else _send_by_apprise(target, bundle)


def _send_to_webhook(target: Target, bundle: Bundle) -> str:
    body = to_text({"count": bundle.count, "counts": bundle.counts, "events": bundle.first}).encode()
    seconds = str(int(time.time()))
    signature = hmac.digest(target.secret.encode(), f"{seconds}.".encode() + body, "sha256").hex()
    headers = {
        "Content-Type": "application/json",
        "User-Agent": f"sisyphus-client/{VERSION}",
        SIGNATURE: f"t={seconds},v1={signature}",
    }
    try:
        # Not followed: the signed message is for that address alone. Not read: the answer may be endless.
        sending = requests.post(
            target.webhook, body, headers=headers, timeout=TIMEOUT, allow_redirects=False, stream=True
        )
        with contextlib.closing(sending) as answer:
            return "" if answer.ok and answer.status_code < HTTPStatus.MULTIPLE_CHOICES else f"{answer.status_code}"
    except (requests.RequestException, ValueError, UnicodeError) as error:  # whose texts hold the URL
        return type(error).__name__


def _send_by_apprise(target: Target, bundle: Bundle) -> str:
    sender = open_apprise(target.apprise)
    title = f"Sisyphus: {', '.join(f'{bundle.counts[event]} {event}' for event in EVENTS if event in bundle.counts)}"
    try:
        is_sent = sender is not None and sender.notify(body="\n".join(_lines(bundle)), title=title)
    except Exception as error:  # noqa: BLE001 - a hundred services, each with errors of its own
        return type(error).__name__
    return "" if is_sent else "Apprise could not deliver it; `apprise -vv URL` tells why"


def _lines(bundle: Bundle) -> Iterator[str]:
    for event in bundle.first[:MAX_LINES]:
        line = " ".join(_describe(event).split()).encode("utf-8", "replace").decode()
        yield line if len(line) <= MAX_TEXT else f"{line[:MAX_TEXT]}…"
    if bundle.count > MAX_LINES:
        yield f"… and {bundle.count - MAX_LINES} more"


def _describe(event: dict[str, Any]) -> str:
    match event["event"]:
        case "worker lost":
            job = f"; it had job {event['job_id']}" if "job_id" in event else ""
            return f"worker lost: {event.get('hostname', '')} ({event['worker_id']}), last seen {event['seen_at']}{job}"
        case "queue stuck":
            return f"queue stuck: {event['entries']} jobs, the oldest {event['job_title']!r}: {event['why']}"
        case name:
            where = f" on {event['hostname']}" if "hostname" in event else ""
            why = f": {event['message']}" if "message" in event else ""
            return f"{name}: {event['job_title']!r} ({event['job_id']}){where}{why}"
