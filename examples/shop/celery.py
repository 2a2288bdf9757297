"""The app of the project: settings from a module, tasks from wherever they are."""

from celeriac import Celery

app = Celery("shop")
app.config_from_object("shop.settings", namespace="CELERY")
app.autodiscover_tasks(["shop.orders", "shop.mail"])
