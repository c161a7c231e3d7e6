"""The bodies that scripts from outside stand on, as they are promised."""

from __future__ import annotations

from typing import Any

CAMPAIGN: dict[str, Any] = {
    "name": "Benefits week",
    "message": {
        "text": "Hello [FIRSTNAME], enrolment is open.",
        "media": [{"type": "picture", "url": "https://intranet.example/banner.png", "alt": "Benefits week"}],
        "buttons": [
            {"id": "enrol", "type": "link", "label": "Enrol", "url": "https://intranet.example/enrol"},
            {"id": "later", "type": "reply", "label": "Later", "value": "later"},
        ],
        "variants": {"viber": {"text": "Hello [FIRSTNAME]! Enrolment is open."}},
    },
    "audience": {
        "lists": ["lst_staff"],
        "segments": [],
        "recipients": [],
        "exclude_lists": [],
        "channels": ["teams", "telegram", "viber"],
        "accounts": [],
    },
    "schedule": {
        "immediate": False,
        "start": "2026-03-27",
        "working_days": 5,
        "timezone": "Europe/Paris",
        "recipient_timezone": False,
        "holidays": ["2026-03-30"],
        "holiday_country": None,
        "hours": {"mon": ["09:00-12:00", "14:00-18:00"], "fri": ["09:00-18:00"]},
    },
    "policies": {
        "presence": {"teams": ["available"], "viber": ["any"]},
        "when_unknown": "send",
        "rounds": 3,
        "retry_minutes": 10,
        "slot_minutes": 60,
        "after_crash": "resend",
        "outside_hours": "hold",
        "rate": None,
    },
}

LAUNCH = {"start": "2026-04-07", "seed": 7}

BROADCAST: dict[str, Any] = {
    "id": "brd_7Q2",
    "campaign": "cmp_91K",
    "name": "Benefits week",
    "status": "running",
    "reason": None,
    "seed": 7,
    "launched_at": "2026-03-26T15:02:11Z",
    "launched_by": "tok_ops",
    "starts_at": "2026-03-27T08:00:00Z",
    "expected_finish_at": "2026-04-13T16:00:00Z",
    "finished_at": None,
    "planned": 1240,
    "progress": 0.43,
    "deliveries": {
        "planned": 704,
        "sending": 3,
        "sent": 496,
        "failed": 10,
        "unscheduled": 0,
        "skipped": 27,
        "cancelled": 0,
        "uncertain": 0,
    },
    "accounts": [{"account": "teams/hr", "rate": 30.0, "achieved_rate": 29.8, "waiting_until": None}],
}

REPORT: dict[str, Any] = {
    "broadcast": "brd_7Q2",
    "as_of": "2026-04-14T08:00:00Z",
    "planned": 1240,
    "sent": 1102,
    "deliveries": {
        "planned": 0,
        "sending": 0,
        "sent": 1102,
        "failed": 12,
        "unscheduled": 99,
        "skipped": 27,
        "cancelled": 0,
        "uncertain": 0,
    },
    "delivered": {"people": 291, "total": 291, "reported_by": 300},
    "read": {"people": 640, "total": 640, "reported_by": 902},
    "clicked": {"people": 210, "total": 260, "reported_by": 1102},
    "channels": [
        {
            "channel": "telegram",
            "planned": 220,
            "sent": 200,
            "failed": 4,
            "unscheduled": 0,
            "skipped": 16,
            "delivered": None,
            "read": None,
            "clicked": {"people": 31, "total": 40, "reported_by": 200},
        }
    ],
    "hours": [{"hour": "2026-03-27T13:00:00Z", "sent": 118, "clicked": 21}],
    "rounds": [{"round": 1, "rung": "first", "attempts": 1213, "sent": 702, "absent": 505}],
    "buttons": [{"button": "enrol", "type": "link", "label": "Enrol", "people": 190, "total": 236}],
    "reasons": [{"state": "skipped", "reason": "unsubscribed", "people": 20}],
}

DELIVERY: dict[str, Any] = {
    "id": "dlv_5T1",
    "broadcast": "brd_7Q2",
    "state": "sent",
    "reason": None,
    "recipient": {"id": "rcp_ann", "external_id": "E1007", "name": "Ann Ash", "email": "ann@example.com"},
    "channel": "teams",
    "account": "teams/hr",
    "round": 1,
    "rung": "slot",
    "attempts": 3,
    "sends": 2,
    "due_at": None,
    "sent_at": "2026-03-27T14:00:05Z",
    "delivered_at": None,
    "read_at": "2026-03-27T14:03:40Z",
    "clicked_at": None,
    "platform_message_id": "1692206589131",
}

TIMELINE: list[dict[str, Any]] = [
    {"at": "2026-03-27T14:00:00Z", "type": "attempt", "round": 1, "rung": "slot", "outcome": "throttled"},
    {"at": "2026-03-27T14:03:40Z", "type": "read", "detail": None},
]

IMPORTED: dict[str, Any] = {
    "created": 40,
    "updated": 2,
    "unchanged": 0,
    "errors": [
        {
            "line": 17,
            "field": "timezone",
            "message": "Europe/Pariss is no time zone; did you mean Europe/Paris?",
        }
    ],
}

PROBLEM: dict[str, Any] = {
    "type": "about:blank",
    "title": "Invalid input",
    "status": 422,
    "detail": "1 field is at fault",
    "errors": [
        {"field": "schedule.hours.mon[0]", "message": "12:00-09:00 ends before it starts; write 09:00-12:00"}
    ],
}
