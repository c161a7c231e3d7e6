"""The simulated people: who they are, and how each platform names them."""

import base64
import unicodedata
import uuid
from collections.abc import Iterable
from dataclasses import dataclass

from sandbox import draws
from sandbox.settings import Channel


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who lives on one or more channels.

    `entra_id` is the Entra object id (a GUID), `telegram_id` a 64-bit number; `teams_user_id` (`29:…`) and
    `viber_id` are what the first bot of the channel knows the person by.
    """

    id: str
    channels: tuple[Channel, ...]
    first_name: str
    last_name: str
    email: str
    locale: str
    timezone: str
    country: str
    entra_id: str
    telegram_id: int
    teams_user_id: str
    viber_id: str

    @property
    def name(self) -> str:
        """Both names, as a platform shows them."""
        return f"{self.first_name} {self.last_name}".strip()


@dataclass(frozen=True)
class Region:
    """Where names come from."""

    locale: str
    country: str
    timezone: str
    first_names: tuple[str, ...]
    last_names: tuple[str, ...]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


REGIONS = (
    Region(
        "en-GB", "GB", "Europe/London",
        _words("Amelia Oliver Isla George Freya Harry Poppy Jack Grace Alfie"),
        _words("Smith Hughes Patel Taylor O'Brien Walker Khan Wright Bailey Marsh"),
    ),
    Region(
        "fr-FR", "FR", "Europe/Paris",
        _words("Chloé Louis Inès Gabriel Zoé Hugo Léa Jules Manon Étienne"),
        _words("Martin Lefèvre Dubois Moreau Garçon Rousseau Chevalier Faure Benoît Marchand"),
    ),
    Region(
        "de-DE", "DE", "Europe/Berlin",
        _words("Jürgen Anna Felix Lena Jonas Mia Björn Klara Moritz Käthe"),
        _words("Müller Schmidt Weiß Fischer Krüger Becker Schäfer Vogel Köhler Brandt"),
    ),
    Region(
        "es-ES", "ES", "Europe/Madrid",
        _words("Lucía Hugo Sofía Mateo Begoña Íñigo Carmen Álvaro Noa Joaquín"),
        _words("García Muñoz Fernández Ibáñez López Núñez Ortega Peña Serrano Vázquez"),
    ),
    Region(
        "pl-PL", "PL", "Europe/Warsaw",
        _words("Zofia Łukasz Małgorzata Jakub Agnieszka Paweł Kasia Michał Ewa Stanisław"),
        _words("Nowak Wójcik Kowalczyk Zieliński Dąbrowska Wiśniewska Król Wrona Mazur Żak"),
    ),
    Region(
        "uk-UA", "UA", "Europe/Kyiv",
        _words("Олена Андрій Наталія Микола Ірина Богдан Оксана Юрій Соломія Остап"),
        _words("Шевченко Коваленко Бондар Ткачук Мельник Лисенко Гнатюк Кравець Руденко Сидоренко"),
    ),
    Region(
        "bg-BG", "BG", "Europe/Sofia",
        _words("Елена Георги Мария Иван Надежда Димитър Цветелина Никола Весела Петър"),
        _words("Иванова Димитров Петрова Стоянов Тодорова Георгиев Колева Николов Ангелова Маринов"),
    ),
    Region(
        "el-GR", "GR", "Europe/Athens",
        _words("Μαρία Γιώργος Ελένη Νίκος Σοφία Δημήτρης Κατερίνα Κώστας Ιωάννα Πέτρος"),
        _words("Παπαδόπουλος Οικονόμου Νικολάου Γεωργίου Δήμου Βασιλείου Αγγέλου Καραγιάννης Λάμπρου Ρήγας"),
    ),
    Region(
        "ja-JP", "JP", "Asia/Tokyo",
        _words("陽菜 蓮 結衣 悠真 さくら 大和 美咲 湊 凛 翔太"),
        _words("佐藤 鈴木 高橋 田中 伊藤 渡辺 山本 中村 小林 加藤"),
    ),
    Region(
        "en-US", "US", "America/New_York",
        _words("Emma Noah Olivia Liam Ava Ethan Mia Logan Zoe Mason"),
        _words("Johnson Rivera Nguyen Davis Cohen Washington Kim Anderson Lopez Reed"),
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked of a person to be made; None is left to the seed."""

    channels: tuple[Channel, ...]
    id: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    email: str | None = None
    locale: str | None = None
    timezone: str | None = None
    country: str | None = None
    entra_id: str | None = None
    telegram_id: int | None = None
    teams_user_id: str | None = None
    viber_id: str | None = None


def person_from(seed: int, number: int, wish: Wish) -> Person:
    """The `number`-th person of a seed: the same seed and number give the same person."""
    kind = wish.channels[0].value if len(wish.channels) == 1 else "person"
    person_id = wish.id or f"{kind}-{number:05d}"
    region = draws.pick(REGIONS, seed, person_id, "region")
    first = wish.first_name or draws.pick(region.first_names, seed, person_id, "first")
    last = draws.pick(region.last_names, seed, person_id, "last") if wish.last_name is None else wish.last_name
    mark = draws.token(seed, person_id, "ids", size=64)
    return Person(
        id=person_id,
        channels=wish.channels,
        first_name=first,
        last_name=last,
        email=wish.email or f"{_address((first, last))}.{person_id}@people.example",
        locale=wish.locale or region.locale,
        timezone=wish.timezone or region.timezone,
        country=wish.country or region.country,
        entra_id=(wish.entra_id or str(uuid.UUID(bytes=mark[:16], version=4))).lower(),
        # Above 2^32, as real ids are by now, and inside the 52 bits the platform promises (PLATFORMS C2).
        telegram_id=wish.telegram_id or 5_000_000_000 + int.from_bytes(mark[16:20], "big"),
        teams_user_id=wish.teams_user_id or "29:1" + base64.urlsafe_b64encode(mark[20:56]).decode(),
        viber_id=wish.viber_id or base64.b64encode(mark[40:56]).decode(),
    )


def _address(names: Iterable[str]) -> str:
    plain = (unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower() for name in names)
    return ".".join(word for word in ("".join(filter(str.isalnum, name)) for name in plain) if word) or "person"
