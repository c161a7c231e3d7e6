"""The admin endpoint (`/api/v1`): JSON over HTTP for scripts, one more door to the use cases."""

from bot.admin.app import PREFIX, admin_app

__all__ = ["PREFIX", "admin_app"]
