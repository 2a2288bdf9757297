"""Settings: typed and frozen, with Celery's names and, where not said otherwise, its defaults.

``Settings`` is everything; each group is what one part of the house is given. Reading configuration from modules,
environment and command line is ``loading.py``; looking for mistakes in it is ``check.py``.
"""

from celeriac.settings.beat import BeatSettings
from celeriac.settings.broker import BrokerSettings
from celeriac.settings.general import (
    ControlSettings,
    EventsCommandSettings,
    EventSettings,
    GeneralSettings,
    SecuritySettings,
)
from celeriac.settings.result import ResultSettings
from celeriac.settings.stores import (
    ArangodbSettings,
    AzureBlockBlobSettings,
    CacheSettings,
    CassandraSettings,
    CosmosdbsqlSettings,
    CouchbaseSettings,
    DatabaseSettings,
    DynamodbSettings,
    ElasticsearchSettings,
    GcsSettings,
    MongodbSettings,
    RedisSettings,
    S3Settings,
    StoreSettings,
)
from celeriac.settings.task import TaskSettings
from celeriac.settings.worker import WorkerSettings


class Settings(
    GeneralSettings, BrokerSettings, TaskSettings, WorkerSettings, BeatSettings, EventSettings, ControlSettings,
    EventsCommandSettings, SecuritySettings, StoreSettings,
):  # fmt: skip
    """Every setting. May be passed wherever a group is wanted."""


__all__ = [
    "ArangodbSettings",
    "AzureBlockBlobSettings",
    "BeatSettings",
    "BrokerSettings",
    "CacheSettings",
    "CassandraSettings",
    "ControlSettings",
    "CosmosdbsqlSettings",
    "CouchbaseSettings",
    "DatabaseSettings",
    "DynamodbSettings",
    "ElasticsearchSettings",
    "EventSettings",
    "EventsCommandSettings",
    "GcsSettings",
    "GeneralSettings",
    "MongodbSettings",
    "RedisSettings",
    "ResultSettings",
    "S3Settings",
    "SecuritySettings",
    "Settings",
    "StoreSettings",
    "TaskSettings",
    "WorkerSettings",
]
