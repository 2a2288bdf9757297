"""The types of ``app.conf``'s attributes, as they may be given. For type checkers; never imported.

Written by tools/settings_attributes.py from the declarations; change those instead.
"""

from collections.abc import Collection, Sequence
from datetime import timedelta, tzinfo
from typing import Any, Literal


class ConfigurationAttributes:
    """Every setting."""

    accept_content: Collection[str]
    enable_utc: bool
    imports: Sequence[str]
    include: Sequence[str]
    timezone: str | tzinfo | None
    override_backends: dict[str, str]
    broker_url: str | Sequence[str] | None
    broker_read_url: str | Sequence[str] | None
    broker_write_url: str | Sequence[str] | None
    broker_transport_options: dict[str, Any]
    broker_use_ssl: bool | dict[str, Any]
    broker_login_method: str | None
    broker_failover_strategy: Any
    broker_connection_timeout: float | timedelta
    broker_connection_retry: bool
    broker_connection_retry_on_startup: bool | None
    broker_connection_max_retries: int | None
    broker_channel_error_retry: bool
    broker_heartbeat: float | timedelta | None
    broker_heartbeat_checkrate: float
    broker_pool_limit: int | None
    broker_pool_acquire_timeout: float | timedelta | None
    broker_native_delayed_delivery_queue_type: str
    broker_lease: float | timedelta
    broker_publish_timeout: float | timedelta
    broker_max_message_bytes: int
    broker_host: str | None
    broker_port: int | None
    broker_user: str | None
    broker_password: str | None
    broker_vhost: str | None
    broker_transport: str | None
    task_acks_late: bool
    task_acks_on_failure: bool | None
    task_acks_on_timeout: bool | None
    task_acks_on_failure_or_timeout: bool
    task_reject_on_worker_lost: bool | None
    task_retry_on_worker_lost: bool
    task_crash_budget: int
    task_dead_letter_expires: float | timedelta
    task_revoke_expires: float | timedelta
    task_max_decompressed_bytes: int
    task_time_limit: float | timedelta | None
    task_soft_time_limit: float | timedelta | None
    task_default_rate_limit: str | int | float | None
    task_queue_limits: dict[str, Any]
    task_limit_store: str | Sequence[str] | None
    task_annotations: Any
    task_always_eager: bool
    task_eager_propagates: bool
    task_store_eager_result: bool
    task_remote_tracebacks: bool
    task_allow_error_cb_on_chord_header: bool
    task_ignore_result: bool
    task_store_errors_even_if_ignored: bool
    task_track_started: bool
    task_serializer: str
    task_compression: str | None
    task_protocol: int
    task_repr_maxlevels: int | None
    task_publish_retry: bool
    task_publish_retry_policy: dict[str, Any]
    task_send_sent_event: bool
    task_queues: Any
    task_routes: Any
    task_default_queue: str
    task_default_queue_type: str
    task_default_exchange: str | None
    task_default_exchange_type: str
    task_default_routing_key: str | None
    task_default_delivery_mode: int | str
    task_default_priority: int | None
    task_inherit_parent_priority: bool
    task_queue_max_priority: int | None
    task_create_missing_queues: bool
    task_create_missing_queue_type: str
    task_create_missing_queue_exchange_type: str | None
    worker_pool: str | type[Any]
    worker_concurrency: int | Literal["auto"] | None
    worker_children: int | None
    worker_pool_start_method: str
    worker_loop: str
    worker_pool_putlocks: bool
    worker_pool_restarts: bool
    worker_max_tasks_per_child: int | None
    worker_max_memory_per_child: int | None
    worker_proc_alive_timeout: float | timedelta
    worker_lost_wait: float | timedelta
    worker_autoscaler: str | type[Any]
    worker_prefetch_multiplier: int | None
    worker_look_ahead: int
    worker_disable_prefetch: bool
    worker_enable_prefetch_count_reduction: bool
    worker_eta_task_limit: int | None
    worker_detect_quorum_queues: bool
    worker_direct: bool
    worker_disable_rate_limits: bool
    worker_deduplicate_successful_tasks: bool
    worker_cancel_long_running_tasks_on_connection_loss: bool
    worker_state_db: str | None
    worker_timer: str | type[Any] | None
    worker_timer_precision: float | timedelta
    worker_send_task_events: bool
    worker_enable_remote_control: bool
    worker_agent: str | type[Any] | None
    worker_consumer: str | type[Any]
    worker_probes: str | None
    worker_probe_patience: float | timedelta
    worker_shutdown_grace: float | timedelta
    worker_soft_shutdown_timeout: float | timedelta
    worker_enable_soft_shutdown_on_idle: bool
    worker_hijack_root_logger: bool
    worker_log_color: bool | None
    worker_log_format: str
    worker_log_datefmt: str | None
    worker_task_log_format: str
    worker_task_log_datefmt: str | None
    worker_redirect_stdouts: bool
    worker_redirect_stdouts_level: str | int
    worker_logfile: str | None
    worker_pidfile: str | None
    worker_uid: int | str | None
    worker_gid: int | str | None
    worker_umask: int | str | None
    worker_executable: str | None
    beat_schedule: dict[str, Any]
    beat_scheduler: str | type[Any]
    beat_schedule_filename: str
    beat_sync_every: int
    beat_max_loop_interval: float | timedelta
    beat_cron_starting_deadline: float | timedelta | None
    beat_enable_remote_control: bool
    beat_remote_control_max_tick_age: float | timedelta | None
    beat_logfile: str | None
    beat_pidfile: str | None
    beat_uid: int | str | None
    beat_gid: int | str | None
    beat_umask: int | str | None
    beat_executable: str | None
    event_exchange: str
    event_queue_durable: bool
    event_queue_exclusive: bool
    event_queue_expires: float | timedelta | None
    event_queue_prefix: str
    event_queue_ttl: float | timedelta | None
    event_serializer: str
    control_exchange: str
    control_queue_durable: bool
    control_queue_exclusive: bool
    control_queue_expires: float | timedelta | None
    control_queue_ttl: float | timedelta | None
    events_logfile: str | None
    events_pidfile: str | None
    events_uid: int | str | None
    events_gid: int | str | None
    events_umask: int | str | None
    events_executable: str | None
    security_cert_store: str | None
    security_certificate: str | None
    security_digest: str
    security_key: str | None
    security_key_password: bytes | None
    result_backend: str | Sequence[str] | None
    result_expires: float | timedelta | None
    result_failure_expires: float | timedelta | None
    result_chord_expires: float | timedelta | None
    result_serializer: str
    result_accept_content: Collection[str] | None
    result_compression: str | None
    result_extended: bool
    result_cache_max: int | None
    result_chord_join_timeout: float | timedelta
    result_chord_retry_interval: float | timedelta
    result_backend_always_retry: bool
    result_backend_max_retries: float
    result_backend_base_sleep_between_retries_ms: int
    result_backend_max_sleep_between_retries_ms: int
    result_backend_transport_options: dict[str, Any]
    result_backend_thread_safe: bool
    result_persistent: bool | None
    result_exchange: str
    result_exchange_type: str
    cache_backend: str | None
    cache_backend_options: dict[str, Any]
    redis_host: str | None
    redis_port: int | None
    redis_db: int | str | None
    redis_username: str | None
    redis_password: str | None
    redis_backend_use_ssl: dict[str, Any] | bool | None
    redis_max_connections: int | None
    redis_socket_timeout: float | timedelta | None
    redis_socket_connect_timeout: float | timedelta | None
    redis_socket_keepalive: bool
    redis_retry_on_timeout: bool
    redis_backend_health_check_interval: float | timedelta | None
    redis_backend_credential_provider: Any
    redis_client_name: str | None
    database_url: str | None
    database_engine_options: dict[str, Any]
    database_engine_callback: Any
    database_short_lived_sessions: bool
    database_create_tables_at_setup: bool
    database_table_names: dict[str, str] | None
    database_table_schemas: dict[str, str] | None
    mongodb_backend_settings: dict[str, Any] | None
    cassandra_servers: Sequence[str] | None
    cassandra_port: int | str | None
    cassandra_keyspace: str | None
    cassandra_table: str | None
    cassandra_read_consistency: str | None
    cassandra_write_consistency: str | None
    cassandra_entry_ttl: float | timedelta | None
    cassandra_auth_provider: str | None
    cassandra_auth_kwargs: dict[str, Any] | None
    cassandra_options: dict[str, Any]
    cassandra_secure_bundle_path: str | None
    cassandra_bundle_path: str | None
    arangodb_backend_settings: dict[str, Any] | None
    azureblockblob_container_name: str
    azureblockblob_base_path: str
    azureblockblob_connection_timeout: float | timedelta
    azureblockblob_read_timeout: float | timedelta
    azureblockblob_retry_max_attempts: int
    azureblockblob_retry_initial_backoff_sec: float | timedelta
    azureblockblob_retry_increment_base: int
    cosmosdbsql_database_name: str
    cosmosdbsql_collection_name: str
    cosmosdbsql_consistency_level: str
    cosmosdbsql_max_retry_attempts: int
    cosmosdbsql_max_retry_wait_time: float | timedelta
    couchbase_backend_settings: dict[str, Any] | None
    dynamodb_endpoint_url: str | None
    elasticsearch_timeout: float | timedelta | None
    elasticsearch_max_retries: int | None
    elasticsearch_retry_on_timeout: bool | None
    elasticsearch_save_meta_as_text: bool
    gcs_bucket: str | None
    gcs_project: str | None
    gcs_base_path: str
    gcs_ttl: float | timedelta
    gcs_threadpool_maxsize: int
    firestore_project: str | None
    s3_bucket: str | None
    s3_base_path: str | None
    s3_region: str | None
    s3_endpoint_url: str | None
    s3_access_key_id: str | None
    s3_secret_access_key: str | None
