"""``celery.loaders`` under our name."""
