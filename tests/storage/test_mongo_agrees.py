"""MongoDB driven against memory, the reference, with the random commands that SQLite is driven with."""

from __future__ import annotations

from contextlib import ExitStack
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings

from storage.mongo import MongoStore
from tests import mongod
from tests.storage.test_stores_agree import Agreement


class MongoAgreement(Agreement):
    databases: ClassVar[mongod.Databases]

    def __init__(self) -> None:
        super().__init__()
        self.runner.run(self.store.close())
        self.stack = ExitStack()
        url = self.stack.enter_context(self.databases.one())
        self.store = self.runner.run(MongoStore.open(url, wall=self.wall))

    def teardown(self) -> None:
        super().teardown()
        self.stack.close()


@pytest.fixture(autouse=True, scope="module")
def server(request: pytest.FixtureRequest) -> None:
    MongoAgreement.databases = mongod.databases(request.config)


TestMongoAgreement = pytest.mark.slow(MongoAgreement.TestCase)
TestMongoAgreement.settings = settings(
    max_examples=8, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
