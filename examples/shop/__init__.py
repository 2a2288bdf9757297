"""A small project, laid out as Celery's documentation has it."""

from shop.celery import app

__all__ = ["app"]
