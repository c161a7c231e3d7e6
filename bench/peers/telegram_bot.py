"""python-telegram-bot in a loop: an `Application`'s bot with its own rate limiter, allowed so much that it never
waits, and connections for as many sends as there are at once."""

from __future__ import annotations

from telegram import InlineKeyboardButton, InlineKeyboardMarkup, LinkPreviewOptions
from telegram.ext import AIORateLimiter, ApplicationBuilder

from bench.peers.loop import order, run, send_all

_NEVER_WAITS = 1_000_000


async def main() -> None:
    told = order()
    application = (
        ApplicationBuilder()
        .token(told["token"])
        .base_url(f"{told['url']}/telegram/bot")
        .connection_pool_size(told["concurrency"])
        .pool_timeout(30)
        .rate_limiter(AIORateLimiter(overall_max_rate=_NEVER_WAITS, overall_time_period=1, max_retries=0))
        .build()
    )
    keyboard = InlineKeyboardMarkup([[InlineKeyboardButton(told["label"], url=told["link"])]])
    preview = LinkPreviewOptions(is_disabled=True)

    async def send(chat: str) -> object:
        return await application.bot.send_message(
            int(chat), told["text"], reply_markup=keyboard, link_preview_options=preview
        )

    async with application:
        await send_all(told, send)


if __name__ == "__main__":
    run(main)
