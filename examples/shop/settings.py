"""Settings of the whole project; those with the prefix are Celery's, under the names it documents."""

DEBUG = False

CELERY_TASK_DEFAULT_QUEUE = "default"
CELERY_TASK_QUEUES = {"default": {}, "mail": {"routing_key": "mail"}}
CELERY_TASK_ROUTES = {"shop.mail.*": "mail"}
CELERY_TASK_CREATE_MISSING_QUEUES = False
CELERY_TASK_ANNOTATIONS = {"shop.mail.tasks.send": {"max_retries": 5}}
CELERY_RESULT_EXPIRES = 3600
CELERY_TIMEZONE = "Europe/Berlin"
