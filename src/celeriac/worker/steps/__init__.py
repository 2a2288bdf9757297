"""Steps that users add to a worker (Celery's bootsteps): the classes they derive from, and what drives them."""
