"""aiogram in a loop: a `Bot` on its own session, with connections for as many sends as there are at once."""

from __future__ import annotations

from aiogram import Bot  # type: ignore[import-not-found]  # it lives in the peers' environment alone
from aiogram.client.session.aiohttp import (  # type: ignore[import-not-found]  # likewise
    AiohttpSession,
)
from aiogram.client.telegram import TelegramAPIServer  # type: ignore[import-not-found]  # likewise
from aiogram.types import (  # type: ignore[import-not-found]  # likewise
    InlineKeyboardButton,
    InlineKeyboardMarkup,
    LinkPreviewOptions,
)

from bench.peers.loop import order, run, send_all


async def main() -> None:
    told = order()
    server = TelegramAPIServer.from_base(f"{told['url']}/telegram")
    session = AiohttpSession(api=server, limit=told["concurrency"])
    keyboard = InlineKeyboardMarkup(inline_keyboard=[[InlineKeyboardButton(text=told["label"], url=told["link"])]])
    preview = LinkPreviewOptions(is_disabled=True)
    async with Bot(told["token"], session=session) as bot:

        async def send(chat: str) -> object:
            return await bot.send_message(
                int(chat), told["text"], reply_markup=keyboard, link_preview_options=preview
            )

        await send_all(told, send)


if __name__ == "__main__":
    run(main)
