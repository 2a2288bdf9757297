"""Settings of single result stores. Each group has those of all stores too, since a store needs both."""

from collections.abc import Mapping, Sequence
from typing import Any

from celeriac.settings.base import Differs, maybe_seconds, seconds, setting
from celeriac.settings.result import ResultSettings
from celeriac.settings.values import MaybeSeconds, Seconds


class CacheSettings(ResultSettings, title="cache", was="CELERY_{name}"):
    """Memcached."""

    cache_backend: str | None = setting(None, "Servers, as `memcached://host:port/`; a `cache+…` URL of results wins.")
    cache_backend_options: Mapping[str, Any] = setting({}, "Keyword arguments of the client.")


class RedisSettings(ResultSettings, title="redis", was="CELERY_{name}"):
    """Redis as a result store; as a broker it takes `broker_transport_options`."""

    redis_host: str | None = setting(None, "Part of the address, used while `result_backend` is plain `redis`.")
    redis_port: int | None = setting(None, "Part of the address, used while `result_backend` is plain `redis`.")
    redis_db: int | str | None = setting(None, "Part of the address, used while `result_backend` is plain `redis`.")
    redis_username: str | None = setting(None, "Part of the address, used while `result_backend` is plain `redis`.")
    redis_password: str | None = setting(
        None, "Part of the address, used while `result_backend` is plain `redis`.", secret=True
    )
    redis_backend_use_ssl: Mapping[str, Any] | bool | None = setting(
        None, "TLS: a dict of `ssl_keyfile`, `ssl_certfile`, `ssl_ca_certs`, `ssl_cert_reqs`."
    )
    redis_max_connections: int | None = setting(None, "Connections at most. None: no limit.")
    redis_socket_timeout: MaybeSeconds = maybe_seconds(
        10.0, "Time that the server may be silent when an answer is due.",
        differs=Differs(120.0, "A server that hangs is noticed before callers lose their patience."),
    )  # fmt: skip
    redis_socket_connect_timeout: MaybeSeconds = maybe_seconds(
        None, "Time that connecting may take. None: 4 seconds, or `redis_socket_timeout` if that is less."
    )
    redis_socket_keepalive: bool = setting(False, "TCP keep-alive.")
    redis_retry_on_timeout: bool = setting(False, "Try once more when a read or write timed out.")
    redis_backend_health_check_interval: MaybeSeconds = maybe_seconds(
        None, "Idle time after which a connection is tested before use. None: it is not.", was=None
    )
    redis_backend_credential_provider: Any = setting(
        None, "Object, or its class path, that supplies user and password; replaces those of the URL.",
        was=None, secret=True,
    )  # fmt: skip
    redis_client_name: str | None = setting(None, "Name that connections show in `CLIENT LIST`.", was=None)


class DatabaseSettings(ResultSettings, title="database", was="{name}"):
    """SQL databases."""

    database_url: str | None = setting(
        None, "Address, used while `result_backend` is plain `database`.", was="CELERY_RESULT_DBURI"
    )
    database_engine_options: Mapping[str, Any] = setting(
        {"pool_pre_ping": True, "pool_recycle": 3600}, "Keyword arguments of `create_engine`.",
        was="CELERY_RESULT_ENGINE_OPTIONS",
    )  # fmt: skip
    database_engine_callback: Any = setting(
        None, "Callable, or its dotted path, that is shown the engine when it exists."
    )
    database_short_lived_sessions: bool = setting(
        False, "Connect anew for each use instead of keeping a pool.", was="CELERY_RESULT_DB_SHORT_LIVED_SESSIONS"
    )
    database_create_tables_at_setup: bool = setting(
        True, "Create missing tables when the store is opened; off: when it is first written to."
    )
    database_table_names: Mapping[str, str] | None = setting(
        None, "Names for the tables `task` and `group`. None: `celery_taskmeta` and `celery_tasksetmeta`.",
        was="CELERY_RESULT_DB_TABLENAMES",
    )  # fmt: skip
    database_table_schemas: Mapping[str, str] | None = setting(None, "Schemas of the tables `task` and `group`.")


class MongodbSettings(ResultSettings, title="mongodb", was="CELERY_{name}"):
    """MongoDB."""

    mongodb_backend_settings: Mapping[str, Any] | None = setting(
        None, "A dict of `database`, `taskmeta_collection`, `groupmeta_collection`, `max_pool_size`, `options`, and "
        "the parts of the address.",
    )  # fmt: skip


class CassandraSettings(ResultSettings, title="cassandra", was="{name}"):
    """Cassandra and Astra."""

    cassandra_servers: Sequence[str] | None = setting(None, "Hosts to begin with.")
    cassandra_port: int | str | None = setting(None, "Their port. None: 9042.")
    cassandra_keyspace: str | None = setting(None, "Keyspace; required.")
    cassandra_table: str | None = setting(None, "Table; required.")
    cassandra_read_consistency: str | None = setting(None, "Consistency of reads. None: LOCAL_QUORUM.")
    cassandra_write_consistency: str | None = setting(None, "Consistency of writes. None: LOCAL_QUORUM.")
    cassandra_entry_ttl: MaybeSeconds = maybe_seconds(None, "Time to live of rows. None: for ever.")
    cassandra_auth_provider: str | None = setting(None, "Class of `cassandra.auth` to log in with.")
    cassandra_auth_kwargs: Mapping[str, Any] | None = setting(None, "Keyword arguments of that class.", secret=True)
    cassandra_options: Mapping[str, Any] = setting({}, "More keyword arguments of `Cluster`.")
    cassandra_secure_bundle_path: str | None = setting(None, "Secure connect bundle, instead of servers.", was=None)
    cassandra_bundle_path: str | None = setting(
        None, "Kept for old configurations; nothing reads it. See `cassandra_secure_bundle_path`."
    )


class ArangodbSettings(ResultSettings, title="arangodb", was="CELERY_{name}"):
    """ArangoDB."""

    arangodb_backend_settings: Mapping[str, Any] | None = setting(
        None, "A dict of `host`, `port`, `database`, `collection`, `username`, `password`, `http_protocol`, `verify`."
    )


class AzureBlockBlobSettings(ResultSettings, title="azureblockblob", was="{name}"):
    """Azure Blob Storage."""

    azureblockblob_container_name: str = setting("celery", "Container of results; created if missing.")
    azureblockblob_base_path: str = setting("", "Text in front of every blob name.")
    azureblockblob_connection_timeout: Seconds = seconds(20, "Time that connecting may take.")
    azureblockblob_read_timeout: Seconds = seconds(120, "Time that one read may take.")
    azureblockblob_retry_max_attempts: int = setting(3, "Attempts when a request fails.")
    azureblockblob_retry_initial_backoff_sec: Seconds = seconds(2, "First pause between them.")
    azureblockblob_retry_increment_base: int = setting(2, "Factor by which pauses grow.")


class CosmosdbsqlSettings(ResultSettings, title="cosmosdbsql", was="{name}"):
    """Azure Cosmos DB with its SQL API."""

    cosmosdbsql_database_name: str = setting("celerydb", "Database of results.")
    cosmosdbsql_collection_name: str = setting("celerycol", "Collection of results.")
    cosmosdbsql_consistency_level: str = setting(
        "Session", "`Strong`, `BoundedStaleness`, `Session`, `ConsistentPrefix` or `Eventual`."
    )
    cosmosdbsql_max_retry_attempts: int = setting(9, "Attempts when a request is throttled.")
    cosmosdbsql_max_retry_wait_time: Seconds = seconds(30, "Longest time spent on them.")


class CouchbaseSettings(ResultSettings, title="couchbase", was="CELERY_{name}"):
    """Couchbase."""

    couchbase_backend_settings: Mapping[str, Any] | None = setting(
        None, "A dict of `host`, `port`, `username`, `password`, `bucket`."
    )


class DynamodbSettings(ResultSettings, title="dynamodb"):
    """DynamoDB."""

    dynamodb_endpoint_url: str | None = setting(None, "Endpoint; wins over the host in the URL.")


class ElasticsearchSettings(ResultSettings, title="elasticsearch", was="CELERY_{name}"):
    """Elasticsearch."""

    elasticsearch_timeout: MaybeSeconds = maybe_seconds(None, "Time that a request may take. None: 10 seconds.")
    elasticsearch_max_retries: int | None = setting(None, "Attempts when a request fails. None: the client decides.")
    elasticsearch_retry_on_timeout: bool | None = setting(None, "Try again on time-out too. None: the client decides.")
    elasticsearch_save_meta_as_text: bool = setting(
        True, "Keep result and traceback as JSON text; off: as objects that can be searched."
    )


class GcsSettings(ResultSettings, title="gcs", was="{name}"):
    """Google Cloud Storage, with chord counters in Firestore."""

    gcs_bucket: str | None = setting(None, "Bucket; required.")
    gcs_project: str | None = setting(None, "Project; required.")
    gcs_base_path: str = setting("", "Text in front of every blob name.")
    gcs_ttl: Seconds = seconds(0, "Age at which the bucket's life-cycle rule may delete a result. 0: none.")
    gcs_threadpool_maxsize: int = setting(10, "Threads, and connections, for requests.", was=None)
    firestore_project: str | None = setting(
        None, "Project that counts the parts of chords. None: `gcs_project`.", was=None, derive="gcs_project"
    )


class S3Settings(ResultSettings, title="s3", was="{name}"):
    """Amazon S3 and what speaks its protocol."""

    s3_bucket: str | None = setting(None, "Bucket; required.")
    s3_base_path: str | None = setting(None, "Text in front of every key.")
    s3_region: str | None = setting(None, "Region. None: boto3 decides.")
    s3_endpoint_url: str | None = setting(None, "Endpoint of another service.")
    s3_access_key_id: str | None = setting(None, "Access key. None: boto3 finds credentials.", secret=True)
    s3_secret_access_key: str | None = setting(None, "Its secret. None: boto3 finds credentials.", secret=True)


class StoreSettings(
    CacheSettings, RedisSettings, DatabaseSettings, MongodbSettings, CassandraSettings, ArangodbSettings,
    AzureBlockBlobSettings, CosmosdbsqlSettings, CouchbaseSettings, DynamodbSettings, ElasticsearchSettings,
    GcsSettings, S3Settings,
):  # fmt: skip
    """Every store's settings."""
